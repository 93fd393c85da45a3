"""User messages: why something failed, in words that the user can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common.operations import Call, Controller, operation
from api.volume import common
from db.types import now
from db.volume_base import Row, messages, page

SORT_KEYS = {key: key for key in ("id", "created_at", "request_id", "resource_type", "event_id")} | {
    "resource_uuid": "resource_id",
    "message_level": "level",
    "guaranteed_until": "expires_at",
}
COLUMNS = {
    "event_id": "event_id",
    "request_id": "request_id",
    "resource_type": "resource_type",
    "resource_uuid": "resource_id",
    "message_level": "level",
}


def view(call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
    """A message."""
    return {
        "id": row["id"],
        "event_id": row["event_id"],
        "user_message": row["message"],
        "message_level": row["level"],
        "created_at": common.micro(row["created_at"]),
        "guaranteed_until": common.micro(row["expires_at"]),
        "request_id": row["request_id"],
        "resource_type": row["resource_type"],
        "resource_uuid": row["resource_id"],
        "links": common.self_links(call, f"messages/{row['id']}"),
    }


class MessagesController(Controller):
    """The messages of a project."""

    def _row(self, call: Call, connection: sa.Connection) -> Row:
        return common.found(call, connection, messages, "Message", call.params["message_id"])

    @operation("GET", "/messages", policy="message:get_all", since="3.3")
    def index(self, call: Call) -> dict[str, Any]:
        """List messages that are not too old."""
        found = common.page_of(call, SORT_KEYS)
        asked = common.asked_filters(call, list(COLUMNS)) if call.since("3.5") else {}
        where = [messages.c.project_id == call.context.project_id]
        where.append(sa.or_(messages.c.expires_at.is_(None), messages.c.expires_at > now()))
        where += common.conditions(call, messages, asked, COLUMNS)
        with self.services.databases.global_.read() as connection:
            rows = page(
                connection, messages, where, found.sort, found.marker, found.limit, found.offset, "Message"
            )
        result = {"messages": [view(call, row) for row in rows]}
        return common.with_links(call, result, "messages", "messages", rows, found)

    @operation("GET", "/messages/{message_id}", policy="message:get", since="3.3", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a message."""
        with self.services.databases.global_.read() as connection:
            return {"message": view(call, self._row(call, connection))}

    @operation(
        "DELETE", "/messages/{message_id}", policy="message:delete", since="3.3", status=204, late_policy=True
    )
    def delete(self, call: Call) -> None:
        """Delete a message."""
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            connection.execute(messages.delete().where(messages.c.id == row["id"]))
