"""Why a server went where it went, or nowhere: the record of a decision and what is told of it.

The record is a dict of JSON types, bounded in size, kept with the server:

    {"version": 1, "driver": "filter", "hosts": 10000, "candidates": 6,
     "filters": [{"name": "ComputeFilter", "removed": 4, "reasons": [["disabled or down", 4]],
                  "hosts": ["c1", ...]}, ...],
     "weighers": [{"name": "RAMWeigher", "low": 0.0, "high": 4096.0}, ...],
     "top": {"hosts": [...], "weights": [...], "raw": [[...], ...], "multipliers": [[...] or number, ...]},
     "chosen": "c7", "alternates": ["c8"]}

Filters stand in the order in which they ran; each removed what the ones before had left.  ``raw`` and
``multipliers`` have one entry per weigher, in the order of ``weighers``.  Admins see hosts; owners see
counts per reason, for which host lives where is the cloud's business.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

VERSION = 1
MAX_HOSTS_PER_FILTER = 50
MAX_TOP = 20


@dataclasses.dataclass(slots=True)
class FilterStep:
    """What one filter removed: counts per reason and the first names."""

    name: str
    removed: int = 0
    reasons: dict[str, int] = dataclasses.field(default_factory=dict)
    hosts: list[str] = dataclasses.field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "removed": self.removed,
            "reasons": [[reason, count] for reason, count in self.reasons.items()],
            "hosts": list(self.hosts),
        }


def error_record(driver: str, hosts: int, message: str) -> dict[str, Any]:
    """The record of a request that could not be judged because a plugin failed on it."""
    return {
        "version": VERSION,
        "driver": driver,
        "hosts": hosts,
        "candidates": 0,
        "filters": [],
        "weighers": [],
        "chosen": None,
        "alternates": [],
        "error": message,
    }


def summary(record: Mapping[str, Any]) -> str:
    """One line for the person who asked; names no host.

    'No valid host: 10 hosts; 4 disabled or down (ComputeFilter), 6 without 8192 MB of memory free'.
    """
    if record.get("resource") == "volume":
        return _volume_summary(record)
    hosts = _counted(record["hosts"])
    if record.get("error"):
        return f"No valid host: {record['error']}"
    if record["chosen"] is not None:
        return f"Placed: {record['candidates']} of {hosts} could take the server."
    if not record["hosts"]:
        return "No valid host: the cloud has no hosts yet."
    return f"No valid host: {hosts}; {_removed(record)}"


def _volume_summary(record: Mapping[str, Any]) -> str:
    """The same of a volume, whose record names pools where a server's names hosts."""
    pools = f"{record['hosts']} pool{'s' if record['hosts'] != 1 else ''}"
    if record["chosen"] is not None:
        return f"Placed: {record['candidates']} of {pools} could take the volume."
    if not record["hosts"]:
        return "No valid backend was found: there are no pools yet."
    return f"No valid backend was found: {pools}; {_removed(record)}"


def _removed(record: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{count} {reason}{_by(step['name'])}"
        for step in record["filters"]
        for reason, count in step["reasons"]
        if count
    )


def owner_view(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the owner of the server may see: counts per reason."""
    return {
        "summary": summary(record),
        "hosts": record["hosts"],
        "candidates": record["candidates"],
        "filters": [
            {
                "name": step["name"],
                "removed": step["removed"],
                "reasons": [{"reason": reason, "hosts": count} for reason, count in step["reasons"]],
            }
            for step in record["filters"]
        ],
    }


def admin_view(record: Mapping[str, Any]) -> dict[str, Any]:
    """Everything: the owner's view with host names, and how each of the best hosts was scored."""
    view = owner_view(record)
    for shown, step in zip(view["filters"], record["filters"], strict=True):
        shown["host_names"] = list(step["hosts"])
        shown["truncated"] = step["removed"] > len(step["hosts"])
    view["driver"] = record["driver"]
    view["chosen"] = record["chosen"]
    view["alternates"] = list(record["alternates"])
    top = record.get("top") or {"hosts": [], "weights": [], "raw": [], "multipliers": []}
    view["scores"] = [
        {
            "host": host,
            "weight": top["weights"][index],
            "weighers": [
                _score(weigher, top["raw"][number][index], top["multipliers"][number], index)
                for number, weigher in enumerate(record["weighers"])
            ],
        }
        for index, host in enumerate(top["hosts"])
    ]
    return view


def _score(weigher: Mapping[str, Any], raw: float, multipliers: Any, index: int) -> dict[str, Any]:
    multiplier = multipliers[index] if isinstance(multipliers, list) else multipliers
    span = weigher["high"] - weigher["low"]
    normalized = (raw - weigher["low"]) / span if span else 0.0
    return {
        "name": weigher["name"],
        "raw": raw,
        "normalized": normalized,
        "multiplier": multiplier,
        "weight": normalized * multiplier,
    }


def _counted(number: int) -> str:
    return f"{number} host{'s' if number != 1 else ''}"


# Our own checks carry no name that an operator could look up in enabled_filters.
_UNNAMED = frozenset({"DestinationFilter", "SizeFilter", "ResourcesFilter", "TraitsFilter"})


def _by(name: str) -> str:
    return "" if name in _UNNAMED else f" ({name})"
