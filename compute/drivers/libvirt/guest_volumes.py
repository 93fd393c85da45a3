"""Volumes of a guest that exists: plugged in, pulled out, grown, exchanged, in what is defined and, while it runs, live.

Which volume a disk is says what QEMU has open (``claims``, the host's records), and only then the serial number:
after a swap the guest still sees the old one's number on the disk, until it starts anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import libvirt
from lxml import etree

from compute.drivers.libvirt import domains
from compute.drivers.libvirt.disk_xml import DiskDevice, Names, Source, scsi_controller
from core.errors import Conflict, DriverError

LOG = logging.getLogger(__name__)
Claims = Mapping[str, str]
_ROUNDS_S = 0.2


def attach(
    domain: Any,
    volume_id: str,
    claims: Claims,
    make: Callable[[Names], DiskDevice],
    properties: Mapping[str, Any],
) -> None:
    """``make`` gets the names that are taken. Content when the guest has the volume already."""
    names = Names(_targets(domain, live=True) | _targets(domain, live=False))
    device: DiskDevice | None = None
    live = disk_of(domain, volume_id, claims, live=True) if domain.isActive() else None
    if domain.isActive() and live is None:
        device = make(names)
        _have_controller(domain, device, properties, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        domain.attachDeviceFlags(domains.text(device.element()), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    if disk_of(domain, volume_id, claims, live=False) is None:
        device = device or make(names)
        _have_controller(domain, device, properties, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        domain.attachDeviceFlags(domains.text(device.element()), libvirt.VIR_DOMAIN_AFFECT_CONFIG)


def _have_controller(domain: Any, device: DiskDevice, properties: Mapping[str, Any], flags: int) -> None:
    """libvirt would add one of a kind that few guests have a driver for."""
    live = flags == libvirt.VIR_DOMAIN_AFFECT_LIVE
    if (
        device.bus == "scsi"
        and domains.tree(domain, live=live).find("devices/controller[@type='scsi']") is None
    ):
        domain.attachDeviceFlags(domains.text(scsi_controller(properties)), flags)


def detach(domain: Any, volume_id: str, claims: Claims, *, attempts: int, wait_s: float) -> None:
    """Content when the guest has none such.

    The definition follows the guest: while it does not let go the volume is attached, as the API says.
    :raises DriverError: it does not let go.
    """

    def gone() -> bool:
        return not domain.isActive() or disk_of(domain, volume_id, claims, live=True) is None

    for _ in range(attempts):
        element = disk_of(domain, volume_id, claims, live=True) if domain.isActive() else None
        if element is None:
            break
        if element.find("mirror") is not None:
            domain.blockJobAbort(_target(element))  # a copy that nobody waits for any more
        try:
            domain.detachDeviceFlags(domains.text(element), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            # the guest was asked before and has not answered yet, or answered just now
            LOG.info("pulling out volume %s: %s", volume_id, error)
        if domains.wait(gone, wait_s):
            break
    if not gone():
        raise DriverError(
            f"the guest does not let go of volume {volume_id}: unmount it there, and see that the guest runs"
        )
    element = disk_of(domain, volume_id, claims, live=False)
    if element is not None:
        domain.detachDeviceFlags(domains.text(element), libvirt.VIR_DOMAIN_AFFECT_CONFIG)


def resize(domain: Any, volume_id: str, claims: Claims, size_bytes: int) -> None:
    """The running guest sees the disk in its new size at once. :raises DriverError: it has no such volume."""
    element = disk_of(domain, volume_id, claims, live=True)
    if element is None:
        raise DriverError(f"the guest has no volume {volume_id}")
    domain.blockResize(_target(element), size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


def swap(
    domain: Any, old_id: str, new_id: str, claims: Claims, new: DiskDevice, check: Callable[[], None]
) -> None:
    """QEMU copies while the guest goes on writing to both, and leaves the old one when they are the same.

    Both must be of one size.
    :raises DriverError: QEMU gave up. Whatever goes wrong before the change leaves the old volume in place.
    """
    disk = disk_of(domain, old_id, claims, live=True)
    if disk is not None:
        _copy(domain, disk, new, check)
        return
    disk = disk_of(domain, new_id, claims, live=True)
    if disk is None:
        raise DriverError(f"the guest has no volume {old_id}")
    if disk.find("mirror") is not None:
        domain.blockJobAbort(_target(disk))  # the way back of a swap whose process has died


def _copy(domain: Any, disk: Any, new: DiskDevice, check: Callable[[], None]) -> None:
    target = _target(disk)
    mirror = disk.find("mirror")
    if mirror is not None and _opened(mirror) != new.source.name:
        domain.blockJobAbort(target)  # what another attempt left
        mirror = None
    if mirror is None:
        copy = etree.Element("disk")
        new.source.add_to(copy)
        etree.SubElement(copy, "driver", type=new.source.format)
        flags = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
        domain.blockCopy(target, domains.text(copy), flags=flags)
    try:
        while not _is_ready(domain, target):
            check()
            time.sleep(_ROUNDS_S)
        check()
        domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    except BaseException:
        try:
            domain.blockJobAbort(target)
        except libvirt.libvirtError as error:
            LOG.info("the copy to %s is over: %s", new.source.name, error)
        raise


def copy_out(
    domain: Any,
    volume_id: str,
    claims: Claims,
    target: Source,
    check: Callable[[], None],
    still: Callable[[], AbstractContextManager[None]],
) -> None:
    """QEMU copies to ``target`` while the guest goes on writing to the volume; cut off, it is the volume at that moment.

    ``still`` holds the guest's file systems for that moment. The guest never leaves its own file.
    :raises DriverError: QEMU gave up, or the guest has no such volume.
    """
    disk = disk_of(domain, volume_id, claims, live=True)
    if disk is None:
        raise DriverError(f"the guest has no volume {volume_id}")
    device = _target(disk)
    if disk.find("mirror") is not None:
        domain.blockJobAbort(device)  # what a process that died has left
    copy = etree.Element("disk")
    target.add_to(copy)
    etree.SubElement(copy, "driver", type=target.format)
    flags = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    domain.blockCopy(device, domains.text(copy), flags=flags)
    try:
        while not _is_ready(domain, device):
            check()
            time.sleep(_ROUNDS_S)
        check()
        with still():
            # it ends when both are the same, which they are soon: the guest is still, or writes to both
            domain.blockJobAbort(device)
    except BaseException:
        try:
            domain.blockJobAbort(device)
        except libvirt.libvirtError as error:
            LOG.info("the copy to %s is over: %s", target.name, error)
        raise


def _is_ready(domain: Any, target: str) -> bool:
    disk = domains.tree(domain, live=True).find(f"devices/disk/target[@dev='{target}']/..")
    mirror = disk.find("mirror") if disk is not None else None
    if mirror is None:
        raise DriverError("the hypervisor gave up copying the volume")
    return mirror.get("ready") == "yes"


def define_anew(domain: Any, old_id: str, new_id: str, claims: Claims, new: DiskDevice) -> None:
    """After a swap: the definition names the new volume, with its own number.

    After the change libvirt's definition shows the new source with the old number: it is the new one by ``claims``.
    """
    for volume_id in (old_id, new_id):
        element = disk_of(domain, volume_id, claims, live=False)
        if element is not None:
            domain.detachDeviceFlags(domains.text(element), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    domain.attachDeviceFlags(domains.text(new.element()), libvirt.VIR_DOMAIN_AFFECT_CONFIG)


def size_of(domain: Any, volume_id: str, claims: Claims) -> int | None:
    """The bytes of the volume as the running guest sees it; None: it has none such."""
    element = disk_of(domain, volume_id, claims, live=True)
    return None if element is None else int(domain.blockInfo(_target(element))[0])


def target_of(domain: Any, volume_id: str, claims: Claims) -> str | None:
    """vdb: the name of the volume's disk in the running guest."""
    element = disk_of(domain, volume_id, claims, live=True)
    return None if element is None else _target(element)


