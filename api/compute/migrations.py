"""os-migrations. haneul moves no server yet, so the list is empty; its filters are checked all the same."""

from __future__ import annotations

from typing import Any

from oslo_utils import timeutils

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from core.errors import BadRequest

_WORD = {"type": "string"}
_OLD = dict.fromkeys(("hidden", "host", "instance_uuid", "source_compute", "status", "migration_type"), _WORD)
_PAGED = {**_OLD, **v.PAGING, "changes-since": _WORD, "instance_uuid": v.UUID}
_PERIOD = {**_PAGED, "changes-before": _WORD}
_OWNED = {**_PERIOD, "user_id": _WORD, "project_id": _WORD}
LIST = (
    ("2.1", v.query(_OLD)),
    ("2.59", v.query(_PAGED, additional=False)),
    ("2.66", v.query(_PERIOD, additional=False)),
    ("2.80", v.query(_OWNED, additional=False)),
)


def _moment(call: Call, key: str) -> Any:
    text = call.first(key)
    if text is None:
        return None
    try:
        return timeutils.normalize_time(timeutils.parse_isotime(text))
    except ValueError:
        raise BadRequest(
            f"Invalid input for query parameters {key}. Value: {text}. An ISO 8601 time is expected."
        ) from None


class MigrationsController(Controller):
    """List."""

    @operation("GET", "/os-migrations", policy="os_compute_api:os-migrations:index", query=LIST)
    def index(self, call: Call) -> dict[str, Any]:
        """List migrations of servers between hosts."""
        if call.since("2.59"):
            since = _moment(call, "changes-since")
            before = _moment(call, "changes-before") if call.since("2.66") else None
            if since and before and since > before:
                raise BadRequest("The value of changes-since must be less than or equal to changes-before.")
            if (marker := call.first("marker")) is not None:
                raise BadRequest(f"marker [{marker}] not found")
        return {"migrations": []}
