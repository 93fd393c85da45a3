"""Image data between clients, stores and rows: upload, download, removal.

The order of an upload, and what a crash after each point leaves:

1. rows: image saving, location saving with a lease: the janitor ends it later
2. the object in the store: the same, the location names it
3. rows: image active, location active: done

The order of a removal: the rows say "deleted" in the transaction that deletes the
image; then the object goes, then the location's row.  Both are harmless to repeat,
so the janitor needs no more than the rows.
"""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

from oslo_config import cfg

from core.errors import DriverError, HaneulError, NotFound
from core.keys import KeyManager, name_of_image
from db import image_imports, image_uploads, images
from db.images import Image
from db.sessions import Databases, retrying
from image import cache, fetch, import_plugins, stores, transfer
from image.drivers.base import Store
from image.inspect import ContentMismatch, Inspection, Verdict
from image.limits import Limits
from image.signatures import CERTIFICATE, SignatureMismatch, Verifier, is_signed
from image.transfer import Readable, Received

LOG = logging.getLogger(__name__)
GROUP = "image"
OPTS: list[cfg.Opt] = [
    cfg.BoolOpt(
        "require_image_format_match",
        default=True,
        help="Uploads must be what disk_format says. Unsafe content is refused in any case.",
    ),
    cfg.ListOpt(
        "gpt_safety_checks_nonfatal",
        default=[],
        help="Checks of a partition table that only warn: mbr.",
    ),
    cfg.IntOpt(
        "upload_lease",
        default=120,
        min=6,
        help="Seconds after which an upload that nobody feeds any more is given up. An upload renews it.",
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS), *cache.list_opts(), *fetch.list_opts(), *import_plugins.list_opts()]


class Gone(HaneulError):
    """The image was deleted, or its upload taken away, while data still came."""

    code = "haneul.image.gone"
    http_status = 410


