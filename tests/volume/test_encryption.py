"""Encrypted volumes from the API to the files: what a guest reads, what is on disk, what becomes of keys.

Guests are played by qemu-io with the passphrase, as the compute agent gets it (``VolumeKeys``).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest

from api.volume.app import make_app
from compute.volume_keys import VolumeKeys
from core.errors import DriverError, NotFound
from lifecycle import service_client
from tests.api.identity import authenticate
from tests.api.volume.conftest import ADMIN, IMAGE, OTHER
from tests.crash.volume_cloud import VolumeCloud, snapshot, volume
from tests.volume.drivers.encrypted_contract import MARK, Guest, on_disk
from volume.drivers.base import Volume

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is missing")
MIB = 1 << 20


class _VolumeApi:
    """The Volume API as compute agents reach it: over the wire, as a service."""

    def __init__(self, application: Any) -> None:
        self._app = webtest.TestApp(application)

    def request(self, path: str, method: str, **options: Any) -> Any:
        headers = {**options.get("headers", {}), "X-Auth-Token": ADMIN}
        sent = getattr(self._app, method.lower())(f"/v3{path}", headers=headers, status="*")
        return _Answer(sent)


class _Answer:
    def __init__(self, sent: webtest.TestResponse) -> None:
        self.status_code, self.content = sent.status_int, sent.body
        self._sent = sent

    def json(self) -> Any:
        return self._sent.json


class Encrypted:
    """A cloud with a type ``safe``, and short ways to look at volumes of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cloud = VolumeCloud(folder, "file", own_worker=True)
        self.cloud.start()
        self.type("safe", key_size=256, cipher="aes-xts-plain64")
        api = _VolumeApi(make_app(self.cloud.conf, self.cloud.services, authenticate))
        monkeypatch.setattr(service_client, "service_adapter", lambda *_, **__: api)
        self.keys = VolumeKeys(self.cloud.conf)

    def type(self, name: str, **specs: Any) -> str:
        api = self.cloud.api
        made = api.post("/types", {"volume_type": {"name": name}}, as_=ADMIN)["volume_type"]["id"]
        asked = {"provider": "luks", "control_location": "front-end", **specs}
        api.post(f"/types/{made}/encryption", {"encryption": asked}, as_=ADMIN)
        return str(made)

    def volume(self, **asked: Any) -> str:
        """A new volume, available."""
        made = volume(self.cloud, b"", **asked)
        assert self.cloud.row("volumes", made)
        return made

    def of(self, volume_id: str) -> Volume:
        return self.cloud._worker(volume_id).volume(volume_id)

    def guest(self, volume_id: str) -> Guest:
        found = self.keys.encryption_of({"volume_id": volume_id, "connection_info": {"encrypted": True}})
        assert found is not None and found["format"] == "luks"
        return Guest(self.cloud.driver_of(volume_id), found["secret"])

    def write(self, volume_id: str, byte: int, at: int = 0) -> None:
        self.guest(volume_id).write(self.of(volume_id), byte, at)

    def holds(self, volume_id: str, byte: int, at: int = 0) -> bool:
        return self.guest(volume_id).holds(self.of(volume_id), byte, at)

    def key_of(self, volume_id: str) -> str | None:
        shown = self.cloud.api.get(f"/volumes/{volume_id}", version="3.64")["volume"]
        return shown.get("encryption_key_id")

    def backup(self, volume_id: str, *, incremental: bool = False) -> str:
        asked = {"volume_id": volume_id, "incremental": incremental}
        made = str(self.cloud.api.post("/backups", {"backup": asked})["backup"]["id"])
        self.cloud.settle()
        shown = self.cloud.api.get(f"/backups/{made}")["backup"]
        assert shown["status"] == "available", shown["fail_reason"]
        return made


@pytest.fixture
def encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Encrypted]:
    made = Encrypted(tmp_path, monkeypatch)
    yield made
    assert made.cloud.stray_keys() == []
    made.cloud.stop()


