"""Operators of extra specs against what a pool says."""

from __future__ import annotations

import pytest

from core.volume_capabilities import fits

SAID = {"iops": 500, "tier": "gold", "thin": True, "free": "unknown"}


@pytest.mark.parametrize(
    ("key", "wanted", "passes"),
    [
        ("thin", "<is> True", True),
        ("thin", "<is> False", False),
        ("tier", "<or> silver <or> gold", True),
        ("tier", "<in> ol", True),
        ("tier", "Gold", True),
        ("iops", ">= 500", True),
        ("iops", ">= 500.5", False),
        ("iops", "<= 90", False),
        ("iops", "= 400", True),
        ("iops", "!= 500", False),
        ("tier", "s== gold", True),
        ("tier", "s!= gold", False),
        ("tier", "s< silver", True),
        ("free", ">= 1", False),
        ("capabilities:iops", "== 500", True),
        ("unheard", "<is> True", False),
        ("provisioning:max_vol_size", "1", True),
    ],
)
def test_fits(key: str, wanted: str, passes: bool) -> None:
    assert fits(SAID, {key: wanted}) is passes
