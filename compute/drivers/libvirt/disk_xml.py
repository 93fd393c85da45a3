"""Disks in the domain XML: which bus, which name, which source, how cached.

Whoever calls says which file, device or RBD image and which format: QEMU never guesses a format, since what a
guest wrote could look like another one. The serial number of a volume is its id: guests find it by that
(/dev/disk/by-id), whatever name they gave to the disk.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lxml import etree

from compute import volumes
from core.errors import BadRequest

SCSI_MODELS = ("virtio-scsi", "lsilogic", "auto")
CONFIG_DRIVE_AT = 25  # vdz, out of the way of the names that the API gives to volumes
_LIMITS = frozenset(
    f"{way}_{unit}{what}"
    for way in ("total", "read", "write")
    for unit in ("bytes_sec", "iops_sec")
    for what in ("", "_max", "_max_length")
) | {"size_iops_sec"}
_PER_GIB = re.compile(r"(?P<limit>(?:total|read|write)_(?:bytes|iops)_sec)_per_gb")


@dataclasses.dataclass(frozen=True)
class Source:
    """What QEMU opens."""

    kind: str
    """file, block or rbd"""
    name: str
    """the path, or POOL/IMAGE"""
    format: str = "raw"
    hosts: tuple[tuple[str, str], ...] = ()
    """rbd: (address, port) of the monitors"""
    user: str | None = None
    """rbd: the cephx user; libvirt's secret ``secret`` has its key"""
    secret: str | None = None
    luks_secret: str | None = None
    """libvirt's secret with the passphrase, when the content is encrypted"""
    only_bytes: int | None = None
    """use no more of it than this"""

    def add_to(self, disk: Any) -> None:
        """``type`` and <source> of a <disk>."""
        disk.set("type", {"file": "file", "block": "block", "rbd": "network"}[self.kind])
        if self.kind == "rbd":
            source = _add(disk, "source", protocol="rbd", name=self.name)
            for name, port in self.hosts:
                _add(source, "host", name=name, port=port)
            if self.user:
                auth = _add(source, "auth", username=self.user)
                _add(auth, "secret", type="ceph", uuid=self.secret)
        else:
            source = _add(disk, "source", **{"file" if self.kind == "file" else "dev": self.name})
        if self.only_bytes:
            slices = _add(source, "slices")
            _add(slices, "slice", type="storage", offset=0, size=self.only_bytes)
        if self.luks_secret:
            encryption = _add(source, "encryption", format="luks")
            _add(encryption, "secret", type="passphrase", uuid=self.luks_secret)


@dataclasses.dataclass(frozen=True)
class DiskDevice:
    """One <disk>, all decided."""

    source: Source
    target: str
    """vda"""
    bus: str
    device: str = "disk"
    cache: str = "none"
    discard: bool = False
    read_only: bool = False
    shareable: bool = False
    serial: str | None = None
    boot_order: int | None = None
    limits: Mapping[str, int] = dataclasses.field(default_factory=dict)
    scsi_unit: int | None = None

    def element(self) -> Any:
        disk = etree.Element("disk", device=self.device)
        driver = _add(disk, "driver", name="qemu", type=self.source.format, cache=self.cache)
        if self.source.kind == "block" and self.cache in ("none", "directsync"):
            driver.set("io", "native")  # only without the host's cache is it asynchronous at all
        if self.discard and not self.read_only:
            driver.set("discard", "unmap")
        self.source.add_to(disk)
        _add(disk, "target", dev=self.target, bus=self.bus)
        if self.limits:
            tune = _add(disk, "iotune")
            for name, value in sorted(self.limits.items()):
                _add(tune, name).text = str(value)
        if self.read_only:
            _add(disk, "readonly")
        if self.shareable:
            _add(disk, "shareable")
        if self.serial:
            _add(disk, "serial").text = self.serial
        if self.boot_order is not None:
            _add(disk, "boot", order=self.boot_order)
        if self.scsi_unit is not None:
            _add(disk, "address", type="drive", controller=0, bus=0, target=0, unit=self.scsi_unit)
        return disk


class Names:
    """Gives out vda, vdb, … sda, …: what was asked for when it fits the bus and is free, else the first free one."""

    def __init__(self, used: Iterable[str] = ()) -> None:
        self._used = set(used)

    def take(self, bus: str, wanted: str | None = None, at: int = 0) -> str:
        prefix = volumes.PREFIXES[bus]
        name = str(wanted or "").rpartition("/")[2]
        if re.fullmatch(prefix + "[a-z]{1,2}", name) is None or name in self._used:
            numbers = [at, *range(702)] if at else range(702)
            names = (prefix + volumes.device_letters(number) for number in numbers)
            name = next(name for name in names if name not in self._used)
        self._used.add(name)
        return name


