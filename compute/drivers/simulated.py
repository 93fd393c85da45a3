"""A hypervisor that only remembers: for load tests, crash tests and development without KVM.

Guests are entries in a dictionary.  With ``[simulated] state_dir`` set they are
also files (one per guest, one per guest's disks, one per cached image), so that
a killed agent's leavings are still there when it starts again, and a test can
count what nobody owns with :func:`leftovers`.

Delays and failures are set per method.  A failure rule is one of

* ``create_disks:0.05``: each call fails with that probability,
* ``create_disks#3``: the third call (of this process) fails,

and with ``!host`` behind it the failure is one that another host might not have
(``Rebuildable``), so that the create is tried on an alternate.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import queue
import random
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_log import log

from compute.drivers import base
from compute.drivers.base import GuestImage, GuestInfo, GuestSpec, HostInventory, PowerState
from core.errors import BadRequest, Conflict, DriverError, NotFound, Rebuildable, Unsupported

LOG = log.getLogger(__name__)

GROUP = "simulated"
OPTS = [
    cfg.StrOpt(
        "state_dir",
        help="Folder in which simulated guests and disks survive the process; a folder per host is made in it. "
        "Without it they live in memory only.",
    ),
    cfg.FloatOpt("delay", default=0.0, min=0, help="Seconds that every method takes unless delays says so."),
    cfg.DictOpt("delays", default={}, help="Seconds per method, e.g. create_disks:0.5,power_on:0.2."),
    cfg.FloatOpt(
        "jitter",
        default=0.0,
        min=0,
        max=1,
        help="Share of each delay by which it varies at random, e.g. 0.2 for plus or minus a fifth.",
    ),
    cfg.ListOpt(
        "failures",
        default=[],
        help="Failure rules: METHOD:PROBABILITY or METHOD#NTH_CALL, with !host behind it for a failure that "
        "another host might not have.",
    ),
    cfg.BoolOpt(
        "fetch_images",
        default=False,
        help="Really download images (and verify their hash), instead of only remembering that they are there.",
    ),
    cfg.IntOpt("vcpus", default=64, min=1, help="CPUs that the host claims to have."),
    cfg.IntOpt("memory_mib", default=262144, min=1, help="Memory in MiB that the host claims to have."),
    cfg.IntOpt("disk_gib", default=10240, min=0, help="Disk in GiB that the host claims to have."),
]

_NIC_COUNTERS = ("octets", "packets", "errors", "drop", "rate")
_RULE = re.compile(
    r"^(?P<method>[a-z_]+)(?:#(?P<nth>[1-9]\d*)|:(?P<probability>[01](?:\.\d+)?))(?P<host>!host)?$"
)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For core.config and the sample configuration file."""
    return [(GROUP, OPTS)]


def empty_qcow2() -> bytes:
    """A disk of 1 MiB without content, as QEMU would write it: what a snapshot of a simulated guest is.

    Four clusters of 64 KiB: header, refcount table, its one block, table of (no) data.
    """
    cluster = 1 << 16
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0, 16, 1 << 20, 0, 1, 3 * cluster, cluster, 1, 0, 0, 0, 0, 0, 4, 104),
    )
    parts = (header, struct.pack(">Q", 2 * cluster), struct.pack(">4H", 1, 1, 1, 1), b"")
    return b"".join(part.ljust(cluster, b"\0") for part in parts)


def guest_name(server_id: str) -> str:
    return f"instance-{server_id}"


def leftovers(state_dir: Path | str, known: set[str]) -> list[str]:
    """What lies in ``state_dir`` for servers that are not in ``known``: lines "HOST guests|disks|connections ID".

    Connections have the ids of volumes."""
    found = []
    for kind in ("guests", "disks", "connections"):
        for path in Path(state_dir).glob(f"*/{kind}/*.json"):
            if path.stem not in known:
                found.append(f"{path.parent.parent.name} {kind} {path.stem}")
    return sorted(found)


@dataclasses.dataclass(frozen=True)
class _FailureRule:
    method: str
    nth: int | None
    probability: float
    host: bool

    @classmethod
    def parse(cls, text: str) -> _FailureRule:
        match = _RULE.match(text.strip())
        if match is None or not callable(getattr(base.ComputeDriver, match["method"], None)):
            raise DriverError(
                f"[simulated] failures: {text!r} is not METHOD:PROBABILITY or METHOD#N of a driver method"
            )
        nth = int(match["nth"]) if match["nth"] else None
        return cls(match["method"], nth, float(match["probability"] or 0), match["host"] is not None)

    def hits(self, call: int) -> bool:
        return call == self.nth if self.nth is not None else random.random() < self.probability


