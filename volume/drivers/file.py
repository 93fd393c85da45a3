"""Volumes as qcow2 files in a folder, local or on NFS: the embedded default.

    PATH/volumes/volume-ID.qcow2      what a guest writes to
    PATH/layers/LAYER.qcow2           never written again; snapshots and other files stand on them
    PATH/refs/LAYER/NAME              who stands on a layer: an empty file each
    PATH/snapshots/snapshot-ID        names the snapshot's layer

Encrypted volumes are apart from this: see ``encrypted_files``.

A snapshot turns the volume's file into a layer and puts a new, empty file on top: constant time,
whatever the size; so does a clone, which is a second empty file on the layer. A layer goes when nobody
stands on it. A reference is written before the file that needs it and removed after it,
so a crash leaves a layer too many, never one too few (``sweep`` finds those).

Of a volume that a guest has open nobody here touches the file: for a snapshot the guest's host has its QEMU copy the
whole content to a file that is made for it, and that becomes a layer by itself (``snapshots_by_hosts``). A chain of
more than MAX_DEPTH layers is flattened when the next snapshot is taken. Files' names and formats are
ours alone: nothing that a guest writes can make QEMU open another file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oslo_config import cfg

from core import qemu_img
from core.errors import BadRequest, Conflict, DriverError
from core.files import to_disk
from volume.drivers.backends import BACKEND_OPTS
from volume.drivers.base import Disk, Location, Pool, Progress, Snapshot, Volume, VolumeDriver, whole_disk
from volume.drivers.encrypted_files import EncryptedFiles

MAX_DEPTH = 16
OPTS: list[cfg.Opt] = [
    cfg.StrOpt("path", default="$state_path/volumes", help="driver=file: the folder of the volumes."),
    cfg.BoolOpt(
        "shared",
        default=False,
        help="driver=file: every hypervisor host sees the folder under the same path (NFS). Otherwise"
        " only servers on this worker's own host can have its volumes.",
    ),
    cfg.StrOpt("file_mode", default="0600", regex="^0[0-7]{3}$", help="driver=file: mode of volumes' files."),
]
_GIB = 1 << 30
_FREE = "unmanaged-"
_STALE_S = 3600
"""Nobody writes to a file that has not changed for so long."""


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For the sample configuration: the group is the backend's."""
    return [("files", OPTS)]


