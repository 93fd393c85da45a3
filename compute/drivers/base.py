"""What a hypervisor driver is: one small abstract class, and the plain data it is given.

The agent's actions (``compute.actions``) call these methods, one per step, so
every method is idempotent: called again after a crash it comes to the same end,
and every removal is content when there is nothing to remove.  A driver keeps no
state about servers apart from what lies on the host itself.

Sizes carry their unit in the name.  Server ids are the API's UUIDs.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from compute.volumes import boot_volume


class PowerState(enum.IntEnum):
    """Power states with the numbers that the compute API shows (OS-EXT-STS:power_state)."""

    NOSTATE = 0
    RUNNING = 1
    PAUSED = 3
    SHUTDOWN = 4
    CRASHED = 6
    SUSPENDED = 7


@dataclasses.dataclass(frozen=True)
class GuestImage:
    """The image to boot from, as the image API describes it."""

    id: str
    name: str
    disk_format: str
    size_bytes: int
    checksum: str | None = None
    os_hash_algo: str | None = None
    os_hash_value: str | None = None
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    properties: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GuestImage:
        """Build from ``dataclasses.asdict``'s result; unknown keys (a newer sender's) are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclasses.dataclass(frozen=True)
class GuestSpec:
    """Everything about one server that a driver needs. JSON-able through ``to_dict``."""

    server_id: str
    name: str
    hostname: str
    project_id: str
    user_id: str
    memory_mib: int
    vcpus: int
    root_gib: int
    ephemeral_gib: int
    swap_mib: int
    flavor_name: str
    extra_specs: dict[str, str]
    image: GuestImage | None
    config_drive: bool
    metadata: dict[str, str]
    user_data: str | None
    """base64, as the API took it"""
    key_name: str | None
    public_key: str | None
    admin_password: str | None
    availability_zone: str
    created_at: str
    nics: tuple[dict[str, Any], ...] = ()
    """the shape is in ``compute.nics``"""
    volumes: tuple[dict[str, Any], ...] = dataclasses.field(default=(), repr=False)
    """``compute.volumes.Volume`` each; not shown, since there may be passphrases in them"""
    local_disks: tuple[dict[str, Any], ...] = ()
    """``compute.volumes.LocalDisk`` each; when there are none, the flavor's ephemeral and swap disks hold"""
    personality: tuple[dict[str, str], ...] = ()

    @property
    def boots_locally(self) -> bool:
        """Has it a root disk on the host, made from an image (or empty)? Else it boots from a volume."""
        return boot_volume(self.volumes) is None

    def disks_beside_root(self) -> list[dict[str, Any]]:
        """``local_disks``, or what the flavor says when there are none."""
        if self.local_disks:
            return [dict(disk) for disk in self.local_disks]
        made = []
        if self.ephemeral_gib:
            made.append({"kind": "ephemeral", "size_mib": self.ephemeral_gib << 10})
        if self.swap_mib:
            made.append({"kind": "swap", "size_mib": self.swap_mib})
        return made

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GuestSpec:
        """Build from ``to_dict``'s result; unknown keys (a newer sender's) are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        image = values.get("image")
        if isinstance(image, dict):
            values["image"] = GuestImage.from_dict(image)
        for key in ("nics", "volumes", "local_disks", "personality"):
            values[key] = tuple(values.get(key) or ())
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class HostInventory:
    """What the host offers, as the scheduler and GET /os-hypervisors need it."""

    hypervisor_type: str
    hypervisor_version: int
    hypervisor_hostname: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    disk_available_gib: int
    cpu_info: dict[str, Any]
    host_ip: str
    uptime: str
    traits: tuple[str, ...] = ()
    supported_instances: tuple[tuple[str, str, str], ...] = ()
    """(architecture, hypervisor type, vm mode), for the ImageProperties filter"""
    numa_cells: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    """what ``haneul doctor`` shows, e.g. why emulation is used instead of KVM"""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class GuestInfo:
    """A guest that exists on the host, known to haneul or not."""

    server_id: str | None
    """None: not one of ours"""
    name: str
    power_state: PowerState


ImageFetcher = Callable[[GuestImage], Iterator[bytes]]
"""Streams an image's bytes from the image API, in chunks."""

PowerListener = Callable[[str, PowerState], None]
"""Called with (server id, new power state) by the driver's event thread."""


