"""The key file: what one key sealed no other opens; keys change without losing anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import key_file
from core.errors import Conflict, Unavailable
from core.key_file import KeyFile, Sealed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "keys" / "secrets.keys"
    assert key_file.create(made)
    return made


def test_a_new_file_is_its_owners_alone_and_never_replaced(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    assert not key_file.create(path)
    assert path.read_text() == before


def test_what_is_sealed_shows_nothing_and_opens(path: Path) -> None:
    keys = KeyFile(path)
    sealed = keys.seal(b"the secret", "a")
    assert b"secret" not in sealed.data.encode()
    assert keys.seal(b"the secret", "a").data != sealed.data
    assert keys.open(sealed, "a") == b"the secret"


def test_a_sealed_secret_can_not_stand_for_another(path: Path) -> None:
    keys = KeyFile(path)
    with pytest.raises(Conflict, match="was changed"):
        keys.open(keys.seal(b"x", "row 1"), "row 2")


def test_what_was_changed_does_not_open(path: Path) -> None:
    keys = KeyFile(path)
    sealed = keys.seal(b"x" * 40, "a")
    flipped = ("B" if sealed.data[20] != "B" else "C").join((sealed.data[:20], sealed.data[21:]))
    with pytest.raises(Conflict, match="was changed") as caught:
        keys.open(Sealed(sealed.key_id, flipped), "a")
    assert caught.value.__cause__ is None


def test_a_wrong_key_file_opens_nothing(path: Path, tmp_path: Path) -> None:
    sealed = KeyFile(path).seal(b"x", "a")
    key_file.create(tmp_path / "other")
    with pytest.raises(Conflict, match="does not hold the key"):
        KeyFile(tmp_path / "other").open(sealed, "a")


def test_keys_change_under_a_running_service(path: Path) -> None:
    keys = KeyFile(path)
    old = keys.seal(b"old", "a")
    key_file.add(path)
    assert path.stat().st_mode & 0o777 == 0o600
    new = keys.seal(b"new", "a")
    assert new.key_id != old.key_id
    assert (keys.open(old, "a"), keys.open(new, "a")) == (b"old", b"new")
    assert key_file.keep_first(path) == 1
    assert keys.open(new, "a") == b"new"
    with pytest.raises(Conflict):
        keys.open(old, "a")


def test_a_file_that_others_may_read_is_refused(path: Path) -> None:
    path.chmod(0o640)
    with pytest.raises(Unavailable, match="chmod 600"):
        KeyFile(path).check()


@pytest.mark.parametrize("content", ["", "# nothing\n", "c2hvcnQ=\n", "no base64!\n"])
def test_a_damaged_file_is_said_without_its_content(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(Unavailable) as caught:
        KeyFile(path).check()
    assert not content.strip() or content.strip() not in caught.value.message


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="can't be read"):
        KeyFile(tmp_path / "none").check()
