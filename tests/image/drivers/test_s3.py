"""The S3 store against a server of its protocol."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from core import config
from core.errors import DriverError
from image.drivers.s3 import S3Kind, S3Store
from tests.image.drivers.contract import MIB, Contract, new_name


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def make(url: str, **options: Any) -> S3Store:
    conf, kind = config.load(), S3Kind()
    conf.register_opts(kind.OPTS, group="image_store_s3")
    options = {
        "host": url,
        "bucket": f"b{uuid.uuid4().hex}",
        "access_key": "a",
        "secret_key": "verysecret",
        "create_bucket_on_put": True,
        "large_object_chunk_size": 5,
        **options,
    }
    for name, value in options.items():
        config.override(conf, f"image_store_s3.s3_store_{name}", value)
    store = kind("s3", conf.image_store_s3, None)
    assert isinstance(store, S3Store)
    return store


@pytest.fixture
def store(url: str) -> S3Store:
    made = make(url)
    made.put([b"x"], "first")
    made.delete("first")
    return made


def uploads(store: S3Store) -> list[str]:
    found = store._s3.list_multipart_uploads(Bucket=store._bucket)
    return [each["Key"] for each in found.get("Uploads", ())]


class TestContract(Contract):
    """The S3 store keeps the contract."""


def test_a_broken_upload_keeps_no_parts(store: S3Store) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(7):
            yield os.urandom(MIB)
        assert uploads(store)  # the first part is there
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        store.put(chunks(), new_name())
    assert uploads(store) == []


def test_what_a_killed_upload_left_goes_with_the_object(store: S3Store) -> None:
    name, other = new_name(), new_name()
    for key in (name, other):
        store._s3.create_multipart_upload(Bucket=store._bucket, Key=key)
    store.delete(name)
    assert uploads(store) == [other]


def test_without_a_bucket_it_says_so(url: str) -> None:
    store = make(url, create_bucket_on_put=False)
    with pytest.raises(DriverError):
        store.put([b"x"], new_name())
    store.delete(new_name())  # there is nothing, and that is what was wanted
    with pytest.raises(DriverError, match="s3_store_bucket"):
        make(url, bucket="")
