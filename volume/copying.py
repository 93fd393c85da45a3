"""Copies of whole volumes, by QEMU's tools: between what drivers give (``VolumeDriver.disk``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from oslo_config import cfg

from core import qemu_img
from core.files import to_disk
from volume.drivers.base import Disk


def copy(
    conf: cfg.ConfigOpts, source: Disk, target: Disk, size_bytes: int, watch: Callable[[], None]
) -> None:
    """The first ``size_bytes`` of the source onto the target, on the disk when this returns, and compared.

    The target may be larger by what its backend has rounded up; what lies behind stays as it was.
    ``watch`` is called now and then; what it raises ends the copy.

    :raises DriverError: it could not be copied, or the copy differs.
    """
    # others may have the source open meanwhile: whether the copy counts then is the caller's to judge
    read = {**source, "force-share": "on"}
    written = dict(target)
    if source["driver"] == "raw":
        read["size"] = str(size_bytes)
    if target["driver"] == "raw":
        written["size"] = str(size_bytes)
    arguments = [qemu_img.image_options(read), qemu_img.image_options(written)]
    qemu_img.qemu_img(
        conf, "convert", "-q", "-n", "-W", "-t", "writeback", "--image-opts", "--target-image-opts", *arguments,
        watch=watch,
    )  # fmt: skip
    name = target.get("file.filename")
    if name is not None and Path(name).exists():
        to_disk(Path(name))  # qemu-img says nothing of a flush that fails when it closes
    qemu_img.qemu_img(conf, "compare", "-q", "--image-opts", *arguments, watch=watch)
