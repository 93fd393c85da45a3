"""A backend that only remembers: for load and crash tests.

With ``state_dir`` set, volumes and snapshots are also small files, so that what a killed worker has left is
there when it starts again, and ``leftovers`` can count it. Content is a token, the first bytes of what was
written, that follows copies: a clone has its source's, a new volume has none.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oslo_config import cfg

from core.errors import BadRequest, Conflict, DriverError
from volume.drivers.backends import BACKEND_OPTS
from volume.drivers.base import Location, Pool, Progress, Snapshot, Volume, VolumeDriver

OPTS: list[cfg.Opt] = [
    cfg.StrOpt("state_dir", help="driver=simulated: folder that survives the process; none: memory only."),
    cfg.FloatOpt("delay", default=0.0, min=0, help="driver=simulated: seconds that every method takes."),
    cfg.ListOpt(
        "failures",
        default=[],
        help="driver=simulated: METHOD:PROBABILITY or METHOD#NTH_CALL, for example create:0.05.",
    ),
    cfg.FloatOpt("capacity_gib", default=1_000_000, min=1, help="driver=simulated: size of the pool."),
]
_TOKEN = 256
_FREE = "unmanaged-"
"""what names of things begin with that were let go"""
_FREE_SNAPSHOT = _FREE + "snapshot-"


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For the sample configuration: the group is the backend's."""
    return [("simulated_volumes", OPTS)]


def leftovers(state_dir: Path, known: set[str]) -> list[str]:
    """Files of volumes and snapshots that are not in ``known``: "volume-ID", "snapshot-ID"."""
    found = (path.stem for path in state_dir.glob("*.json"))
    return sorted(name for name in found if name.partition("-")[2] not in known)


