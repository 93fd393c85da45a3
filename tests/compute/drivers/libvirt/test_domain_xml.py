"""The domain XML says what the flavor, the image and the options say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from oslo_config import cfg

from compute.drivers.libvirt import domain_xml, options
from compute.drivers.libvirt.disk_xml import Source
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
    assert [disk.find("target").get("dev") for disk in disks] == ["vda", "vdb", "vdz"]
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
    def ports(number: int) -> list[str]:
        domain = build({"hw_machine_type": "q35"}, conf=make_conf(num_pcie_ports=number))
        return [port.get("index") for port in domain.findall("devices/controller[@model='pcie-root-port']")]

    assert ports(16) == [str(index) for index in range(1, 17)]
    assert len(ports(5)) == 3 + 4 + 4, "more than asked for, when the guest itself needs them"
    assert ports(0) == []


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


def make_volume(name: str, **values: Any) -> tuple[dict[str, Any], Source]:
    volume_id = f"00000000-0000-4000-8000-0000000000{name[-2:]}"
    volume = {"volume_id": volume_id, "device_name": f"/dev/{name}", "connection_info": {"discard": True}}
    source = values.pop("source", Source("file", f"/v/volume-{volume_id}.qcow2", "qcow2"))
    return {**volume, **values}, source


def with_volumes(*attached: Any, properties: dict[str, Any] | None = None, **guest: Any) -> list[Any]:
    """The <disk>s."""
    spec = make_guest(
        image=make_image(properties=properties or {}), volumes=[each[0] for each in attached], **guest
    )
    local = [disk for disk in DISKS if disk.role != "root" or spec.boots_locally]
    text = domain_xml.build(
        make_conf(), domain_xml.Host("qemu"), spec, local, Path("/i/console.log"), attached
    )
    found: list[Any] = etree.fromstring(text).findall("devices/disk")
    return found


def test_a_volume_in_the_place_of_the_root_disk() -> None:
    second = make_volume("vdc", boot_index=2)
    disks = with_volumes(make_volume("vda", boot_index=0), second, make_volume("vdd", boot_index=-1))
    assert [disk.find("target").get("dev") for disk in disks] == ["vda", "vdb", "vdc", "vdd", "vdz"]
    assert [disk.find("boot") is not None and disk.find("boot").get("order") for disk in disks] == [
        *("1", False, "2", False, False)
    ]
    assert disks[0].findtext("serial") == "00000000-0000-4000-8000-0000000000da"
    assert disks[0].find("driver").attrib["type"] == "qcow2", "the format is never guessed"
    assert disks[0].find("driver").get("discard") == "unmap"


def test_the_local_root_disk_is_booted_from_before_any_volume() -> None:
    disks = with_volumes(make_volume("vdb", boot_index=1))
    assert [disk.find("boot") is not None and disk.find("boot").get("order") for disk in disks] == [
        *("1", False, "2", False)
    ]


def test_names_that_do_not_fit_are_replaced() -> None:
    taken = make_volume("vdb"), make_volume("vdb", volume_id="second"), make_volume("sdb", volume_id="third")
    targets = [disk.find("target").get("dev") for disk in with_volumes(*taken)]
    assert targets == ["vda", "vdb", "vdc", "vdd", "vde", "vdz"]  # vdb is the swap disk's


def test_a_ceph_image_is_opened_by_qemu_with_a_secret() -> None:
    source = Source("rbd", "volumes/volume-1", hosts=(("10.0.0.1", "6789"),), user="cinder", secret="s-1")
    disk = with_volumes(make_volume("vdb", source=source))[2]
    found = disk.find("source")
    assert (disk.get("type"), found.get("protocol"), found.get("name")) == (
        "network",
        "rbd",
        "volumes/volume-1",
    )
    assert dict(found.find("host").attrib) == {"name": "10.0.0.1", "port": "6789"}
    assert found.find("auth").get("username") == "cinder"
    assert found.find("auth/secret").get("uuid") == "s-1"
    assert disk.find("driver").get("cache") == "writeback"


def test_an_encrypted_device_is_named_with_its_secret_and_not_cached() -> None:
    source = Source("block", "/c/device", luks_secret="l-1")
    info = {"qos_specs": {"read_iops_sec": "500", "total_bytes_sec_per_gb": "1000", "vendor:x": "1"}}
    disk = with_volumes(make_volume("vdb", source=source, size_gib=3, connection_info=info))[2]
    assert disk.find("source").get("dev") == "/c/device"
    assert disk.find("source/encryption").get("format") == "luks"
    assert disk.find("source/encryption/secret").get("uuid") == "l-1"
    assert (disk.find("driver").get("cache"), disk.find("driver").get("io")) == ("none", "native")
    assert {each.tag: each.text for each in disk.find("iotune")} == {
        "read_iops_sec": "500",
        "total_bytes_sec": "3000",
    }


def test_shared_read_only_and_cds() -> None:
    block = Source("block", "/c/device")
    shared, fixed, cd = with_volumes(
        make_volume("vdc", source=block, multiattach=True),
        make_volume("vdd", mode="ro"),
        make_volume("vde", device_type="cdrom"),
    )[2:5]
    assert shared.find("shareable") is not None
    assert fixed.find("readonly") is not None
    assert (cd.get("device"), cd.find("target").get("bus"), cd.find("readonly") is not None) == (
        *("cdrom", "ide"),
        True,
    )


def test_scsi_disks_are_on_one_controller() -> None:
    disks = with_volumes(make_volume("sdj"), properties={"hw_disk_bus": "scsi"})
    assert disks[2].find("address").get("unit") == "9"
    (lun,) = with_volumes(make_volume("sdb", source=Source("block", "/c/d"), device_type="lun"))[2:3]
    assert (lun.get("device"), lun.find("target").get("bus")) == ("lun", "scsi")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"disk_bus": "floppy"}, "no disk bus 'floppy'"),
        ({"device_type": "tape"}, "no device type 'tape'"),
        ({"device_type": "lun"}, "block device"),
        ({"device_type": "cdrom", "disk_bus": "virtio"}, "CD"),
        ({"multiattach": True}, "can't be shared"),
        ({"connection_info": {"qos_specs": {"read_iops_sec": "many"}}}, "is no number"),
    ],
)
def test_what_a_volume_can_not_be_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        with_volumes(make_volume("vdb", **values))