class ImageData:
    """Made once per process; used by the API's threads and by the janitor."""

    def __init__(
        self, conf: cfg.ConfigOpts, databases: Databases, copies: cache.ImageCache | None = None
    ) -> None:
        """``copies``: what an API process reads from first, and leaves copies in."""
        conf.register_opts(OPTS, group=GROUP)
        self._options = conf[GROUP]
        self._db = databases.global_
        self.stores = stores.Stores(conf)
        self.limits = Limits(conf)
        self._keys = KeyManager(conf)
        self._copies = copies

    # -- upload ----------------------------------------------------------------

    def upload(
        self,
        image: Image,
        body: Readable,
        declared: int | None,
        store_id: str | None = None,
        verifier: Verifier | None = None,
    ) -> Received:
        """Take an image's data; afterwards it is active, or queued as if nothing had been.

        ``declared``: the announced bytes, None if unknown.
        :raises Conflict: the image is not queued. :raises TooLarge: over a limit.
        :raises ContentMismatch: not what disk_format says, or unsafe. :raises Gone:
        :raises SignatureMismatch: not what was signed.
        """
        store = self.stores.get(store_id or self.stores.default)
        upload_id = str(uuid.uuid4())
        name = f"{image['id']}.{upload_id[:8]}"
        room = self._begin(image, upload_id, store, name)
        try:
            inspection = Inspection()
            received = transfer.receive(
                body,
                store,
                name,
                limit=room,
                declared=declared,
                inspection=inspection,
                verifier=verifier,
                progress=self._keeper(image["id"], upload_id),
            )
            if verifier is not None:
                verifier.verify()
            verdict = self.judge(image, inspection, received)
            self._finish(image, upload_id, received, verdict)
        except BaseException:
            self._fail(image["id"], upload_id)
            raise
        return received

    def stage(self, image: Image, body: Readable, declared: int | None) -> None:
        """Take data that an import will use: it lies in the default store, where every worker finds it.

        Afterwards the image is uploading, or queued as if nothing had been. What the data is, the
        import looks at.
        :raises Conflict: the image is not queued. :raises TooLarge: :raises Gone:
        """
        store = self.stores.get(self.stores.default)
        upload_id = str(uuid.uuid4())
        name = f"{image['id']}.{upload_id[:8]}"
        room = self._begin(image, upload_id, store, name, staging=True)
        try:
            received = transfer.receive(
                body,
                store,
                name,
                limit=room,
                declared=declared,
                progress=self._keeper(image["id"], upload_id),
            )
            self._finish_staging(image["id"], upload_id, received.size)
        except BaseException:
            self._fail(image["id"], upload_id)
            raise

    def certificate(self, image: Image, token: str) -> bytes | None:
        """What the image's signature is verified with; None if it has none.

        :raises SignatureMismatch: there is no such certificate for whoever has the token.
        """
        if not is_signed(image["properties"]):
            return None
        identifier = str(image["properties"][CERTIFICATE])
        try:
            return self._keys.certificate(identifier, token)
        except NotFound as error:
            raise SignatureMismatch(error.message) from error

    @retrying
    def _finish_staging(self, image_id: str, upload_id: str, size: int) -> None:
        with self._db.write() as connection:
            if not image_imports.finish_staging(connection, image_id, upload_id, size):
                raise Gone(f"Image {image_id} was deleted during the upload.")

    def _begin(self, image: Image, upload_id: str, store: Store, name: str, staging: bool = False) -> int:
        @retrying
        def begin() -> int:
            with self._db.write() as connection:
                image_uploads.begin(
                    connection,
                    image,
                    upload_id,
                    store.store_id,
                    name,
                    self._options.upload_lease,
                    "uploading" if staging else "saving",
                )
                self.limits.check_uploading(connection, image["owner"])
                room = self.limits.stage_room if staging else self.limits.room
                return room(connection, image["owner"])

        return begin()

    def _keeper(self, image_id: str, upload_id: str) -> Callable[[int], None]:
        """Renews the lease three times within its length."""
        every = self._options.upload_lease / 3
        renewed = time.monotonic()

        def progress(_size: int) -> None:
            nonlocal renewed
            if time.monotonic() - renewed < every:
                return
            renewed = time.monotonic()
            with self._db.write() as connection:
                if not image_uploads.renew(connection, image_id, upload_id, self._options.upload_lease):
                    raise Gone(f"Image {image_id} was deleted during the upload.")

        return progress

    def judge(self, image: Image, inspection: Inspection, received: Received) -> Verdict:
        """What the data is. :raises ContentMismatch: not what the image claims, or unsafe."""
        container = image["container_format"] if self._options.require_image_format_match else "any"
        try:
            return inspection.verdict(
                image["disk_format"], container, self._options.gpt_safety_checks_nonfatal
            )
        except ContentMismatch as error:
            LOG.warning("image %s refused after %d bytes: %s", image["id"], received.size, error.message)
            raise

    def _finish(self, image: Image, upload_id: str, received: Received, verdict: Verdict) -> None:
        @retrying
        def finish() -> bool:
            with self._db.write() as connection:
                self.limits.check_size(connection, image["owner"], received.size)
                return image_uploads.finish(
                    connection,
                    image["id"],
                    upload_id,
                    {
                        "size": received.size,
                        "virtual_size": verdict.virtual_size if image["container_format"] == "bare" else None,
                        "checksum": received.checksum,
                        "os_hash_algo": received.hash_algo,
                        "os_hash_value": received.hash_value,
                    },
                )

        if not finish():
            raise Gone(f"Image {image['id']} was deleted during the upload.")

    def _fail(self, image_id: str, upload_id: str) -> None:
        """Back to queued. What goes wrong here is the janitor's: the first error is the one to tell."""
        try:
            self.end_failed(image_id, upload_id)
            self.remove(image_id)
        except Exception as error:  # noqa: BLE001 - logged; the caller raises the cause
            LOG.warning("upload %s of image %s is left to the janitor: %s", upload_id, image_id, error)

    def end_failed(self, image_id: str, upload_id: str) -> None:
        """The rows of an upload that failed or was abandoned."""

        @retrying
        def fail() -> None:
            with self._db.write() as connection:
                image_uploads.fail(connection, image_id, upload_id)

        fail()

    # -- download --------------------------------------------------------------

    def open(
        self, image: Image, offset: int = 0, length: int | None = None, prefer: Sequence[str] = ()
    ) -> Iterator[bytes]:
        """The image's bytes, from a copy, or the store that is preferred or has the highest weight.

        :raises NotFound: it has none, in no store.
        """
        copies = self._copies if image["locations"] and not prefer else None
        if copies is not None and (copy := copies.read(image, offset, length)) is not None:
            return copy
        kind, chunks = self._from_store(image, offset, length, prefer)
        if self._copies is None or offset or length not in (None, image["size"]):
            return chunks
        return self._copies.kept(image, kind, chunks)

    def from_store(self, image: Image) -> Iterator[bytes]:
        """All of the image's bytes, and no copy of them. :raises NotFound: it has none, in no store."""
        return self._from_store(image, 0, None, ())[1]

    def _from_store(
        self, image: Image, offset: int, length: int | None, prefer: Sequence[str]
    ) -> tuple[str, Iterator[bytes]]:
        """(the store's kind, the bytes)."""

        def rank(store_id: str) -> tuple[int, int]:
            place = prefer.index(store_id) if store_id in prefer else len(prefer)
            return place, -self.stores.configured(store_id).weight

        known = [found for found in image["locations"] if found["store"] in self.stores]
        for location in sorted(known, key=lambda found: rank(found["store"])):
            try:
                store = self.stores.get(location["store"])
                chunks = store.get(location["name"], offset, length)
                if store.read_only and offset == 0 and length in (None, image["size"]):
                    chunks = _unchanged(image, chunks)
                return store.kind, chunks
            except NotFound:
                LOG.error("image %s has no data in store %s", image["id"], location["store"])
        raise NotFound(f"Image {image['id']} has no data.")

    # -- removal ---------------------------------------------------------------

    def remove(self, image_id: str | None = None) -> int:
        """Remove the objects whose rows say so (of one image, or of all). Returns how many."""
        with self._db.read() as connection:
            waiting = image_uploads.to_remove(connection, image_id)
        done = 0
        for location in waiting:
            if location["store"] not in self.stores:
                LOG.warning("store %s is not configured here: its data stays", location["store"])
                continue
            self.stores.get(location["store"]).delete(location["name"])
            with self._db.write() as connection:
                image_uploads.forget(connection, location["id"])
            done += 1
        return done + self._remove_keys(image_id)

    def _remove_keys(self, image_id: str | None) -> int:
        """The keys of deleted images that were encrypted; only keys which are named after the image."""
        with self._db.read() as connection:
            waiting = images.keys_to_remove(connection, image_id)
        for identifier, goes in waiting:
            if goes:
                self._keys.delete(name_of_image(identifier))
            with self._db.write() as connection:
                images.forget_key(connection, identifier)
        return len(waiting)

    def remove_soon(self, image_id: str) -> None:
        """Remove a deleted image's objects now if that works; the rows keep it for the janitor if not."""
        try:
            self.remove(image_id)
        except Exception as error:  # noqa: BLE001 - the image is deleted; its data follows later
            LOG.warning("data of image %s is left to the janitor: %s", image_id, error)

    def sweep(self) -> int:
        """End abandoned uploads and remove what is to be removed. Harmless at any time, anywhere."""
        with self._db.read() as connection:
            lost = image_uploads.abandoned(connection)
        for location in lost:
            LOG.warning("upload %s of image %s was abandoned", location["id"], location["image_id"])
            self.end_failed(location["image_id"], location["id"])
        return len(lost) + self.remove() + self.stores.sweep()


def _unchanged(image: Image, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """What others keep, they can change: the last bytes only come if the whole is what was registered."""
    digest, size, last = hashlib.new(image["os_hash_algo"]), 0, b""
    for chunk in chunks:
        size += len(chunk)
        if size > image["size"]:
            break
        digest.update(chunk)
        if last:
            yield last
        last = chunk
    if size != image["size"] or digest.hexdigest() != image["os_hash_value"]:
        raise DriverError(f"The data of image {image['id']} is not what was registered.")
    yield last
