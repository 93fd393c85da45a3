"""Images on the host: a cache of bases, each fetched once, verified and inspected before use.

An image is untrusted input: its content must be what its disk_format says, and
may refer to no other file.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

from oslo_concurrency import lockutils
from oslo_config import cfg
from oslo_log import log

from compute.drivers.base import GuestImage, ImageFetcher
from core.errors import BadRequest, DriverError, Rebuildable
from core.qemu_img import check_content, qemu_img

LOG = log.getLogger(__name__)
_KEPT = ("raw", "qcow2")
_BOOTABLE = (*_KEPT, "vmdk", "vdi", "vhd", "vhdx", "gpt")


class ImageCache:
    """Bases in ``folder``, named by image and content; safe for threads and processes."""

    def __init__(self, conf: cfg.ConfigOpts, folder: Path) -> None:
        self._conf = conf
        self._folder = folder

    def base(self, image: GuestImage) -> tuple[Path, str]:
        """(path, format) of a cached image. :raises DriverError: it is not there."""
        for fmt in _KEPT:
            path = self._path(image, fmt)
            if path.exists():
                return path, fmt
        raise DriverError(f"image {image.id} is not in this host's cache")

    def _path(self, image: GuestImage, fmt: str) -> Path:
        version = (image.os_hash_value or image.checksum or "unversioned")[:16]
        return self._folder / f"{image.id}-{version}.{fmt}"

    def ensure(self, image: GuestImage, fetch: ImageFetcher) -> None:
        """Fetch, verify and inspect the image unless it is there; concurrent calls fetch once."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with lockutils.lock(f"image-{image.id}", external=True, lock_path=str(self._folder / "locks")):
            try:
                path, _ = self.base(image)
            except DriverError:
                self._fetch(image, fetch)
            else:
                os.utime(path)

    def _fetch(self, image: GuestImage, fetch: ImageFetcher) -> None:
        if image.disk_format not in _BOOTABLE:
            raise BadRequest(f"Images of disk_format {image.disk_format} can't be booted on this host.")
        started = time.monotonic()
        part = self._folder / f"{image.id}.part"
        try:
            self._download(image, fetch, part)
            fmt = check_content(part, image.disk_format)
            if fmt in _KEPT:
                part.replace(self._path(image, fmt))
            else:
                converted = self._folder / f"{image.id}.converted"
                qemu_img(self._conf, "convert", "-f", fmt, "-O", "qcow2", str(part), str(converted))
                converted.replace(self._path(image, "qcow2"))
        finally:
            part.unlink(missing_ok=True)
        LOG.info("image %s fetched in %.1f s", image.id, time.monotonic() - started)

    @staticmethod
    def _download(image: GuestImage, fetch: ImageFetcher, part: Path) -> None:
        algorithm = image.os_hash_algo if image.os_hash_value else ("md5" if image.checksum else None)
        digest = hashlib.new(algorithm, usedforsecurity=False) if algorithm else None
        try:
            with part.open("wb") as file:
                for block in fetch(image):
                    file.write(block)
                    if digest is not None:
                        digest.update(block)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Rebuildable(
                f"image {image.id} could not be written on this host: {error}", cause=error
            ) from error
        expected = image.os_hash_value or image.checksum
        if digest is not None and digest.hexdigest() != expected:
            raise DriverError(
                f"image {image.id} arrived damaged: its {algorithm} is not the one that was recorded"
            )

    def expire(self, in_use: set[str]) -> list[str]:
        """Remove bases that no disk uses and that were not asked for lately; returns their names."""
        removed = []
        oldest = time.time() - self._conf.libvirt.image_cache_max_age_s
        for path in self._folder.glob("*.*"):
            if path.suffix.lstrip(".") in _KEPT and str(path) not in in_use and path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
                removed.append(path.name)
        return removed


def run_tool(*command: str) -> None:
    """Run a small file system tool. :raises DriverError: with its last words."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PATH": path},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DriverError(f"{command[0]} could not be run: {error}", cause=error) from error
    if result.returncode != 0:
        words = (result.stderr or result.stdout or "it said nothing").strip().splitlines()[-1]
        raise DriverError(f"{command[0]} failed: {words}")
