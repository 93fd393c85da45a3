"""Resources whose attribute ``shared`` is a policy: an RBAC row for everyone, not a column."""

from __future__ import annotations

from typing import ClassVar

import sqlalchemy as sa

from api.common.operations import Call
from api.network.resource import ResourceController, Row
from db import network_base as base
from db import rbac


class SharedResourceController(ResourceController):
    """Writes ``shared`` of a new or changed object as its policy."""

    object_type: ClassVar[str]
    """The kind of object in RBAC policies."""

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        row = dict(values)
        shared = row.pop("shared")
        identifier = base.insert(connection, self.model.table, row)
        if shared:
            rbac.share(connection, row["project_id"], self.object_type, identifier)
        return identifier

    def modify(
        self, call: Call, connection: sa.Connection, row: Row, values: Row, revision: int | None
    ) -> None:
        if "shared" in values:
            if values.pop("shared"):
                rbac.share(connection, row["project_id"], self.object_type, row["id"])
            else:
                self.unshare(connection, row)
        base.change(connection, self.model.table, row["id"], values, revision)

    def unshare(self, connection: sa.Connection, row: Row) -> None:
        """Take it from everyone; kinds that can't be un-shared refuse here."""
        rbac.unshare(connection, self.object_type, row["id"])
