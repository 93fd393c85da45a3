"""A volume of the file driver, backed up and restored into another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from core import config
from tests.volume.drivers.contract import MIB, digest, volume, write
from volume.backup import chunks, targets
from volume.drivers.file import FileDriver


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed (qemu-utils)")
def test_a_volume_is_restored_into_another(tmp_path: Path) -> None:
    conf = config.load()
    FileDriver(conf, "files")
    config.override(conf, "files.path", str(tmp_path / "volumes"))
    driver = FileDriver(conf, "files")
    driver.start()
    made, other, backup_id = volume(), volume(), "11111111-2222-3333-4444-555555555555"
    driver.create(made)
    driver.create(other)
    write(driver, made, b"data" * 1000, at=MIB)
    write(driver, other, b"old bytes", at=3 * MIB)
    target = targets.PosixTarget(tmp_path / "backups")
    with driver.open(made) as source:
        chunks.backup(conf, target, backup_id, source, lambda _done: None)
    with driver.open(other, write=True) as to:
        chunks.restore(target, backup_id, to, lambda _done: None)
    assert digest(driver, other) == digest(driver, made)
