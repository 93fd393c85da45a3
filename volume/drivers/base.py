"""What a backend of block storage must do: one small abstract class.

The worker (``volume.service``) runs steps that call these methods; drivers know no tables.
Each method is idempotent by the id of the volume or snapshot: a repeat after a crash, in any place,
comes to the same end, and what does not exist any more is deleted without complaint. What a driver
has to remember of a volume it returns as ``provider_location`` (JSON-able), and gets back with it.

A backend may be on a host (file, lvm) or a cluster (rbd); hypervisors reach it by the connection
information that os-brick understands.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import BadRequest

Location = dict[str, Any] | None
Disk = dict[str, str]
"""A disk as QEMU's tools open it (``--image-opts``): "driver" raw or qcow2, and below "file.…" where it is."""
Progress = Callable[[int], None]
"""Called with the bytes written so far, now and then; what it raises ends the copy, and nothing half stays."""


@dataclasses.dataclass(frozen=True)
class Volume:
    """What drivers get to know of a volume."""

    id: str
    size_gib: int
    location: Location = None
    extra_specs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    in_use: bool = False
    """attached somewhere: what needs the data to stand still is refused by some drivers"""
    multiattach: bool = False
    header_bytes: int = 0
    """more than 0: the volume is encrypted, and a LUKS header of this size stands in front of the
    guest's data. To drivers the data are bytes like any others, but the device has to be so much larger."""

    @property
    def name(self) -> str:
        return f"volume-{self.id}"

    @property
    def size_bytes(self) -> int:
        """What the backend's device holds at least."""
        return self.bytes_of(self.size_gib)

    def bytes_of(self, size_gib: int) -> int:
        """``size_bytes`` if the volume had this size."""
        return (size_gib << 30) + self.header_bytes


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What drivers get to know of a snapshot."""

    id: str
    volume: Volume
    size_gib: int
    location: Location = None

    @property
    def name(self) -> str:
        return f"snapshot-{self.id}"

    @property
    def size_bytes(self) -> int:
        return self.volume.bytes_of(self.size_gib)


@dataclasses.dataclass(frozen=True)
class Pool:
    """One pool's state: what the scheduler chooses by. Sizes in GiB, with fractions."""

    name: str
    total_gib: float
    free_gib: float
    thin: bool
    multiattach: bool = True
    online_extend: bool = True
    max_over_subscription_ratio: float = 20.0
    reserved_percentage: int = 0
    capabilities: dict[str, Any] = dataclasses.field(default_factory=dict)
    """further ones, matched against extra specs: storage_protocol, compression, …"""


