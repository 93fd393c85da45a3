"""The domain XML of a guest, built with lxml: never by pasting strings.

https://libvirt.org/formatdomain.html says what each element means.  Image
properties (hw_disk_bus, hw_machine_type, …) have upstream's names and values.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lxml import etree
from oslo_config import cfg

from compute import volumes
from compute.drivers.base import GuestSpec
from compute.drivers.libvirt.disk_xml import (
    CONFIG_DRIVE_AT,
    DiskDevice,
    Names,
    Source,
    bus_of,
    choice,
    scsi_controller,
    scsi_unit,
    volume_device,
)
from compute.drivers.libvirt.disks import Disk
from core.errors import BadRequest

NAMESPACE = "urn:haneul:server:1"
_NIC_MODELS = ("virtio", "e1000", "e1000e", "rtl8139", "ne2k_pci", "pcnet", "vmxnet3")
_VIDEO_MODELS = ("vga", "cirrus", "qxl", "virtio", "bochs", "none")
_UEFI_MIN_MIB = 256
_OTHER_PORTS = 4  # channel, balloon, random numbers, a SCSI or USB controller
_SPARE_PORTS = 4  # at least so much can be plugged in
_MOST_PORTS = 28


@dataclasses.dataclass(frozen=True)
class Host:
    """What the XML needs to know of the host."""

    virt_type: str
    """kvm or qemu"""
    arch: str = "x86_64"
    emulator: str | None = None


def build(
    conf: cfg.ConfigOpts,
    host: Host,
    guest: GuestSpec,
    disks: list[Disk],
    console_log: Path,
    attached: Sequence[tuple[Mapping[str, Any], Source]] = (),
) -> str:
    """The whole domain as text; ``attached`` volumes in the order of ``compute.volumes.in_order``.

    :raises BadRequest: an image property, or a block device, has a value that is not offered.
    """
    properties = guest.image.properties if guest.image else {}
    domain = etree.Element("domain", type=host.virt_type)
    _text(domain, "uuid", guest.server_id)
    _text(domain, "name", domain_name(guest.server_id))
    _metadata(domain, guest)
    _text(domain, "memory", guest.memory_mib, unit="MiB")
    _text(domain, "vcpu", guest.vcpus)
    machine = machine_of(conf, guest)
    _os(domain, host, guest, properties, machine)
    features = _add(domain, "features")
    _add(features, "acpi")
    _add(features, "apic")
    _cpu(domain, conf, host, guest)
    _clock(domain, host, properties)
    for name, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, name, action)
    devices = _add(domain, "devices")
    if host.emulator:
        _text(devices, "emulator", host.emulator)
    found = _disks(conf, disks, attached, properties, machine)
    buses = {disk.bus for disk in found}
    if "scsi" in buses:
        devices.append(scsi_controller(properties))
    for disk in found:
        devices.append(disk.element())
    if "q35" in machine and conf.libvirt.num_pcie_ports:
        used = sum(disk.bus == "virtio" for disk in found) + len(guest.nics) + _OTHER_PORTS
        _root_ports(devices, min(max(conf.libvirt.num_pcie_ports, used + _SPARE_PORTS), _MOST_PORTS))
    _add(devices, "controller", type="usb", model="qemu-xhci" if "usb" in buses else "none")
    _consoles(devices, console_log)
    _screen(devices, conf, properties)
    for nic in guest.nics:
        devices.append(nic_element(nic, properties))
    _helpers(devices)
    return etree.tostring(domain, pretty_print=True, encoding="unicode")


def machine_of(conf: cfg.ConfigOpts, guest: GuestSpec) -> str:
    properties = guest.image.properties if guest.image else {}
    return str(properties.get("hw_machine_type") or conf.libvirt.hw_machine_type)


def domain_name(server_id: str) -> str:
    return f"instance-{server_id}"


def _add(parent: Any, tag: str, **attributes: Any) -> Any:
    return etree.SubElement(parent, tag, {key: str(value) for key, value in attributes.items()})


def _text(parent: Any, tag: str, text: Any, **attributes: Any) -> Any:
    element = _add(parent, tag, **attributes)
    element.text = str(text)
    return element


def _metadata(domain: Any, guest: GuestSpec) -> None:
    """Marks the domain as ours, and tells whoever looks at the host what it is."""
    holder = _add(domain, "metadata")
    server = etree.SubElement(holder, f"{{{NAMESPACE}}}server", nsmap={"haneul": NAMESPACE})
    for tag, value in (
        ("id", guest.server_id),
        ("name", guest.name),
        ("project", guest.project_id),
        ("user", guest.user_id),
        ("flavor", guest.flavor_name),
        ("image", guest.image.id if guest.image else ""),
        ("created", guest.created_at),
    ):
        etree.SubElement(server, f"{{{NAMESPACE}}}{tag}").text = _printable(value)


def _printable(text: str) -> str:
    """XML can't hold control characters; a name may."""
    return "".join(char for char in text if char >= " ")


