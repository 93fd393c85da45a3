"""What a list of images is asked for, as SQL: visibility, filters, sorting.

Filters come as the API's query has them: ``{"name": "in:a,b", "size_min": "10",
"hw_disk_bus": "virtio"}``.  What is no attribute of an image is a property of it.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_utils import timeutils

from core.errors import BadRequest
from db.global_schema import image_members, image_properties, image_tags, images
from db.image_schema import PROPERTY_KEY_LENGTH

SORT_KEYS = (
    "name",
    "status",
    "container_format",
    "disk_format",
    "size",
    "id",
    "created_at",
    "updated_at",
)
_INTEGERS = ("size", "virtual_size", "min_ram", "min_disk")
_TEXTS = ("checksum", "os_hash_algo", "os_hash_value", "owner")
_WITH_IN = ("name", "id", "status", "container_format", "disk_format")
_TIMES = ("created_at", "updated_at")
_BOOLEANS = ("protected", "os_hidden")
_MAX_INTEGER = (1 << 63) - 1

Condition = sa.ColumnElement[bool]
_OPERATORS = ("gt", "gte", "lt", "lte", "eq", "neq")


@dataclasses.dataclass(frozen=True)
class Asker:
    """Whose list it is: an administrator sees everything, a project what it may see."""

    project_id: str | None
    is_admin: bool = False


def visible(asker: Asker, member_status: str = "all") -> Condition:
    """Images that the asker may see; as a member only with the given status."""
    if asker.is_admin:
        return sa.true()
    alternatives: list[Condition] = [images.c.visibility.in_(("public", "community"))]
    if asker.project_id is not None:
        alternatives.append(images.c.owner == asker.project_id)
        shared = sa.select(image_members.c.image_id).where(image_members.c.member_id == asker.project_id)
        if member_status != "all":
            shared = shared.where(image_members.c.status == member_status)
        alternatives.append(sa.and_(images.c.visibility == "shared", images.c.id.in_(shared)))
    return sa.or_(*alternatives)


def listed(asker: Asker, visibility: str | None) -> Condition:
    """Which visibilities a list shows: other projects' community images only on demand."""
    if visibility == "all":
        return sa.true()
    if visibility is not None:
        return images.c.visibility == visibility
    if asker.project_id is None:
        return images.c.visibility != "community"
    return sa.or_(images.c.owner == asker.project_id, images.c.visibility != "community")


def conditions(filters: Mapping[str, str], tags: Sequence[str] = ()) -> list[Condition]:
    """The filters of a query, all of which must hold. :raises BadRequest: a value that can't be."""
    found = [_condition(name, value) for name, value in filters.items()]
    found.extend(
        images.c.id.in_(sa.select(image_tags.c.image_id).where(image_tags.c.tag == tag)) for tag in tags
    )
    return found


def _condition(name: str, value: str) -> Condition:
    if name in _WITH_IN:
        return _one_or_in(name, value)
    if name in _TIMES:
        return _time(name, value)
    if name in _INTEGERS:
        return images.c[name] == _integer(name, value)
    if name in _BOOLEANS:
        return images.c[name].is_(_boolean(name, value))
    if name in _TEXTS:
        return images.c[name] == value
    base, _, bound = name.rpartition("_")
    if base in _INTEGERS and bound in ("min", "max"):
        limit = _integer(name, value)
        return images.c[base] >= limit if bound == "min" else images.c[base] <= limit
    return _property(name, value)


def _property(name: str, value: str) -> Condition:
    return images.c.id.in_(
        sa.select(image_properties.c.image_id).where(
            image_properties.c.name == name,
            image_properties.c.value_key == value[:PROPERTY_KEY_LENGTH],
            image_properties.c.value == value,
        )
    )


def _integer(name: str, value: str) -> int:
    try:
        number = int(value)
    except ValueError as error:
        raise BadRequest(f"The filter {name} needs a whole number, not {value!r}.") from error
    if abs(number) > _MAX_INTEGER:
        raise BadRequest(f"The number in the filter {name} is too large.")
    return number


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise BadRequest(f"Invalid value '{value}' for '{name}' filter. Valid values are 'true' or 'false'.")
    return value.lower() == "true"


def _one_or_in(name: str, value: str) -> Condition:
    operator, separator, rest = value.partition(":")
    if not separator:
        return images.c[name] == value
    if operator == "in":
        return images.c[name].in_(split_quoted(rest))
    if operator == "eq":
        return images.c[name] == rest
    raise BadRequest(f"Unable to filter by unknown operator '{operator}'.")


def split_quoted(text: str) -> list[str]:
    """``a,"b,c",d`` → a / b,c / d; a quote inside quotes is written ``\\"``.

    :raises BadRequest: a quote that is not closed, or in the middle of a value.
    """
    values: list[str] = []
    position = 0
    while True:
        quoted = re.compile(r'"((?:[^"\\]|\\.)*)"').match(text, position)
        if quoted:
            values.append(re.sub(r"\\(.)", r"\1", quoted[1]))
            position = quoted.end()
        else:
            end = text.find(",", position)
            plain = text[position:] if end < 0 else text[position:end]
            if '"' in plain:
                raise BadRequest(f"Invalid filter value {text}. The quote is not closed.")
            values.append(plain)
            position += len(plain)
        if position == len(text):
            return values
        if text[position] != ",":
            raise BadRequest(f"Invalid filter value {text}. There is no comma after a closing quote.")
        position += 1


def _time(name: str, value: str) -> Condition:
    operator, _, rest = value.partition(":")
    if operator not in _OPERATORS:
        # a time has colons itself: without operator the whole text is the time
        operator, rest = "eq", value
    try:
        moment = timeutils.normalize_time(timeutils.parse_isotime(rest)).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f'Bad "{name}" query filter format. Use ISO 8601 DateTime notation.') from error
    return _compare_seconds(images.c[name], operator, moment)


def _compare_seconds(column: Any, operator: str, moment: datetime.datetime) -> Condition:
    """The API shows whole seconds, so 12:00:01 is the second, not its first microsecond."""
    begin = moment.replace(microsecond=0)
    try:
        end = begin + datetime.timedelta(seconds=1)
    except OverflowError:
        end = begin
    whole: dict[str, Condition] = {
        "gt": column >= end,
        "gte": column >= begin,
        "lt": column < begin,
        "lte": column < end,
        "eq": sa.and_(column >= begin, column < end),
        "neq": sa.or_(column < begin, column >= end),
    }
    return whole[operator]
