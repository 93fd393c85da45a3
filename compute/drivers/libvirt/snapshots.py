"""Copies of a guest's root disk, for images that are made of servers.

Of a guest that runs QEMU copies the whole disk, with what stands below it, while writes go on;
once both are the same the copy is cut off, and is the disk as it was at that moment.  Of a
guest that is off qemu-img copies the file.  Either way the copy refers to no other file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
from lxml import etree
from oslo_config import cfg

from compute.drivers.libvirt.disks import Disk
from core.errors import DriverError
from core.qemu_img import qemu_img

_LOOK_S = 0.1


def copy_live(domain: Any, root: Path, target: Path, check: Callable[[], None]) -> None:
    """``target`` becomes a copy of the running guest's disk ``root``.

    :raises DriverError: the hypervisor gave up. Whatever ``check`` raises ends the copy, too.
    """
    device = _device(domain, "disk/source", root)
    disk = etree.Element("disk", type="file")
    etree.SubElement(disk, "source", file=str(target))
    etree.SubElement(disk, "driver", type="qcow2")
    flags = libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    domain.blockCopy(device, etree.tostring(disk, encoding="unicode"), flags=flags)
    try:
        while not _is_ready(domain, device):
            check()
            time.sleep(_LOOK_S)
        # what the guest has handed over is on the disk by now; its own caches are its own
        domain.blockJobAbort(device)
    except BaseException:
        abort(domain, target)
        raise


def _is_ready(domain: Any, device: str) -> bool:
    """Are the disk and its copy the same now? :raises DriverError: the job is gone."""
    root = etree.fromstring(domain.XMLDesc(0).encode())
    for disk in root.iterfind("devices/disk"):
        target, mirror = disk.find("target"), disk.find("mirror")
        if target is not None and target.get("dev") == device:
            if mirror is None:
                raise DriverError("the hypervisor gave up copying the disk: is the host's disk full?")
            return mirror.get("ready") == "yes"
    raise DriverError("the guest has lost its disk")


def copy_stopped(conf: cfg.ConfigOpts, disk: Disk, target: Path) -> None:
    """``target`` becomes a copy of the disk of a guest that is off."""
    qemu_img(conf, "convert", "-f", disk.format, "-O", "qcow2", str(disk.path), str(target))


def abort(domain: Any, target: Path) -> None:
    """End a copy to ``target`` that a process left which is gone; content when there is none."""
    try:
        device = _device(domain, "disk/mirror/source", target)
        domain.blockJobAbort(device)
    except (DriverError, libvirt.libvirtError):
        return  # there is no such job, or the guest has ended and the job with it


def _device(domain: Any, path: str, file: Path) -> str:
    """The name (vda) of the disk which has ``file`` at ``path`` of its description."""
    kind, _, rest = path.partition("/")
    root = etree.fromstring(domain.XMLDesc(0).encode())
    for disk in root.iterfind(f"devices/{kind}"):
        source, target = disk.find(rest), disk.find("target")
        if source is not None and target is not None and source.get("file") == str(file):
            return str(target.get("dev"))
    raise DriverError(f"the guest has no disk {file.name}")
