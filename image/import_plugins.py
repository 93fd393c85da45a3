"""What is done to data on its way into an image, if ``[image_import_opts]image_import_plugins`` says so.

| plug-in | what it does |
|---|---|
| image_decompression | data of container format ``compressed`` (gzip, or a zip of one file) is unpacked; the container is ``bare`` then |
| image_conversion | a disk becomes ``[image_conversion]output_format``; what is no disk (iso, aki, …) stays |
| inject_image_metadata | properties are added, unless the asker has a role of ``ignore_user_roles`` (done by the API) |

The data are untrusted: what is unpacked may not become larger than an image may be, qemu-img gets content only
that was inspected and names no other file, and it runs with limits (``core.qemu_img``). They lie in files below
``state_path`` meanwhile, which go with the block.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import IO

from oslo_config import cfg

from core import qemu_img
from core.errors import BadRequest, TooLarge

GROUP, CONVERSION_GROUP, INJECTION_GROUP = (
    "image_import_opts",
    "image_conversion",
    "inject_metadata_properties",
)
OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "image_import_plugins",
        default=[],
        item_type=cfg.types.String(
            choices=["no_op", "image_decompression", "image_conversion", "inject_image_metadata"]
        ),
        help="What is done to images that are imported: image_decompression, image_conversion, "
        "inject_image_metadata. Decompression comes first, wherever it stands.",
    )
]
CONVERSION_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "output_format", default="raw", choices=["raw", "qcow2", "vmdk"], help="What disks are converted to."
    )
]
INJECTION_OPTS: list[cfg.Opt] = [
    cfg.ListOpt("ignore_user_roles", default=["admin"], help="Nothing is added to images of these roles."),
    cfg.DictOpt("inject", default={}, help="Properties that images get: name:value, …."),
]
_CHUNK = 1 << 20
_LOCK = "lock"
"""Held while a folder is in use: a killed worker holds nothing."""
_UNLOCKED_S = 3600
_DISKS = ("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi")
Formats = dict[str, str]
Keep = Callable[[int], None]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS), (CONVERSION_GROUP, CONVERSION_OPTS), (INJECTION_GROUP, INJECTION_OPTS)]


class Plugins:
    """The configured ones."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        for group, options in list_opts():
            conf.register_opts(options, group=group)
        self._conf = conf

    def _has(self, name: str) -> bool:
        return name in self._conf[GROUP].image_import_plugins

    def injected(self, roles: Collection[str]) -> dict[str, str]:
        """Properties for an image that somebody with these roles imports."""
        options = self._conf[INJECTION_GROUP]
        if not self._has("inject_image_metadata") or set(roles) & set(options.ignore_user_roles):
            return {}
        return dict(options.inject)

    def formats(self, disk_format: str, container_format: str) -> Formats:
        """What of an image's formats changes: {"disk_format":, "container_format":}, or less."""
        changes: Formats = {}
        if container_format == "compressed" and self._has("image_decompression"):
            changes["container_format"] = container_format = "bare"
        wanted = str(self._conf[CONVERSION_GROUP].output_format)
        convertible = disk_format in _DISKS and disk_format != wanted and container_format == "bare"
        if convertible and self._has("image_conversion"):
            changes["disk_format"] = wanted
        return changes

    @contextlib.contextmanager
    def applied(
        self, chunks: Iterable[bytes], disk_format: str, changes: Formats, limit: int, keep: Keep
    ) -> Iterator[Iterator[bytes]]:
        """The data as it is to be stored. ``changes``: of ``formats``; ``limit``: bytes; ``keep``: called meanwhile.

        :raises BadRequest: the data is not what it should be. :raises TooLarge: it would be more than ``limit``.
        :raises DriverError: qemu-img failed.
        """
        if not changes:
            yield iter(chunks)
            return
        root = self._root()
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=root) as folder, (Path(folder) / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = Path(folder) / "received"
            _save(chunks, path, limit, keep)
            if "container_format" in changes:
                path = _unpack(path, Path(folder) / "unpacked", limit, keep)
            if "disk_format" in changes:
                path = self._convert(path, Path(folder) / "converted", disk_format, changes, limit, keep)
            with path.open("rb") as file:
                yield iter(lambda: file.read(_CHUNK), b"")

    def _root(self) -> Path:
        return Path(self._conf.state_path) / "image-import"

    def sweep(self) -> int:
        """Remove what killed workers of this host left; returns how many folders went."""
        gone = 0
        for folder in self._root().glob("*"):
            try:
                with (folder / _LOCK).open("r") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
                    gone += 1
            except BlockingIOError:
                continue  # somebody works there
            except FileNotFoundError:
                # just made, or just going; or its maker died between two calls
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - folder.stat().st_mtime > _UNLOCKED_S:
                        shutil.rmtree(folder, ignore_errors=True)
                        gone += 1
        return gone

    def _convert(
        self, source: Path, target: Path, disk_format: str, changes: Formats, limit: int, keep: Keep
    ) -> Path:
        kind = qemu_img.check_content(source, disk_format)
        if (size := int(qemu_img.info(self._conf, source, kind)["virtual-size"])) > limit:
            raise TooLarge(f"The image's disk is too large: {size} bytes, {limit} are allowed.")
        wanted = qemu_img.qemu_name(changes["disk_format"])
        qemu_img.qemu_img(
            self._conf,
            *("convert", "-q", "-f", kind, "-O", wanted, str(source), str(target)),
            watch=lambda: keep(0),
        )
        source.unlink()
        return target


def _save(chunks: Iterable[bytes], path: Path, limit: int, keep: Keep) -> None:
    """:raises TooLarge: more than ``limit`` bytes."""
    size = 0
    with path.open("wb") as file:
        for chunk in chunks:
            if (size := size + len(chunk)) > limit:
                raise TooLarge(f"The image is too large: {limit} bytes are allowed.")
            file.write(chunk)
            keep(size)


def _unpack(source: Path, target: Path, limit: int, keep: Keep) -> Path:
    try:
        with _opened(source) as file:
            _save(iter(lambda: file.read(_CHUNK), b""), target, limit, keep)
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise BadRequest("The compressed data is damaged.", cause=error) from error
    source.unlink()
    return target


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """The one file in it. :raises BadRequest: neither gzip nor a zip of one file."""
    with source.open("rb") as file:
        head = file.read(4)
    if head.startswith(b"\x1f\x8b"):
        with gzip.open(source, "rb") as found:
            yield found
    elif head == b"PK\x03\x04":
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            if len(members) != 1 or members[0].is_dir() or members[0].flag_bits & 1:
                raise BadRequest("A zip must hold exactly one file that is not encrypted.")
            with archive.open(members[0]) as found:
                yield found
    else:
        raise BadRequest("The data is not compressed with gzip or zip.")
