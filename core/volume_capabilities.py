"""What a volume type asks of a pool, against what the pool says of itself: for schedulers and for a retype."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from oslo_utils import specs_matcher

_OPERATORS = frozenset({"=", "==", "!=", ">=", "<=", "s==", "s!=", "s<", "s<=", "s>", "s>="})
"""Upstream's comparisons, of numbers and (with s) of texts; ``=`` means at least."""


def fits(capabilities: Mapping[str, Any], specs: Mapping[str, str]) -> bool:
    """CapabilitiesFilter: unscoped extra specs and ``capabilities:`` ones against what the pool says."""
    for key, wanted in specs.items():
        scope, colon, name = key.partition(":")
        if colon and scope != "capabilities":
            continue
        said = capabilities.get(name if colon else key)
        if said is None or not _matches(str(said), str(wanted)):
            return False
    return True


def _matches(said: str, wanted: str) -> bool:
    words = wanted.split()
    if len(words) == 2 and words[0] == "<is>":
        return said.strip().lower() == words[1].lower()
    if words and words[0] == "<in>":
        return all(word in said for word in words[1:] if word != "<in>")
    if words and words[0] == "<or>":
        return said in [word for word in words if word != "<or>"]
    if words and words[0] in _OPERATORS:
        return _compare(said, wanted)
    return said.strip().lower() == wanted.strip().lower()


@functools.lru_cache(maxsize=4096)
def _compare(said: str, wanted: str) -> bool:
    """Remembered: oslo.utils builds its grammar anew for each call (milliseconds)."""
    try:
        return bool(specs_matcher.match(said, wanted))
    except (ValueError, TypeError):  # one of both is no number
        return False