def disk_of(domain: Any, volume_id: str, claims: Claims, *, live: bool) -> Any:
    """The volume's <disk>, None when there is none."""
    for element in domains.tree(domain, live=live).findall("devices/disk"):
        if claims.get(_opened(element)) == volume_id:
            return element
        if _opened(element) not in claims and element.findtext("serial") == volume_id:
            return element
    return None


def is_open(domain: Any, name: str) -> bool:
    """Has the running guest this file, device or image open, or does QEMU copy to it?"""
    disks = domains.tree(domain, live=True).findall("devices/disk")
    ends = [*disks, *(mirror for disk in disks for mirror in disk.findall("mirror"))]
    return any(_opened(end) == name for end in ends)


def freeze(domain: Any) -> None:
    """:raises Conflict: nobody answers in the guest."""
    try:
        domain.fsFreeze()
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_OPERATION_INVALID):
            raise Conflict(
                "The guest's file systems can't be held still: it does not run, or no guest agent answers in it.",
                cause=error,
            ) from error
        raise


def thaw(domain: Any) -> None:
    """Content when the guest does not run any more: it holds nothing still then."""
    if domain.isActive():
        domain.fsThaw()


def _opened(element: Any) -> str:
    source = element.find("source")
    if source is None:
        return ""
    return str(source.get("file") or source.get("dev") or source.get("name") or "")


def _targets(domain: Any, *, live: bool) -> set[str]:
    return {
        str(element.get("dev")) for element in domains.tree(domain, live=live).findall("devices/disk/target")
    }


def _target(element: Any) -> str:
    return str(element.find("target").get("dev"))
