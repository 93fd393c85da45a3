"""Volumes in a Ceph cluster, as RBD images.

Snapshots and clones are Ceph's own, copy on write: constant time. Clones are of format 2, so a snapshot may be
deleted while volumes that were made from it live: Ceph keeps its data until the last of them goes. An image
whose data is still needed in this way goes to Ceph's trash, and from there when nobody needs it (``sweep``).

Hypervisors open the images themselves (librbd in QEMU): nothing is exported.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote

from oslo_config import cfg

from core import qemu_img
from core.ceph import binding
from core.errors import BadRequest, Conflict, DriverError
from volume.drivers.backends import BACKEND_OPTS
from volume.drivers.base import Disk, Location, Pool, Progress, Snapshot, Volume, VolumeDriver

OPTS: list[cfg.Opt] = [
    cfg.StrOpt("rbd_pool", default="volumes", help="driver=rbd: the pool of the volumes."),
    cfg.StrOpt("rbd_user", default="cinder", help="driver=rbd: the cephx user, without 'client.'."),
    cfg.StrOpt("rbd_ceph_conf", default="/etc/ceph/ceph.conf", help="driver=rbd: Ceph's configuration."),
    cfg.StrOpt("rbd_cluster_name", default="ceph", help="driver=rbd: name of the cluster."),
    cfg.StrOpt(
        "rbd_secret_uuid", help="driver=rbd: libvirt's secret with the user's key, on every hypervisor."
    ),
    cfg.IntOpt(
        "rbd_max_clone_depth",
        default=5,
        min=0,
        help="driver=rbd: a clone that would stand on more images than this is made whole; 0: always.",
    ),
    cfg.IntOpt(
        "rados_connect_timeout", default=10, min=1, help="driver=rbd: seconds to wait for the cluster."
    ),
]
_GIB = 1 << 30
_CLONE = "clone-"
_OWN_SNAPSHOTS = ("snapshot-", _CLONE)
"""what names of snapshots begin with that this driver makes"""


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For the sample configuration: the group is the backend's."""
    return [("files", OPTS)]


