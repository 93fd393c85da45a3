"""What a backup is: a volume cut into pieces of one size, and a manifest that names them.

    BACKUP/NUMBER-SHA256.zst    a piece, compressed; its sha256 is that of what was read
    BACKUP/manifest.json        written last: without it there is no backup

Pieces of nothing but zeros are not stored. An incremental backup names its parent's pieces where nothing
changed, so a parent must live as long as its children: the API sees to that. A piece's name says its
content, so a backup that was cut short goes on where it was: what is there already is not sent again.
A restored piece is checked before it is written.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import json
import re
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

import zstandard
from oslo_config import cfg

from core.errors import BadRequest, DriverError, NotFound
from volume.backup.targets import GROUP, OPTS, Target

FORMAT = 1
_PIECE = re.compile(r"([0-9a-f-]{36})/([0-9]{8})-([0-9a-f]{64})\.zst")
Progress = Callable[[int], None]
"""Called with the bytes done so far; what it raises ends the work, and a repeat goes on from there."""


def _manifest_name(backup_id: str) -> str:
    return f"{backup_id}/manifest.json"


def _digest(pieces: list[str | None]) -> str:
    return hashlib.sha256(json.dumps(pieces).encode()).hexdigest()


def manifest(target: Target, backup_id: str) -> dict[str, Any]:
    """A complete backup's manifest. :raises DriverError: there is none, or it is damaged."""
    try:
        found: dict[str, Any] = json.loads(target.get(_manifest_name(backup_id)))
        pieces, size, step = found["pieces"], int(found["size"]), int(found["chunk_size"])
    except NotFound as error:
        raise DriverError(f"backup {backup_id} was never completed, or is gone", cause=error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DriverError(f"the manifest of backup {backup_id} is damaged", cause=error) from error
    if found.get("format") != FORMAT:
        raise DriverError(f"backup {backup_id} has a format that is not known: {found.get('format')}")
    whole = step > 0 and len(pieces) == -(-size // step)
    if not whole or found.get("sha256") != _digest(pieces) or not all(map(_well_formed, pieces)):
        raise DriverError(f"the manifest of backup {backup_id} is damaged")
    return found


def _well_formed(piece: Any) -> bool:
    return piece is None or (isinstance(piece, str) and _PIECE.fullmatch(piece) is not None)


def backup(
    conf: cfg.ConfigOpts,
    target: Target,
    backup_id: str,
    source: BinaryIO,
    progress: Progress,
    *,
    parent_id: str | None = None,
    about: dict[str, Any] | None = None,
    most: int | None = None,
) -> dict[str, Any]:
    """Store ``source`` (which must stand still); the manifest, with "stored" bytes and "new_pieces".

    ``most``: no more than so many bytes; devices may be larger than the volume on them.
    ``about``: what is to be known at a restore, JSON-able. A repeat of a complete backup does nothing.
    :raises DriverError: the target refuses, or the parent is not whole.
    """
    conf.register_opts(OPTS, group=GROUP)
    options = conf[GROUP]
    there = target.list(backup_id)
    if _manifest_name(backup_id) in there:
        return manifest(target, backup_id)
    step, known = options.chunk_mib << 20, []
    if parent_id is not None:
        parent = manifest(target, parent_id)
        step, known = parent["chunk_size"], parent["pieces"]  # only equal cuts can be compared
    compression = options.compression_level

    def store(number: int, data: bytes) -> tuple[str | None, int]:
        if data == bytes(len(data)):
            return None, 0
        digest = hashlib.sha256(data).hexdigest()
        if number < len(known) and known[number] is not None and f"-{digest}." in known[number]:
            return known[number], 0
        name = f"{backup_id}/{number:08d}-{digest}.zst"
        if name in there:
            return name, 0
        # A compressor is for one thread at a time; making one costs little beside a piece.
        packed = zstandard.ZstdCompressor(level=compression, write_checksum=True).compress(data)
        target.put(name, packed)
        return name, len(packed)

    pieces: list[str | None] = []
    stored = done = 0
    with contextlib.closing(_in_order(_cut(source, step, most), store, options.threads)) as results:
        for length, (piece, written) in results:
            pieces.append(piece)
            stored, done = stored + written, done + length
            progress(done)
    made = {"format": FORMAT, "backup_id": backup_id, "parent_id": parent_id, "size": done,
            "chunk_size": step, "pieces": pieces, "sha256": _digest(pieces), "stored": stored,
            "new_pieces": sum(1 for each in pieces if each and each.startswith(backup_id)),
            "about": about or {}}  # fmt: skip
    target.put(_manifest_name(backup_id), json.dumps(made).encode())
    return made


def _cut(source: BinaryIO, step: int, most: int | None) -> Iterator[bytes]:
    source.seek(0)
    done = 0
    while wanted := step if most is None else min(step, most - done):
        parts, missing = [], wanted
        while missing and (part := source.read(missing)):  # a raw file may give less than was asked for
            parts.append(part)
            missing -= len(part)
        if missing < wanted:
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        if missing:
            return
        done += wanted


def _in_order(
    data: Iterator[bytes], work: Callable[[int, bytes], tuple[str | None, int]], threads: int
) -> Generator[tuple[int, tuple[str | None, int]], None, None]:
    """(length, result) of each piece, in order; at most twice ``threads`` pieces are in memory."""
    waiting: collections.deque[tuple[int, Future[tuple[str | None, int]]]] = collections.deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="backup") as pool:
        for number, piece in enumerate(data):
            waiting.append((len(piece), pool.submit(work, number, piece)))
            if len(waiting) >= 2 * threads:
                length, result = waiting.popleft()
                yield length, result.result()
        for length, result in waiting:
            yield length, result.result()


def restore(target: Target, backup_id: str, to: BinaryIO, progress: Progress) -> dict[str, Any]:
    """Write a backup's content to the beginning of ``to``, which may hold anything; its manifest.

    :raises BadRequest: ``to`` is too small. :raises DriverError: a piece is gone or damaged.
    """
    found = manifest(target, backup_id)
    size, step = found["size"], found["chunk_size"]
    if to.seek(0, io.SEEK_END) < size:
        raise BadRequest("The volume is smaller than the backup.")
    for number, piece in enumerate(found["pieces"]):
        length = min(step, size - number * step)
        to.seek(number * step)
        if piece is not None:
            _write(to, _fetch(target, piece, length))
        elif to.read(length) != bytes(length):  # zeros over zeros would fill a sparse volume
            to.seek(number * step)
            _write(to, bytes(length))
        progress(number * step + length)
    to.flush()
    return found


def _write(to: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # a raw file may take less than it was given
        rest = rest[to.write(rest) :]


def _fetch(target: Target, piece: str, length: int) -> bytes:
    """A piece's content, checked; what unpacks to more than its length is not unpacked further."""
    try:
        packed = target.get(piece)
        data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read(length + 1)
    except NotFound as error:
        raise DriverError(f"the backup's piece {piece} is gone", cause=error) from error
    except zstandard.ZstdError as error:
        raise DriverError(f"the backup's piece {piece} is damaged", cause=error) from error
    match = _PIECE.fullmatch(piece)
    if match is None or len(data) != length or hashlib.sha256(data).hexdigest() != match[3]:
        raise DriverError(f"the backup's piece {piece} is damaged")
    return data


def delete(target: Target, backup_id: str) -> None:
    """The manifest first: what is half deleted is no backup any more. Children must be gone."""
    target.delete([_manifest_name(backup_id)])
    target.delete(target.list(backup_id))
