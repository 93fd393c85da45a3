"""What a volume type asks of a pool, against what the pool says of itself: for schedulers and for a retype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
    return said.strip().lower() == wanted.strip().lower()
