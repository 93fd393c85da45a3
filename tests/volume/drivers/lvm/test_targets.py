"""What a target admits, and what it writes down; the kernel's side is tried in a guest (``inside.py``)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core import config
from core.errors import BadRequest, DriverError
from volume.drivers.lvm import targets
from volume.drivers.lvm.driver import LvmDriver
from volume.drivers.lvm.lio import Lio
from volume.drivers.lvm.nvmet import Nvmet

NQN = "nqn.2014-08.org.nvmexpress:uuid:6a1e1d1c-0000-4000-8000-00000000beef"
IQN = "iqn.2026-11.org.example:Here"


class Kept:
    """A target whose kernel is a dictionary."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kernel: dict[str, dict[str, str]] = {}
        self.fails: set[str] = set()

    def check(self) -> None:
        """It is there."""

    def exported(self, name: str) -> bool:
        return name in self.kernel

    def export(self, name: str, device: Path, hosts: Mapping[str, str]) -> None:
        if name in self.fails:
            raise DriverError("the device is gone")
        self.kernel[name] = dict(hosts)

    def withdraw(self, name: str) -> None:
        self.kernel.pop(name, None)


class KeptNvmet(Kept, Nvmet):
    pass


class KeptLio(Kept, Lio):
    pass


def made(kind: Any, tmp_path: Path) -> Any:
    conf = config.load()
    config.override(conf, "state_path", str(tmp_path))
    LvmDriver(conf, "lvm")  # registers the options
    return kind(conf, "lvm")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/made",
        "../../../etc/made",
        "nqn.2014-08.org/../../x",
        "nqn.2014-08.org:a b",
        "nqn.",
        NQN + "\n",
        7,
    ],
)
def test_a_name_that_would_be_another_folder_is_refused(name: Any, tmp_path: Path) -> None:
    target = made(KeptNvmet, tmp_path)
    with pytest.raises(BadRequest, match="nqn"):
        target.connect("id", "volume-1", Path("/dev/x"), {"nqn": name}, "rw")
    assert target.kernel == {}
    assert not list(tmp_path.rglob("*.json"))
    target.disconnect("volume-1", {"nqn": name})


@pytest.mark.parametrize("name", ["/etc/made", "iqn.2026-11.a.b/../../x", "iqn.2026-11.a b", "server"])
def test_an_initiator_is_named_as_iscsi_has_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="initiator"):
        made(KeptLio, tmp_path).connect("id", "volume-1", Path("/dev/x"), {"initiator": name}, "rw")


def test_an_initiator_is_one_however_it_is_written(tmp_path: Path) -> None:
    """rtslib lowers names: access that is kept under another spelling would be taken away at each export."""
    target = made(KeptLio, tmp_path)
    first = target.connect("id", "volume-1", Path("/dev/x"), {"initiator": IQN}, "rw")
    assert target.connect("id", "volume-1", Path("/dev/x"), {"initiator": IQN.lower()}, "rw") == first
    assert target.kernel["volume-1"] == {IQN.lower(): "rw"}
    target.disconnect("volume-1", {"initiator": IQN.upper()})
    assert not target.exported("volume-1")


def test_secrets_differ_by_host_and_volume_and_last(tmp_path: Path) -> None:
    ask = [("volume-1", IQN), ("volume-1", IQN + "2"), ("volume-2", IQN)]
    found = [
        made(KeptLio, tmp_path).connect("id", name, Path("/dev/x"), {"initiator": host}, "rw")["data"][
            "auth_password"
        ]
        for name, host in ask * 2
    ]
    assert found[:3] == found[3:]
    assert len(set(found)) == 3
    assert all(12 <= len(each) <= 16 for each in found)
    assert (tmp_path / "chap.key").stat().st_mode & 0o077 == 0


def test_one_that_fails_keeps_no_other_from_its_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(targets, "mount_configfs", lambda: None)
    before = made(KeptNvmet, tmp_path)
    for name in ("volume-1", "volume-2", "volume-3"):
        before.connect("id", name, Path("/dev/x"), {"nqn": NQN}, "rw")
    after = made(KeptNvmet, tmp_path)
    after.fails = {"volume-1"}
    with caplog.at_level(logging.ERROR):
        after.start({"volume-1", "volume-2"}, lambda _name: Path("/dev/x"))
    assert after.kernel == {"volume-2": {NQN: "rw"}}
    assert "volume-1" in caplog.text
    left = {file.stem: json.loads(file.read_text())["hosts"] for file in tmp_path.rglob("volume-*.json")}
    assert left == {"volume-1": {NQN: "rw"}, "volume-2": {NQN: "rw"}}
    after.fails = set()
    after.connect("id", "volume-1", Path("/dev/x"), {"nqn": NQN}, "rw")
    assert after.exported("volume-1")


def test_an_address_of_ipv6_stands_in_brackets(tmp_path: Path) -> None:
    target = made(KeptLio, tmp_path)
    config.override(target_conf := config.load(), "state_path", str(tmp_path))
    LvmDriver(target_conf, "lvm")
    config.override(target_conf, "lvm.target_ip_address", "::1")
    info = KeptLio(target_conf, "lvm").connect("id", "volume-1", Path("/dev/x"), {"initiator": IQN}, "rw")
    assert info["data"]["target_portal"] == "[::1]:3260"
    assert target.portal_host == "127.0.0.1"