def test_a_volume_its_copies_and_their_keys(encrypted: Encrypted, tmp_path: Path) -> None:
    cloud = encrypted.cloud
    made = encrypted.volume(volume_type="safe")
    shown = cloud.api.get(f"/volumes/{made}")["volume"]
    assert shown["encrypted"] is True and shown["size"] == 1
    facts = cloud.api.get(f"/volumes/{made}/encryption")
    assert facts == {
        "provider": "luks",
        "control_location": "front-end",
        "cipher": "aes-xts-plain64",
        "key_size": 256,
        "encryption_key_id": encrypted.key_of(made),
    }
    encrypted.write(made, 0x41)
    assert not on_disk(cloud.driver_of(made), encrypted.of(made), b"A" * 64)
    taken = snapshot(cloud, made)
    encrypted.write(made, 0x42)
    clone = encrypted.volume(source_volid=made)
    later = encrypted.volume(snapshot_id=taken, size=2)
    assert encrypted.holds(clone, 0x42) and encrypted.holds(later, 0x41)
    assert encrypted.guest(later).size(encrypted.of(later)) == 2 << 30
    ids = {encrypted.key_of(each) for each in (made, clone, later)}
    assert len(ids) == 3 and None not in ids
    cloud.api.action(made, "os-extend", {"new_size": 2}, status=202)
    cloud.settle()
    assert encrypted.guest(made).size(encrypted.of(made)) == 2 << 30 and encrypted.holds(made, 0x42)
    secret = encrypted.keys.secret_for(made)
    cloud.api.delete(f"/volumes/{made}?cascade=true", status=202)
    cloud.settle()
    with pytest.raises(NotFound):
        encrypted.keys.secret_for(made)
    assert encrypted.holds(clone, 0x42), "the copy's key is its own"
    # nothing that is kept holds the passphrase: rows, intents, files
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("*.sqlite*"))
    for form in (secret.encode(), bytes.fromhex(secret)):
        assert form not in stored


def test_backups_hold_ciphertext_and_outlive_the_volume(encrypted: Encrypted, tmp_path: Path) -> None:
    cloud = encrypted.cloud
    made, other = encrypted.volume(volume_type="safe"), encrypted.volume(volume_type="safe")
    plain = encrypted.volume()
    encrypted.write(made, 0x41)
    full = encrypted.backup(made)
    encrypted.write(made, 0x42, at=64 * MIB)
    later = encrypted.backup(made, incremental=True)
    # only the piece that changed: the header stays what it was
    assert [path.name[:8] for path in (tmp_path / "state" / "backups" / later).glob("*.zst")] == ["00000004"]
    restore = {"restore": {"volume_id": other}}
    cloud.api.post(f"/backups/{later}/restore", restore, status=202)
    cloud.settle()
    assert encrypted.holds(other, 0x41) and encrypted.holds(other, 0x42, at=64 * MIB)
    assert not Guest(cloud.driver_of(other), encrypted.keys.secret_for(made)).opens(encrypted.of(other))
    cloud.api.post(f"/backups/{later}/restore", {"restore": {"volume_id": plain}}, status=400)
    new = cloud.api.post(f"/backups/{full}/restore", {"restore": {}}, status=202)["restore"]["volume_id"]
    cloud.settle()
    assert cloud.api.get(f"/volumes/{new}")["volume"]["encrypted"] and encrypted.holds(new, 0x41)
    for each in (made, new):
        cloud.api.delete(f"/volumes/{each}", status=202)
    cloud.settle()
    asked = {"size": 1, "volume_type": "safe", "backup_id": later}
    restored = cloud.api.post("/volumes", {"volume": asked}, version="3.47")["volume"]["id"]
    cloud.settle()
    assert encrypted.holds(restored, 0x42, at=64 * MIB)
    cloud.forget()
    assert cloud.rows("secrets") == []


def test_images(encrypted: Encrypted, tmp_path: Path) -> None:
    """An image becomes an encrypted volume, that an encrypted image, that another volume; a foreign key opens none."""
    cloud = encrypted.cloud
    image = cloud.services.images.images[IMAGE]  # type: ignore[attr-defined]
    image.update(disk_format="raw", size=2 * MIB)
    (cloud.images.folder / IMAGE).write_bytes((MARK * 30000)[:MIB] + b"\x07" * MIB)
    made = encrypted.volume(volume_type="safe", imageRef=IMAGE)
    assert encrypted.holds(made, 7, at=MIB) and not on_disk(cloud.driver_of(made), encrypted.of(made), MARK)
    upload = {"image_name": "i", "disk_format": "qcow2"}
    cloud.api.action(made, "os-volume_upload_image", upload, status=400)
    type(cloud.images).most = encrypted.of(made).header_bytes + 4 * MIB
    try:
        asked = {"image_name": "i", "disk_format": "raw", "container_format": "bare"}
        answer = cloud.api.action(made, "os-volume_upload_image", asked, status=202)
        cloud.settle()
    finally:
        type(cloud.images).most = MIB
    copy = answer["os-volume_upload_image"]["image_id"]
    data = cloud.images.data(copy)
    assert data is not None and data[:6] == b"LUKS\xba\xbe" and MARK not in data
    named = cloud.images.properties(copy)
    assert named["cinder_encryption_key_deletion_policy"] == "on_image_deletion"
    known = cloud.services.images.images[copy]  # type: ignore[attr-defined]
    known.update(named, status="active", size=len(data))
    cloud.api.post("/volumes", {"volume": {"size": 1, "imageRef": copy}}, status=400)
    again = encrypted.volume(volume_type="safe", imageRef=copy)
    shown = cloud.api.get(f"/volumes/{again}")["volume"]
    assert shown["size"] == 1 and "cinder_encryption_key_id" not in shown["volume_image_metadata"]
    assert encrypted.holds(again, 7, at=MIB)
    cloud.api.action(again, "os-reimage", {"image_id": IMAGE}, version="3.68", status=202)
    cloud.settle()
    assert encrypted.holds(again, 7, at=MIB)
    # who writes another's key into an image's properties does not get at what it opens
    known["cinder_encryption_key_id"] = encrypted.key_of(made)
    stolen = volume(cloud, None, volume_type="safe", imageRef=copy)
    cloud.settle()
    assert cloud.api.get(f"/volumes/{stolen}")["volume"]["status"] == "error"
    (message,) = cloud.api.get("/messages", version="3.3")["messages"]
    assert "not this image's" in message["user_message"]


