"""Backups to a folder and to a real S3 server: content, increments, crashes, damage."""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from core import config
from core.errors import BadRequest, DriverError, NotFound, Unavailable
from volume.backup import chunks, targets

MIB = 1 << 20


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["posix", "s3"])
def conf(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made = config.load()
    made.register_opts(targets.OPTS, group=targets.GROUP)
    options = {"target": request.param, "path": str(tmp_path / "backups"), "chunk_mib": 1, "threads": 2}
    if request.param == "s3":
        url, bucket = request.getfixturevalue("s3_url"), f"b{uuid.uuid4().hex}"
        options |= {"s3_endpoint": url, "s3_bucket": bucket, "s3_access_key": "a", "s3_secret_key": "s"}
        boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="s"
        ).create_bucket(Bucket=bucket)
    for name, value in options.items():
        config.override(made, f"{targets.GROUP}.{name}", value)
    return made


@pytest.fixture
def target(conf: Any) -> targets.Target:
    return targets.load(conf)


def new_id() -> str:
    return str(uuid.uuid4())


def content() -> bytes:
    """Four pieces: random, zeros, random, and a short one."""
    return os.urandom(MIB) + bytes(MIB) + os.urandom(MIB) + b"tail" * 1000


def restored(target: targets.Target, backup_id: str, size: int) -> bytes:
    to = io.BytesIO(b"\xff" * size)
    chunks.restore(target, backup_id, to, lambda _done: None)
    return to.getvalue()


def test_what_was_backed_up_comes_back(conf: Any, target: targets.Target) -> None:
    data, made, seen = content(), new_id(), []
    found = chunks.backup(conf, target, made, io.BytesIO(data), seen.append, about={"name": "disk"})
    assert found["new_pieces"] == 3
    assert found["about"] == {"name": "disk"}
    assert seen[-1] == found["size"] == len(data)
    assert restored(target, made, len(data)) == data


def test_an_increment_stores_what_changed(conf: Any, target: targets.Target) -> None:
    data, first, second = bytearray(content()), new_id(), new_id()
    chunks.backup(conf, target, first, io.BytesIO(data), lambda _done: None)
    before = bytes(data)
    data[2 * MIB] ^= 1
    data[0:MIB] = bytes(MIB)
    found = chunks.backup(conf, target, second, io.BytesIO(data), lambda _done: None, parent_id=first)
    assert found["new_pieces"] == 1
    assert restored(target, second, len(data)) == data
    assert restored(target, first, len(data)) == before
    chunks.delete(target, second)
    assert restored(target, first, len(data)) == before


def test_a_backup_cut_short_is_none_and_goes_on(
    conf: Any, target: targets.Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, made = content(), new_id()

    def stop(_done: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        chunks.backup(conf, target, made, io.BytesIO(data), stop)
    with pytest.raises(DriverError, match="never completed"):
        restored(target, made, len(data))
    left = target.list(made)
    assert left
    sent: list[str] = []
    put = target.put

    def watched(name: str, packed: bytes) -> None:
        sent.append(name)
        put(name, packed)

    monkeypatch.setattr(target, "put", watched)
    chunks.backup(conf, target, made, io.BytesIO(data), lambda _done: None)
    assert not left & set(sent)
    assert sent[-1] == f"{made}/manifest.json"
    assert restored(target, made, len(data)) == data


@pytest.mark.parametrize("how", ["changed", "other content", "gone", "bomb"])
def test_damage_is_found_before_it_is_written(conf: Any, target: targets.Target, how: str) -> None:
    data, made = content(), new_id()
    pieces = chunks.backup(conf, target, made, io.BytesIO(data), lambda _done: None)["pieces"]
    packed = target.get(pieces[0])
    if how == "changed":
        target.put(pieces[0], packed[:1000] + bytes([packed[1000] ^ 1]) + packed[1001:])
    elif how == "other content":
        target.put(pieces[0], target.get(pieces[2]))
    elif how == "bomb":
        import zstandard

        target.put(pieces[0], zstandard.compress(bytes(64 * MIB)))
    else:
        target.delete([pieces[0]])
    to = io.BytesIO(bytes(len(data)))
    with pytest.raises(DriverError, match="gone" if how == "gone" else "damaged"):
        chunks.restore(target, made, to, lambda _done: None)
    assert to.getvalue()[:MIB] == bytes(MIB)


@pytest.mark.parametrize("piece", ["../../etc/passwd", "x", 7])
def test_a_manifest_that_was_tampered_with_is_refused(conf: Any, target: targets.Target, piece: Any) -> None:
    data, made = content(), new_id()
    found = chunks.backup(conf, target, made, io.BytesIO(data), lambda _done: None)
    found["pieces"][0] = piece
    found["sha256"] = chunks._digest(found["pieces"])
    target.put(f"{made}/manifest.json", json.dumps(found).encode())
    with pytest.raises(DriverError, match="manifest of backup .* is damaged"):
        restored(target, made, len(data))


def test_a_smaller_volume_is_refused(conf: Any, target: targets.Target) -> None:
    data, made = content(), new_id()
    chunks.backup(conf, target, made, io.BytesIO(data), lambda _done: None)
    with pytest.raises(BadRequest, match="smaller"):
        restored(target, made, MIB)


def test_deleting_leaves_nothing_and_repeats(conf: Any, target: targets.Target) -> None:
    made = new_id()
    chunks.backup(conf, target, made, io.BytesIO(content()), lambda _done: None)
    chunks.delete(target, made)
    chunks.delete(target, made)
    assert target.list(made) == set()
    with pytest.raises(NotFound):
        target.get(f"{made}/manifest.json")


def test_no_name_leads_out_of_a_target(target: targets.Target) -> None:
    for name in ("../x", "/etc/x", "a/../../x", ""):
        with pytest.raises(DriverError, match="no name"):
            target.put(name, b"")


def test_a_folder_that_can_not_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="can't be used"):
        targets.PosixTarget(tmp_path / "file" / "folder")
