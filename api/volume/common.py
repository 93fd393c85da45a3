"""What several nouns of this API share: finding, times, truth, pages, filters, links."""

from __future__ import annotations

import ast
import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import orjson
import sqlalchemy as sa

from api.common import faults, links
from api.common.operations import Call
from api.volume.versions import PREFIX
from core.errors import BadRequest, HaneulError, NotFound
from db.volume_base import Condition, Row, find, has_pair

_TRUE = {"1", "t", "true", "on", "y", "yes"}
_FALSE = {"0", "f", "false", "off", "n", "no"}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "eq": lambda column, value: column == value,
    "neq": lambda column, value: column != value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
}


def cinder_format(status: int, message: str, error: HaneulError | None) -> tuple[bytes, str]:
    """{"itemNotFound": {"code": 404, "message": …}}; what is over quota says when to try again."""
    name = faults.FAULT_NAMES.get(status, "computeFault")
    fault: dict[str, Any] = {"code": status, "message": message}
    if status == 413:
        fault["retryAfter"] = "0"
    return orjson.dumps({name: fault}), "application/json"


def is_admin(call: Call) -> bool:
    return bool(call.services.policy.is_admin(call.context))


def truth(value: Any) -> bool:
    """A boolean as validation lets it through."""
    return value is True or str(value).strip().lower() in _TRUE


def strict_truth(value: Any, field: str) -> bool:
    """:raises BadRequest: neither a yes nor a no."""
    text = str(value).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise BadRequest(f"Invalid value '{value}' for {field}: true or false is expected.")


def micro(moment: datetime.datetime | None) -> str | None:
    """``2026-01-01T10:00:00.000000``"""
    return None if moment is None else moment.isoformat(timespec="microseconds")


def whole(value: Any, field: str, minimum: int = 0, maximum: int = 0x7FFFFFFF) -> int:
    """The integer in ``value`` (also as text), in bounds. :raises BadRequest: names the field."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise BadRequest(f"Invalid input for field/attribute {field}. Value: {value}.") from None
    if not minimum <= number <= maximum:
        raise BadRequest(
            f"Invalid input for field/attribute {field}. Value: {value}. {number} is not between"
            f" {minimum} and {maximum}."
        )
    return number


def mine(call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
    """A resource as policies see it."""
    return {"project_id": row["project_id"], "user_id": row.get("user_id")}


def found(call: Call, connection: sa.Connection, table: sa.Table, what: str, identifier: str) -> Row:
    """A row that the asker may see, and on which the operation's policy allows the call.

    :raises NotFound: there is none, or another project's. :raises Forbidden:
    """
    row = find(connection, table, what, identifier)
    if row["project_id"] != call.context.project_id and not is_admin(call):
        raise NotFound(f"{what} {identifier} could not be found.")
    call.authorize(mine(call, row))
    return row


def self_links(call: Call, path: str) -> list[dict[str, str]]:
    """self and bookmark of ``volumes/ID``, with the project in the path as this API has it."""
    project_id = call.context.project_id
    where = f"{project_id}/{path}" if project_id else path
    return links.self_and_bookmark(call, PREFIX, where)


def collection_url(call: Call, path: str) -> str:
    project_id = call.context.project_id
    return f"{links.base_url(call, PREFIX)}/{project_id + '/' if project_id else ''}{path}"


# -- pages -------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Page:
    """What a list was asked for."""

    limit: int
    marker: str | None
    offset: int
    sort: list[tuple[str, str]]


def page_of(
    call: Call,
    keys: Mapping[str, str],
    default: Sequence[tuple[str, str]] = (("created_at", "desc"), ("id", "desc")),
) -> Page:
    """limit, marker, offset, sort (``name:asc,id``) or sort_key and sort_dir.

    ``keys``: the API's sort keys → columns. :raises BadRequest:
    """
    most = int(call.services.options.max_limit)
    limit = most
    if (text := call.first("limit")) is not None:
        limit = min(_number(text, "limit"), most)
    offset = _number(call.first("offset") or "0", "offset")
    return Page(limit, call.first("marker") or None, offset, _sort(call, keys, default))


def _number(text: str, field: str) -> int:
    if not text.isdigit() or int(text) > 0x7FFFFFFF:
        raise BadRequest(
            f"Invalid input for query parameter {field}. Value: {text}. {field} must be an integer."
        )
    return int(text)


def _sort(call: Call, keys: Mapping[str, str], default: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    asked: list[tuple[str, str]] = []
    if (text := call.first("sort")) is not None:
        if "sort_key" in call.query or "sort_dir" in call.query:
            raise BadRequest(
                "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with 'sort'."
            )
        for part in text.split(","):
            key, _, direction = part.strip().partition(":")
            asked.append((key.strip(), direction.strip() or "desc"))
    elif "sort_key" in call.query or "sort_dir" in call.query:
        asked.append((call.first("sort_key") or "created_at", call.first("sort_dir") or "desc"))
    if not asked:
        return list(default)
    sort: list[tuple[str, str]] = []
    for key, direction in asked:
        if key not in keys:
            raise BadRequest(f"Invalid sort key {key!r}: one of {', '.join(sorted(keys))} is expected.")
        if direction not in ("asc", "desc"):
            raise BadRequest(f"Invalid sort direction {direction!r}: asc or desc is expected.")
        sort.append((keys[key], direction))
    if "id" not in [column for column, _ in sort]:
        sort.append(("id", sort[-1][1]))
    return sort


def with_links(
    call: Call, result: dict[str, Any], name: str, path: str, rows: Sequence[Mapping[str, Any]], page: Page
) -> dict[str, Any]:
    """Adds ``NAME_links`` with the next page when this one is full."""
    if rows and len(rows) == page.limit:
        query = [
            (key, value)
            for key, values in call.query.items()
            if key not in ("marker", "offset")
            for value in values
        ]
        query.append(("marker", rows[-1]["id"]))
        href = f"{collection_url(call, path)}?{urlencode(query)}"
        result[f"{name}_links"] = [{"rel": "next", "href": href}]
    return result


# -- filters -----------------------------------------------------------------

PAGING_KEYS = frozenset(
    {"limit", "marker", "offset", "sort", "sort_key", "sort_dir", "all_tenants", "with_count"}
)


def scope(call: Call, table: sa.Table) -> list[Condition]:
    """Whose rows a list shows: the project's; with all_tenants an administrator sees all."""
    everyone = call.first("all_tenants")
    if everyone is not None and strict_truth(everyone, "all_tenants") and is_admin(call):
        for key in ("project_id", "tenant_id"):
            if (project_id := call.first(key)) is not None:
                return [table.c.project_id == project_id]
        return []
    return [table.c.project_id == call.context.project_id]


