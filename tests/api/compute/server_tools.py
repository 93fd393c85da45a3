"""Servers for tests: made through the API, placed as a scheduler would place them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from api.compute.services import ComputeServices
from db import cell_schema, global_schema
from db.types import now
from tests.api.compute.conftest import ADMIN, MEMBER, Api
from tests.api.compute.fakes import IMAGE

FLAVOR = {"name": "m1.tiny", "id": "1", "ram": 512, "vcpus": 1, "disk": 1}


def make_flavor(api: Api, **values: Any) -> None:
    api.post("/flavors", {"flavor": {**FLAVOR, **values}}, as_=ADMIN, status=200)


def body(hints: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    """A body of POST /servers; None takes a key out."""
    server = {"name": "one", "flavorRef": "1", "imageRef": IMAGE, **values}
    result: dict[str, Any] = {"server": {key: value for key, value in server.items() if value is not None}}
    if hints is not None:
        result["os:scheduler_hints"] = hints
    return result


def boot(api: Api, *, as_: str = MEMBER, version: str | None = None, **values: Any) -> str:
    """POST /servers; the id."""
    if version and float(version[2:]) >= 37:
        values.setdefault("networks", "none")
    answer = api.post("/servers", body(**values), as_=as_, version=version, status=202)
    return str(answer.json["server"]["id"])


def place(services: ComputeServices, server_id: str, host: str = "h1", **values: Any) -> None:
    """What the scheduler's dispatch and the end of server.create leave behind; ``values`` over it."""
    with services.databases.global_.write() as connection:
        servers, mappings = global_schema.servers, global_schema.server_mappings
        row = dict(connection.execute(sa.select(servers).where(servers.c.id == server_id)).mappings().one())
        intents = [
            dict(each)
            for each in connection.execute(
                sa.select(global_schema.intents).where(global_schema.intents.c.resource_id == server_id)
            ).mappings()
        ]
        tags = [
            dict(each)
            for each in connection.execute(
                sa.select(global_schema.server_tags).where(global_schema.server_tags.c.server_id == server_id)
            ).mappings()
        ]
        connection.execute(sa.delete(servers).where(servers.c.id == server_id))
        connection.execute(
            sa.delete(global_schema.intents).where(global_schema.intents.c.resource_id == server_id)
        )
        connection.execute(sa.update(mappings).where(mappings.c.server_id == server_id).values(cell_id=1))
    moment = now()
    row.update(host=host, node=host, vm_state="active", task_state=None, power_state=1, launched_at=moment)
    row["availability_zone"] = row["availability_zone"] or "nova"
    row.update(values)
    for intent in intents:
        intent.update(state="done", exclusive_key=None, target=host, started_at=moment, finished_at=moment)
        intent["events"] = [
            {
                "step": "define",
                "started_at": moment.isoformat(),
                "finished_at": moment.isoformat(),
                "result": "done",
                "host": host,
            }
        ]
    with services.databases.cell(1).write() as connection:
        connection.execute(sa.insert(cell_schema.servers), [row])
        connection.execute(sa.insert(cell_schema.intents), intents)
        if tags:
            connection.execute(sa.insert(cell_schema.server_tags), tags)


def booted(api: Api, services: ComputeServices, *, as_: str = MEMBER, **values: Any) -> str:
    """A server that is ACTIVE on host h1."""
    server_id = boot(api, as_=as_, **values)
    place(services, server_id)
    return server_id


def intents_of(services: ComputeServices, server_id: str, cell_id: int | None = 1) -> list[dict[str, Any]]:
    """A server's intents in a cell (None: the global database), oldest first."""
    table = global_schema.intents if cell_id is None else cell_schema.intents
    with services.databases.cell(cell_id).read() as connection:
        rows = connection.execute(
            sa.select(table).where(table.c.resource_id == server_id).order_by(table.c.created_at)
        )
        return [dict(row) for row in rows.mappings()]
