"""The intent ``image.import``: staged data, a URL's or an active image's goes to stores.

| step | does | undo |
|---|---|---|
| stores | for each store that does not have the data: inspect, hash and put it | what it put goes |

Data that is registered by its location is inspected and hashed where it lies, and put nowhere.
The first store gets the data from where the method says, the others from the first.
A repeat leaves out the stores that have it already: an object is an image's
data only when its location says so, which is written after its last byte.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from oslo_config import cfg

from core.errors import BadRequest, DriverError, HaneulError, NotFound
from db import image_imports
from db.images import Image
from db.sessions import Databases, retrying
from image import transfer
from image.data import Gone, ImageData
from image.fetch import Fetcher
from image.import_plugins import Formats, Plugins
from image.inspect import Inspection
from image.signatures import SignatureMismatch, Verifier
from image.transfer import Received
from lifecycle.steps import Action, Cancelled, Registry, Run, Step

LOG = logging.getLogger(__name__)
METHODS = ("glance-direct", "web-download", "copy-image")
ADD_LOCATION = "add-location"
"""No method that clients name: ``POST …/locations`` registers data that lies somewhere else."""


class Importer:
    """What the steps work with (``run.worker``)."""

    def __init__(self, conf: cfg.ConfigOpts, databases: Databases, data: ImageData) -> None:
        self._db = databases.global_
        self.data = data
        self._fetcher = Fetcher(conf)
        self._plugins = Plugins(conf)
        self._lease_s = conf.image.upload_lease

    def sweep(self) -> int:
        """What killed imports left on this host goes; returns how many things."""
        return self._plugins.sweep()

    def image(self, run: Run) -> Image:
        """:raises Cancelled: it was deleted."""
        try:
            with self._db.read() as connection:
                return image_imports.of_worker(connection, run.resource_id)
        except NotFound as error:
            raise Cancelled(run.intent_id) from error

    @contextlib.contextmanager
    def _source(
        self,
        run: Run,
        image: Image,
        room: int,
        keep: Callable[[int], None],
        verifier: Verifier | None,
    ) -> Iterator[tuple[Iterator[bytes], Formats]]:
        """The data to store, and which formats of the image change with it."""
        if image["locations"]:
            yield self.data.open(image), {}
            return
        if run.arguments["method"] == ADD_LOCATION:
            store = self.data.stores.get(run.arguments["stores"][0])
            yield _verified(store.get(run.arguments["uri"]), verifier), {}
            return
        formats = self._plugins.formats(image["disk_format"], image["container_format"])
        with (
            self._received(run, image) as received,
            self._plugins.applied(
                _verified(received, verifier), image["disk_format"], formats, room, keep
            ) as made,
        ):
            yield made, formats

    @contextlib.contextmanager
    def _received(self, run: Run, image: Image) -> Iterator[Iterator[bytes]]:
        if run.arguments["method"] == "web-download":
            with self._fetcher.open(run.arguments["uri"]) as chunks:
                yield chunks
        else:
            with self._db.read() as connection:
                found = image_imports.staged(connection, image["id"])
            if found is None:
                raise NotFound(f"Image {image['id']} has no staged data.")
            yield self.data.stores.get(found["store"]).get(found["name"])

    def copy(self, run: Run, store_id: str) -> None:
        """Put the image's data into one more store. :raises Gone: the image was deleted."""
        image, store = self.image(run), self.data.stores.get(store_id)
        location_id = str(uuid.uuid4())
        adopted = run.arguments["method"] == ADD_LOCATION
        name = run.arguments["uri"] if adopted else f"{image['id']}.{location_id[:8]}"
        sink: transfer.Sink = transfer.Nowhere() if adopted else store
        with self._db.write() as connection:
            room = self.data.limits.room(connection, image["owner"])
            image_imports.add_location(connection, image["id"], location_id, store_id, name, self._lease_s)
        inspection = Inspection()
        try:
            keep = self._keeper(run, location_id)
            verifier = None if image["locations"] else _verifier(run, image)
            expected = _Expected(run.arguments["request"].get("validation_data") or {})
            with self._source(run, image, room, keep, verifier) as (chunks, formats):
                received = transfer.receive(
                    _Stream(expected.seen(chunks)),
                    sink,
                    name,
                    limit=room,
                    inspection=inspection,
                    progress=keep,
                )
            if image["os_hash_algo"] not in (None, received.hash_algo):
                # registered with another hash, which ``data.open`` has compared
                received = dataclasses.replace(
                    received, hash_algo=image["os_hash_algo"], hash_value=image["os_hash_value"]
                )
            if image["os_hash_value"] not in (None, received.hash_value):
                raise DriverError(f"The data of image {image['id']} is not what it was.")
            if adopted:
                received = expected.compared(received)
            image = {**image, **formats}
            verdict = self.data.judge(image, inspection, received)
            measured = {
                **formats,
                "size": received.size,
                "virtual_size": verdict.virtual_size if image["container_format"] == "bare" else None,
                "checksum": received.checksum,
                "os_hash_algo": received.hash_algo,
                "os_hash_value": received.hash_value,
            }
            self._finish(image, location_id, measured)
        except BaseException:
            self._give_up(image["id"], location_id)
            raise

    @retrying
    def _finish(self, image: Image, location_id: str, measured: dict[str, Any]) -> None:
        with self._db.write() as connection:
            self.data.limits.check_size(connection, image["owner"], measured["size"])
            if not image_imports.finish_location(connection, image["id"], location_id, measured):
                raise Gone(f"Image {image['id']} was deleted during the import.")

    @retrying
    def _give_up(self, image_id: str, location_id: str) -> None:
        with self._db.write() as connection:
            image_imports.drop(connection, image_id, location_id=location_id, statuses=("saving",))

    def _keeper(self, run: Run, location_id: str) -> Callable[[int], None]:
        """Looks whether the import is still wanted, and renews the lease three times within its length."""
        renewed = time.monotonic()

        def progress(_size: int) -> None:
            nonlocal renewed
            run.check_cancelled()
            if time.monotonic() - renewed < self._lease_s / 3:
                return
            renewed = time.monotonic()
            with self._db.write() as connection:
                if not image_imports.renew(connection, location_id, self._lease_s):
                    raise Gone("The import was given up.")

        return progress

    @retrying
    def undo(self, run: Run) -> None:
        """None of the stores had the data before."""
        with self._db.write() as connection:
            image_imports.drop(connection, run.resource_id, stores=run.arguments["stores"])


