"""Finding Ceph's bindings."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import ceph
from core.errors import DriverError


def test_without_the_binding_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ceph, "_SYSTEM_PACKAGES", tmp_path)
    with pytest.raises(DriverError, match="apt-get install python3-nosuch"):
        ceph.binding("nosuch")