class RbdDriver(VolumeDriver):
    """See the module."""

    protocol = "ceph"

    def __init__(self, conf: cfg.ConfigOpts, group: str) -> None:
        conf.register_opts([*BACKEND_OPTS, *OPTS], group=group)
        self._conf = conf
        self._options = conf[group]
        self._cluster: Any = None
        self._lock = threading.Lock()

    def start(self) -> None:
        self._rados, self._rbd = binding("rados"), binding("rbd")
        with self._pool():
            pass
        self.sweep()

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.shutdown()
            self._cluster = None

    # -- the cluster -----------------------------------------------------------------

    def _connected(self) -> Any:
        with self._lock:
            if self._cluster is None:
                try:
                    cluster = self._rados.Rados(
                        conffile=self._options.rbd_ceph_conf, rados_id=self._options.rbd_user
                    )
                    cluster.conf_set("rbd_default_clone_format", "2")
                    # connect()'s own limit does not hold when no monitor answers
                    cluster.conf_set("client_mount_timeout", str(self._options.rados_connect_timeout))
                    cluster.connect(timeout=self._options.rados_connect_timeout)
                except self._rados.Error as error:
                    raise DriverError(f"the Ceph cluster does not answer: {error}", cause=error) from error
                self._cluster = cluster
            return self._cluster

    @contextlib.contextmanager
    def _pool(self) -> Iterator[Any]:
        """An I/O context of the pool; Ceph's refusals as DriverError."""
        name = self._options.rbd_pool
        cluster = self._connected()
        try:
            context = cluster.open_ioctx(name)
        except self._rados.ObjectNotFound as error:
            raise DriverError(f"the Ceph cluster has no pool {name!r}", cause=error) from error
        try:
            yield context
        except (self._rbd.Error, self._rados.Error) as error:
            raise DriverError(f"Ceph refused: {error}", cause=error) from error
        finally:
            context.close()

    @contextlib.contextmanager
    def _image(self, name: str, snapshot: str | None = None, read_only: bool = False) -> Iterator[Any]:
        with self._pool() as pool:
            try:
                image = self._rbd.Image(pool, name, snapshot=snapshot, read_only=read_only)
            except self._rbd.ImageNotFound as error:
                raise DriverError(f"the data of {snapshot or name} is gone", cause=error) from error
            with image:
                yield image

    def _ask(self, **command: Any) -> Any:
        code, output, message = self._connected().mon_command(json.dumps({**command, "format": "json"}), b"")
        if code != 0:
            raise DriverError(f"Ceph refused {command['prefix']}: {message}")
        return json.loads(output)

    def pools(self) -> list[Pool]:
        name = self._options.rbd_pool
        stats = next(each["stats"] for each in self._ask(prefix="df")["pools"] if each["name"] == name)
        free = stats["max_avail"] / _GIB
        return [
            Pool(
                name=name,
                total_gib=round(free + stats.get("stored", stats["bytes_used"]) / _GIB, 2),
                free_gib=round(free, 2),
                thin=True,
                max_over_subscription_ratio=self._options.max_over_subscription_ratio,
                reserved_percentage=self._options.reserved_percentage,
                capabilities={"storage_protocol": self.protocol, "vendor_name": self.vendor},
            )
        ]

    # -- volumes ---------------------------------------------------------------------

    def exists(self, volume: Volume) -> bool:
        with self._pool() as pool:
            try:
                self._rbd.Image(pool, volume.name, read_only=True).close()
            except self._rbd.ImageNotFound:
                return False
            return True

    def _location(self, volume: Volume) -> Location:
        return {"pool": self._options.rbd_pool, "image": volume.name}

    def create(self, volume: Volume) -> Location:
        with self._pool() as pool, contextlib.suppress(self._rbd.ImageExists):
            self._rbd.RBD().create(pool, volume.name, volume.size_bytes, old_format=False)
        return self._location(volume)

    def _clone(self, pool: Any, source: str, snapshot: str, volume: Volume, source_pool: Any = None) -> None:
        """A copy on write under another name first: whole and of the right size when it gets its own."""
        if self.exists(volume):
            return
        part = f"{volume.name}.part"
        self._discard(pool, part)
        self._rbd.RBD().clone(
            source_pool or pool, source, snapshot, pool, part, features=_features(self._rbd)
        )
        with self._rbd.Image(pool, part) as image:
            if image.size() < volume.size_bytes:
                image.resize(volume.size_bytes)
            if self._depth(image) > self._options.rbd_max_clone_depth:
                image.flatten()
        self._rbd.RBD().rename(pool, part, volume.name)

    def _depth(self, image: Any) -> int:
        """How many images this one stands on."""
        depth, current = 0, image
        opened: list[Any] = []
        try:
            while True:
                try:
                    pool_name, name, snapshot = current.parent_info()
                except self._rbd.ImageNotFound:
                    return depth
                depth += 1
                if depth > self._options.rbd_max_clone_depth:
                    return depth
                context = self._connected().open_ioctx(pool_name)
                opened.append(context)
                try:
                    current = self._rbd.Image(context, name, read_only=True)
                except self._rbd.ImageNotFound:
                    return depth  # in the trash
                opened.append(current)
                del snapshot
        finally:
            for each in reversed(opened):
                each.close()

    def _discard(self, pool: Any, name: str) -> None:
        with contextlib.suppress(self._rbd.ImageNotFound):
            self._rbd.RBD().remove(pool, name)

    def create_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> Location:
        with self._pool() as pool:
            self._clone(pool, snapshot.volume.name, snapshot.name, volume)
        return self._location(volume)

    def clone(self, volume: Volume, source: Volume) -> Location:
        moment = f"{_CLONE}{volume.id}"
        with self._pool() as pool:
            if not self.exists(volume):
                with self._rbd.Image(pool, source.name) as image, contextlib.suppress(self._rbd.ImageExists):
                    image.create_snap(moment)
                self._clone(pool, source.name, moment, volume)
            with self._rbd.Image(pool, source.name) as image, contextlib.suppress(self._rbd.ImageNotFound):
                image.remove_snap(moment)
        return self._location(volume)

    clones_images = True

    def clone_image(self, volume: Volume, locations: list[dict[str, Any]]) -> Location | bool:
        """``rbd://FSID/POOL/IMAGE/SNAPSHOT`` of this cluster, raw content.

        :raises BadRequest: the image is larger than the volume.
        """
        fsid = self._connected().get_fsid()
        for each in locations:
            url = str(each.get("url", ""))
            parts = [unquote(part) for part in url.removeprefix("rbd://").split("/")]
            if not url.startswith(f"rbd://{fsid}/") or len(parts) != 4:
                continue
            with self._pool() as pool, self._source(*parts[1:]) as source:
                if source is None:
                    continue
                if source.size > volume.size_bytes:
                    raise BadRequest(
                        f"The image of {-(-source.size // _GIB)} GiB is larger than the volume of"
                        f" {volume.size_gib} GiB."
                    )
                self._clone(pool, parts[2], parts[3], volume, source.context)
            return self._location(volume)
        return False

    @contextlib.contextmanager
    def _source(self, pool: str, name: str, snapshot: str) -> Iterator[_Source | None]:
        """An image that may be cloned; None: this user may not, or it is gone: its data has to be copied."""
        try:
            context = self._connected().open_ioctx(pool)
        except self._rados.Error:
            context = None
        if context is None:
            yield None
            return
        try:
            try:
                with self._rbd.Image(context, name, snapshot=snapshot, read_only=True) as image:
                    found = _Source(context, int(image.size()))
            except (self._rbd.Error, self._rados.Error):
                found = None
            yield found
        finally:
            context.close()

    def write_image(self, volume: Volume, path: Path, qemu_format: str, progress: Progress) -> Location:
        if self.exists(volume):
            return self._location(volume)
        size = int(qemu_img.info(self._conf, path, qemu_format)["virtual-size"])
        if size > volume.size_bytes:
            raise BadRequest(
                f"The image's disk of {-(-size // _GIB)} GiB is larger than the volume of {volume.size_gib} GiB."
            )
        part = f"{volume.name}.part"
        with self._pool() as pool:
            self._discard(pool, part)
            self._rbd.RBD().create(pool, part, volume.size_bytes, old_format=False)
            options = self._options
            target = f"rbd:{options.rbd_pool}/{part}:id={options.rbd_user}:conf={options.rbd_ceph_conf}"
            try:
                qemu_img.qemu_img(
                    self._conf, "convert", "-q", "-n", "-W", "-f", qemu_format, "-O", "raw", str(path), target
                )
                progress(size)
            except BaseException:
                self._discard(pool, part)
                raise
            self._rbd.RBD().rename(pool, part, volume.name)
        return self._location(volume)

    def delete(self, volume: Volume) -> None:
        with self._pool() as pool:
            self._discard(pool, f"{volume.name}.part")
            try:
                with self._rbd.Image(pool, volume.name) as image:
                    own = [each["name"] for each in self._snapshots_of(image)]
                    if any(not name.startswith(_CLONE) for name in own):
                        # known here, let go of, or an administrator's
                        raise Conflict("The volume has snapshots.")
                    for name in own:
                        image.remove_snap(name)  # what an interrupted clone left
            except self._rbd.ImageNotFound:
                return
            try:
                self._rbd.RBD().remove(pool, volume.name)
            except self._rbd.ImageBusy as error:
                raise Conflict("The volume is open on a host.", cause=error) from error
            except self._rbd.ImageHasSnapshots:
                # volumes stand on it: out of sight, and gone when they are
                self._rbd.RBD().trash_move(pool, volume.name, 0)

    def sweep(self) -> list[str]:
        """Remove from the trash what nobody stands on any more; the names."""
        removed = []
        with self._pool() as pool:
            for each in list(self._rbd.RBD().trash_list(pool)):
                if each["name"].startswith("volume-"):
                    with contextlib.suppress(self._rbd.Error):
                        self._rbd.RBD().trash_remove(pool, each["id"])
                        removed.append(each["name"])
        return removed

    def extend(self, volume: Volume, size_gib: int) -> None:
        with self._image(volume.name) as image:
            if image.size() < volume.bytes_of(size_gib):
                image.resize(volume.bytes_of(size_gib))

    # -- snapshots -------------------------------------------------------------------

    def create_snapshot(self, snapshot: Snapshot) -> Location:
        with self._image(snapshot.volume.name) as image, contextlib.suppress(self._rbd.ImageExists):
            image.create_snap(snapshot.name)
        return {"image": snapshot.volume.name, "snapshot": snapshot.name}

    def _snapshots_of(self, image: Any) -> list[dict[str, Any]]:
        """Those that have names; not those that Ceph keeps for clones."""
        user = self._rbd.RBD_SNAP_NAMESPACE_TYPE_USER
        return [each for each in image.list_snaps() if image.snap_get_namespace_type(each["id"]) == user]

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        with (
            self._pool() as pool,
            contextlib.suppress(self._rbd.ImageNotFound),
            self._rbd.Image(pool, snapshot.volume.name) as image,
        ):
            image.remove_snap(snapshot.name)

    def revert(self, volume: Volume, snapshot: Snapshot) -> Location:
        if volume.in_use:
            raise Conflict("A volume can't be reverted while it is attached.")
        with self._image(volume.name) as image:
            image.rollback_to_snap(snapshot.name)
            if image.size() < volume.size_bytes:
                image.resize(volume.size_bytes)
        return self._location(volume)

    # -- data ------------------------------------------------------------------------

    @contextlib.contextmanager
    def open(self, volume: Volume | Snapshot, write: bool = False) -> Iterator[BinaryIO]:
        """Straight from the cluster."""
        name, moment = (
            (volume.volume.name, volume.name) if isinstance(volume, Snapshot) else (volume.name, None)
        )
        with self._image(name, moment, read_only=not write) as image, io_of(image, write) as file:
            yield file

    @contextlib.contextmanager
    def connect(self, volume: Volume | Snapshot, write: bool = False) -> Iterator[Path]:
        """A sparse copy in a file, since nothing is mapped on the worker's host; written back at the end."""
        with tempfile.NamedTemporaryFile(prefix="haneul-rbd-") as copy:
            with self.open(volume) as file:
                _copy(file, copy)  # type: ignore[arg-type]
            yield Path(copy.name)
            if write:
                copy.seek(0)
                with self.open(volume, write=True) as file:
                    _copy(copy, file, sparse=False)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def node(self, volume: Volume) -> Iterator[dict[str, str]]:
        """QEMU speaks with the cluster itself."""
        options = self._options
        yield {
            "driver": "rbd",
            "pool": options.rbd_pool,
            "image": volume.name,
            "conf": options.rbd_ceph_conf,
            "user": options.rbd_user,
        }

    @contextlib.contextmanager
    def disk(self, volume: Volume, write: bool = False) -> Iterator[Disk]:
        with self.node(volume) as node:
            yield {"driver": "raw", **{f"file.{key}": value for key, value in node.items()}}

    # -- hypervisors -----------------------------------------------------------------

    def initialize_connection(
        self, volume: Volume, connector: Mapping[str, Any], mode: str
    ) -> dict[str, Any]:
        if not self.exists(volume):
            raise DriverError(f"the data of volume {volume.id} is gone")
        hosts, ports = [], []
        for monitor in self._ask(prefix="mon dump")["mons"]:
            for address in monitor["public_addrs"]["addrvec"]:
                if address["type"] == "v1":
                    host, _, port = address["addr"].rpartition(":")
                    hosts.append(host.strip("[]"))
                    ports.append(port)
        return {
            "driver_volume_type": "rbd",
            "data": {
                "name": f"{self._options.rbd_pool}/{volume.name}",
                "hosts": hosts,
                "ports": ports,
                "cluster_name": self._options.rbd_cluster_name,
                "auth_enabled": True,
                "auth_username": self._options.rbd_user,
                "secret_type": "ceph",
                "secret_uuid": self._options.rbd_secret_uuid,
                "volume_id": volume.id,
                "discard": True,
                "access_mode": mode,
            },
        }

    def terminate_connection(self, volume: Volume, connector: Mapping[str, Any] | None) -> None:
        """Nothing is exported."""

    # -- what administrators do ------------------------------------------------------

    def manageable_volumes(self) -> list[dict[str, Any]]:
        found = []
        with self._pool() as pool:
            for name in self._rbd.RBD().list(pool):
                if name.startswith("volume-") or name.endswith(".part"):
                    continue
                with self._rbd.Image(pool, name, read_only=True) as image:
                    size = -(-image.size() // _GIB)
                found.append({"reference": {"source-name": name}, "size": size, "safe_to_manage": True,
                              "reason_not_safe": None})  # fmt: skip
        return found

    def manage(self, volume: Volume, reference: Mapping[str, Any]) -> tuple[Location, int]:
        name = str(reference.get("source-name") or "")
        with self._pool() as pool:
            if not self.exists(volume):
                try:
                    self._rbd.RBD().rename(pool, name, volume.name)
                except self._rbd.ImageNotFound as error:
                    raise BadRequest(f"The pool has no image {name!r} (source-name).", cause=error) from error
            with self._rbd.Image(pool, volume.name, read_only=True) as image:
                return self._location(volume), -(-image.size() // _GIB)

    def unmanage(self, volume: Volume) -> None:
        with self._pool() as pool, contextlib.suppress(self._rbd.ImageNotFound):
            self._rbd.RBD().rename(pool, volume.name, f"unmanaged-{volume.id}")

    def manageable_snapshots(self) -> list[dict[str, Any]]:
        found = []
        with self._pool() as pool:
            for name in self._rbd.RBD().list(pool):
                if not name.startswith("volume-") or name.endswith(".part"):
                    continue
                with self._rbd.Image(pool, name, read_only=True) as image:
                    taken = [
                        each
                        for each in self._snapshots_of(image)
                        if not each["name"].startswith(_OWN_SNAPSHOTS)
                    ]
                for each in taken:
                    found.append({"reference": {"source-name": each["name"]}, "size": -(-each["size"] // _GIB),
                                  "source_reference": {"source-name": name},
                                  "safe_to_manage": True, "reason_not_safe": None})  # fmt: skip
        return found

    def manage_snapshot(self, snapshot: Snapshot, reference: Mapping[str, Any]) -> tuple[Location, int]:
        """A snapshot of the volume's image, by its name."""
        name = str(reference.get("source-name") or "")
        with self._image(snapshot.volume.name) as image:
            sizes = {each["name"]: each["size"] for each in self._snapshots_of(image)}
            if snapshot.name not in sizes:
                if name not in sizes or name.startswith(_OWN_SNAPSHOTS):
                    raise BadRequest(f"The volume's image has no snapshot {name!r} to manage (source-name).")
                image.rename_snap(name, snapshot.name)
                sizes[snapshot.name] = sizes[name]
        location = {"image": snapshot.volume.name, "snapshot": snapshot.name}
        return location, -(-sizes[snapshot.name] // _GIB)

    def unmanage_snapshot(self, snapshot: Snapshot) -> None:
        with self._image(snapshot.volume.name) as image:
            if any(each["name"] == snapshot.name for each in self._snapshots_of(image)):
                image.rename_snap(snapshot.name, f"unmanaged-{snapshot.id}")


class _Source(NamedTuple):
    """An image's pool as an I/O context, and its size in bytes."""

    context: Any
    size: int


def _features(rbd: Any) -> int:
    return int(rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_EXCLUSIVE_LOCK | rbd.RBD_FEATURE_OBJECT_MAP
               | rbd.RBD_FEATURE_FAST_DIFF | rbd.RBD_FEATURE_DEEP_FLATTEN)  # fmt: skip


class _Io(io.RawIOBase):
    """An RBD image as a raw file."""

    def __init__(self, image: Any, write: bool) -> None:
        self._image = image
        self._write = write
        self._at = 0
        self._size = int(image.size())

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return self._write

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        if wanted:
            buffer[:wanted] = self._image.read(self._at, wanted)
            self._at += wanted
        return wanted

    def write(self, data: Any) -> int:
        length = len(data)
        self._image.write(bytes(data), self._at)
        self._at += length
        return length

    def flush(self) -> None:
        if self._write and not self.closed:
            self._image.flush()


def io_of(image: Any, write: bool) -> Any:
    """A buffered file object over an image."""
    raw = _Io(image, write)
    return io.BufferedRandom(raw, 1 << 20) if write else io.BufferedReader(raw, 1 << 20)


def _copy(source: BinaryIO, target: BinaryIO, sparse: bool = True) -> None:
    """All bytes; with ``sparse`` zeros become holes."""
    total = 0
    while data := source.read(1 << 20):
        if sparse and not data.strip(b"\0"):
            target.seek(len(data), 1)
        else:
            target.write(data)
        total += len(data)
    if sparse:
        target.truncate(total)
    target.flush()