def _verifier(run: Run, image: Image) -> Verifier | None:
    """:raises SignatureMismatch: the image's signature was changed after the import began."""
    if (signed := run.arguments.get("signature")) is None:
        return None
    if any(image["properties"].get(name) != value for name, value in signed["properties"].items()):
        raise SignatureMismatch("The image's signature was changed during the import.")
    return Verifier(signed["properties"], base64.b64decode(signed["certificate"]))


def _verified(chunks: Iterator[bytes], verifier: Verifier | None) -> Iterator[bytes]:
    """What came is what was signed, before plug-ins change it; raises at the end if it was not."""
    for chunk in chunks:
        if verifier is not None:
            verifier.feed(chunk)
        yield chunk
    if verifier is not None:
        verifier.verify()


class _Expected:
    """What whoever registers data says of it: {"os_hash_algo", "os_hash_value"}, or nothing."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._algorithm, self._value = said.get("os_hash_algo"), said.get("os_hash_value")
        self._digest = hashlib.new(self._algorithm) if self._algorithm else None

    def seen(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._digest is not None:
                self._digest.update(chunk)
            yield chunk

    def compared(self, received: Received) -> Received:
        """With the hash that was asked for. :raises BadRequest: the data is not what was said."""
        if self._digest is None:
            return received
        assert self._algorithm is not None
        if self._digest.hexdigest() != str(self._value).lower():
            raise BadRequest(f"The {self._algorithm} of the data is not what the request said.")
        return dataclasses.replace(received, hash_algo=self._algorithm, hash_value=self._digest.hexdigest())


class _Stream:
    """Chunks of any length as something to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def _stores(run: Run) -> dict[str, Any]:
    importer: Importer = run.worker
    failed: list[str] = []
    last: HaneulError | None = None
    for store_id in run.arguments["stores"]:
        run.check_cancelled()
        if store_id in [found["store"] for found in importer.image(run)["locations"]]:
            continue
        try:
            importer.copy(run, store_id)
        except HaneulError as error:
            if run.arguments["must_succeed"]:
                raise
            LOG.warning("image %s does not get into store %s: %s", run.resource_id, store_id, error)
            failed.append(store_id)
            last = error
    if last is not None and len(failed) == len(run.arguments["stores"]):
        raise last
    return {"failed": failed}


def _remove(run: Run) -> None:
    importer: Importer = run.worker
    importer.undo(run)


ACTIONS = Registry(Action(image_imports.KIND, (Step("stores", _stores, _remove),)))
