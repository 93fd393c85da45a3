"""Every step of every action of the compute agent, and how to get a server where it starts from."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping

import sqlalchemy as sa

from api.compute.server_access import ports_of
from compute.actions.servers import ACTIONS
from conductor.ends import cleanup_of
from conductor.journal import Journal
from core.context import admin_context
from db import cell_schema, image_caching
from db import intents as db_intents
from lifecycle.rpc import ConductorClient
from lifecycle.states import SERVER
from tests.stack.cloud import Cloud


def every_step() -> list[tuple[str, str]]:
    """(kind, step) of the whole registry: a new one is here at once."""
    return [(kind, step.name) for kind in ACTIONS.kinds() for step in ACTIONS[kind].steps]


def every_undo() -> list[tuple[str, str]]:
    return [(kind, step.name) for kind in ACTIONS.kinds() for step in ACTIONS[kind].steps if step.undo]


def last_step(kind: str) -> str:
    return ACTIONS[kind].steps[-1].name


@dataclasses.dataclass(frozen=True)
class Case:
    """``before``: the server's vm_state when the intent is written (None: there is no server yet)."""

    before: str | None
    begin: Callable[[Cloud, str], None]
    done: str
    """vm_state after success"""

    def failed(self, kind: str) -> str:
        """vm_state after a failure, by the state table."""
        state = SERVER[kind].failed[0]
        assert self.before is not None
        return state or self.before


def _act(kind: str) -> Callable[[Cloud, str], None]:
    def begin(cloud: Cloud, server_id: str) -> None:
        cloud.act(kind, server_id)

    return begin


def _create_image(cloud: Cloud, server_id: str) -> None:
    assert cloud.images is not None
    cloud.act("server.create_image", server_id, image_id=cloud.images.make(server_id))


def _forget_image(cloud: Cloud, server_id: str) -> None:
    """A snapshot that never began, and never will."""
    assert cloud.images is not None
    server = cloud.server(server_id)
    arguments = {"image_id": cloud.images.make(server_id)}
    row = db_intents.row(
        "server.create_image", "server", server_id, admin_context(), arguments, target=server["host"]
    )
    with cloud.cell.write() as connection:
        db_intents.insert(connection, cell_schema.intents, [cleanup_of({**row, "project_id": "p"})])
    ConductorClient(cloud.messaging).ring([])


def _abandon(cloud: Cloud, server_id: str) -> None:
    """The server is deleted while its host is down; a cleanup waits for the host."""
    server = cloud.server(server_id)
    delete = {
        **db_intents.row(
            "server.delete", "server", server_id, admin_context(), ports_of(server), target=server["host"]
        ),
        "available_at": server["created_at"].replace(year=server["created_at"].year + 1),  # not the sweeper's
        "project_id": server["project_id"],
    }
    with cloud.cell.write() as connection:
        db_intents.insert(connection, cell_schema.intents, [delete])
        connection.execute(
            sa.update(cell_schema.servers)
            .where(cell_schema.servers.c.id == server_id)
            .values(task_state="deleting")
        )
    with cloud.cell.read() as connection:
        table = cell_schema.intents
        row = dict(connection.execute(sa.select(table).where(table.c.id == delete["id"])).mappings().one())
    journal = Journal(cloud.databases, cloud.cell, lease_s=2, max_attempts=3)
    journal.delete_without_host(row, cleanup_of(row))


def _attach(cloud: Cloud, server_id: str) -> None:
    """Its owner's port: written down with the server, so that nobody deletes it."""
    server = cloud.server(server_id)
    (create,) = (intent for intent in cloud.intents(server_id) if intent["kind"] == "server.create")
    guest = {**create["arguments"]["guest"], "nics": server["network_info"]}
    assert cloud.plane is not None
    new = {"network_id": cloud.plane.network["id"], "port_id": cloud.plane.make_port()}
    request = {**new, "fixed_ip": None, "tag": "more"}
    with cloud.cell.write() as connection:
        connection.execute(
            sa.update(cell_schema.servers)
            .where(cell_schema.servers.c.id == server_id)
            .values(networks=[*server["networks"], request])
        )
    cloud.act("server.attach_interface", server_id, guest=guest, networks=[request])


def _detach(cloud: Cloud, server_id: str) -> None:
    cloud.act("server.detach_interface", server_id, nic=cloud.server(server_id)["network_info"][0])


def _cache_image(cloud: Cloud, server_id: str) -> None:
    """Nothing of a server's: its host is to have an image ready."""
    host = cloud.server(server_id)["host"]
    image = {"id": str(uuid.uuid4()), "name": "i", "disk_format": "qcow2", "size_bytes": 1}
    (ids,) = image_caching.order(cloud.databases, [host], [image], admin_context()).values()
    ConductorClient(cloud.messaging).ring(ids)


CASES: Mapping[str, Case] = {
    "server.create": Case(None, lambda cloud, server_id: None, "active"),
    "server.start": Case("stopped", _act("server.start"), "active"),
    "server.stop": Case("active", _act("server.stop"), "stopped"),
    "server.reboot_soft": Case("active", _act("server.reboot_soft"), "active"),
    "server.reboot_hard": Case("active", _act("server.reboot_hard"), "active"),
    "server.create_image": Case("active", _create_image, "active"),
    "server.forget_image": Case("active", _forget_image, "active"),
    "server.attach_interface": Case("active", _attach, "active"),
    "server.detach_interface": Case("active", _detach, "active"),
    "server.delete": Case("active", lambda cloud, server_id: cloud.delete(server_id), "deleted"),
    "server.cleanup": Case("active", _abandon, "deleted"),
    "host.cache_image": Case("active", _cache_image, "active"),
}
"""A kind that is missing here fails ``test_every_kind_has_a_case``."""


def bring(cloud: Cloud, kind: str) -> str:
    """A server in the state that ``kind`` starts from; of a create, nothing yet."""
    case = CASES[kind]
    assert case.before is not None
    server_id = cloud.create()
    cloud.wait_state(server_id, "active")
    if case.before == "stopped":
        cloud.act("server.stop", server_id)
        cloud.wait_state(server_id, "stopped")
    return server_id


def begin(cloud: Cloud, kind: str, server_id: str | None) -> str:
    """Write the intent; returns the server's id."""
    if kind == "server.create":
        return cloud.create()
    assert server_id is not None
    CASES[kind].begin(cloud, server_id)
    return server_id