class SimulatedDriver(VolumeDriver):
    """See the module."""

    protocol = "simulated"
    keeps_data = False

    def __init__(self, conf: cfg.ConfigOpts, group: str) -> None:
        conf.register_opts([*BACKEND_OPTS, *OPTS], group=group)
        self._conf = conf
        self._options = conf[group]
        self._folder = Path(self._options.state_dir) if self._options.state_dir else None
        self._things: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._calls: collections.Counter[str] = collections.Counter()

    def start(self) -> None:
        self._before("start")
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._things = {path.stem: json.loads(path.read_text()) for path in self._folder.glob("*.json")}

    def close(self) -> None:
        """Nothing is held."""

    def _before(self, method: str) -> None:
        with self._lock:
            self._calls[method] += 1
            call = self._calls[method]
        if self._options.delay:
            time.sleep(self._options.delay)
        for rule in self._options.failures:
            name, sign, value = rule.partition("#" if "#" in rule else ":")
            hit = call == int(value) if sign == "#" else random.random() < float(value or 0)
            if name == method and hit:
                raise DriverError(f"simulated failure of {method}")

    def _put(self, name: str, value: dict[str, Any]) -> None:
        if self._folder is not None:
            part = self._folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
            part.write_text(json.dumps(value))
            part.replace(self._folder / f"{name}.json")
        self._things[name] = value

    def _remove(self, name: str) -> None:
        if self._folder is not None:
            (self._folder / f"{name}.json").unlink(missing_ok=True)
        self._things.pop(name, None)

    def _need(self, name: str) -> dict[str, Any]:
        try:
            return self._things[name]
        except KeyError:
            raise DriverError(f"the data of {name} is gone") from None

    def content(self, thing: Volume | Snapshot) -> str:
        """The token that stands for the data. :raises DriverError: it is gone."""
        return str(self._need(thing.name)["content"])

    def pools(self) -> list[Pool]:
        used = sum(each.get("size", 0) for each in list(self._things.values()))
        total = self._options.capacity_gib
        return [
            Pool(
                name="simulated",
                total_gib=total,
                free_gib=max(total - used, 0),
                thin=True,
                max_over_subscription_ratio=self._options.max_over_subscription_ratio,
                reserved_percentage=self._options.reserved_percentage,
                capabilities={"storage_protocol": self.protocol, "vendor_name": self.vendor},
            )
        ]

    # -- volumes ---------------------------------------------------------------------

    def _new(self, method: str, volume: Volume, content: str) -> Location:
        self._before(method)
        if volume.name not in self._things:
            self._put(volume.name, {"size": volume.size_gib, "content": content})
        return {"name": volume.name}

    def exists(self, volume: Volume) -> bool:
        return volume.name in self._things

    def create(self, volume: Volume) -> Location:
        return self._new("create", volume, "")

    def create_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> Location:
        return self._new("create_from_snapshot", volume, self.content(snapshot))

    def clone(self, volume: Volume, source: Volume) -> Location:
        return self._new("clone", volume, self.content(source))

    def write_image(self, volume: Volume, path: Path, qemu_format: str, progress: Progress) -> Location:
        self._before("write_image")
        size = path.stat().st_size
        progress(size)
        with path.open("rb") as file:
            content = file.read(_TOKEN).rstrip(b"\0").decode(errors="replace")
        self._put(volume.name, {"size": volume.size_gib, "content": content})
        return {"name": volume.name}

    def delete(self, volume: Volume) -> None:
        self._before("delete")
        if any(each.get("volume") == volume.id for each in list(self._things.values())):
            raise Conflict("The volume has snapshots.")
        self._remove(volume.name)

    def extend(self, volume: Volume, size_gib: int) -> None:
        self._before("extend")
        thing = self._need(volume.name)
        self._put(volume.name, {**thing, "size": max(thing["size"], size_gib)})

    # -- snapshots -------------------------------------------------------------------

    def create_snapshot(self, snapshot: Snapshot) -> Location:
        self._before("create_snapshot")
        if snapshot.name not in self._things:
            content = self.content(snapshot.volume)
            self._put(snapshot.name, {"volume": snapshot.volume.id, "content": content})
        return {"name": snapshot.name}

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        self._before("delete_snapshot")
        self._remove(snapshot.name)

    def revert(self, volume: Volume, snapshot: Snapshot) -> Location:
        self._before("revert")
        self._put(volume.name, {**self._need(volume.name), "content": self.content(snapshot)})
        return {"name": volume.name}

    # -- data ------------------------------------------------------------------------

    @contextlib.contextmanager
    def connect(self, volume: Volume | Snapshot, write: bool = False) -> Iterator[Path]:
        """A sparse file that begins with the token."""
        self._before("connect")
        size = volume.size_bytes
        with tempfile.NamedTemporaryFile(prefix="haneul-simulated-") as file:
            file.write(self.content(volume).encode())
            file.truncate(size)
            file.flush()
            yield Path(file.name)
            if write and isinstance(volume, Volume):
                file.seek(0)
                content = file.read(_TOKEN).rstrip(b"\0").decode(errors="replace")
                self._put(volume.name, {"size": volume.size_gib, "content": content})

    # -- hypervisors -----------------------------------------------------------------

    def initialize_connection(
        self, volume: Volume, connector: Mapping[str, Any], mode: str
    ) -> dict[str, Any]:
        self._before("initialize_connection")
        self._need(volume.name)
        data = {"device_path": f"/simulated/{volume.name}", "format": "raw", "access_mode": mode}
        return {"driver_volume_type": "local", "data": {**data, "volume_id": volume.id}}

    def terminate_connection(self, volume: Volume, connector: Mapping[str, Any] | None) -> None:
        self._before("terminate_connection")

    # -- what administrators do ------------------------------------------------------

    def manageable_volumes(self) -> list[dict[str, Any]]:
        return [
            {"reference": {"source-name": name}, "size": each["size"], "safe_to_manage": True}
            for name, each in sorted(self._things.items())
            if name.startswith(_FREE) and not name.startswith(_FREE_SNAPSHOT)
        ]

    def manage(self, volume: Volume, reference: Mapping[str, Any]) -> tuple[Location, int]:
        """What was let go before. :raises BadRequest: nothing of this name was."""
        self._before("manage")
        name = str(reference.get("source-name") or "")
        if volume.name not in self._things:
            if not name.startswith(_FREE) or name not in self._things:
                raise BadRequest(f"There is no {name!r} to manage (source-name).")
            self._put(volume.name, self._need(name))
        self._remove(name)
        return {"name": volume.name}, self._need(volume.name)["size"]

    def unmanage(self, volume: Volume) -> None:
        self._before("unmanage")
        if volume.name in self._things:
            self._put(_FREE + volume.name, self._need(volume.name))
            self._remove(volume.name)

    def manageable_snapshots(self) -> list[dict[str, Any]]:
        return [
            {
                "reference": {"source-name": name},
                "source_reference": {"source-name": f"volume-{each['of']}"},
                "size": each["size"],
                "safe_to_manage": True,
            }
            for name, each in sorted(self._things.items())
            if name.startswith(_FREE_SNAPSHOT)
        ]

    def manage_snapshot(self, snapshot: Snapshot, reference: Mapping[str, Any]) -> tuple[Location, int]:
        self._before("manage_snapshot")
        name = str(reference.get("source-name") or "")
        if snapshot.name not in self._things:
            free = self._things.get(name) or {}
            if not name.startswith(_FREE_SNAPSHOT) or free.get("of") != snapshot.volume.id:
                raise BadRequest(f"The volume has no snapshot {name!r} to manage (source-name).")
            self._put(snapshot.name, {**free, "volume": free["of"]})
        self._remove(name)
        return {"name": snapshot.name}, snapshot.size_gib

    def unmanage_snapshot(self, snapshot: Snapshot) -> None:
        self._before("unmanage_snapshot")
        if snapshot.name in self._things:
            had = dict(self._need(snapshot.name))
            free = {**had, "of": had.pop("volume"), "size": snapshot.size_gib}
            free.pop("volume")
            self._put(_FREE_SNAPSHOT + snapshot.id, free)
            self._remove(snapshot.name)