def _os(domain: Any, host: Host, guest: GuestSpec, properties: dict[str, Any], machine: str) -> None:
    firmware = choice(properties, "hw_firmware_type", "bios", ("bios", "uefi"))
    if firmware == "uefi":
        if guest.memory_mib < _UEFI_MIN_MIB:
            raise BadRequest(
                f"A UEFI guest needs {_UEFI_MIN_MIB} MiB of memory, the flavor has {guest.memory_mib}."
            )
        os_ = _add(domain, "os", firmware="efi")
    else:
        os_ = _add(domain, "os")
    _text(os_, "type", "hvm", arch=host.arch, machine=machine)
    if firmware == "uefi":
        secure = choice(properties, "os_secure_boot", "disabled", ("disabled", "optional", "required"))
        features = _add(os_, "firmware")
        _add(features, "feature", enabled="yes" if secure == "required" else "no", name="secure-boot")
    if str(properties.get("hw_boot_menu", "")).lower() in ("true", "1", "yes"):
        _add(os_, "bootmenu", enable="yes")


def _cpu(domain: Any, conf: cfg.ConfigOpts, host: Host, guest: GuestSpec) -> None:
    mode = conf.libvirt.cpu_mode
    if mode == "auto":
        mode = "host-model" if host.virt_type == "kvm" else "maximum"
    cpu = _add(domain, "cpu")
    if mode == "custom":
        cpu.set("mode", "custom")
        cpu.set("match", "exact")
        _text(cpu, "model", conf.libvirt.cpu_model or "qemu64", fallback="allow")
    elif mode != "none":
        cpu.set("mode", mode)
    sockets, cores, threads = topology(guest.vcpus, guest.extra_specs)
    _add(cpu, "topology", sockets=sockets, cores=cores, threads=threads)


