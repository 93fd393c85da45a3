"""Copies of images beside an API process, so that what a far store gave once is not fetched again.

A folder of this host, shared by its API processes; files say everything, so that there is nothing
to get out of step and a killed process leaves nothing but a part in ``incoming``:

| file | means |
|---|---|
| ``data/ID.HASH`` | the whole data, compared with the image's sha512 (its beginning is HASH); written at mtime |
| ``hits/ID.HASH`` | one byte per use; the last one at mtime |
| ``queue/ID`` | to be fetched; in the order of mtime |
| ``incoming/NAME`` | being written; removed when nobody has written for ``_STALLED_S`` |

Whether somebody may read an image is decided before the cache is asked. An image that was
uploaded anew has another hash, so an older copy is never taken for its data.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from oslo_config import cfg

from core.errors import HaneulError
from core.pools import Periodic
from db.images import Image

LOG = logging.getLogger(__name__)
GROUP = "image_cache"
OPTS: list[cfg.Opt] = [
    cfg.StrOpt("folder", help="Where copies are kept; default: image-cache below state_path."),
    cfg.IntOpt("max_size_mib", default=10240, min=1, help="What all copies of a host may take."),
    cfg.ListOpt(
        "store_kinds",
        default=["rbd", "s3"],
        help="Downloads from stores of these kinds leave a copy. What is queued is fetched from any.",
    ),
    cfg.IntOpt("prefetch_interval", default=60, min=1, help="Seconds between looks at the queue."),
]
_CHUNK = 1 << 20
_STALLED_S = 3600
_NAME = re.compile(r"([0-9a-f-]{36})\.([0-9a-f]{16})")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Fetch = Callable[[str], tuple[Image, Iterator[bytes]]]
"""Image id → the image and its bytes. Raises NotFound if there is none (any more)."""


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class ImageCache:
    """The copies of this host. Methods may be called from several threads and processes."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._options = conf[GROUP]
        root = Path(self._options.folder or Path(conf.state_path) / "image-cache")
        self._data, self._hits = root / "data", root / "hits"
        self._queue, self._incoming = root / "queue", root / "incoming"

    # -- reading -----------------------------------------------------------------

    def read(self, image: Image, offset: int = 0, length: int | None = None) -> Iterator[bytes] | None:
        """The bytes of an image from its copy, opened at once; None if there is none."""
        name = _name(image)
        if name is None:
            return None
        try:
            file = (self._data / name).open("rb")
        except FileNotFoundError:
            return None
        if os.fstat(file.fileno()).st_size != image["size"]:  # nobody of ours wrote that
            file.close()
            LOG.warning("the copy of image %s has the wrong size", image["id"])
            (self._data / name).unlink(missing_ok=True)
            return None
        self._count(name)
        return _part(file, offset, length)

    def _count(self, name: str) -> None:
        self._hits.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(OSError), (self._hits / name).open("ab") as file:
            file.write(b".")  # appending is atomic between processes

    # -- writing -----------------------------------------------------------------

    def kept(self, image: Image, kind: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks of a whole download; when the last has passed there is a copy, if one is to be."""
        name = _name(image)
        if name is None or kind not in self._options.store_kinds or image["size"] > self._room():
            return chunks
        return self._copying(image, name, chunks)

    def _copying(self, image: Image, name: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """What goes wrong with the copy is no trouble of whoever downloads."""
        self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._data.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._incoming / f"{name}.{uuid.uuid4().hex}"
        digest, failed = hashlib.sha512(), False
        try:
            with path.open("wb") as file:
                for chunk in chunks:
                    if not failed:
                        try:
                            file.write(chunk)
                            digest.update(chunk)
                        except OSError as error:
                            LOG.warning("image %s is not cached: %s", image["id"], error)
                            failed = True
                    yield chunk
            if failed:
                return
            if digest.hexdigest() != image["os_hash_value"]:
                LOG.error("what the store gave of image %s is not what was uploaded", image["id"])
                return
            path.rename(self._data / name)
            self._count_none(name)
            self.prune()
        finally:
            path.unlink(missing_ok=True)
            if (close := getattr(chunks, "close", None)) is not None:
                close()

    def _count_none(self, name: str) -> None:
        self._hits.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._hits / name).touch()

    def _room(self) -> int:
        return int(self._options.max_size_mib) << 20

    # -- the queue ---------------------------------------------------------------

    def enqueue(self, image: Image) -> bool:
        """False: there is a copy already."""
        name = _name(image)
        if name is not None and (self._data / name).exists():
            return False
        self._queue.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._queue / image["id"]).touch(exist_ok=True)
        return True

    def queued(self) -> list[str]:
        """Ids of images that are to be fetched, in this order."""
        found = [(moment, path.name) for path, moment, _ in _files(self._queue) if _ID.fullmatch(path.name)]
        return [name for _, name in sorted(found)]

    def prefetch(self, fetch: Fetch) -> None:
        """Fetch what is queued. One image that can't be had leaves the queue, and the others go on."""
        for image_id in self.queued():
            try:
                image, chunks = fetch(image_id)
                if (name := _name(image)) is None or image["size"] > self._room():
                    LOG.warning("image %s does not fit into the cache", image_id)
                else:
                    for _ in self._copying(image, name, chunks):
                        pass
            except (HaneulError, OSError) as error:
                LOG.warning("image %s is not cached: %s", image_id, error)
            (self._queue / image_id).unlink(missing_ok=True)

    # -- looking and clearing ----------------------------------------------------

    def cached(self) -> list[dict[str, Any]]:
        """{"image_id", "size": bytes, "hits", "last_accessed", "last_modified": seconds since 1970}."""
        found = []
        for path, modified, size in _files(self._data):
            if (match := _NAME.fullmatch(path.name)) is None:
                continue
            hits, accessed = 0, modified
            with contextlib.suppress(FileNotFoundError):
                used = (self._hits / path.name).stat()
                hits, accessed = used.st_size, used.st_mtime
            found.append(
                {
                    "image_id": match[1],
                    "size": size,
                    "hits": hits,
                    "last_accessed": accessed,
                    "last_modified": modified,
                }
            )
        return sorted(found, key=lambda each: str(each["image_id"]))

    def delete(self, image_id: str) -> bool:
        """Neither a copy nor a wish of it is left; False: there was none."""
        copies = [path for path, _, _ in _files(self._data) if path.name.startswith(f"{image_id}.")]
        for path in copies:
            self._drop(path.name)
        wish = self._queue / image_id
        was_queued = wish.exists()
        wish.unlink(missing_ok=True)
        return bool(copies) or was_queued

    def clear_copies(self) -> int:
        found = [path.name for path, _, _ in _files(self._data)]
        for name in found:
            self._drop(name)
        return len(found)

    def clear_queue(self) -> int:
        found = self.queued()
        for image_id in found:
            (self._queue / image_id).unlink(missing_ok=True)
        return len(found)

    def prune(self) -> int:
        """The copies that nobody used for the longest time go, until all fit. Returns how many went."""
        found = []
        for path, modified, size in _files(self._data):
            with contextlib.suppress(FileNotFoundError):
                modified = max(modified, (self._hits / path.name).stat().st_mtime)
            found.append((modified, path.name, size))
        total, gone = sum(size for _, _, size in found), 0
        for _, name, size in sorted(found):
            if total <= self._room():
                break
            self._drop(name)
            total, gone = total - size, gone + 1
        return gone

    def clean(self) -> None:
        """What killed processes left goes."""
        for path, modified, _ in _files(self._incoming):
            if time.time() - modified > _STALLED_S:
                path.unlink(missing_ok=True)

    def _drop(self, name: str) -> None:
        # a download that reads it goes on: the file has no name any more, but is there until it is closed
        (self._data / name).unlink(missing_ok=True)
        (self._hits / name).unlink(missing_ok=True)


class Prefetcher:
    """A thread that fetches what is queued; ``ring`` when something was."""

    def __init__(self, conf: cfg.ConfigOpts, cache: ImageCache, fetch: Fetch) -> None:
        self._cache, self._fetch = cache, fetch
        self._periodic = Periodic("image-prefetch", conf[GROUP].prefetch_interval, self._round)
        self.ring = self._periodic.ring
        self.start = self._periodic.start
        self.stop = self._periodic.stop

    def _round(self) -> None:
        self._cache.clean()
        self._cache.prefetch(self._fetch)
        self._cache.prune()


def _name(image: Image) -> str | None:
    """The name of the copy; None if nobody knows what the data should be."""
    value = str(image["os_hash_value"] or "")
    if image["os_hash_algo"] != "sha512" or not value or image["size"] is None:
        return None
    return f"{image['id']}.{value[:16]}"


def _files(folder: Path) -> Iterator[tuple[Path, float, int]]:
    """(path, mtime, size) of each; other processes may take some away meanwhile."""
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            yield path, found.st_mtime, found.st_size


def _part(file: Any, offset: int, length: int | None) -> Iterator[bytes]:
    with file:
        file.seek(offset)
        while length is None or length > 0:
            chunk = file.read(_CHUNK if length is None else min(_CHUNK, length))
            if not chunk:
                return
            if length is not None:
                length -= len(chunk)
            yield chunk
