"""A store in a folder: one file per object, in 256 sub-folders.

``put`` writes to ``.incoming/NAME`` and renames when all is there: a half file never
has the name of a whole one.  With ``fsync`` (the default) file and folder are on
disk before ``put`` returns, so an image that the API calls active survives a power
cut.  Written data is pushed out meanwhile, by a thread of its own, so that the flush at
the end has little left to do and writing does not wait for the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

from oslo_config import cfg

from core.errors import BadRequest, Conflict, DriverError, NotFound
from image.drivers.base import COMMON_OPTS, Space, Store, StoreFull

CHUNK = 1 << 20
FLUSH_EVERY = 64 << 20
_ZEROS = bytes(CHUNK)

OPTS: list[cfg.Opt] = [
    cfg.StrOpt("datadir", help="Folder of a file store; default: images below [DEFAULT]state_path."),
    cfg.BoolOpt("fsync", default=True, help="Data is on disk before an upload is answered."),
    cfg.BoolOpt(
        "thin_provisioning", default=True, help="Long runs of zeros become holes instead of disk space."
    ),
    *COMMON_OPTS,
]


class FileStore(Store):
    """Files in one folder, which several machines may share (NFS, CephFS)."""

    kind = "file"

    def __init__(
        self, store_id: str, datadir: Path, *, fsync: bool = True, thin_provisioning: bool = True
    ) -> None:
        super().__init__(store_id)
        self._root = datadir
        self._incoming = datadir / ".incoming"
        self._fsync = fsync
        self._thin = thin_provisioning
        try:
            self._incoming.mkdir(parents=True, exist_ok=True, mode=0o750)
        except OSError as error:
            raise DriverError(f"The image store {store_id} has no folder.", cause=error) from error

    def _path(self, name: str) -> Path:
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise BadRequest("That is no name of image data.")
        return self._root / name[:2] / name

    def put(self, chunks: Iterable[bytes], name: str) -> int:
        target, partial = self._path(name), self._incoming / name
        with _errors_of(name):
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as handle:
                size = self._write(handle, chunks, name)
            with _errors_of(name):
                target.parent.mkdir(exist_ok=True, mode=0o750)
                os.link(partial, target)  # unlike rename, this never replaces anything
                if self._fsync:
                    _sync_folder(target.parent)
                    _sync_folder(self._root)
        finally:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()
        return size

    def _write(self, handle: Any, chunks: Iterable[bytes], name: str) -> int:
        size = flushed = 0
        # leaving the block waits for a flush that goes on: the file must not be closed under it
        with futures.ThreadPoolExecutor(1, thread_name_prefix="image-flush") as flusher:
            flush: futures.Future[None] | None = None
            for chunk in chunks:  # an error of the chunks' source is not the store's
                with _errors_of(name):
                    if self._thin and len(chunk) == CHUNK and chunk == _ZEROS:
                        handle.seek(CHUNK, os.SEEK_CUR)
                    else:
                        _write_all(handle, chunk)
                size += len(chunk)
                if self._fsync and size - flushed >= FLUSH_EVERY and (flush is None or flush.done()):
                    flush = flusher.submit(os.fdatasync, handle.fileno())
                    flushed = size
        with _errors_of(name):
            if flush is not None:
                flush.result()
            handle.truncate(size)  # a hole at the end
            if self._fsync:
                os.fsync(handle.fileno())
        return size

    def get(self, name: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        with _errors_of(name):
            handle = open(self._path(name), "rb", buffering=0)  # noqa: SIM115 - closed by _Reading
        return _Reading(handle, offset, length)

    def delete(self, name: str) -> None:
        with _errors_of(name):
            for path in (self._incoming / name, self._path(name)):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    def exists(self, name: str) -> bool:
        return self._path(name).is_file()

    def space(self) -> Space:
        found = os.statvfs(self._root)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def url(self, name: str) -> str:
        return self._path(name).absolute().as_uri()

    def properties(self) -> dict[str, Any]:
        return {"data_dir": str(self._root), "chunk_size": CHUNK, "thin_provisioning": self._thin}


class _Reading(Iterator[bytes]):
    """Reads a part of an open file; closes it at the end, or when the server closes the answer."""

    def __init__(self, handle: Any, offset: int, length: int | None) -> None:
        self._handle = handle
        self._left = length
        handle.seek(offset)

    def __next__(self) -> bytes:
        if self._handle.closed:
            raise StopIteration
        wanted = CHUNK if self._left is None else min(CHUNK, self._left)
        data: bytes = self._handle.read(wanted) if wanted else b""
        if not data:
            self._handle.close()
            if self._left:
                # who was promised more must not take this for the end
                raise DriverError("The data in the image store is shorter than it should be.")
            raise StopIteration
        if self._left is not None:
            self._left -= len(data)
        return data

    def close(self) -> None:
        self._handle.close()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(handle: Any, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[handle.write(view) :]


@contextlib.contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Errors of the file system in haneul's words."""
    try:
        yield
    except FileExistsError as error:
        raise Conflict(f"There is image data named {name} already.") from error
    except FileNotFoundError as error:
        raise NotFound("The store has no data of this image.", cause=error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFull("Image storage media is full.", cause=error) from error
        raise DriverError("The image store could not read or write its data.", cause=error) from error