def topology(vcpus: int, extra_specs: dict[str, str]) -> tuple[int, int, int]:
    """(sockets, cores, threads) by the flavor's hw:cpu_* specs; one socket per CPU without them.

    :raises BadRequest: the product is not the number of CPUs.
    """
    wanted = {name: int(extra_specs.get(f"hw:cpu_{name}") or 0) for name in ("sockets", "cores", "threads")}
    threads = wanted["threads"] or 1
    cores = wanted["cores"] or (max(vcpus // (wanted["sockets"] * threads), 1) if wanted["sockets"] else 1)
    sockets = wanted["sockets"] or max(vcpus // (cores * threads), 1)
    if sockets * cores * threads != vcpus:
        raise BadRequest(
            f"The flavor's CPU topology ({sockets} sockets x {cores} cores x {threads} threads) is not {vcpus} CPUs."
        )
    return sockets, cores, threads


def _clock(domain: Any, host: Host, properties: dict[str, Any]) -> None:
    local = str(properties.get("os_type", "")).lower() == "windows"
    clock = _add(domain, "clock", offset="localtime" if local else "utc")
    _add(clock, "timer", name="rtc", tickpolicy="catchup")
    if host.virt_type == "kvm":
        _add(clock, "timer", name="pit", tickpolicy="delay")
        _add(clock, "timer", name="hpet", present="no")


def _disks(
    conf: cfg.ConfigOpts,
    local: list[Disk],
    attached: Sequence[tuple[Mapping[str, Any], Source]],
    properties: dict[str, Any],
    machine: str,
) -> list[DiskDevice]:
    """All disks in the order in which guests see them: what it boots from, local ones, other volumes, config drive."""
    names = Names()
    ranks = sorted({0, *(volumes.boot_index(volume) or 0 for volume, _ in attached)})

    def device(volume: Mapping[str, Any], source: Source) -> DiskDevice:
        index = volumes.boot_index(volume)
        return volume_device(
            volume,
            source,
            properties,
            machine=machine,
            names=names,
            cache=cache_for(conf, source),
            boot_order=None if index is None else ranks.index(index) + 1,
        )

    found = [device(*each) for each in attached if volumes.boot_index(each[0]) == 0]
    found += [_local_disk(conf, disk, names, properties, machine) for disk in local if disk.role != "config"]
    found += [device(*each) for each in attached if volumes.boot_index(each[0]) != 0]
    found += [_local_disk(conf, disk, names, properties, machine) for disk in local if disk.role == "config"]
    return found


def _local_disk(
    conf: cfg.ConfigOpts, disk: Disk, names: Names, properties: dict[str, Any], machine: str
) -> DiskDevice:
    kind = str(disk.wishes.get("device_type") or "disk")
    bus = bus_of(disk.wishes.get("disk_bus"), kind, properties, machine)
    # on other buses a far name would mean controllers that nobody needs
    at = CONFIG_DRIVE_AT if disk.role == "config" and bus == "virtio" else 0
    target = names.take(bus, disk.wishes.get("device_name"), at)
    return DiskDevice(
        Source("file", str(disk.path), disk.format),
        target,
        bus,
        device=kind,
        cache="writeback" if disk.role in ("config", "swap") else conf.libvirt.disk_cachemodes,
        discard=True,
        read_only=disk.read_only or kind == "cdrom",
        boot_order=1 if disk.role == "root" else None,
        scsi_unit=scsi_unit(bus, target, properties),
    )


def cache_for(conf: cfg.ConfigOpts, source: Source) -> str:
    """The cache mode of a volume's file: as configured, but where the file system takes no O_DIRECT."""
    mode = str(conf.libvirt.disk_cachemodes)
    if mode in ("none", "directsync") and source.kind == "file":
        try:
            os.close(os.open(source.name, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            return "writeback" if mode == "none" else "writethrough"
    return mode


def _root_ports(devices: Any, count: int) -> None:
    """q35 has no free slots for hot plug unless root ports are numbered out beforehand."""
    _add(devices, "controller", type="pci", index=0, model="pcie-root")
    for index in range(1, count + 1):
        _add(devices, "controller", type="pci", index=index, model="pcie-root-port")


def _consoles(devices: Any, log_file: Path) -> None:
    serial = _add(devices, "serial", type="pty")
    _add(serial, "log", file=log_file, append="on")
    _add(serial, "target", port=0)
    console = _add(devices, "console", type="pty")
    _add(console, "target", type="serial", port=0)
    channel = _add(devices, "channel", type="unix")
    _add(channel, "target", type="virtio", name="org.qemu.guest_agent.0")


def _screen(devices: Any, conf: cfg.ConfigOpts, properties: dict[str, Any]) -> None:
    if not conf.libvirt.vnc_enabled:
        return
    graphics = _add(devices, "graphics", type="vnc", port=-1, autoport="yes", listen=conf.libvirt.vnc_listen)
    _add(graphics, "listen", type="address", address=conf.libvirt.vnc_listen)
    model = choice(properties, "hw_video_model", "vga", _VIDEO_MODELS)
    video = _add(devices, "video")
    _add(video, "model", type=model)
    if model != "none":
        _add(devices, "input", type="keyboard", bus="ps2")


def nic_element(nic: dict[str, Any], properties: dict[str, Any]) -> Any:
    """One <interface>.

    A ``bridge`` port's tap was made by the network agent, with its rules in place, and
    libvirt only opens it. An ``ovs`` port (a real Neutron) is libvirt's to plug into the
    integration bridge, whose agent knows it by the port's id.
    """
    details = nic.get("vif_details") or {}
    if nic.get("vif_type") == "ovs":
        interface = etree.Element("interface", type="bridge")
        _add(interface, "source", bridge=details.get("bridge_name") or "br-int")
        virtual = _add(interface, "virtualport", type="openvswitch")
        _add(virtual, "parameters", interfaceid=nic["port_id"])
        _add(interface, "target", dev=nic["device"])
    else:
        interface = etree.Element("interface", type="ethernet")
        _add(interface, "target", dev=nic["device"], managed="no")
    _add(interface, "mac", address=nic["mac_address"])
    _add(interface, "model", type=choice(properties, "hw_vif_model", "virtio", _NIC_MODELS))
    if nic.get("mtu"):
        _add(interface, "mtu", size=nic["mtu"])
    return interface


def _helpers(devices: Any) -> None:
    balloon = _add(devices, "memballoon", model="virtio")
    _add(balloon, "stats", period=10)
    rng = _add(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
