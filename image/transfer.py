"""An upload on its way: inspected, hashed, bounded and stored at the same time.

One thread (the request's) reads the body; md5, sha512 and the store each work in a
thread of their own behind a queue of a few chunks.  hashlib lets go of the
interpreter lock for big chunks, so the slowest of the four sets the pace, and not
their sum.  Memory is bounded: at most ``DEPTH`` + 2 chunks per upload are alive.
"""

from __future__ import annotations

import dataclasses
import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from core.errors import HaneulError, TooLarge
from image.inspect import Inspection
from image.signatures import Verifier

CHUNK = 1 << 20
DEPTH = 4


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Sink(Protocol):
    """Where the bytes go: a store, or nowhere."""

    def put(self, chunks: Iterable[bytes], name: str) -> int: ...


class Nowhere:
    """For data that is only measured."""

    def put(self, chunks: Iterable[bytes], name: str) -> int:
        return sum(len(chunk) for chunk in chunks)


class Interrupted(HaneulError):
    """The sender went away before all was there."""

    code = "haneul.image.interrupted"
    http_status = 400


@dataclasses.dataclass(frozen=True)
class Received:
    """What an upload was. ``checksum``: md5; ``hash_value``: sha512; sizes in bytes."""

    size: int
    checksum: str
    hash_algo: str
    hash_value: str


class _Worker(threading.Thread):
    """Eats chunks from a bounded queue; None ends it. Goes on eating after a failure."""

    def __init__(self, name: str, work: Callable[[Iterator[bytes]], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(DEPTH)
        self._work = work
        self._ended = False
        self.error: BaseException | None = None
        self.start()

    def _chunks(self) -> Iterator[bytes]:
        while not self._ended:
            item = self._queue.get()
            self._ended = not isinstance(item, bytes)
            if isinstance(item, BaseException):
                raise item
            if item is not None:
                yield item

    def run(self) -> None:
        chunks = self._chunks()
        try:
            self._work(chunks)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self.error = error
        # whoever fills the queue must not be left waiting for a worker that gave up
        while not self._ended:
            self._ended = not isinstance(self._queue.get(), bytes)

    def put(self, item: bytes | BaseException | None) -> None:
        self._queue.put(item)


class _Abort(Exception):
    """Ends the workers of an upload that failed elsewhere."""


def receive(
    body: Readable,
    store: Sink,
    name: str,
    *,
    limit: int,
    declared: int | None = None,
    inspection: Inspection | None = None,
    verifier: Verifier | None = None,
    progress: Callable[[int], None] | None = None,
) -> Received:
    """Store ``body`` under ``name``, return what it was.

    ``limit``: bytes that are allowed; ``declared``: bytes that were announced;
    ``progress`` is called with the bytes so far, about once per chunk, and may raise.
    Nothing stays in the store when this raises, whatever it was; but what ``verifier`` has
    seen is for the caller to judge.
    :raises TooLarge: more than ``limit``. :raises Interrupted: less than declared.
    """
    if declared is not None and declared > limit:
        raise TooLarge(f"The image is too large: {declared} bytes, {limit} are allowed.")
    hashes = {"md5": hashlib.md5(usedforsecurity=False), "sha512": hashlib.sha512()}
    stored: list[int] = []

    def digest(algorithm: str) -> Callable[[Iterator[bytes]], None]:
        def work(chunks: Iterator[bytes]) -> None:
            for chunk in chunks:
                hashes[algorithm].update(chunk)

        return work

    workers = [_Worker(f"image-{algorithm}", digest(algorithm)) for algorithm in hashes]
    if verifier is not None:
        workers.append(_Worker("image-signature", _fed(verifier)))
    workers.append(_Worker("image-store", lambda chunks: stored.append(store.put(chunks, name))))
    try:
        size = _pump(body, workers, limit, declared, inspection, progress)
    except BaseException:
        for worker in workers:
            worker.put(_Abort())
        for worker in workers:
            worker.join()
        raise
    for worker in workers:
        worker.put(None)
    for worker in workers:
        worker.join()
    _raise_first(workers)
    return Received(size, hashes["md5"].hexdigest(), "sha512", hashes["sha512"].hexdigest())


def _fed(verifier: Verifier) -> Callable[[Iterator[bytes]], None]:
    def work(chunks: Iterator[bytes]) -> None:
        for chunk in chunks:
            verifier.feed(chunk)

    return work


def _raise_first(workers: list[_Worker]) -> None:
    for worker in workers:
        if worker.error is not None:
            raise worker.error


def _pump(
    body: Readable,
    workers: list[_Worker],
    limit: int,
    declared: int | None,
    inspection: Inspection | None,
    progress: Callable[[int], None] | None,
) -> int:
    size = 0
    while chunk := _next(body):
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"The image is too large: {limit} bytes are allowed.")
        if inspection is not None:
            inspection.feed(chunk)
        for worker in workers:
            worker.put(chunk)
        _raise_first(workers)
        if progress is not None:
            progress(size)
    if declared is not None and size != declared:
        raise Interrupted(f"{declared} bytes were announced, {size} came.")
    return size


def _next(body: Readable) -> bytes:
    try:
        return _full_chunk(body)
    except (OSError, ValueError) as error:
        raise Interrupted("The upload broke off.", cause=error) from error


def _full_chunk(body: Readable) -> bytes:
    """Exactly CHUNK bytes unless the body ends: inspectors and sparse files count on it."""
    first = body.read(CHUNK)
    if len(first) == CHUNK or not first:
        return first
    parts, size = [first], len(first)
    while size < CHUNK and (more := body.read(CHUNK - size)):
        parts.append(more)
        size += len(more)
    return b"".join(parts)
