"""Paging: limit, marker, sort keys; one way for every list.

A page is found by *keyset*: the marker's row gives the values of the sort keys,
and the query asks for what comes after them.  No OFFSET: page 1,000 costs what
page 1 costs, and a row that appears meanwhile does not shift the pages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from api.common.operations import Call
from core.errors import BadRequest


@dataclasses.dataclass(frozen=True)
class Page:
    """What a list was asked for. ``sort``: ((key, "asc" | "desc"), …), ending in a unique key."""

    limit: int
    marker: str | None
    sort: tuple[tuple[str, str], ...]


def page_of(
    call: Call,
    *,
    max_limit: int,
    sort_keys: Mapping[str, str],
    default_sort: Sequence[tuple[str, str]],
    unique_key: str = "id",
) -> Page:
    """Read limit, marker, sort_key and sort_dir from the query.

    ``sort_keys`` maps the API's names to columns. :raises BadRequest: a bad value.
    """
    limit = max_limit
    if (text := call.first("limit")) is not None:
        if not text.isdigit():
            raise BadRequest(
                f"Invalid input for query parameters limit. Value: {text}. A whole number from 0 on is expected."
            )
        limit = min(int(text), max_limit)
    keys = call.query.get("sort_key", [])
    directions = [text.lower() for text in call.query.get("sort_dir", [])]
    for direction in directions:
        if direction not in ("asc", "desc"):
            raise BadRequest(f"Invalid sort direction {direction!r}: asc or desc is expected.")
    if len(directions) > max(len(keys), len(default_sort)):
        raise BadRequest("Sort direction size exceeds sort key size")
    sort: list[tuple[str, str]] = []
    if keys:
        for index, key in enumerate(keys):
            if key not in sort_keys:
                raise BadRequest(
                    f"Invalid sort key {key!r}: one of {', '.join(sorted(sort_keys))} is expected."
                )
            direction = (
                directions[index] if index < len(directions) else (directions[0] if directions else "desc")
            )
            sort.append((sort_keys[key], direction))
    else:
        for index, (column, direction) in enumerate(default_sort):
            sort.append((column, directions[index] if index < len(directions) else direction))
    if unique_key not in [column for column, _ in sort]:
        sort.append((unique_key, sort[-1][1] if sort else "asc"))
    return Page(limit, call.first("marker"), tuple(sort))


def next_link(call: Call, base: str, marker: str, limit: int | None = None) -> dict[str, str]:
    """{"rel": "next", "href": …} with the query of this call and the new marker."""
    query: list[tuple[str, Any]] = [
        (key, value)
        for key, values in call.query.items()
        if key not in ("marker", "limit")
        for value in values
    ]
    if limit is not None:
        query.append(("limit", limit))
    elif (asked := call.first("limit")) is not None:
        query.append(("limit", asked))
    query.append(("marker", marker))
    return {"rel": "next", "href": f"{base}?{urlencode(query)}"}
