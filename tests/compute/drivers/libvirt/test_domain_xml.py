"""The domain XML says what the flavor, the image and the options say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from oslo_config import cfg

from compute.drivers.libvirt import domain_xml, options
from compute.drivers.libvirt.disks import Disk
from core import config
from core.errors import BadRequest
from tests.compute.drivers.specs import make_guest, make_image

DISKS = [
    Disk("root", Path("/i/root.qcow2"), "qcow2"),
    Disk("swap", Path("/i/swap.raw"), "raw"),
    Disk("config", Path("/i/config.iso"), "raw", read_only=True),
]


def make_conf(**values: Any) -> cfg.ConfigOpts:
    conf = config.load()
    config.register(conf, options.list_opts())
    for name, value in values.items():
        config.override(conf, f"libvirt.{name}", value)
    return conf


def build(
    properties: dict[str, Any] | None = None, virt_type: str = "qemu", conf: Any = None, **guest: Any
) -> Any:
    image = make_image(properties=properties or {})
    spec = make_guest(image=image, **guest)
    text = domain_xml.build(
        conf or make_conf(), domain_xml.Host(virt_type), spec, DISKS, Path("/i/console.log")
    )
    return etree.fromstring(text)


def test_basics() -> None:
    domain = build(
        memory_mib=512, vcpus=2, name="a <b> & \x07c", server_id="00000000-0000-4000-8000-000000000001"
    )
    assert domain.get("type") == "qemu"
    assert domain.findtext("uuid") == "00000000-0000-4000-8000-000000000001"
    assert (domain.findtext("memory"), domain.find("memory").get("unit")) == ("512", "MiB")
    assert domain.findtext("vcpu") == "2"
    assert domain.find("cpu").get("mode") == "maximum"
    name = domain.find(f"metadata/{{{domain_xml.NAMESPACE}}}server/{{{domain_xml.NAMESPACE}}}name")
    assert name.text == "a <b> & c"
    assert domain.find("devices/serial/log").get("file") == "/i/console.log"
    assert domain.find("devices/graphics").get("listen") == "127.0.0.1"
    assert domain.find("devices/channel/target").get("name") == "org.qemu.guest_agent.0"


def test_disks_in_order_with_the_config_drive_read_only() -> None:
    disks = build().findall("devices/disk")
    assert [disk.find("target").get("dev") for disk in disks] == ["vda", "vdb", "vdc"]
    assert [disk.find("driver").get("type") for disk in disks] == ["qcow2", "raw", "raw"]
    assert [disk.find("readonly") is not None for disk in disks] == [False, False, True]


@pytest.mark.parametrize(
    ("bus", "first"), [("virtio", "vda"), ("scsi", "sda"), ("sata", "sda"), ("ide", "hda")]
)
def test_disk_bus_by_image_property(bus: str, first: str) -> None:
    domain = build({"hw_disk_bus": bus})
    target = domain.find("devices/disk/target")
    assert (target.get("dev"), target.get("bus")) == (first, bus)
    assert (domain.find("devices/controller[@type='scsi']") is not None) == (bus == "scsi")


def test_uefi_needs_memory_and_says_so() -> None:
    domain = build({"hw_firmware_type": "uefi"}, memory_mib=256)
    assert domain.find("os").get("firmware") == "efi"
    with pytest.raises(BadRequest, match="256 MiB"):
        build({"hw_firmware_type": "uefi"}, memory_mib=128)


def test_q35_has_ports_for_hot_plug() -> None:
    domain = build({"hw_machine_type": "q35"}, conf=make_conf(num_pcie_ports=5))
    ports = domain.findall("devices/controller[@model='pcie-root-port']")
    assert [port.get("index") for port in ports] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("property_", "value"),
    [
        ("hw_disk_bus", "floppy"),
        ("hw_firmware_type", "coreboot"),
        ("hw_video_model", "cga"),
        ("hw_scsi_model", "x"),
    ],
)
def test_unknown_property_values_are_refused_by_name(property_: str, value: str) -> None:
    properties = {property_: value, **({"hw_disk_bus": "scsi"} if property_ == "hw_scsi_model" else {})}
    with pytest.raises(BadRequest, match=property_):
        build(properties)


@pytest.mark.parametrize(
    ("vcpus", "specs", "expected"),
    [
        (4, {}, (4, 1, 1)),
        (4, {"hw:cpu_sockets": "2"}, (2, 2, 1)),
        (8, {"hw:cpu_cores": "4", "hw:cpu_threads": "2"}, (1, 4, 2)),
    ],
)
def test_topology(vcpus: int, specs: dict[str, str], expected: tuple[int, int, int]) -> None:
    assert domain_xml.topology(vcpus, specs) == expected


def test_a_topology_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BadRequest, match="not 3 CPUs"):
        domain_xml.topology(3, {"hw:cpu_cores": "2"})


def test_cpu_under_kvm_is_the_hosts() -> None:
    assert build(virt_type="kvm").find("cpu").get("mode") == "host-model"


def make_nic(**values: Any) -> dict[str, Any]:
    nic = {"port_id": "p1", "device": "tapp1", "mac_address": "fa:16:3e:00:00:01", "mtu": 1450}
    return {**nic, "vif_type": "bridge", "vif_details": {}, **values}


def test_the_network_agents_tap_is_only_opened() -> None:
    (interface,) = build({"hw_vif_model": "e1000"}, nics=(make_nic(),)).findall("devices/interface")
    assert interface.get("type") == "ethernet"
    assert dict(interface.find("target").attrib) == {"dev": "tapp1", "managed": "no"}
    assert interface.find("mac").get("address") == "fa:16:3e:00:00:01"
    assert interface.find("model").get("type") == "e1000"
    assert interface.find("mtu").get("size") == "1450"


def test_open_vswitch_plugs_by_the_ports_id() -> None:
    nic = make_nic(vif_type="ovs", vif_details={"bridge_name": "br-x"})
    (interface,) = build(nics=(nic,)).findall("devices/interface")
    assert interface.get("type") == "bridge"
    assert interface.find("source").get("bridge") == "br-x"
    assert interface.find("virtualport").get("type") == "openvswitch"
    assert interface.find("virtualport/parameters").get("interfaceid") == "p1"
    assert dict(interface.find("target").attrib) == {"dev": "tapp1"}
