"""The encrypted volumes of the ``file`` driver: raw files, since what QEMU decrypts must lie bare.

    PATH/volumes/volume-ID.luks        header and data
    PATH/snapshots/snapshot-ID.luks    a copy of them

A layer of qcow2 below LUKS is nothing that libvirt can open, so snapshots and clones are copies: at once where the
file system shares blocks (XFS, Btrfs), else of what is allocated. A copy has another name until it is whole.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from oslo_concurrency import processutils

from core.errors import Conflict, DriverError
from core.files import to_disk
from volume.drivers.base import Location, Snapshot, Volume


class EncryptedFiles:
    """Methods as ``VolumeDriver`` has them; every volume here is encrypted."""

    def __init__(self, root: Path, mode: int) -> None:
        self._volumes = root / "volumes"
        self._snapshots = root / "snapshots"
        self._mode = mode

    def path(self, thing: Volume | Snapshot) -> Path:
        folder = self._snapshots if isinstance(thing, Snapshot) else self._volumes
        return folder / f"{thing.name}.luks"

    def exists(self, volume: Volume) -> bool:
        return self.path(volume).exists()

    def create(self, volume: Volume) -> Location:
        target = self.path(volume)
        if not target.exists():
            part = self._part(volume)
            part.touch(mode=self._mode)
            self._finish(part, target, volume.size_bytes)
        return {"file": target.name}

    def _part(self, thing: Volume | Snapshot) -> Path:
        return self._volumes / f"{thing.name}.{uuid.uuid4().hex[:8]}.part"

    def _finish(self, part: Path, target: Path, size_bytes: int) -> None:
        part.chmod(self._mode)
        with part.open("r+b") as file:
            if file.seek(0, 2) < size_bytes:
                file.truncate(size_bytes)
        to_disk(part)
        part.replace(target)

    def _copy(self, source: Path, thing: Volume | Snapshot) -> Path:
        """A whole copy, not yet in its place. The caller removes it, or puts it there."""
        part = self._part(thing)
        try:
            processutils.execute("cp", "--reflink=auto", "--sparse=auto", "--", str(source), str(part))
        except processutils.ProcessExecutionError as error:
            part.unlink(missing_ok=True)
            words = (error.stderr or "cp said nothing").strip().splitlines()[-1]
            raise DriverError(f"the data of {thing.name} can't be copied: {words}", cause=error) from error
        return part

    def _make(self, volume: Volume, source: Path) -> Location:
        target = self.path(volume)
        self._finish(self._copy(source, volume), target, volume.size_bytes)
        return {"file": target.name}

    def create_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> Location:
        if self.exists(volume):
            return {"file": self.path(volume).name}
        return self._make(volume, self.source(snapshot))

    def clone(self, volume: Volume, source: Volume) -> Location:
        if self.exists(volume):
            return {"file": self.path(volume).name}
        if source.in_use:
            raise Conflict("A volume in files can't be cloned while it is attached.")
        return self._make(volume, self.path(source))

    def source(self, thing: Volume | Snapshot) -> Path:
        """:raises DriverError: its data is gone."""
        path = self.path(thing)
        if not path.exists():
            raise DriverError(f"the data of {thing.name} is gone")
        return path

    def delete(self, volume: Volume) -> None:
        self.path(volume).unlink(missing_ok=True)

    def extend(self, volume: Volume, size_gib: int) -> None:
        with self.source(volume).open("r+b") as file:
            if file.seek(0, 2) < volume.bytes_of(size_gib):
                file.truncate(volume.bytes_of(size_gib))

    def create_snapshot(self, snapshot: Snapshot) -> Location:
        target = self.path(snapshot)
        if not target.exists():
            if snapshot.volume.in_use:
                raise Conflict(
                    "A volume in files can't be snapshotted while it is attached: detach it, or stop its server."
                )
            part = self._copy(self.source(snapshot.volume), snapshot)
            part.chmod(0o400)
            to_disk(part)
            part.replace(target)
        return {"file": target.name}

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        self.path(snapshot).unlink(missing_ok=True)

    def revert(self, volume: Volume, snapshot: Snapshot) -> Location:
        if volume.in_use:
            raise Conflict("A volume can't be reverted while it is attached.")
        return self._make(volume, self.source(snapshot))
