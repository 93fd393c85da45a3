"""A store in a Ceph cluster: one RBD image per object, with a protected snapshot ``snap``.

That is how everybody's image service does it, so whoever works in the same cluster makes volumes and
disks out of an image by copy on write, from ``rbd://FSID/POOL/IMAGE/snap`` (for raw content).

``put`` writes to ``NAME.part``, which is renamed when it is whole and has its snapshot. Runs of zeros are not
written. What volumes still stand on goes to Ceph's trash when it is deleted, and from there when nobody
needs it (``sweep``).
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from oslo_config import cfg

from core.ceph import binding
from core.errors import BadRequest, Conflict, DriverError, NotFound
from image.drivers.base import COMMON_OPTS, Space, Store, StoreFull

SNAPSHOT = "snap"
CHUNK = 4 << 20
_GROW = 1 << 30
_IN_FLIGHT = 8
OPTS: list[cfg.Opt] = [
    cfg.StrOpt("rbd_store_pool", default="images", help="kind rbd: the pool of the images."),
    cfg.StrOpt("rbd_store_user", default="glance", help="kind rbd: the cephx user, without 'client.'."),
    cfg.StrOpt("rbd_store_ceph_conf", default="/etc/ceph/ceph.conf", help="kind rbd: Ceph's configuration."),
    cfg.IntOpt("rados_connect_timeout", default=10, min=1, help="kind rbd: seconds to wait for the cluster."),
]


class RbdKind:
    """Makes RBD stores from their options."""

    OPTS: list[cfg.Opt] = [*COMMON_OPTS, *OPTS]

    def __call__(self, store_id: str, options: Any, _folder: Any) -> Store:
        return RbdStore(
            store_id,
            pool=options.rbd_store_pool,
            user=options.rbd_store_user,
            configuration=options.rbd_store_ceph_conf,
            timeout_s=options.rados_connect_timeout,
        )


class RbdStore(Store):
    """See the module."""

    kind = "rbd"

    def __init__(self, store_id: str, *, pool: str, user: str, configuration: str, timeout_s: int) -> None:
        super().__init__(store_id)
        self._rados, self._rbd = binding("rados"), binding("rbd")
        self._pool_name, self._user, self._configuration = pool, user, configuration
        self._timeout_s = timeout_s
        self._cluster: Any = None
        self._lock = threading.Lock()

    # -- the cluster -----------------------------------------------------------

    def _connected(self) -> Any:
        """At first use: a cluster that is away is no reason not to serve the other stores."""
        with self._lock:
            if self._cluster is None:
                try:
                    cluster = self._rados.Rados(conffile=self._configuration, rados_id=self._user)
                    # connect()'s own limit does not hold when no monitor answers
                    cluster.conf_set("client_mount_timeout", str(self._timeout_s))
                    cluster.connect(timeout=self._timeout_s)
                except self._rados.Error as error:
                    raise DriverError("The Ceph cluster does not answer.", cause=error) from error
                self._cluster = cluster
            return self._cluster

    def close(self) -> None:
        with self._lock:
            if self._cluster is not None:
                self._cluster.shutdown()
                self._cluster = None

    @contextlib.contextmanager
    def _pool(self) -> Iterator[Any]:
        """An I/O context of the pool; Ceph's refusals in haneul's words."""
        cluster = self._connected()
        try:
            context = cluster.open_ioctx(self._pool_name)
        except self._rados.Error as error:
            raise DriverError(f"The Ceph cluster has no pool {self._pool_name}.", cause=error) from error
        try:
            with self._errors():
                yield context
        finally:
            context.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (self._rbd.DiskQuotaExceeded, self._rados.NoSpace) as error:
            raise StoreFull("Image storage media is full.", cause=error) from error
        except self._rbd.ImageNotFound as error:
            raise NotFound("The store has no data of this image.", cause=error) from error
        except self._rbd.ImageExists as error:
            raise Conflict("There is image data of this name already.", cause=error) from error
        except (self._rbd.Error, self._rados.Error) as error:
            raise DriverError("The image store could not read or write its data.", cause=error) from error

    # -- writing ---------------------------------------------------------------

    def put(self, chunks: Iterable[bytes], name: str) -> int:
        part = f"{_checked(name)}.part"
        with self._pool() as pool:
            if self._has(pool, name):
                raise Conflict(f"There is image data named {name} already.")
            self._rbd.RBD().create(pool, part, 0, old_format=False)
            try:
                with self._rbd.Image(pool, part) as image:
                    size = self._write(image, chunks)
                    image.create_snap(SNAPSHOT)
                    image.protect_snap(SNAPSHOT)
                self._rbd.RBD().rename(pool, part, name)
            except BaseException:
                self._discard(pool, part)
                raise
        return size

    def _write(self, image: Any, chunks: Iterable[bytes]) -> int:
        size = room = 0
        writing = _Writing()
        try:
            for chunk in chunks:
                if size + len(chunk) > room:
                    room = size + len(chunk) + _GROW
                    with self._errors():
                        image.resize(room)
                if chunk.count(0) != len(chunk):  # a new image is all zeros
                    with self._errors():
                        writing.begin()
                        image.aio_write(chunk, size, writing.done)
                size += len(chunk)
                with self._errors():
                    self._refused(writing)
        finally:
            writing.wait()  # not before nothing uses the image any more may it be closed
        self._refused(writing)
        image.resize(size)
        image.flush()
        return size

    def _refused(self, writing: _Writing) -> None:
        if writing.error:
            if writing.error in (-28, -122):
                raise StoreFull("Image storage media is full.", cause=OSError(-writing.error, "rbd"))
            raise DriverError("Ceph refused to write.", cause=OSError(-writing.error, "rbd"))

    # -- reading ---------------------------------------------------------------

    def get(self, name: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        with self._errors():
            context = self._connected().open_ioctx(self._pool_name)
            try:
                image = self._rbd.Image(context, _checked(name), snapshot=SNAPSHOT, read_only=True)
            except BaseException:
                context.close()
                raise
        return _Reading(self, context, image, offset, length)

    def exists(self, name: str) -> bool:
        with self._pool() as pool:
            return self._has(pool, _checked(name))

    def _has(self, pool: Any, name: str) -> bool:
        try:
            self._rbd.Image(pool, name, snapshot=SNAPSHOT, read_only=True).close()
        except self._rbd.ImageNotFound:
            return False
        return True

    # -- removal ---------------------------------------------------------------

    def delete(self, name: str) -> None:
        with self._pool() as pool:
            self._discard(pool, f"{_checked(name)}.part")
            self._discard(pool, name)

    def _discard(self, pool: Any, name: str) -> None:
        """Remove an image with its snapshot; to the trash with what volumes stand on."""
        try:
            self._strip(self._rbd.Image(pool, name))
            self._rbd.RBD().remove(pool, name)
        except self._rbd.ImageNotFound:
            return
        except (self._rbd.ImageHasSnapshots, self._rbd.ImageBusy):
            with contextlib.suppress(self._rbd.ImageNotFound):
                self._rbd.RBD().trash_move(pool, name, 0)

    def _strip(self, image: Any) -> None:
        """The snapshot goes. :raises rbd.ImageBusy: there are clones (of the first format) of it."""
        with image, contextlib.suppress(self._rbd.ImageNotFound):
            if image.is_protected_snap(SNAPSHOT):
                image.unprotect_snap(SNAPSHOT)
            image.remove_snap(SNAPSHOT)

    def sweep(self) -> int:
        removed = 0
        with self._pool() as pool:
            for each in list(self._rbd.RBD().trash_list(pool)):
                if each["source"] != "USER" or not _is_ours(each["name"]):
                    continue
                with contextlib.suppress(
                    self._rbd.ImageBusy, self._rbd.ImageHasSnapshots, self._rbd.ImageNotFound
                ):
                    self._strip(self._rbd.Image(pool, image_id=each["id"]))
                    self._rbd.RBD().trash_remove(pool, each["id"])
                    removed += 1
        return removed

    # -- what the API tells ----------------------------------------------------

    def space(self) -> Space | None:
        query = json.dumps({"prefix": "df", "format": "json"})
        code, output, message = self._connected().mon_command(query, b"")
        if code != 0:
            raise DriverError("The Ceph cluster does not say how full it is.", cause=OSError(code, message))
        for each in json.loads(output)["pools"]:
            if each["name"] == self._pool_name:
                free, used = int(each["stats"]["max_avail"]), int(each["stats"]["bytes_used"])
                return Space(free + used, free)
        return None

    def url(self, name: str) -> str:
        parts = (self._connected().get_fsid(), self._pool_name, name, SNAPSHOT)
        return "rbd://" + "/".join(quote(part, safe="") for part in parts)

    def properties(self) -> dict[str, Any]:
        return {"chunk_size": CHUNK, "pool": self._pool_name, "user": self._user, "thin_provisioning": True}


class _Writing:
    """At most ``_IN_FLIGHT`` writes at a time; ``error``: the first one's negative errno, or 0."""

    def __init__(self) -> None:
        self._slots = threading.Semaphore(_IN_FLIGHT)
        self.error = 0

    def begin(self) -> None:
        self._slots.acquire()

    def done(self, completion: Any) -> None:
        """Called by a thread of librbd's."""
        code = completion.get_return_value()
        if code < 0 and not self.error:
            self.error = code
        self._slots.release()

    def wait(self) -> None:
        for _ in range(_IN_FLIGHT):
            self._slots.acquire()


