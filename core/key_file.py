"""The key file: what secrets in the database are encrypted with (AES-256-GCM).

One key per line, base64 of 32 bytes; the first encrypts, all decrypt. So a key is changed by
putting a new one in front, encrypting everything anew (``haneul keys reseal``) and then removing the old.
Whoever has the database only has nothing; whoever loses the file has lost every secret.

The file is read again when it changes: a running service follows. Nothing of it stands in any message.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import os
import stat
import threading
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import Conflict, Unavailable

_BYTES, _NONCE = 32, 12


@dataclasses.dataclass(frozen=True)
class Sealed:
    """What may be stored: which key it takes, and nonce and ciphertext as base64."""

    key_id: str
    data: str


def _new_line() -> str:
    return base64.b64encode(AESGCM.generate_key(8 * _BYTES)).decode()


def _name(key: bytes) -> str:
    """How a key is called beside what it encrypted; says nothing about the key."""
    return hashlib.sha256(b"haneul key " + key).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and never readable by others."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def create(path: Path) -> bool:
    """A file with one new key, unless there is a file. True if it was made."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, f"{_new_line()}\n")
    return True


def add(path: Path) -> None:
    """A new key in front; the others stay, so everything can still be read."""
    KeyFile(path).check()
    _write(path, f"{_new_line()}\n{path.read_text()}")


def keep_first(path: Path) -> int:
    """Remove all keys but the first; how many went."""
    file = KeyFile(path)
    file.check()
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    _write(path, f"{lines[0]}\n")
    return len(lines) - 1


class KeyFile:
    """Seals and opens with the keys of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, bytes] = {}

    def check(self) -> None:
        """:raises Unavailable: the file is missing, open to others, or holds no keys."""
        self._load()

    def current(self) -> str:
        """The name of the key that encrypts."""
        return next(iter(self._load()))

    def seal(self, data: bytes, bound_to: str) -> Sealed:
        """Encrypt. ``bound_to``: what must be said again to open it, so that rows can't be exchanged."""
        name, key = next(iter(self._load().items()))
        nonce = os.urandom(_NONCE)
        sealed = nonce + AESGCM(key).encrypt(nonce, data, bound_to.encode())
        return Sealed(name, base64.b64encode(sealed).decode())

    def open(self, sealed: Sealed, bound_to: str) -> bytes:
        """Decrypt. :raises Conflict: the file has not the right key, or what is stored was changed."""
        key = self._load().get(sealed.key_id)
        if key is None:
            raise Conflict(
                "The secret can't be read: the key file does not hold the key that it was encrypted with.",
                code="haneul.keys.missing",
                cause=f"key {sealed.key_id} is not in {self._path}",
            )
        raw = base64.b64decode(sealed.data)
        try:
            return AESGCM(key).decrypt(raw[:_NONCE], raw[_NONCE:], bound_to.encode())
        except InvalidTag:
            # "from None": the error's chain must hold nothing of the content
            raise Conflict(
                "The secret can't be read: what is stored was changed.", code="haneul.keys.damaged"
            ) from None

    def _load(self) -> dict[str, bytes]:
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            with self._lock:
                if seen != self._seen:
                    if stat.S_IMODE(found.st_mode) & 0o077:
                        raise Unavailable(
                            f"the key file {self._path} is open to others: chmod 600 {self._path}"
                        )
                    self._keys, self._seen = self._parse(self._path.read_text()), seen
                return self._keys
        except OSError as error:
            raise Unavailable(f"the key file {self._path} can't be read: {error.strerror}") from error

    def _parse(self, text: str) -> dict[str, bytes]:
        keys: dict[str, bytes] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                key = base64.b64decode(line.strip(), validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if len(key) != _BYTES:
                raise Unavailable(f"line {number} of the key file {self._path} is no key of {_BYTES} bytes")
            keys[_name(key)] = key
        if not keys:
            raise Unavailable(f"the key file {self._path} holds no key")
        return keys