class FolderLock:
    """One at a time changes who stands on which layer: of all threads, and of all processes and hosts with the folder.

    By flock, which NFS passes on to its server; a process that dies has let go.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX)
            except OSError:
                os.close(self._handle)
                raise
        except BaseException:
            self._threads.release()
            raise

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)
        self._threads.release()


class FileDriver(VolumeDriver):
    """See the module."""

    protocol = "file"

    def __init__(self, conf: cfg.ConfigOpts, group: str) -> None:
        conf.register_opts([*BACKEND_OPTS, *OPTS], group=group)
        self._conf = conf
        self._options = conf[group]
        self._root = Path(self._options.path)
        self._volumes = self._root / "volumes"
        self._layers = self._root / "layers"
        self._refs = self._root / "refs"
        self._snapshots = self._root / "snapshots"
        self._mode = int(self._options.file_mode, 8)
        self._lock = FolderLock(self._root / ".lock")
        self._encrypted = EncryptedFiles(self._root, self._mode)

    def start(self) -> None:
        try:
            for folder in (self._volumes, self._layers, self._refs, self._snapshots):
                folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        except OSError as error:
            raise DriverError(
                f"the folder {self._root} can't be used: {error.strerror}", cause=error
            ) from error
        if shutil.which("qemu-img") is None:
            raise DriverError("qemu-img is missing on this host: install qemu-utils")
        for part in self._volumes.glob("*.part"):
            # of copies that a crash cut short; a young one may be another worker's on the same folder
            with contextlib.suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > _STALE_S:
                    part.unlink()

    def close(self) -> None:
        """Nothing is held."""

    def pools(self) -> list[Pool]:
        usage = shutil.disk_usage(self._root)
        return [
            Pool(
                name=self._root.name or "files",
                total_gib=round(usage.total / _GIB, 2),
                free_gib=round(usage.free / _GIB, 2),
                thin=True,
                max_over_subscription_ratio=self._options.max_over_subscription_ratio,
                reserved_percentage=self._options.reserved_percentage,
                # two QEMU processes on one qcow2 file would destroy it
                multiattach=False,
                online_extend=True,
                capabilities={"storage_protocol": self.protocol, "vendor_name": self.vendor},
            )
        ]

    # -- volumes ---------------------------------------------------------------------

    def _file(self, volume: Volume) -> Path:
        return self._volumes / f"{volume.name}.qcow2"

    def exists(self, volume: Volume) -> bool:
        if volume.header_bytes:
            return self._encrypted.exists(volume)
        return self._file(volume).exists()

    def create(self, volume: Volume) -> Location:
        if volume.header_bytes:
            return self._encrypted.create(volume)
        if not self.exists(volume):
            self._make(volume.name, self._file(volume), volume.size_bytes, None)
        return {"file": self._file(volume).name}

    def _make(self, owner: str, target: Path, size_bytes: int, layer: str | None) -> None:
        """A new file, standing on a layer if one is named."""
        part = target.with_suffix(f".{uuid.uuid4().hex[:8]}.part")
        arguments = ["create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on"]
        if layer is not None:
            # who lets go of a layer looks for references first: from here it finds this one
            with self._lock:
                if not self._layer(layer).exists():
                    raise DriverError(f"what {owner} is to be made from was deleted meanwhile")
                self._refer(layer, owner)
            arguments += ["-b", str(self._layer(layer)), "-F", "qcow2"]
        try:
            qemu_img.qemu_img(self._conf, *arguments, str(part), str(size_bytes))
            part.chmod(self._mode)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def create_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> Location:
        if volume.header_bytes:
            return self._encrypted.create_from_snapshot(volume, snapshot)
        if not self.exists(volume):
            layer = self._layer_of(snapshot)
            if layer is None:
                raise DriverError(f"the data of snapshot {snapshot.id} is gone")
            self._make(volume.name, self._file(volume), volume.size_bytes, layer)
        return {"file": self._file(volume).name}

    def clone(self, volume: Volume, source: Volume) -> Location:
        if volume.header_bytes:
            return self._encrypted.clone(volume, source)
        if not self.exists(volume):
            if source.in_use:
                raise Conflict("A volume in files can't be cloned while it is attached.")
            with self._lock:
                layer = self._settle(source)
            self._make(volume.name, self._file(volume), volume.size_bytes, layer)
        return {"file": self._file(volume).name}

    def write_image(self, volume: Volume, path: Path, qemu_format: str, progress: Progress) -> Location:
        target = self._file(volume)
        if target.exists():
            return {"file": target.name}
        size = int(qemu_img.info(self._conf, path, qemu_format)["virtual-size"])
        if size > volume.size_bytes:
            raise BadRequest(
                f"The image's disk of {-(-size // _GIB)} GiB is larger than the volume of {volume.size_gib} GiB."
            )
        part = target.with_suffix(f".{uuid.uuid4().hex[:8]}.part")
        try:
            qemu_img.qemu_img(
                self._conf, "convert", "-q", "-t", "none" if _direct(self._root) else "writeback", "-W",
                "-f", qemu_format, "-O", "qcow2", str(path), str(part),
                watch=lambda: progress(_written(part, size)),
            )  # fmt: skip
            progress(size)
            if size < volume.size_bytes:
                qemu_img.qemu_img(
                    self._conf, "resize", "-q", "-f", "qcow2", str(part), str(volume.size_bytes)
                )
            part.chmod(self._mode)
            to_disk(part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return {"file": target.name}

    def delete(self, volume: Volume) -> None:
        if volume.header_bytes:
            self._encrypted.delete(volume)
            return
        file = self._file(volume)
        layer = self._below(file)
        file.unlink(missing_ok=True)
        if layer is not None:
            self._let_go(layer, volume.name)
        # a reference that a crash left: its file never came to be
        for stray in self._refs.glob(f"*/{volume.name}"):
            self._let_go(stray.parent.name, volume.name)

    def extend(self, volume: Volume, size_gib: int) -> None:
        """An attached one grows by its QEMU, which has the file open (blockresize); here nothing is to be done."""
        if volume.in_use:
            return
        if volume.header_bytes:
            self._encrypted.extend(volume, size_gib)
            return
        if int(qemu_img.info(self._conf, self._file(volume), "qcow2")["virtual-size"]) < size_gib * _GIB:
            qemu_img.qemu_img(
                self._conf, "resize", "-q", "-f", "qcow2", str(self._file(volume)), str(size_gib * _GIB)
            )

    # -- layers ----------------------------------------------------------------------

    def _layer(self, layer: str) -> Path:
        return self._layers / f"{layer}.qcow2"

    def _refer(self, layer: str, owner: str) -> None:
        folder = self._refs / layer
        folder.mkdir(exist_ok=True)
        (folder / owner).touch()

    def _let_go(self, layer: str, owner: str) -> None:
        """``owner`` stands on the layer no more; what nobody stands on goes, and so on downwards."""
        with self._lock:
            current: str | None = layer
            while current is not None:
                folder = self._refs / current
                (folder / owner).unlink(missing_ok=True)
                if folder.exists() and any(folder.iterdir()):
                    return
                file = self._layer(current)
                below = self._below(file)
                file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    folder.rmdir()
                current, owner = below, f"layer-{current}"

    def _below(self, file: Path) -> str | None:
        """The layer that a file stands on."""
        if not file.exists():
            return None
        backing = qemu_img.info(self._conf, file, "qcow2").get("backing-filename")
        return Path(backing).stem if backing else None

    def _depth(self, file: Path) -> int:
        depth, layer = 0, self._below(file)
        while layer is not None:
            depth, layer = depth + 1, self._below(self._layer(layer))
        return depth

    def _settle(self, volume: Volume) -> str:
        """Make what the volume holds now a layer, with a new file on top; the layer's name.

        A volume to which nothing was written since stands on what it stood on.
        """
        file = self._file(volume)
        below = self._below(file)
        if below is not None and self._untouched(file):
            return below
        if self._depth(file) >= MAX_DEPTH:
            self._flatten(file)
            if below is not None:
                (self._refs / below / volume.name).unlink(missing_ok=True)
            below = None
        layer = uuid.uuid4().hex
        self._refer(layer, volume.name)
        if below is not None:
            self._refer(below, f"layer-{layer}")
        # The new file is made before the old one moves: after a crash between the two moves the volume's
        # file is missing, and ``exists`` would say so; therefore a link, then one atomic replacement.
        os.link(file, self._layer(layer))
        part = file.with_suffix(f".{uuid.uuid4().hex[:8]}.part")
        try:
            qemu_img.qemu_img(
                self._conf, "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on",
                "-b", str(self._layer(layer)), "-F", "qcow2", str(part), str(volume.size_bytes),
            )  # fmt: skip
            part.chmod(self._mode)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        self._layer(layer).chmod(0o400)
        if below is not None:
            (self._refs / below / volume.name).unlink(missing_ok=True)
        return layer

    def _untouched(self, file: Path) -> bool:
        """Does the file hold no data of its own?"""
        ranges = json.loads(qemu_img.qemu_img(self._conf, "map", "--output=json", "-f", "qcow2", str(file)))
        return not any(each["depth"] == 0 and each.get("present", each["data"]) for each in ranges)

    def _flatten(self, file: Path) -> None:
        """The copy is on the disk before it takes the file's place: the layer below may go right after."""
        part = file.with_suffix(f".{uuid.uuid4().hex[:8]}.part")
        try:
            qemu_img.qemu_img(self._conf, "convert", "-q", "-f", "qcow2", "-O", "qcow2", str(file), str(part))
            part.chmod(self._mode)
            to_disk(part)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def sweep(self) -> list[str]:
        """Remove layers that a crash left without anybody on them; their names."""
        removed = []
        for file in self._layers.glob("*.qcow2"):
            folder = self._refs / file.stem
            if not folder.exists() or not any(folder.iterdir()):
                self._let_go(file.stem, "nobody")
                removed.append(file.stem)
        return removed

    # -- snapshots -------------------------------------------------------------------

    def _layer_of(self, snapshot: Snapshot) -> str | None:
        with contextlib.suppress(FileNotFoundError):
            return (self._snapshots / snapshot.name).read_text().strip()
        return None

    def create_snapshot(self, snapshot: Snapshot) -> Location:
        if snapshot.volume.header_bytes:
            return self._encrypted.create_snapshot(snapshot)
        layer = self._layer_of(snapshot)
        if layer is None:
            if snapshot.volume.in_use:
                raise Conflict(
                    "A volume in files can't be snapshotted while it is attached: detach it, or stop its server."
                )
            with self._lock:
                layer = self._settle(snapshot.volume)
                self._refer(layer, snapshot.name)
                self._name_layer(snapshot, layer)
        return {"layer": layer}

    def snapshots_by_hosts(self, volume: Volume) -> bool:
        """QEMU has the file open: nobody else may change it, or read it while it changes."""
        return not volume.header_bytes

    def _copy_of(self, snapshot: Snapshot) -> tuple[str, Path]:
        """(the layer that a host's copy will be, the file until then)"""
        layer = f"copy-{snapshot.id}"
        return layer, self._layer(layer).with_suffix(".part")

    def prepare_copy(self, snapshot: Snapshot) -> str:
        _, part = self._copy_of(snapshot)
        if self._layer_of(snapshot) is None:
            part.touch(mode=self._mode)
            part.chmod(self._mode)
        return str(part)

    def take_copy(self, snapshot: Snapshot) -> Location:
        layer, part = self._copy_of(snapshot)
        if self._layer_of(snapshot) is None:
            if part.exists():
                told = qemu_img.info(self._conf, part, "qcow2")
                data = (told.get("format-specific") or {}).get("data") or {}
                if told.get("backing-filename") or data.get("data-file"):
                    raise DriverError(f"the copy for snapshot {snapshot.id} stands on another file")
                self._refer(layer, snapshot.name)
                part.chmod(0o400)
                to_disk(part)
                part.replace(self._layer(layer))
            if not self._layer(layer).exists():
                raise DriverError(f"the copy for snapshot {snapshot.id} is gone")
            self._name_layer(snapshot, layer)
        return {"layer": layer}

    def _name_layer(self, snapshot: Snapshot, layer: str) -> None:
        """From here the layer is the snapshot."""
        part = self._snapshots / f".{snapshot.name}"
        part.write_text(layer)
        part.replace(self._snapshots / snapshot.name)

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        if snapshot.volume.header_bytes:
            self._encrypted.delete_snapshot(snapshot)
            return
        self._copy_of(snapshot)[1].unlink(missing_ok=True)
        layer = self._layer_of(snapshot)
        (self._snapshots / snapshot.name).unlink(missing_ok=True)
        for held in (
            [layer] if layer else [path.parent.name for path in self._refs.glob(f"*/{snapshot.name}")]
        ):
            self._let_go(held, snapshot.name)

    def revert(self, volume: Volume, snapshot: Snapshot) -> Location:
        if volume.header_bytes:
            return self._encrypted.revert(volume, snapshot)
        if volume.in_use:
            raise Conflict("A volume can't be reverted while it is attached.")
        layer = self._layer_of(snapshot)
        if layer is None:
            raise DriverError(f"the data of snapshot {snapshot.id} is gone")
        file = self._file(volume)
        below = self._below(file)
        self._make(volume.name, file, max(volume.size_bytes, snapshot.size_gib * _GIB), layer)
        if below is not None and below != layer:
            self._let_go(below, volume.name)
        return {"file": file.name}

    # -- data ------------------------------------------------------------------------

    @contextlib.contextmanager
    def connect(self, volume: Volume | Snapshot, write: bool = False) -> Iterator[Path]:
        """A raw copy, since the files are qcow2; what was written to it is taken over at the end.

        Encrypted volumes are raw already: their own files.
        """
        of = volume.volume if isinstance(volume, Snapshot) else volume
        if of.header_bytes:
            if write and of is not volume:
                raise DriverError(f"snapshot {volume.id} can't be written to")
            yield self._encrypted.source(volume)
            return
        if isinstance(volume, Snapshot):
            layer = self._layer_of(volume)
            if layer is None or write:
                raise DriverError(f"snapshot {volume.id} can't be opened")
            source = self._layer(layer)
        else:
            source = self._file(volume)
        raw = self._root / f"{volume.name}.{uuid.uuid4().hex[:8]}.raw"
        try:
            qemu_img.qemu_img(
                self._conf, "convert", "-q", "-W", "-f", "qcow2", "-O", "raw", str(source), str(raw)
            )
            raw.chmod(0o600)
            yield raw
            if write and isinstance(volume, Volume):
                self._take_over(volume, raw)
        finally:
            raw.unlink(missing_ok=True)

    @contextlib.contextmanager
    def disk(self, volume: Volume, write: bool = False) -> Iterator[Disk]:
        if volume.header_bytes:
            yield whole_disk(self._encrypted.source(volume), "raw")
        else:
            yield whole_disk(self._file(volume), "qcow2")

    def _take_over(self, volume: Volume, raw: Path) -> None:
        file = self._file(volume)
        below = self._below(file)
        part = file.with_suffix(f".{uuid.uuid4().hex[:8]}.part")
        try:
            qemu_img.qemu_img(
                self._conf, "convert", "-q", "-W", "-f", "raw", "-O", "qcow2", str(raw), str(part)
            )
            part.chmod(self._mode)
            to_disk(part)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        if below is not None:
            self._let_go(below, volume.name)

    # -- hypervisors -----------------------------------------------------------------

    def initialize_connection(
        self, volume: Volume, connector: Mapping[str, Any], mode: str
    ) -> dict[str, Any]:
        mine = getattr(self._conf, "host", None)
        if not self._options.shared and connector.get("host") != mine:
            raise BadRequest(
                f"The volume lies in files of host {mine}: a server on host {connector.get('host')} can't have it."
            )
        if not self.exists(volume):
            raise DriverError(f"the data of volume {volume.id} is gone")
        return {
            "driver_volume_type": "local",
            "data": {
                "device_path": str(
                    self._encrypted.path(volume) if volume.header_bytes else self._file(volume)
                ),
                "format": "raw" if volume.header_bytes else "qcow2",
                "access_mode": mode,
                "volume_id": volume.id,
                "discard": True,
            },
        }

    def terminate_connection(self, volume: Volume, connector: Mapping[str, Any] | None) -> None:
        """A file needs no letting go."""

    # -- what administrators do ------------------------------------------------------

    def manageable_volumes(self) -> list[dict[str, Any]]:
        found = []
        for file in sorted(self._root.glob("manage/*.qcow2")):
            size = int(qemu_img.info(self._conf, file, "qcow2")["virtual-size"])
            found.append({"reference": {"source-name": file.name}, "size": -(-size // _GIB),
                          "safe_to_manage": True, "reason_not_safe": None})  # fmt: skip
        return found

    def manage(self, volume: Volume, reference: Mapping[str, Any]) -> tuple[Location, int]:
        """A self-contained qcow2 file in PATH/manage. :raises BadRequest:"""
        name = str(reference.get("source-name") or "")
        file = self._root / "manage" / name
        if not name or Path(name).name != name or not file.is_file():
            if self.exists(volume):  # a repeat
                size = int(qemu_img.info(self._conf, self._file(volume), "qcow2")["virtual-size"])
                return {"file": self._file(volume).name}, -(-size // _GIB)
            raise BadRequest(f"There is no file {name!r} in {self._root / 'manage'} (source-name).")
        qemu_img.check_content(file, "qcow2")
        size = int(qemu_img.info(self._conf, file, "qcow2")["virtual-size"])
        file.chmod(self._mode)
        file.replace(self._file(volume))
        return {"file": self._file(volume).name}, -(-size // _GIB)

    def unmanage(self, volume: Volume) -> None:
        folder = self._root / "manage"
        folder.mkdir(exist_ok=True)
        if self.exists(volume):
            if self._below(self._file(volume)) is not None:
                below = self._below(self._file(volume))
                self._flatten(self._file(volume))
                self._let_go(str(below), volume.name)
            self._file(volume).replace(folder / f"{volume.name}.qcow2")

    # Snapshots that were let go: PATH/snapshots/unmanaged-ID holds the layer and whose snapshot it was.

    def manageable_snapshots(self) -> list[dict[str, Any]]:
        found = []
        for file in sorted(self._snapshots.glob(f"{_FREE}*")):
            layer, volume_name = file.read_text().split()
            size = int(qemu_img.info(self._conf, self._layer(layer), "qcow2")["virtual-size"])
            found.append({"reference": {"source-name": file.name}, "size": -(-size // _GIB),
                          "source_reference": {"source-name": volume_name},
                          "safe_to_manage": True, "reason_not_safe": None})  # fmt: skip
        return found

    def manage_snapshot(self, snapshot: Snapshot, reference: Mapping[str, Any]) -> tuple[Location, int]:
        """What was let go of this volume's. :raises BadRequest:"""
        name = str(reference.get("source-name") or "")
        free = self._snapshots / name
        plain = Path(name).name == name and name.startswith(_FREE)
        layer = self._layer_of(snapshot)
        if layer is None:
            layer, owner = free.read_text().split() if plain and free.is_file() else ("", "")
            if owner != snapshot.volume.name or snapshot.volume.header_bytes:
                raise BadRequest(f"The volume has no snapshot {name!r} to manage (source-name).")
            with self._lock:
                self._refer(layer, snapshot.name)
                self._name_layer(snapshot, layer)
        if plain:
            free.unlink(missing_ok=True)
            (self._refs / layer / name).unlink(missing_ok=True)
        size = int(qemu_img.info(self._conf, self._layer(layer), "qcow2")["virtual-size"])
        return {"layer": layer}, -(-size // _GIB)

    def unmanage_snapshot(self, snapshot: Snapshot) -> None:
        if snapshot.volume.header_bytes:
            raise BadRequest("A snapshot of an encrypted volume can't be let go: its key would go.")
        layer, name = self._layer_of(snapshot), f"{_FREE}{snapshot.id}"
        if layer is None:
            return
        with self._lock:
            self._refer(layer, name)
            part = self._snapshots / f".{name}"
            part.write_text(f"{layer} {snapshot.volume.name}")
            part.replace(self._snapshots / name)
        (self._snapshots / snapshot.name).unlink(missing_ok=True)
        self._let_go(layer, snapshot.name)


def _direct(folder: Path) -> bool:
    """Does the file system take O_DIRECT?"""
    probe = folder / f".direct-{uuid.uuid4().hex}"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


def _written(part: Path, size: int) -> int:
    """How much of ``size`` has come so far."""
    try:
        return min(part.stat().st_blocks * 512, size)
    except FileNotFoundError:
        return 0