class ComputeDriver(abc.ABC):
    """One hypervisor. Errors are ``core.errors.DriverError`` (or ``Rebuildable``)."""

    @abc.abstractmethod
    def start(self) -> None:
        """Connect and probe. Raises DriverError with one line that says what is missing."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of connections and threads; guests go on running."""

    @abc.abstractmethod
    def inventory(self) -> HostInventory:
        """What the host offers now."""

    @abc.abstractmethod
    def guests(self) -> list[GuestInfo]:
        """All guests on the host, strangers among them."""

    @abc.abstractmethod
    def power_state(self, server_id: str) -> PowerState:
        """NOSTATE when there is no such guest."""

    @abc.abstractmethod
    def cache_image(self, image: GuestImage, fetch: ImageFetcher) -> None:
        """Have the image's base file on the host; concurrent calls fetch once.

        The content is verified against os_hash_value and inspected before use.
        """

    @abc.abstractmethod
    def create_disks(self, guest: GuestSpec) -> None:
        """Root disk (unless it boots from a volume), disks beside it, and the config drive if asked for."""

    @abc.abstractmethod
    def remove_disks(self, server_id: str) -> None:
        """Everything that create_disks made."""

    @abc.abstractmethod
    def define(self, guest: GuestSpec) -> None:
        """Make the guest known to the hypervisor, not running. Its volumes are connected already."""

    @abc.abstractmethod
    def undefine(self, server_id: str) -> None:
        """Forget the guest, stopping it hard if it runs."""

    @abc.abstractmethod
    def power_on(self, server_id: str) -> None:
        """Start; content if it runs already (a paused one is resumed)."""

    @abc.abstractmethod
    def power_off(self, server_id: str, timeout_s: float) -> None:
        """ACPI shutdown, and after ``timeout_s`` hard. 0: hard at once."""

    @abc.abstractmethod
    def reboot(self, server_id: str, hard: bool, timeout_s: float) -> None:
        """Soft: ask the guest, fall back to hard after ``timeout_s``."""

    @abc.abstractmethod
    def attach_nic(self, guest: GuestSpec, nic: dict[str, Any]) -> None:
        """Plug a NIC into a guest, also while it runs. Content when it has it already."""

    @abc.abstractmethod
    def detach_nic(self, server_id: str, mac_address: str) -> None:
        """Pull it out, waiting until the guest lets go. Content when there is none, or no guest."""

    # -- volumes: ``volume`` is a ``compute.volumes.Volume``

    @abc.abstractmethod
    def connector(self) -> dict[str, Any]:
        """What the Volume API has to know of this host to let it at a volume (PUT /attachments/ID)."""

    @abc.abstractmethod
    def connect_volume(self, volume: Mapping[str, Any]) -> None:
        """Have the volume on this host, whoever uses it here. Also before each start of its guest:
        after the host was restarted there is nothing left of it."""

    @abc.abstractmethod
    def disconnect_volume(self, volume: Mapping[str, Any]) -> None:
        """This attachment needs the volume here no more; the last one that lets go lets the host go."""

    @abc.abstractmethod
    def attach_volume(self, guest: GuestSpec, volume: Mapping[str, Any]) -> None:
        """Plug a connected volume into a guest, also while it runs. Content when it has it already."""

    @abc.abstractmethod
    def detach_volume(self, server_id: str, volume_id: str) -> None:
        """Pull it out, asking the guest several times. Content when there is none, or no guest.

        :raises DriverError: the guest does not let go; the volume is attached as before.
        """

    @abc.abstractmethod
    def extend_volume(self, server_id: str, volume: Mapping[str, Any], size_gib: int) -> None:
        """The volume grew to this: let the host and the guest, if it runs, see it."""

    @abc.abstractmethod
    def swap_volume(
        self,
        guest: GuestSpec,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        check: Callable[[], None],
    ) -> None:
        """Copy ``old`` to ``new`` (both connected) while the guest runs, and go on with ``new``.

        ``check`` is called now and then meanwhile, and raises to give up: the guest keeps ``old`` then, as on
        every failure. Again after it was done: content.
        :raises BadRequest: ``new`` is smaller. :raises Conflict: the guest does not run.
        """

    @abc.abstractmethod
    def snapshot_volume(
        self, guest: GuestSpec, volume: Mapping[str, Any], target: str, check: Callable[[], None]
    ) -> None:
        """Copy a volume in a file as it is at one moment to ``target``, a file of its backend that is there already.

        The guest goes on with its own file, whatever happens; the copy is in qcow2, by itself, and on the disk. Its
        file systems are held still at that moment if its image says that it has an agent (hw_qemu_guest_agent).
        Again: it is made anew. ``check`` is called now and then meanwhile, and raises to give up.
        :raises BadRequest: the volume is none in a plain file, or ``target`` is none of its backend's.
        :raises Conflict: its image asks for stillness (os_require_quiesce), and no agent answers.
        """

    @abc.abstractmethod
    def quiesce(self, server_id: str) -> None:
        """Have the guest's agent write out its file systems and hold them still.

        :raises Conflict: the guest does not run, or has no agent that answers.
        """

    @abc.abstractmethod
    def unquiesce(self, server_id: str) -> None:
        """The end of ``quiesce``; content when nothing is held still."""

    @abc.abstractmethod
    def take_snapshot(self, server_id: str, snapshot_id: str, check: Callable[[], None]) -> None:
        """A copy of the root disk as it is at one moment, whole and by itself, in qcow2.

        The guest goes on running. Again with the same id: it is made anew, unless it is there
        already. ``check`` is called now and then meanwhile, and raises to give up.
        """

    @abc.abstractmethod
    def read_snapshot(self, server_id: str, snapshot_id: str) -> Iterator[bytes]:
        """The copy's bytes, in chunks."""

    @abc.abstractmethod
    def remove_snapshot(self, server_id: str, snapshot_id: str) -> None:
        """Forget the copy, or what there is of it; content when there is none."""

    @abc.abstractmethod
    def console_output(self, server_id: str, max_bytes: int) -> str:
        """The tail of the serial console's log."""

    @abc.abstractmethod
    def diagnostics(self, server_id: str) -> dict[str, Any]:
        """In the shape of GET /servers/{id}/diagnostics at 2.48."""

    @abc.abstractmethod
    def vnc(self, server_id: str) -> dict[str, Any]:
        """{'host':, 'port':} of the guest's VNC server."""

    @abc.abstractmethod
    def listen(self, listener: PowerListener) -> None:
        """Call ``listener`` on each power state change from now on."""