class VolumeDriver(abc.ABC):
    """One backend. Errors: ``core.errors.DriverError``; Conflict for what its state forbids."""

    vendor = "Open Source"
    """as ``vendor_name`` shows it: what upstream's own drivers say, and volume types ask for"""
    protocol = ""
    """as ``storage_protocol`` shows it: file, iSCSI, nvme-tcp, ceph"""
    keeps_data = True
    """False: only played, so there is nothing to encrypt"""

    @abc.abstractmethod
    def start(self) -> None:
        """Check that the backend works, bring back exports. Raises DriverError with one line of what is missing."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of connections and threads; exports stay."""

    @abc.abstractmethod
    def pools(self) -> list[Pool]:
        """How much there is."""

    # -- volumes -------------------------------------------------------------------

    @abc.abstractmethod
    def create(self, volume: Volume) -> Location:
        """An empty volume: it reads as zeros, whatever lay there before."""

    @abc.abstractmethod
    def create_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> Location:
        """A volume with a snapshot's content; it may be larger."""

    @abc.abstractmethod
    def clone(self, volume: Volume, source: Volume) -> Location:
        """A volume with another's content at this moment; it may be larger."""

    @abc.abstractmethod
    def write_image(self, volume: Volume, path: Path, qemu_format: str, progress: Progress) -> Location:
        """A volume with the content of an image's file, which was inspected (``core.qemu_img.check_content``).

        :raises BadRequest: the image is larger than the volume.
        """

    clones_images: bool = False
    """Is ``clone_image`` worth asking? It costs a question to the image service."""

    def clone_image(self, volume: Volume, locations: list[dict[str, Any]]) -> Location | bool:
        """A volume cloned from where the image lies in this very backend; False: it does not."""
        return False

    @abc.abstractmethod
    def delete(self, volume: Volume) -> None:
        """Gone for good. :raises Conflict: snapshots of it are left."""

    @abc.abstractmethod
    def extend(self, volume: Volume, size_gib: int) -> None:
        """At least so large, zeros behind what was there. :raises Conflict: not while it is attached."""

    @abc.abstractmethod
    def exists(self, volume: Volume) -> bool:
        """Is there whole content under this id?"""

    # -- snapshots -------------------------------------------------------------------

    @abc.abstractmethod
    def create_snapshot(self, snapshot: Snapshot) -> Location:
        """:raises Conflict: the volume is attached and the backend can't do it meanwhile."""

    def snapshots_by_hosts(self, volume: Volume) -> bool:
        """Must the host of the server that has this volume open copy it, since nobody else can do it safely?"""
        return False

    def prepare_copy(self, snapshot: Snapshot) -> str:
        """The path of a file, as hosts see it, that the copy of an attached volume is to be written to."""
        raise NotImplementedError

    def take_copy(self, snapshot: Snapshot) -> Location:
        """The copy is whole and on the disk: it is the snapshot. :raises DriverError: it is not what it should be."""
        raise NotImplementedError

    @abc.abstractmethod
    def delete_snapshot(self, snapshot: Snapshot) -> None:
        """Volumes made from it live on."""

    @abc.abstractmethod
    def revert(self, volume: Volume, snapshot: Snapshot) -> Location:
        """The volume gets the content of its snapshot back. :raises Conflict: it is attached."""

    # -- data ------------------------------------------------------------------------

    @abc.abstractmethod
    def connect(self, volume: Volume | Snapshot, write: bool = False) -> AbstractContextManager[Path]:
        """The content as a raw file or block device of the worker's own host: for images, backups, migration."""

    def open(self, volume: Volume | Snapshot, write: bool = False) -> AbstractContextManager[BinaryIO]:
        """The content as a file object of ``size_gib``; for backends without a device (default: ``connect``)."""
        return _Opened(self.connect(volume, write), write)

    @contextlib.contextmanager
    def node(self, volume: Volume) -> Iterator[dict[str, str]]:
        """The content as QEMU's protocol layer, to be written to: {"driver":, "filename":, …}."""
        with self.connect(volume, write=True) as path:
            yield {"driver": "host_device" if path.is_block_device() else "file", "filename": str(path)}

    @contextlib.contextmanager
    def disk(self, volume: Volume, write: bool = False) -> Iterator[Disk]:
        """The content for QEMU's tools, as it lies there (an encrypted volume is not opened)."""
        with self.connect(volume, write) as path:
            yield whole_disk(path, "raw")

    # -- hypervisors -----------------------------------------------------------------

    @abc.abstractmethod
    def initialize_connection(
        self, volume: Volume, connector: Mapping[str, Any], mode: str
    ) -> dict[str, Any]:
        """{"driver_volume_type":, "data": {...}} for os-brick on the host that ``connector`` describes.

        ``mode``: "rw" or "ro". :raises BadRequest: that host can't reach the backend.
        """

    @abc.abstractmethod
    def terminate_connection(self, volume: Volume, connector: Mapping[str, Any] | None) -> None:
        """That host (None: every host) is let go."""

    # -- what administrators do ------------------------------------------------------

    def retype(self, volume: Volume, extra_specs: Mapping[str, str]) -> bool:
        """Can the volume stay where it is with these? (True: it was made so.)"""
        return True

    def manageable_volumes(self) -> list[dict[str, Any]]:
        """[{"reference": {"source-name":}, "size": GiB, "safe_to_manage":, "reason_not_safe":, ...}]."""
        return []

    def manageable_snapshots(self) -> list[dict[str, Any]]:
        """The same of snapshots, with "source_reference"."""
        return []

    def manage(self, volume: Volume, reference: Mapping[str, Any]) -> tuple[Location, int]:
        """Take over what exists: its location, and its size in GiB, rounded up. :raises BadRequest:"""
        raise BadRequest("This backend takes over no existing volumes.")

    @abc.abstractmethod
    def unmanage(self, volume: Volume) -> None:
        """Let go of the volume; its data stays."""

    def manage_snapshot(self, snapshot: Snapshot, reference: Mapping[str, Any]) -> tuple[Location, int]:
        """Take over an existing snapshot of the volume, as ``manage`` does. :raises BadRequest:"""
        raise BadRequest("This backend takes over no existing snapshots.")

    def unmanage_snapshot(self, snapshot: Snapshot) -> None:
        """Let go of the snapshot; its data stays. :raises BadRequest: this backend can't."""
        raise BadRequest("This backend does not let go of snapshots.")


def whole_disk(path: Path, qemu_format: str) -> Disk:
    """A file or block device of this host for QEMU's tools."""
    protocol = "host_device" if path.is_block_device() else "file"
    return {"driver": qemu_format, "file.driver": protocol, "file.filename": str(path)}


class _Opened(AbstractContextManager[BinaryIO]):
    """A connected volume, open."""

    def __init__(self, connected: AbstractContextManager[Path], write: bool) -> None:
        self._connected = connected
        self._write = write

    def __enter__(self) -> BinaryIO:
        path = self._connected.__enter__()
        try:
            self._file: BinaryIO = path.open("r+b" if self._write else "rb")
        except OSError:
            self._connected.__exit__(None, None, None)
            raise
        return self._file

    def __exit__(self, *details: Any) -> None:
        self._file.close()
        self._connected.__exit__(*details)
