"""Every step of every action of the compute agent, and how to get a server where it starts from."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from api.compute.server_access import parts_of
from compute.actions.servers import ACTIONS
from conductor.ends import cleanup_of
from conductor.journal import Journal
from core import block_devices
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
    """The last one whose failure is answered by undoing."""
    return next(step.name for step in reversed(ACTIONS[kind].steps) if not step.forward)


def is_forward(kind: str, step: str) -> bool:
    """What fails there is tried again."""
    action = ACTIONS[kind]
    return not action.undo_on_failure or any(each.forward for each in action.steps if each.name == step)


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
            "server.delete", "server", server_id, admin_context(), parts_of(server), target=server["host"]
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


def _guest(cloud: Cloud, server_id: str, devices: list[dict[str, Any]]) -> dict[str, Any]:
    """What the API tells a host of a server that exists."""
    (create,) = (intent for intent in cloud.intents(server_id) if intent["kind"] == "server.create")
    nics = cloud.server(server_id)["network_info"]
    return {**create["arguments"]["guest"], "nics": nics, "volumes": devices}


def _with_devices(cloud: Cloud, server_id: str, devices: list[dict[str, Any]]) -> None:
    table = cell_schema.servers
    with cloud.cell.write() as connection:
        connection.execute(sa.update(table).where(table.c.id == server_id).values(block_devices=devices))


def _more(cloud: Cloud, server_id: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(the server's devices, one that its row has now, too)"""
    assert cloud.volumes is not None
    old = cloud.server(server_id)["block_devices"]
    kind = {"source_type": "volume", "destination_type": "volume", "device_name": "/dev/vdc"}
    new = block_devices.new_device(**kind, volume_id=cloud.volumes.make(), size_gib=1)
    _with_devices(cloud, server_id, [*old, new])
    return old, new


def _attach_volume(cloud: Cloud, server_id: str) -> None:
    old, new = _more(cloud, server_id)
    cloud.act("server.attach_volume", server_id, guest=_guest(cloud, server_id, old), device=new)


def _forget_volume(cloud: Cloud, server_id: str) -> None:
    """An attach that never began, and never will."""
    old, new = _more(cloud, server_id)
    arguments = {"guest": _guest(cloud, server_id, old), "device": new}
    host = cloud.server(server_id)["host"]
    row = db_intents.row("server.attach_volume", "server", server_id, admin_context(), arguments, target=host)
    with cloud.cell.write() as connection:
        db_intents.insert(connection, cell_schema.intents, [cleanup_of({**row, "project_id": "p"})])
    ConductorClient(cloud.messaging).ring([])


def _detach_volume(cloud: Cloud, server_id: str) -> None:
    devices = cloud.server(server_id)["block_devices"]
    guest = _guest(cloud, server_id, devices)
    cloud.act("server.detach_volume", server_id, guest=guest, device=devices[0])


def _swap_volume(cloud: Cloud, server_id: str) -> None:
    assert cloud.volumes is not None
    (old,) = cloud.server(server_id)["block_devices"]
    swap_to = {"volume_id": cloud.volumes.make(2), "size_gib": 2, "multiattach": False}
    device = {**old, "swap_to": swap_to}
    _with_devices(cloud, server_id, [device])
    cloud.act("server.swap_volume", server_id, guest=_guest(cloud, server_id, [old]), device=device)


def _settle_swap(cloud: Cloud, server_id: str) -> None:
    """A swap that never began, and never will."""
    assert cloud.volumes is not None
    (old,) = cloud.server(server_id)["block_devices"]
    device = {**old, "swap_to": {"volume_id": cloud.volumes.make(), "size_gib": 1, "multiattach": False}}
    _with_devices(cloud, server_id, [device])
    arguments = {"guest": _guest(cloud, server_id, [old]), "device": device}
    host = cloud.server(server_id)["host"]
    row = db_intents.row("server.swap_volume", "server", server_id, admin_context(), arguments, target=host)
    with cloud.cell.write() as connection:
        db_intents.insert(connection, cell_schema.intents, [cleanup_of({**row, "project_id": "p"})])
    ConductorClient(cloud.messaging).ring([])


def _extend_volume(cloud: Cloud, server_id: str) -> None:
    (device,) = cloud.server(server_id)["block_devices"]
    cloud.act("server.extend_volume", server_id, device=device)


def _snapshot_volume(cloud: Cloud, server_id: str) -> None:
    """For a snapshot that nobody waits for any more: the host does its part all the same."""
    (device,) = cloud.server(server_id)["block_devices"]
    arguments = {"guest": _guest(cloud, server_id, [device]), "device": device}
    cloud.act(
        "server.snapshot_volume", server_id, snapshot_id=str(uuid.uuid4()), new_file="copy.part", **arguments
    )


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
    "server.attach_volume": Case("active", _attach_volume, "active"),
    "server.detach_volume": Case("active", _detach_volume, "active"),
    "server.forget_volume": Case("active", _forget_volume, "active"),
    "server.swap_volume": Case("active", _swap_volume, "active"),
    "server.settle_swap": Case("active", _settle_swap, "active"),
    "server.extend_volume": Case("active", _extend_volume, "active"),
    "server.snapshot_volume": Case("active", _snapshot_volume, "active"),
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
