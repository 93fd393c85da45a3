"""Hosts and servers for API tests, written as conductor and API would write them."""

from __future__ import annotations

import uuid
from typing import Any

from api.compute.services import ComputeServices
from db import cell_schema, global_schema, placement
from db.types import now

INVENTORY = {
    "hypervisor_type": "QEMU",
    "hypervisor_version": 8002000,
    "hypervisor_hostname": "",
    "vcpus": 4,
    "memory_mib": 8192,
    "disk_gib": 100,
    "disk_available_gib": 90,
    "cpu_info": {"arch": "x86_64", "model": "max", "vendor": "Intel", "features": [], "topology": {}},
    "host_ip": "127.0.0.1",
    "uptime": " 10:00:00 up 1 day",
}


def add_host(services: ComputeServices, host: str, **service: Any) -> str:
    """A compute host in the first cell, alive; its hypervisor's UUID."""
    cell = services.databases.cells()[0]
    identifier = str(uuid.uuid4())
    add_service(services, host, "nova-compute", **service)
    with cell.write() as connection:
        connection.execute(
            cell_schema.hypervisors.insert().values(
                uuid=identifier,
                host=host,
                hypervisor_hostname=f"{host}.example",
                hypervisor_type="QEMU",
                hypervisor_version=8002000,
                host_ip="127.0.0.1",
                inventory=INVENTORY,
            )
        )
    with services.databases.global_.write() as connection:
        placement.upsert_host(
            connection,
            host=host,
            uuid=identifier,
            cell_id=cell.cell_id or 0,
            traits=[],
            totals={"VCPU": {"total": 4, "max_unit": 4}},
        )
    return identifier


def add_service(services: ComputeServices, host: str, binary: str, **values: Any) -> str:
    identifier = str(uuid.uuid4())
    with services.databases.cells()[0].write() as connection:
        connection.execute(
            cell_schema.services.insert().values(
                **{"uuid": identifier, "host": host, "binary": binary, "last_seen_at": now(), **values}
            )
        )
    return identifier


def add_server(services: ComputeServices, host: str | None, **values: Any) -> str:
    """An active server on ``host`` (None: in the global database), with its mapping."""
    row: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "project_id": "p1",
        "user_id": "member-of-p1",
        "name": "server",
        "hostname": "server",
        "host": host,
        "vm_state": "active",
        "flavor_id": "1",
        "vcpus": 1,
        "memory_mib": 512,
        "root_gib": 10,
        "ephemeral_gib": 0,
        "flavor": {"name": "m1.tiny"},
        "launched_at": now(),
        **values,
    }
    identifier = str(row["id"])
    database = services.databases.cells()[0] if host else services.databases.global_
    table = cell_schema.servers if host else global_schema.servers
    with database.write() as connection:
        connection.execute(table.insert().values(**row))
    with services.databases.global_.write() as connection:
        connection.execute(
            global_schema.server_mappings.insert().values(
                server_id=identifier,
                cell_id=database.cell_id,
                project_id=row["project_id"],
                user_id=row["user_id"],
                vcpus=row["vcpus"],
                memory_mib=row["memory_mib"],
                deleted=bool(row.get("deleted")),
            )
        )
    return identifier
