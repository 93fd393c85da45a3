"""What several nouns of this API share: links, times, truth, page bounds."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from api.common import links
from api.common.operations import Call
from api.compute.versions import PREFIX
from core.errors import BadRequest

_TRUE = {"1", "t", "true", "on", "y", "yes"}
_FALSE = {"0", "f", "false", "off", "n", "no"}


def truth(value: Any) -> bool:
    """A boolean as validation lets it through (``api.common.validation.BOOLEAN``)."""
    return value is True or str(value).strip().lower() in _TRUE


def strict_truth(value: str) -> bool:
    """:raises BadRequest: neither a yes nor a no."""
    text = value.strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise BadRequest(f"Unrecognized value '{value}': true or false is expected.")


def resource_links(call: Call, path: str) -> list[dict[str, str]]:
    """self (versioned) and bookmark, for ``flavors/1``."""
    return links.self_and_bookmark(call, PREFIX, path)


def collection_url(call: Call, path: str) -> str:
    """The absolute URL of a list, without its query."""
    return f"{links.base_url(call, PREFIX)}/{path}"


def zulu(moment: datetime.datetime | None) -> str | None:
    """``2026-01-01T10:00:00Z``: how servers and keypairs' newer fields show times."""
    return None if moment is None else f"{moment.isoformat(timespec='seconds')}Z"


def micro(moment: datetime.datetime | None) -> str | None:
    """``2026-01-01T10:00:00.000000``: how most admin resources show times."""
    return None if moment is None else moment.isoformat(timespec="microseconds")


def is_admin(call: Call) -> bool:
    """Does the asker count as an administrator?"""
    return bool(call.services.policy.is_admin(call.context))


def limit_of(call: Call) -> int:
    """The page size that was asked for, bounded by ``max_limit``."""
    most = int(call.services.options.max_limit)
    text = call.first("limit")
    return most if text is None else min(int(text), most)


def whole(value: Any, field: str, minimum: int = 0, maximum: int = 0x7FFFFFFF) -> int:
    """The integer in ``value`` (also as text), in bounds. :raises BadRequest: names the field."""
    number = int(value)
    if not minimum <= number <= maximum:
        raise BadRequest(
            f"Invalid input for field/attribute {field}. Value: {value}. {number} is not between"
            f" {minimum} and {maximum}."
        )
    return number


def present(call: Call, key: str) -> str | None:
    """A query value; the command line sends ``None`` for what was not given."""
    text = call.first(key)
    return None if text == "None" else text


def uuid_of(text: str, complaint: str) -> str:
    """A UUID in its usual form. :raises BadRequest: it is none."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise BadRequest(f"{complaint} {text}") from None


def number_of(text: str, field: str) -> int:
    """A whole number in a path; one that no row can have comes as -1. :raises BadRequest: it is none."""
    try:
        number = int(text)
    except ValueError:
        raise BadRequest(f"Invalid input for {field}: '{text}' is not a whole number.") from None
    return number if 0 <= number <= 0x7FFFFFFF else -1