@dataclasses.dataclass
class _Guest:
    spec: dict[str, Any]
    power_state: int = PowerState.SHUTDOWN
    started_at: float = 0.0
    console: list[str] = dataclasses.field(default_factory=list)


class _Store:
    """One folder of JSON files behind a dictionary; without a folder just the dictionary."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._items: dict[str, Any] = {}

    def load(self) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._items = {path.stem: json.loads(path.read_text()) for path in self._folder.glob("*.json")}

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def get(self, key: str) -> Any:
        return self._items.get(key)

    def items(self) -> list[tuple[str, Any]]:
        return list(self._items.items())

    def put(self, key: str, value: Any) -> None:
        if self._folder is not None:
            # Written beside and renamed: a kill between the two must not leave half a file.
            temporary = self._folder / f".{key}.{os.getpid()}.{threading.get_ident()}"
            temporary.write_text(json.dumps(value))
            temporary.replace(self._folder / f"{key}.json")
        self._items[key] = value

    def remove(self, key: str) -> None:
        if self._folder is not None:
            (self._folder / f"{key}.json").unlink(missing_ok=True)
        self._items.pop(key, None)


class SimulatedDriver(base.ComputeDriver):
    """Thousands of guests in one process, at the price of a dictionary entry each."""

    def __init__(self, conf: cfg.ConfigOpts, host: str) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._conf = conf[GROUP]
        self._host = host
        folder = Path(self._conf.state_dir) / host if self._conf.state_dir else None
        self._guests = _Store(folder and folder / "guests")
        self._disks = _Store(folder and folder / "disks")
        self._images = _Store(folder and folder / "images")
        self._snapshots = _Store(folder and folder / "snapshots")
        self._connections = _Store(folder and folder / "connections")
        self._lock = threading.Lock()
        self._image_locks: collections.defaultdict[str, threading.Lock] = collections.defaultdict(
            threading.Lock
        )
        self._calls: collections.Counter[str] = collections.Counter()
        self._rules = [_FailureRule.parse(text) for text in self._conf.failures]
        self._delays = {method: float(seconds) for method, seconds in self._conf.delays.items()}
        self._delay: float = self._conf.delay
        self._jitter: float = self._conf.jitter
        self._listeners: list[base.PowerListener] = []
        self._events: queue.SimpleQueue[tuple[str, PowerState] | None] = queue.SimpleQueue()
        self._event_thread: threading.Thread | None = None
        self._started_at = time.time()

    def start(self) -> None:
        self._before("start")
        try:
            for store in (self._guests, self._disks, self._images, self._snapshots, self._connections):
                store.load()
        except (OSError, ValueError) as exc:
            raise DriverError(f"The simulated driver's state folder can't be read: {exc}", cause=exc) from exc
        self._event_thread = threading.Thread(
            target=self._deliver_events, name="simulated-events", daemon=True
        )
        self._event_thread.start()

    def close(self) -> None:
        if self._event_thread is not None:
            self._events.put(None)
            self._event_thread.join()
            self._event_thread = None

    def inventory(self) -> HostInventory:
        self._before("inventory")
        with self._lock:
            used = sum(disk["root_gib"] + disk["ephemeral_gib"] for _id, disk in self._disks.items())
        return HostInventory(
            hypervisor_type="fake",
            hypervisor_version=1000,
            hypervisor_hostname=self._host,
            vcpus=self._conf.vcpus,
            memory_mib=self._conf.memory_mib,
            disk_gib=self._conf.disk_gib,
            disk_available_gib=max(self._conf.disk_gib - used, 0),
            cpu_info={
                "arch": "x86_64",
                "model": "simulated",
                "vendor": "simulated",
                "features": [],
                "topology": {"cells": 1, "sockets": 1, "cores": self._conf.vcpus, "threads": 1},
            },
            host_ip="127.0.0.1",
            uptime=f"up {int(time.time() - self._started_at)} seconds",
            traits=("COMPUTE_NODE", "HW_CPU_X86_SSE2"),
            supported_instances=(
                ("x86_64", "fake", "hvm"),
                ("x86_64", "kvm", "hvm"),
                ("x86_64", "qemu", "hvm"),
            ),
            numa_cells=(
                {"id": 0, "cpus": list(range(self._conf.vcpus)), "memory_mib": self._conf.memory_mib},
            ),
            warnings=("The guests of this host are simulated.",),
        )

    def guests(self) -> list[GuestInfo]:
        self._before("guests")
        with self._lock:
            return [
                GuestInfo(server_id, guest_name(server_id), PowerState(guest["power_state"]))
                for server_id, guest in self._guests.items()
            ]

    def power_state(self, server_id: str) -> PowerState:
        self._before("power_state")
        guest = self._guests.get(server_id)
        return PowerState(guest["power_state"]) if guest else PowerState.NOSTATE

    def cache_image(self, image: GuestImage, fetch: base.ImageFetcher) -> None:
        if image.id in self._images:  # the common case of a load test, without any lock
            self._before("cache_image")
            return
        with self._lock:
            image_lock = self._image_locks[image.id]
        with image_lock:
            self._before("cache_image")
            if image.id in self._images:
                return
            if self._conf.fetch_images:
                self._fetch(image, fetch)
            self._images.put(image.id, {"name": image.name, "size_bytes": image.size_bytes})

    def create_disks(self, guest: GuestSpec) -> None:
        self._before("create_disks")
        local = guest.boots_locally
        if local and guest.image is not None and guest.image.id not in self._images:
            raise DriverError(f"The image {guest.image.id} is not in the host's cache")
        beside = guest.disks_beside_root()
        swap = sum(each["size_mib"] for each in beside if each["kind"] == "swap")
        others = sum(each["size_mib"] for each in beside if each["kind"] != "swap")
        disk = {
            "root_gib": guest.root_gib if local else 0,
            "ephemeral_gib": -(-others // 1024),
            "swap_mib": swap,
        }
        with self._lock:
            self._disks.put(guest.server_id, disk)

    def remove_disks(self, server_id: str) -> None:
        self._before("remove_disks")
        with self._lock:
            self._disks.remove(server_id)

    def define(self, guest: GuestSpec) -> None:
        self._before("define")
        for volume in guest.volumes:
            self._require_connected(volume)
        with self._lock:
            known = self._guests.get(guest.server_id)
            defined = dict(known) if known else dataclasses.asdict(_Guest(spec={}))
            defined["spec"] = {
                "vcpus": guest.vcpus,
                "memory_mib": guest.memory_mib,
                "nics": [str(nic.get("mac_address", "")) for nic in guest.nics],
                "config_drive": guest.config_drive,
                "volumes": {
                    str(volume["volume_id"]): volume.get("size_gib") or 0 for volume in guest.volumes
                },
            }
            self._guests.put(guest.server_id, defined)

    def undefine(self, server_id: str) -> None:
        self._before("undefine")
        with self._lock:
            known = server_id in self._guests
            self._guests.remove(server_id)
        if known:
            self._events.put((server_id, PowerState.NOSTATE))

    def power_on(self, server_id: str) -> None:
        self._before("power_on")
        self._turn(server_id, PowerState.RUNNING)

    def power_off(self, server_id: str, timeout_s: float) -> None:
        self._before("power_off")
        self._turn(server_id, PowerState.SHUTDOWN)

    def reboot(self, server_id: str, hard: bool, timeout_s: float) -> None:
        self._before("reboot")
        self._turn(server_id, PowerState.RUNNING, restart=True)

    def attach_nic(self, guest: GuestSpec, nic: dict[str, Any]) -> None:
        self._before("attach_nic")
        self._change_nics(guest.server_id, add=str(nic["mac_address"]))

    def detach_nic(self, server_id: str, mac_address: str) -> None:
        self._before("detach_nic")
        if server_id in self._guests:
            self._change_nics(server_id, remove=mac_address)

    def _change_nics(self, server_id: str, *, add: str = "", remove: str = "") -> None:
        with self._lock:
            guest = self._known(server_id)
            macs = [mac for mac in guest["spec"]["nics"] if mac not in (add, remove)]
            spec = {**guest["spec"], "nics": [*macs, add] if add else macs}
            self._guests.put(server_id, {**guest, "spec": spec})

    # -- volumes ---------------------------------------------------------------------

    def connector(self) -> dict[str, Any]:
        self._before("connector")
        return {
            "host": self._host,
            "ip": "127.0.0.1",
            "platform": "x86_64",
            "os_type": "linux",
            "initiator": f"iqn.2016-04.org.example:{self._host}",
            "nqn": f"nqn.2014-08.org.example:{self._host}",
            "multipath": False,
            "do_local_attach": False,
        }

    def connect_volume(self, volume: Mapping[str, Any]) -> None:
        self._before("connect_volume")
        volume_id, attachment_id = str(volume["volume_id"]), str(volume.get("attachment_id"))
        with self._lock:
            users = set((self._connections.get(volume_id) or {}).get("attachments", ()))
            self._connections.put(volume_id, {"attachments": sorted(users | {attachment_id})})

    def disconnect_volume(self, volume: Mapping[str, Any]) -> None:
        self._before("disconnect_volume")
        volume_id, attachment_id = str(volume["volume_id"]), str(volume.get("attachment_id"))
        with self._lock:
            users = set((self._connections.get(volume_id) or {}).get("attachments", ())) - {attachment_id}
            if users:
                self._connections.put(volume_id, {"attachments": sorted(users)})
            else:
                self._connections.remove(volume_id)

    def _require_connected(self, volume: Mapping[str, Any]) -> None:
        users = (self._connections.get(str(volume["volume_id"])) or {}).get("attachments", ())
        if str(volume.get("attachment_id")) not in users:
            raise DriverError(f"volume {volume['volume_id']} is not connected to host {self._host}")

    def attach_volume(self, guest: GuestSpec, volume: Mapping[str, Any]) -> None:
        self._before("attach_volume")
        self._require_connected(volume)
        size = int(volume.get("size_gib") or 0)
        self._change_volumes(guest.server_id, lambda has: {**has, str(volume["volume_id"]): size})

    def detach_volume(self, server_id: str, volume_id: str) -> None:
        self._before("detach_volume")
        if server_id in self._guests:
            self._change_volumes(
                server_id, lambda has: {key: size for key, size in has.items() if key != volume_id}
            )

    def extend_volume(self, server_id: str, volume: Mapping[str, Any], size_gib: int) -> None:
        self._before("extend_volume")
        volume_id = str(volume["volume_id"])
        if volume_id not in self.volumes_of(server_id):
            raise NotFound(f"server {server_id} has no volume {volume_id} on this host")
        self._change_volumes(server_id, lambda has: {**has, volume_id: size_gib})

    def swap_volume(
        self, guest: GuestSpec, old: Mapping[str, Any], new: Mapping[str, Any], check: Callable[[], None]
    ) -> None:
        self._before("swap_volume")
        self._require_connected(new)
        old_id, new_id = str(old["volume_id"]), str(new["volume_id"])
        has = self.volumes_of(guest.server_id)
        if new_id in has and old_id not in has:
            return
        if old_id not in has:
            raise NotFound(f"server {guest.server_id} has no volume {old_id} on this host")
        if self._known(guest.server_id)["power_state"] not in (PowerState.RUNNING, PowerState.PAUSED):
            raise Conflict(f"server {guest.server_id} does not run")
        if int(new.get("size_gib") or 0) < int(old.get("size_gib") or 0):
            raise BadRequest("The new volume is smaller than the old one.")
        check()
        size = int(new.get("size_gib") or 0)
        self._change_volumes(
            guest.server_id,
            lambda has: dict((new_id, size) if key == old_id else (key, value) for key, value in has.items()),
        )

    def snapshot_volume(
        self, guest: GuestSpec, volume: Mapping[str, Any], target: str, check: Callable[[], None]
    ) -> None:
        self._before("snapshot_volume")
        if str(volume["volume_id"]) not in self.volumes_of(guest.server_id):
            raise NotFound(f"server {guest.server_id} has no volume {volume['volume_id']} on this host")
        check()

    def quiesce(self, server_id: str) -> None:
        self._before("quiesce")
        if self._known(server_id)["power_state"] != PowerState.RUNNING:
            raise Conflict(f"server {server_id} does not run")

    def unquiesce(self, server_id: str) -> None:
        self._before("unquiesce")
        self._known(server_id)

    def volumes_of(self, server_id: str) -> dict[str, int]:
        """{volume id: GiB as the guest sees it}: for tests."""
        return dict(self._known(server_id)["spec"].get("volumes") or {})

    def connected(self) -> dict[str, list[str]]:
        """{volume id: attachments that it is on this host for}: for tests."""
        return {volume_id: list(each["attachments"]) for volume_id, each in self._connections.items()}

    def _change_volumes(self, server_id: str, change: Callable[[dict[str, int]], dict[str, int]]) -> None:
        with self._lock:
            guest = self._known(server_id)
            spec = {**guest["spec"], "volumes": change(dict(guest["spec"].get("volumes") or {}))}
            self._guests.put(server_id, {**guest, "spec": spec})

    # -- snapshots -------------------------------------------------------------------

    def take_snapshot(self, server_id: str, snapshot_id: str, check: Callable[[], None]) -> None:
        self._before("take_snapshot")
        check()
        self._known(server_id)
        with self._lock:
            self._snapshots.put(snapshot_id, {"server_id": server_id})

    def read_snapshot(self, server_id: str, snapshot_id: str) -> Iterator[bytes]:
        self._before("read_snapshot")
        if snapshot_id not in self._snapshots:
            raise NotFound(f"there is no snapshot {snapshot_id}")
        yield empty_qcow2()

    def remove_snapshot(self, server_id: str, snapshot_id: str) -> None:
        self._before("remove_snapshot")
        with self._lock:
            self._snapshots.remove(snapshot_id)

    def console_output(self, server_id: str, max_bytes: int) -> str:
        self._before("console_output")
        text = "".join(f"{line}\n" for line in self._known(server_id)["console"])
        return text[-max_bytes:] if max_bytes > 0 else ""

    def diagnostics(self, server_id: str) -> dict[str, Any]:
        self._before("diagnostics")
        guest = self._known(server_id)
        disk = self._disks.get(server_id) or {}
        running = guest["power_state"] == PowerState.RUNNING
        spec = guest["spec"]
        nics = [
            {"mac_address": mac, **{f"{way}_{what}": 0 for way in ("rx", "tx") for what in _NIC_COUNTERS}}
            for mac in spec["nics"]
        ]
        disks = [
            size for size in (disk.get("root_gib"), disk.get("ephemeral_gib"), disk.get("swap_mib")) if size
        ] + list((spec.get("volumes") or {}).values())
        return {
            "state": "running" if running else "shutdown",
            "driver": "libvirt",
            "hypervisor": "fake",
            "hypervisor_os": "simulated",
            "uptime": int(time.time() - guest["started_at"]) if running else 0,
            "config_drive": spec["config_drive"],
            "num_cpus": spec["vcpus"],
            "num_disks": len(disks),
            "num_nics": len(nics),
            "cpu_details": [{"id": n, "time": 0, "utilisation": 0} for n in range(spec["vcpus"])],
            "disk_details": [
                {
                    "read_bytes": 0,
                    "read_requests": 0,
                    "write_bytes": 0,
                    "write_requests": 0,
                    "errors_count": 0,
                }
                for _size in disks
            ],
            "nic_details": nics,
            "memory_details": {"maximum": spec["memory_mib"], "used": 0},
        }

    def vnc(self, server_id: str) -> dict[str, Any]:
        self._known(server_id)
        raise Unsupported("Unavailable console type: a simulated guest has no screen.")

    def listen(self, listener: base.PowerListener) -> None:
        self._listeners.append(listener)

    def guest_turned(self, server_id: str, power_state: PowerState) -> None:
        """The guest changes state by itself (powers off from inside, crashes): for tests of the sync."""
        self._turn(server_id, power_state)

    def _turn(self, server_id: str, power_state: PowerState, restart: bool = False) -> None:
        with self._lock:
            guest = dict(self._known(server_id))
            if guest["power_state"] == power_state and not restart:
                return
            guest["power_state"] = int(power_state)
            if power_state == PowerState.RUNNING:
                guest["started_at"] = time.time()
                guest["console"] = [
                    *guest["console"],
                    f"Simulated guest {server_id} starts",
                    "GUEST-READY 0.00",
                ][-100:]
            self._guests.put(server_id, guest)
        self._events.put((server_id, power_state))

    def _known(self, server_id: str) -> dict[str, Any]:
        guest: dict[str, Any] | None = self._guests.get(server_id)
        if guest is None:
            raise NotFound(f"There is no guest {server_id} on this host")
        return guest

    def _before(self, method: str) -> None:
        """Count the call, take the time that the method takes, and fail if a rule says so."""
        delay = self._delays.get(method, self._delay)
        if delay > 0:
            time.sleep(delay * (1 + self._jitter * random.uniform(-1, 1)))
        if not self._rules:
            return
        with self._lock:
            self._calls[method] += 1
            call = self._calls[method]
        for rule in self._rules:
            if rule.method == method and rule.hits(call):
                error = Rebuildable if rule.host else DriverError
                raise error(f"Simulated failure of {method}", cause=f"call {call} on {self._host}")

    @staticmethod
    def _fetch(image: GuestImage, fetch: base.ImageFetcher) -> None:
        digest = hashlib.new(image.os_hash_algo or "sha512")
        for chunk in fetch(image):
            digest.update(chunk)
        if image.os_hash_value and digest.hexdigest() != image.os_hash_value:
            raise DriverError(f"The content of image {image.id} does not match its hash")

    def _deliver_events(self) -> None:
        while (event := self._events.get()) is not None:
            for listener in self._listeners:
                try:
                    listener(*event)
                except Exception:  # noqa: BLE001 - one listener's mistake must not stop the others' events
                    LOG.exception("A listener failed on the power state of server %s", event[0])