def choice(properties: Mapping[str, Any], name: str, default: str, allowed: tuple[str, ...]) -> str:
    """An image property's value. :raises BadRequest: it is none of ``allowed``."""
    value = str(properties.get(name) or default)
    if value not in allowed:
        raise BadRequest(f"Image property {name} is {value!r}: one of {', '.join(allowed)} is expected.")
    return value


def bus_of(asked: str | None, device: str, properties: Mapping[str, Any], machine: str) -> str:
    """:raises BadRequest: there is no such bus, or it takes no such device."""
    if device == "cdrom":
        default = "sata" if "q35" in machine else "ide"
        bus = asked or choice(properties, "hw_cdrom_bus", default, volumes.DISK_BUSES)
        if bus == "virtio":
            raise BadRequest("A CD can't be on a virtio bus: ide, sata, scsi or usb is expected.")
        return bus
    if device == "lun":
        if asked not in (None, "scsi"):
            raise BadRequest(f"A device of type lun must be on a scsi bus, not on {asked}.")
        return "scsi"
    if asked and asked not in volumes.DISK_BUSES:
        raise BadRequest(
            f"There is no disk bus {asked!r}: one of {', '.join(volumes.DISK_BUSES)} is expected."
        )
    return asked or choice(properties, "hw_disk_bus", "virtio", volumes.DISK_BUSES)


def volume_device(
    volume: Mapping[str, Any],
    source: Source,
    properties: Mapping[str, Any],
    *,
    machine: str,
    names: Names,
    cache: str,
    boot_order: int | None = None,
) -> DiskDevice:
    """The <disk> of a connected volume.

    ``cache`` holds for files; nothing is lost with it, since QEMU passes on the guest's flushes whatever it
    is. A device is never cached by the host: it may be a server's on another host next.
    :raises BadRequest: what was asked for can't be.
    """
    info = volume["connection_info"]
    kind = str(volume.get("device_type") or "disk")
    if kind not in volumes.DEVICE_TYPES:
        raise BadRequest(f"There is no device type {kind!r}.")
    if kind == "lun" and (source.kind != "block" or source.luks_secret):
        raise BadRequest(
            "Only a volume that is a block device of the host can be given to a server as a lun."
        )
    shared = bool(volume.get("multiattach"))
    if shared and source.format != "raw":
        raise BadRequest(f"A volume in {source.format} can't be shared: two servers would destroy it.")
    bus = bus_of(volume.get("disk_bus"), kind, properties, machine)
    target = names.take(bus, volume.get("device_name"))
    if shared or source.kind == "block":
        cache = "none"
    elif source.kind == "rbd":
        cache = (
            "writeback"  # librbd's own cache, which writes through until the guest flushes for the first time
        )
    return DiskDevice(
        source,
        target,
        bus,
        device=kind,
        cache=cache,
        discard=bool(info.get("discard")) and kind == "disk",
        read_only=volumes.is_read_only(volume),
        shareable=shared,
        serial=str(volume["volume_id"]) if kind != "lun" else None,  # a lun has its own
        boot_order=boot_order,
        limits=limits(info.get("qos_specs") or {}, int(volume.get("size_gib") or 0)),
        scsi_unit=scsi_unit(bus, target, properties),
    )


def limits(specs: Mapping[str, Any], size_gib: int) -> dict[str, int]:
    """QoS specs of the front end as libvirt's <iotune> has them; ``…_per_gb`` grows with the volume."""
    found = {}
    for name, value in specs.items():
        per_gib = _PER_GIB.fullmatch(name)
        try:
            if name in _LIMITS:
                found[name] = int(value)
            elif per_gib is not None:
                least = int(specs.get(f"{name}_min") or 0)
                found[per_gib["limit"]] = max(int(value) * size_gib, least)
        except ValueError as error:
            raise BadRequest(f"The QoS specification {name}={value} is no number.", cause=error) from error
    return found


def scsi_unit(bus: str, target: str, properties: Mapping[str, Any]) -> int | None:
    """virtio-scsi has room for all on one controller; libvirt by itself begins another after every seven."""
    if bus != "scsi" or choice(properties, "hw_scsi_model", "virtio-scsi", SCSI_MODELS) != "virtio-scsi":
        return None
    number = 0
    for letter in target.removeprefix("sd"):
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


def scsi_controller(properties: Mapping[str, Any]) -> Any:
    model = choice(properties, "hw_scsi_model", "virtio-scsi", SCSI_MODELS)
    return etree.Element("controller", type="scsi", index="0", model=model)


def _add(parent: Any, tag: str, **attributes: Any) -> Any:
    return etree.SubElement(parent, tag, {key: str(value) for key, value in attributes.items()})