def asked_filters(call: Call, allowed: Sequence[str]) -> dict[str, str]:
    """The filters of a list: what is unknown is refused from 3.31 on, and ignored before.

    :raises BadRequest: names what is unknown.
    """
    keys = [key for key in call.query if key not in PAGING_KEYS and key not in ("project_id", "tenant_id")]
    known = [key for key in keys if key.removesuffix("~") in allowed]
    unknown = sorted(set(keys) - set(known))
    if unknown and call.since("3.31"):
        raise BadRequest(f"Invalid filters {','.join(unknown)} are found in query options.")
    return {key: str(call.first(key)) for key in known}


def conditions(
    call: Call, table: sa.Table, filters: Mapping[str, str], columns: Mapping[str, str]
) -> list[Condition]:
    """Filters as SQL: ``columns`` maps a filter to its column; ``name~`` is "contains" from 3.34 on."""
    result: list[Condition] = []
    for key, value in filters.items():
        name = key.removesuffix("~")
        if name not in columns:
            continue
        column = table.c[columns[name]]
        if key.endswith("~"):
            if call.since("3.34"):
                result.append(column.contains(value, autoescape=True))
        elif name in ("created_at", "updated_at"):
            result += _times(call, column, value, name)
        elif isinstance(column.type, sa.Boolean):
            result.append(column.is_(sa.true() if strict_truth(value, name) else sa.false()))
        elif isinstance(column.type, sa.Integer):
            result.append(column == (int(value) if value.lstrip("-").isdigit() else -1))
        else:
            result.append(column == value)
    return result


def _times(call: Call, column: sa.ColumnElement[Any], text: str, name: str) -> list[Condition]:
    """``gt:2026-01-01T10:00:00,lt:…`` (3.60)"""
    result: list[Condition] = []
    for part in text.split(","):
        operator, colon, moment = part.partition(":")
        if operator not in _COMPARISONS or not colon:
            operator, moment = "eq", part
        try:
            parsed = datetime.datetime.fromisoformat(moment.strip().replace("Z", "+00:00"))
        except ValueError:
            raise BadRequest(f"Invalid value for {name}: {moment!r} is no time in ISO 8601.") from None
        if parsed.tzinfo is not None:
            parsed = parsed.astimezone(datetime.UTC).replace(tzinfo=None)
        result.append(_COMPARISONS[operator](column, parsed))
    return result


def pairs_of(text: str, field: str) -> dict[str, str]:
    """Metadata as lists are asked for them: ``{'key': 'value'}``. :raises BadRequest:"""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = None
    if not isinstance(value, dict):
        raise BadRequest(f"Invalid filter {field}: a dictionary is expected, {{'key': 'value'}}.")
    return {str(key): str(item) for key, item in value.items()}


def has_pairs(column: sa.ColumnElement[Any], text: str, field: str) -> list[Condition]:
    return [has_pair(column, key, value) for key, value in pairs_of(text, field).items()]