class _Reading(Iterator[bytes]):
    """Reads a part of an open image; closes it at the end, or when the server closes the answer."""

    def __init__(self, store: RbdStore, context: Any, image: Any, offset: int, length: int | None) -> None:
        self._store, self._context, self._image = store, context, image
        self._at = offset
        size = int(image.size())
        self._end = size if length is None else offset + length
        if self._end > size:
            self.close()
            raise DriverError("The data in the image store is shorter than it should be.")

    def __next__(self) -> bytes:
        wanted = min(CHUNK, self._end - self._at)
        if self._image is None or wanted <= 0:
            self.close()
            raise StopIteration
        with self._store._errors():
            data: bytes = self._image.read(self._at, wanted)
        self._at += len(data)
        return data

    def close(self) -> None:
        if self._image is not None:
            self._image.close()
            self._context.close()
            self._image = None

    def __del__(self) -> None:
        self.close()


def _checked(name: str) -> str:
    """:raises BadRequest: what is no object's name could name a snapshot or another pool's image."""
    if not name or name.startswith(".") or any(character in name for character in "/@\0"):
        raise BadRequest("That is no name of image data.")
    return name


def _is_ours(name: str) -> bool:
    """Objects are named IMAGE.UPLOAD; a pool may be shared with others."""
    base, dot, rest = name.removesuffix(".part").partition(".")
    return bool(dot) and len(base) == 36 and len(rest) == 8