@pytest.mark.parametrize(
    ("specs", "word"),
    [
        ({"provider": "luks2"}, "only 'luks' is served"),
        ({"provider": "plain"}, "only 'luks' is served"),
        ({"control_location": "back-end"}, "front-end"),
        ({"cipher": "aes-cbc-essiv:sha256"}, "aes-xts-plain64"),
        ({"key_size": 192}, "192 bits"),
    ],
)
def test_what_qemu_can_not_do_is_refused_at_once(
    encrypted: Encrypted, specs: dict[str, Any], word: str
) -> None:
    encrypted.type("other", **specs)
    body = {"volume": {"size": 1, "volume_type": "other"}}
    assert word in encrypted.cloud.api.refused("post", "/volumes", body, 400)
    assert encrypted.cloud.rows("secrets") == []


def test_what_would_have_to_be_written_anew_is_refused(encrypted: Encrypted) -> None:
    cloud = encrypted.cloud
    plain, safe = encrypted.volume(), encrypted.volume(volume_type="safe")
    encrypted.type("alike", key_size=512)
    encrypted.type("weaker", key_size=128)
    for source, type_ in ((plain, "safe"), (safe, "__DEFAULT__"), (safe, "weaker")):
        body = {"volume": {"size": 1, "source_volid": source, "volume_type": type_}}
        assert "its encryption is not" in cloud.api.refused("post", "/volumes", body, 400)
        retype = {"os-retype": {"new_type": type_, "migration_policy": "on-demand"}}
        assert "written anew" in cloud.api.refused("post", f"/volumes/{source}/action", retype, 400)
    cloud.api.action(safe, "os-retype", {"new_type": "alike"}, status=202)
    cloud.settle()
    encrypted.write(safe, 0x41)
    copy = encrypted.volume(source_volid=safe, volume_type="safe")
    assert encrypted.holds(copy, 0x41)


def test_an_encrypted_volume_changes_hands_since_3_70(encrypted: Encrypted) -> None:
    cloud = encrypted.cloud
    made = encrypted.volume(volume_type="safe")
    encrypted.write(made, 0x41)
    offer = {"transfer": {"volume_id": made}}
    cloud.api.post("/volume-transfers", offer, version="3.69", status=400)
    given = cloud.api.post("/volume-transfers", offer, version="3.70")["transfer"]
    accept = {"accept": {"auth_key": given["auth_key"]}}
    cloud.api.post(f"/volume-transfers/{given['id']}/accept", accept, as_=OTHER, version="3.70", status=202)
    cloud.api.get(f"/volumes/{made}/encryption", status=404)
    assert cloud.api.get(f"/volumes/{made}/encryption", as_=OTHER)["encryption_key_id"]
    assert encrypted.holds(made, 0x41)
    cloud.api.delete(f"/volumes/{made}", as_=OTHER, status=202)
    cloud.settle()
    assert cloud.rows("secrets") == []


def test_the_agent_says_what_it_can_not_open(encrypted: Encrypted) -> None:
    plain = encrypted.volume()
    assert encrypted.keys.encryption_of({"volume_id": plain, "connection_info": {"encrypted": False}}) is None
    with pytest.raises(DriverError, match="not LUKS"):
        encrypted.keys.secret_for(plain)
