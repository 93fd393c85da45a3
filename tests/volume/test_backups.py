"""Backups from the API to the files: full, incremental, restored over a volume and as a new one; sums compared."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import config
from tests.crash.volume_cloud import ADMIN, VolumeCloud, volume

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is missing")
MIB = 1 << 20


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[VolumeCloud]:
    made = VolumeCloud(tmp_path, "file", own_worker=True)
    made.start()
    yield made
    made.stop()


def fill(cloud: VolumeCloud, volume_id: str, at: int) -> None:
    with cloud.driver_of(volume_id).open(cloud._worker(volume_id).volume(volume_id), write=True) as file:
        file.seek(at)
        file.write(os.urandom(3 * MIB))


def digest(cloud: VolumeCloud, volume_id: str) -> str:
    with cloud.driver_of(volume_id).open(cloud._worker(volume_id).volume(volume_id)) as file:
        found = hashlib.sha256()
        while piece := file.read(16 * MIB):
            found.update(piece)
        return found.hexdigest()


def backup(cloud: VolumeCloud, volume_id: str, *, incremental: bool = False) -> str:
    asked = {"volume_id": volume_id, "incremental": incremental}
    made = str(cloud.api.post("/backups", {"backup": asked})["backup"]["id"])
    cloud.settle()
    shown = cloud.api.get(f"/backups/{made}")["backup"]
    assert (shown["status"], shown["fail_reason"]) == ("available", None)
    assert shown["is_incremental"] is incremental
    return made


def test_a_backup_brings_back_what_was(cloud: VolumeCloud) -> None:
    source = volume(cloud, b"")
    boots = {"os-set_bootable": {"bootable": True}, "os-set_image_metadata": {"metadata": {"min_ram": "64"}}}
    for action, asked in boots.items():
        cloud.api.post(f"/volumes/{source}/action", {action: asked}, status=200)
    fill(cloud, source, 5 * MIB)
    first, full = digest(cloud, source), backup(cloud, source)
    fill(cloud, source, 900 * MIB)
    second, part = digest(cloud, source), backup(cloud, source, incremental=True)
    pieces = {each: len(list((cloud.folder / "state/backups" / each).glob("*.zst"))) for each in (full, part)}
    assert pieces == {full: 1, part: 1}, "one piece changed"
    # a new volume
    body = {"restore": {"name": "again"}}
    again = cloud.api.post(f"/backups/{part}/restore", body, status=202)["restore"]["volume_id"]
    cloud.settle()
    shown = cloud.api.get(f"/volumes/{again}")["volume"]
    assert (shown["status"], shown["bootable"]) == ("available", "true")
    assert shown["volume_image_metadata"]["min_ram"] == "64"
    assert digest(cloud, again) == second
    # a volume from a backup
    made = cloud.api.post("/volumes", {"volume": {"size": 2, "backup_id": full}}, version="3.47")["volume"]
    cloud.settle()
    with cloud.driver_of(made["id"]).open(cloud._worker(made["id"]).volume(made["id"])) as file:
        assert hashlib.sha256(file.read(1 << 30)).hexdigest() == first
        assert file.seek(0, 2) == 2 << 30
    # over the volume itself
    cloud.api.post(f"/backups/{full}/restore", {"restore": {"volume_id": source}}, status=202)
    cloud.settle()
    assert digest(cloud, source) == first
    assert cloud.api.get(f"/volumes/{source}")["volume"]["status"] == "available"


def test_a_damaged_backup_makes_no_volume(cloud: VolumeCloud) -> None:
    source = volume(cloud, b"")
    fill(cloud, source, 5 * MIB)
    made = backup(cloud, source)
    (piece,) = (cloud.folder / "state/backups" / made).glob("*.zst")
    piece.write_bytes(piece.read_bytes()[:-100])
    again = cloud.api.post(f"/backups/{made}/restore", {"restore": {}}, status=202)["restore"]["volume_id"]
    cloud.settle()
    assert cloud.api.get(f"/volumes/{again}")["volume"]["status"] == "error"
    assert cloud.read(again) is None
    shown = cloud.api.get(f"/backups/{made}")["backup"]
    assert shown["status"] == "available" and again in shown["fail_reason"]


def test_without_a_target_there_is_no_backup_service(cloud: VolumeCloud, tmp_path: Path) -> None:
    def service() -> dict[str, object]:
        found = cloud.api.get("/os-services", as_=ADMIN)["services"]
        (row,) = (each for each in found if each["binary"] == "cinder-backup")
        return dict(row)

    before = service()
    assert (before["host"], before["state"]) == ("w1", "up")
    (tmp_path / "file").touch()
    config.override(cloud.conf, "volume_backup.path", str(tmp_path / "file"))
    assert cloud.role is not None
    cloud.role.heartbeat()
    assert service()["updated_at"] == before["updated_at"]
