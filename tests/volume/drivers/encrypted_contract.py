"""What every driver must do with encrypted volumes, as tests: subclass, and give ``driver`` and ``conf`` fixtures.

A guest's reads and writes are QEMU's own, through LUKS with the passphrase (``Guest``).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from core import config, luks, qemu_img
from core.errors import BadRequest
from tests.volume.drivers.contract import MIB, snapshot_of, volume
from volume.drivers.base import Snapshot, Volume, VolumeDriver
from volume.encryption import Encrypter

LUKS = luks.of_type({"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256})
MARK = b"plaintext that must not be found anywhere "


def encrypted(size_gib: int = 1, **more: Any) -> Volume:
    return volume(size_gib, header_bytes=LUKS.header_bytes, **more)


class Guest:
    """A guest's view of a volume, with a passphrase."""

    def __init__(self, driver: VolumeDriver, passphrase: str) -> None:
        self._driver = driver
        self._secrets = {"own": passphrase}

    def io(self, target: Volume, *commands: str) -> str:
        """Run qemu-io's commands; what it printed."""
        objects, stdin = qemu_img.secret_objects(self._secrets)
        with self._driver.node(target) as node:
            below = {f"file.{key}": value for key, value in node.items()}
            options = qemu_img.image_options({"driver": "luks", "key-secret": "own", **below})
            asked = [part for command in commands for part in ("-c", command)]
            done = subprocess.run(
                ["qemu-io", *objects, "--image-opts", options, *asked],
                input=stdin, capture_output=True, text=True, check=False,
            )  # fmt: skip
        return done.stdout + done.stderr

    def opens(self, target: Volume) -> bool:
        said = self.io(target, "length")
        assert "length" not in said or "MiB" in said or "GiB" in said, said
        return "Invalid password" not in said

    def size(self, target: Volume) -> int:
        """Bytes that a guest sees."""
        objects, stdin = qemu_img.secret_objects(self._secrets)
        with self._driver.node(target) as node:
            below = {f"file.{key}": value for key, value in node.items()}
            options = qemu_img.image_options({"driver": "luks", "key-secret": "own", **below})
            command = ["qemu-img", "info", *objects, "--image-opts", options]
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=True)
        found = re.search(r"virtual size: .*\((\d+) bytes\)", done.stdout)
        assert found, done.stdout
        return int(found[1])

    def write(self, target: Volume, byte: int, at: int = 0, length: int = MIB) -> None:
        said = self.io(target, f"write -P {byte} {at} {length}", "flush")
        assert "wrote" in said, said

    def holds(self, target: Volume, byte: int, at: int = 0, length: int = MIB) -> bool:
        said = self.io(target, f"read -P {byte} {at} {length}")
        assert "read " in said, said
        return "verification failed" not in said


def on_disk(driver: VolumeDriver, thing: Volume | Snapshot, needle: bytes) -> bool:
    """Does the backend's data hold these bytes in clear?"""
    before = b""
    with driver.open(thing) as file:
        for _ in range(64):
            data = before + file.read(MIB)
            if needle in data:
                return True
            before = data[-len(needle) :]
    return False


class EncryptedContract:
    """Behaviour that the worker and guests rely on."""

    extent_bytes = 1
    """what the backend's sizes are multiples of: a guest may see less than that more than was asked for"""

    def fits(self, seen: int, size_gib: int) -> bool:
        return size_gib << 30 <= seen < (size_gib << 30) + self.extent_bytes

    @pytest.fixture
    def own(self) -> str:
        return os.urandom(32).hex()

    @pytest.fixture
    def encrypter(self, driver: VolumeDriver, own: str, tmp_path: Path) -> Iterator[Encrypter]:
        conf: cfg.ConfigOpts = config.load(overrides={"state_path": str(tmp_path)})
        yield Encrypter(conf, driver, LUKS, own)
        assert not list(tmp_path.glob("volume-images/*"))

    def test_a_volume_its_copies_and_its_growth(
        self, driver: VolumeDriver, encrypter: Encrypter, own: str
    ) -> None:
        guest, made, copy, later = Guest(driver, own), encrypted(), encrypted(), encrypted(2)
        location = encrypter.create(made)
        assert driver.exists(made)
        with driver.open(made) as file:
            assert file.read(6) == b"LUKS\xba\xbe"
        assert self.fits(guest.size(made), 1)
        assert not Guest(driver, os.urandom(32).hex()).opens(made)
        guest.write(made, 0x41)
        guest.write(made, 0x5A, at=(1 << 30) - MIB)
        assert not on_disk(driver, made, b"A" * 64)
        snapshot = snapshot_of(made)
        driver.create_snapshot(snapshot)
        guest.write(made, 0x42)
        driver.clone(copy, made)
        driver.create_from_snapshot(later, snapshot)
        assert driver.create(made) == location
        assert guest.holds(copy, 0x42) and guest.holds(copy, 0x5A, at=(1 << 30) - MIB)
        assert guest.holds(later, 0x41) and self.fits(guest.size(later), 2)
        guest.write(copy, 0x43)
        driver.revert(made, snapshot)
        assert guest.holds(made, 0x41) and guest.holds(copy, 0x43)
        driver.delete_snapshot(snapshot)
        driver.extend(made, 2)
        driver.extend(made, 2)
        grown = Volume(id=made.id, size_gib=2, header_bytes=made.header_bytes)
        assert self.fits(guest.size(grown), 2) and guest.holds(grown, 0x41)
        guest.write(grown, 0x44, at=(2 << 30) - MIB)
        for each in (grown, copy, later):
            driver.delete(each)
            assert not driver.exists(each)

    def test_an_image_is_written_encrypted(
        self, driver: VolumeDriver, encrypter: Encrypter, own: str, tmp_path: Path
    ) -> None:
        image = tmp_path / "image, with a comma.raw"
        image.write_bytes((MARK * 25000)[:MIB] + b"\x07" * MIB)
        made, seen = encrypted(), []
        encrypter.write_image(made, image, "raw", seen.append)
        assert seen[-1] == image.stat().st_size
        assert not on_disk(driver, made, MARK)
        assert Guest(driver, own).holds(made, 7, at=image.stat().st_size - MIB)
        encrypter.write_image(made, image, "raw", seen.append)  # a repeat after a crash
        assert Guest(driver, own).holds(made, 7, at=image.stat().st_size - MIB)
        driver.delete(made)
        small = Volume(id=made.id, size_gib=0, header_bytes=made.header_bytes)
        with pytest.raises(BadRequest, match="larger than the volume"):
            encrypter.write_image(small, image, "raw", seen.append)

    def test_what_another_passphrase_opened_is_taken_over(
        self, driver: VolumeDriver, encrypter: Encrypter, own: str, tmp_path: Path
    ) -> None:
        """A backup of another volume, an image: header and data come with the other's passphrase."""
        other = os.urandom(32).hex()
        conf = config.load(overrides={"state_path": str(tmp_path)})
        made = encrypted()
        Encrypter(conf, driver, LUKS, other).create(made)
        Guest(driver, other).write(made, 0x61)
        encrypter.rekey(made, other)
        assert Guest(driver, own).holds(made, 0x61)
        assert not Guest(driver, other).opens(made)
        encrypter.rekey(made, own)
        assert Guest(driver, own).opens(made)
        driver.delete(made)
