"""The documents that guests read, by version."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from lifecycle import guest_metadata as subject
from lifecycle.guest_metadata import EC2_VERSIONS, VERSIONS, GuestFacts

ID = "70a599e0-31e7-49b7-b260-868f441e862b"


def facts(**values: Any) -> GuestFacts:
    return GuestFacts(**{"server_id": ID, "name": "web one", "hostname": "web-one", "project_id": "p1",
                         "availability_zone": "nova", **values})  # fmt: skip


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        ("2012-08-10", set()),
        ("2013-04-04", {"random_seed"}),
        ("2015-10-15", {"random_seed", "project_id"}),
        ("2016-06-30", {"random_seed", "project_id", "devices"}),
        ("latest", {"random_seed", "project_id", "devices", "dedicated_cpus"}),
    ],
)
def test_a_version_has_the_keys_of_its_time(version: str, keys: set[str]) -> None:
    always = {"uuid", "name", "hostname", "launch_index", "availability_zone"}
    assert set(subject.meta_data(facts(), version)) == always | keys


def test_optional_parts_are_there_when_the_server_has_them() -> None:
    data = subject.meta_data(
        facts(
            metadata={"role": "db"},
            key_name="k",
            public_key="ssh-ed25519 AAAA me",
            admin_password="s3",
            files=({"path": "/etc/motd", "contents": ""},),
        )
    )
    assert data["meta"] == {"role": "db"}
    assert data["public_keys"] == {"k": "ssh-ed25519 AAAA me"}
    assert data["keys"] == [{"name": "k", "type": "ssh", "data": "ssh-ed25519 AAAA me"}]
    assert data["admin_pass"] == "s3"
    assert data["files"] == [{"content_path": "/content/0000", "path": "/etc/motd"}]


def test_tagged_devices_can_be_told_from_others() -> None:
    devices = subject.meta_data(
        facts(
            nics=({"mac_address": "fa:16:3e:00:00:01", "tag": "red"}, {"mac_address": "x", "tag": None}),
            volumes=({"volume_id": "v1", "device_name": "/dev/vdb", "tag": "db"}, {"volume_id": "v2"}),
        )
    )["devices"]
    assert [(each["type"], each["tags"]) for each in devices] == [("nic", ["red"]), ("disk", ["db"])]
    assert devices[0]["mac"] == "fa:16:3e:00:00:01"
    assert devices[1]["serial"] == "v1"


def test_every_listing_names_what_there_is() -> None:
    first = subject.documents(VERSIONS[0], user_data=False, password=True)
    assert first == ["meta_data.json"]
    last = subject.documents(VERSIONS[-1], user_data=True, password=True)
    assert last == ["meta_data.json", "user_data", "password", "vendor_data.json", "network_data.json",
                    "vendor_data2.json"]  # fmt: skip
    assert "password" not in subject.documents("latest", user_data=True, password=False)


def test_ec2_tree_grows_with_versions() -> None:
    trees = [subject.ec2_tree(facts(image_id=ID), version)["meta-data"] for version in EC2_VERSIONS]
    for older, newer in zip(trees, trees[1:], strict=False):
        assert set(older) <= set(newer)
    assert "placement" not in trees[0]
    assert trees[-1]["placement"] == {"availability-zone": "nova"}
    assert trees[-1]["instance-id"] == "i-70a599e031e749b7b"
    assert trees[-1]["ami-id"] == "ami-70a599e031e749b7b"


def test_ec2_addresses_keys_and_disks() -> None:
    addresses = [
        {"address": "2001:db8::5", "version": 6, "type": "fixed"},
        {"address": "10.0.0.5", "version": 4, "type": "fixed"},
        {"address": "203.0.113.9", "version": 4, "type": "floating"},
    ]
    tree = subject.ec2_tree(
        facts(
            nics=({"addresses": addresses},),
            key_name="k",
            public_key="ssh-ed25519 AAAA me",
            ephemeral_gib=1,
            swap_mib=64,
            volumes=({"volume_id": "v", "device_name": "/dev/vdd"},),
            image_properties={"kernel_id": ID},
        )
    )["meta-data"]
    assert (tree["local-ipv4"], tree["public-ipv4"]) == ("10.0.0.5", "203.0.113.9")
    assert tree["block-device-mapping"] == {
        "root": "/dev/vda", "ami": "vda", "ephemeral0": "/dev/vdb", "swap": "/dev/vdc", "ebs0": "/dev/vdd",
    }  # fmt: skip
    assert tree["kernel-id"] == "aki-70a599e031e749b7b"
    assert "ramdisk-id" not in tree
    assert subject.ec2_text(tree["public-keys"]) == b"0=k"
    assert subject.ec2_text(tree["public-keys"]["0"]) == b"openssh-key"
    assert subject.ec2_json(tree)["public-keys"] == {"0": {"openssh-key": "ssh-ed25519 AAAA me"}}


def test_text_of_folders_lists_and_numbers() -> None:
    assert subject.ec2_text({"b": {"x": 1}, "a": "y"}) == b"a\nb/"
    assert subject.ec2_text(["one", "two"]) == b"one\ntwo"
    assert subject.ec2_text(0) == b"0"


def test_user_data_is_bytes_as_the_user_gave_them() -> None:
    assert subject.decoded_user_data(facts()) is None
    assert (
        subject.decoded_user_data(facts(user_data=base64.b64encode(b"\x1f\x8b\0").decode())) == b"\x1f\x8b\0"
    )
    assert "user-data" not in subject.ec2_tree(facts())
