"""What must hold whenever everything has come to rest, whatever happened before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from db import cell_schema, global_schema
from db.sessions import Database
from lifecycle.states import UNFINISHED
from tests.stack.cloud import Cloud, wait_for

Row = dict[str, Any]
_CHANGES_NICS = {"server.attach_interface", "server.detach_interface"}
POWER = {"active": 1, "stopped": 4}


def _all(database: Database, table: sa.Table) -> list[Row]:
    with database.read() as connection:
        return [dict(row) for row in connection.execute(sa.select(table)).mappings()]


def unfinished(cloud: Cloud) -> list[Row]:
    """Intents that are not over, anywhere."""
    names = [state.value for state in UNFINISHED]
    found = []
    for database, table in (
        (cloud.databases.global_, global_schema.intents),
        (cloud.cell, cell_schema.intents),
    ):
        with database.read() as connection:
            statement = sa.select(table).where(table.c.state.in_(names))
            found += [dict(row) for row in connection.execute(statement).mappings()]
    return found


def settle(cloud: Cloud, timeout_s: float = 120) -> None:
    """Wait until no intent is unfinished."""

    def describe() -> Any:
        keys = ("kind", "state", "step", "attempts", "target", "error", "cancel_requested", "lease_until")
        return [{key: row[key] for key in keys} for row in unfinished(cloud)]

    wait_for(lambda: not unfinished(cloud), "no intent is unfinished", timeout_s, describe)


def assert_nothing_lost(cloud: Cloud, state_dir: Path | None, states: Mapping[str, str]) -> None:
    """After ``settle``: every server is in the state given, and there is nothing else anywhere.

    ``states``: {server id: vm_state} of every server that was ever created.
    ``state_dir``: the simulated drivers', to see what stands on the hosts.
    """
    _intents_are_over(cloud)
    servers = _servers(cloud)
    found = {id_: row["vm_state"] for id_, row in servers.items()}
    assert found == dict(states)
    assert {id_ for id_, row in servers.items() if row["task_state"] is not None} == set()
    alive = {id_: row for id_, row in servers.items() if not row["deleted"]}
    assert set(alive) == {id_ for id_, state in states.items() if state != "deleted"}
    _tags_and_groups(cloud, set(alive))
    _quota(cloud, alive)
    _allocations(cloud, alive)
    _ports(cloud, alive, state_dir)
    _volumes(cloud, alive, state_dir)
    if cloud.images is not None:
        assert cloud.images.statuses() <= {"active"}, "an image that waits for data which never comes"
    if state_dir is not None:
        _hosts(state_dir, alive)
        assert list(state_dir.glob("*/snapshots/*.json")) == [], "copies of disks that nobody needs"


def _intents_are_over(cloud: Cloud) -> None:
    assert unfinished(cloud) == []
    for database, table in (
        (cloud.databases.global_, global_schema.intents),
        (cloud.cell, cell_schema.intents),
    ):
        for row in _all(database, table):
            assert row["exclusive_key"] is None, row
            assert row["lease_owner"] is None, row
            assert row["finished_at"] is not None, row


def _servers(cloud: Cloud) -> dict[str, Row]:
    """Each server once, in the database that its mapping names."""
    mappings = {row["server_id"]: row for row in _all(cloud.databases.global_, global_schema.server_mappings)}
    servers: dict[str, Row] = {}
    for database, table in (
        (cloud.databases.global_, global_schema.servers),
        (cloud.cell, cell_schema.servers),
    ):
        for row in _all(database, table):
            assert row["id"] not in servers, f"two rows of server {row['id']}"
            assert mappings[row["id"]]["cell_id"] == database.cell_id, "a row where its mapping does not say"
            assert mappings[row["id"]]["deleted"] == bool(row["deleted"])
            servers[row["id"]] = row
    assert set(mappings) == set(servers), "a mapping without a server"
    return servers


def _tags_and_groups(cloud: Cloud, alive: set[str]) -> None:
    for database, table in (
        (cloud.databases.global_, global_schema.server_tags),
        (cloud.cell, cell_schema.server_tags),
        (cloud.databases.global_, global_schema.server_group_members),
    ):
        owners = {row["server_id"] for row in _all(database, table)}
        assert owners <= alive, f"{table.name} of servers that are gone"


def _quota(cloud: Cloud, alive: Mapping[str, Row]) -> None:
    counted = [
        row for row in _all(cloud.databases.global_, global_schema.server_mappings) if not row["deleted"]
    ]
    assert {row["server_id"] for row in counted} == set(alive)
    assert sum(row["vcpus"] for row in counted) == sum(row["vcpus"] for row in alive.values())


def _ports(cloud: Cloud, alive: Mapping[str, Row], state_dir: Path | None) -> None:
    """A server on a host has the ports that it asked for, bound there; nobody else has any."""
    if cloud.plane is None:
        return
    expected, kept = {}, set()
    for row in _servers(cloud).values():
        kept |= {request["port_id"] for request in row["networks"] if request["port_id"]}
    for id_, row in alive.items():
        nics = row["network_info"]
        changed = {intent["kind"] for intent in cloud.intents(id_)} & _CHANGES_NICS
        if not changed:
            assert len(nics) == (len(row["networks"]) if row["host"] else 0), row
        if row["host"] and state_dir is not None:
            guest = json.loads((state_dir / row["host"] / "guests" / f"{id_}.json").read_text())
            assert guest["spec"]["nics"] == [nic["mac_address"] for nic in nics], "NICs of the guest"
        expected.update({nic["port_id"]: (id_, row["host"], "bridge") for nic in nics})
    ports = cloud.plane.ports()
    found = {
        id_: (port["device_id"], port["binding:host_id"], port["binding:vif_type"])
        for id_, port in ports.items()
        if port["device_id"] or port["binding:host_id"]
    }
    assert found == expected, "bound ports"
    assert set(ports) == set(expected) | kept, "a port left behind, or one of its owner's gone"
    assert cloud.plane.used() == len(ports)


def _volumes(cloud: Cloud, alive: Mapping[str, Row], state_dir: Path | None) -> None:
    """A server on a host has the volumes that its row says, there and at the Volume API; no other has any."""
    if cloud.volumes is None:
        return
    devices = {
        (id_, device["volume_id"]): device for id_, row in alive.items() for device in row["block_devices"]
    }
    assert not any("swap_to" in device for device in devices.values()), "a swap that never ends"
    expected = {key for key in devices if alive[key[0]]["host"]}
    attachments = cloud.volumes.attachments()
    found = {(each["instance"], each["volume_id"]) for each in attachments}
    assert len(found) == len(attachments), "two attachments of one volume for one server"
    assert found == expected, "attachments"
    for each in attachments:
        assert each["status"] == "attached", each
        assert devices[each["instance"], each["volume_id"]]["attachment_id"] == each["id"]
    volumes = cloud.volumes.volumes()
    used = {volume_id for _, volume_id in expected}
    assert {id_: row["status"] for id_, row in volumes.items()} == {
        id_: "in-use" if id_ in used else "available" for id_ in volumes
    }
    gone = {volume for server, volume in cloud.made_volumes.items() if server not in alive}
    detached = {volume for server, volume in cloud.made_volumes.items() if (server, volume) not in devices}
    assert not (set(volumes) & gone) - detached, "volumes that should have gone with their servers"
    if state_dir is not None:
        at = {(row["host"], volume) for (id_, volume) in expected for row in [alive[id_]]}
        there = {(path.parent.parent.name, path.stem) for path in state_dir.glob("*/connections/*.json")}
        assert there == at, "connections of the hosts"
        for host, id_ in {(alive[id_]["host"], id_) for id_, row in alive.items() if row["host"]}:
            guest = json.loads((state_dir / host / "guests" / f"{id_}.json").read_text())
            wanted = {volume for server, volume in expected if server == id_}
            assert set(guest["spec"]["volumes"]) == wanted, "volumes of the guest"


def _allocations(cloud: Cloud, alive: Mapping[str, Row]) -> None:
    """Whoever is on a host has its share there, and nobody else anything."""
    database = cloud.databases.global_
    hosts = {row["id"]: row["host"] for row in _all(database, global_schema.providers)}
    expected = {
        (id_, row["host"], name): amount
        for id_, row in alive.items()
        if row["host"]
        for name, amount in (
            ("VCPU", row["vcpus"]),
            ("MEMORY_MB", row["memory_mib"]),
            ("DISK_GB", row["root_gib"]),
        )
    }
    rows = _all(database, global_schema.allocations)
    found = {
        (row["consumer_uuid"], hosts[row["provider_id"]], row["resource_class"]): row["used"] for row in rows
    }
    assert found == expected
    assert {row["uuid"] for row in _all(database, global_schema.consumers)} == {key[0] for key in expected}
    used: dict[tuple[int, str], int] = {}
    for row in rows:
        key = (row["provider_id"], row["resource_class"])
        used[key] = used.get(key, 0) + row["used"]
    for row in _all(database, global_schema.inventories):
        capacity = (row["total"] - row["reserved"]) * row["allocation_ratio"]
        assert used.get((row["provider_id"], row["resource_class"]), 0) <= capacity, "over-committed"


def _hosts(state_dir: Path, alive: Mapping[str, Row]) -> None:
    """Guests and disks stand where their servers are, in their power state, and nowhere else."""
    expected = {(row["host"], id_) for id_, row in alive.items() if row["host"]}
    for kind in ("guests", "disks"):
        found = {(path.parent.parent.name, path.stem) for path in state_dir.glob(f"*/{kind}/*.json")}
        assert found == expected, f"{kind} on the hosts"
    for host, id_ in expected:
        state = json.loads((state_dir / host / "guests" / f"{id_}.json").read_text())["power_state"]
        wanted = POWER.get(alive[id_]["vm_state"])
        assert wanted is None or (state, alive[id_]["power_state"]) == (wanted, wanted), alive[id_][
            "vm_state"
        ]
