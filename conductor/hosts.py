"""Hosts of a cell: greetings, heartbeats, what they offer, the power states they see."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exc

from db import placement
from db.cell_schema import hypervisors, intents, servers, services
from db.sessions import Database, Databases, retrying
from db.types import now
from lifecycle.states import UNFINISHED, VmState

LOG = logging.getLogger(__name__)
COMPUTE_BINARY = "nova-compute"
_NAMESPACE = uuid.UUID("6b1d4f52-8a0b-4a55-9a63-0d1c3f9e2a11")

GROUP = "allocation"
OPTS = [
    cfg.FloatOpt("cpu_ratio", default=4.0, min=0.1, help="Virtual CPUs promised per physical one."),
    cfg.FloatOpt("ram_ratio", default=1.0, min=0.1, help="Memory promised per memory there is."),
    cfg.FloatOpt("disk_ratio", default=1.0, min=0.1, help="Disk promised per disk there is."),
    cfg.IntOpt("reserved_host_cpus", default=0, min=0, help="CPUs kept for the host itself."),
    cfg.IntOpt("reserved_host_memory_mb", default=512, min=0, help="Memory kept for the host itself, MiB."),
    cfg.IntOpt("reserved_host_disk_mb", default=0, min=0, help="Disk kept for the host itself, MiB."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


def provider_uuid(cell: Database, host: str) -> str:
    """The id of a host's provider and hypervisor: the same each time the host greets."""
    return str(uuid.uuid5(_NAMESPACE, f"{cell.cell_id}/{host}"))


class Hosts:
    """The hosts of one cell."""

    def __init__(self, conf: cfg.ConfigOpts, databases: Databases, cell: Database) -> None:
        self._conf = conf
        self._databases = databases
        self._cell = cell

    def hello(self, host: str, greeting: Mapping[str, Any]) -> None:
        """A host starts: know it, what it offers, and that it lives."""
        inventory = greeting["inventory"]
        self._upsert_in_cell(host, greeting, inventory)
        self._upsert_in_global(host, inventory)

    @retrying
    def _upsert_in_cell(self, host: str, greeting: Mapping[str, Any], inventory: Mapping[str, Any]) -> None:
        id_, moment = provider_uuid(self._cell, host), now()
        with self._cell.write() as connection:
            values = {"last_seen_at": moment, "release": greeting.get("release")}
            done = connection.execute(
                sa.update(services)
                .where(services.c.host == host, services.c.binary == COMPUTE_BINARY)
                .values(**values)
            )
            if done.rowcount == 0:
                connection.execute(
                    sa.insert(services).values(
                        uuid=str(uuid.uuid4()), host=host, binary=COMPUTE_BINARY, created_at=moment, **values
                    )
                )
            described = {
                "hypervisor_hostname": inventory["hypervisor_hostname"],
                "hypervisor_type": inventory["hypervisor_type"],
                "hypervisor_version": inventory["hypervisor_version"],
                "host_ip": inventory.get("host_ip"),
                "inventory": dict(inventory),
                "updated_at": moment,
            }
            done = connection.execute(
                sa.update(hypervisors).where(hypervisors.c.host == host).values(**described)
            )
            if done.rowcount == 0:
                connection.execute(
                    sa.insert(hypervisors).values(uuid=id_, host=host, created_at=moment, **described)
                )

    @retrying
    def _upsert_in_global(self, host: str, inventory: Mapping[str, Any]) -> None:
        assert self._cell.cell_id is not None
        with self._databases.global_.write() as connection:
            placement.upsert_host(
                connection,
                host=host,
                uuid=provider_uuid(self._cell, host),
                cell_id=self._cell.cell_id,
                traits=list(inventory.get("traits") or ()),
                totals=self._totals(inventory),
            )

    def _totals(self, inventory: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        options = self._conf[GROUP]
        reserved_disk = -(-options.reserved_host_disk_mb // 1024)
        amounts = {
            "VCPU": (inventory["vcpus"], options.reserved_host_cpus, options.cpu_ratio),
            "MEMORY_MB": (inventory["memory_mib"], options.reserved_host_memory_mb, options.ram_ratio),
            "DISK_GB": (inventory["disk_gib"], reserved_disk, options.disk_ratio),
        }
        return {
            name: {
                "total": total,
                "reserved": min(reserved, total),
                "min_unit": 1,
                "max_unit": total,
                "step_size": 1,
                "allocation_ratio": ratio,
            }
            for name, (total, reserved, ratio) in amounts.items()
            if total > 0
        }

    @retrying
    def beat(self, host: str, binary: str = COMPUTE_BINARY) -> bool:
        """A sign of life; False when the host is not known (it greets then)."""
        with self._cell.write() as connection:
            done = connection.execute(
                sa.update(services)
                .where(services.c.host == host, services.c.binary == binary)
                .values(last_seen_at=now())
            )
            return done.rowcount == 1

    def ensure_service(self, host: str, binary: str) -> None:
        """A control-plane service of the cell (conductor, scheduler) in the list of services."""
        if self.beat(host, binary):
            return
        try:
            with self._cell.write() as connection:
                connection.execute(
                    sa.insert(services).values(
                        uuid=str(uuid.uuid4()), host=host, binary=binary, last_seen_at=now(), created_at=now()
                    )
                )
        except db_exc.DBDuplicateEntry:
            LOG.debug("service %s on %s was registered by another process", binary, host)

    def dead(self, after_s: float, targets: Iterable[str] = ()) -> dict[str, float]:
        """{host: seconds since it was last seen} of hosts that are down; forced down counts.

        ``targets``: hosts of interest; those that nobody knows (any more) are down, too.
        """
        statement = sa.select(services).where(services.c.binary == COMPUTE_BINARY)
        with self._cell.read() as connection:
            rows = connection.execute(statement).mappings().all()
        result = dict.fromkeys(set(targets) - {row["host"] for row in rows}, float("inf"))
        for row in rows:
            age = (now() - row["last_seen_at"]).total_seconds() if row["last_seen_at"] else float("inf")
            if age > after_s or row["forced_down"]:
                result[row["host"]] = age
        return result

    @retrying
    def power_states(self, host: str, states: Mapping[str, int]) -> list[str]:
        """Write what a host sees of its guests; returns ids of stop intents written.

        Only servers that nothing is being done to. A guest that shut itself down
        makes its server SHUTOFF, as upstream's power-state synchronisation does.
        """
        stopped: list[str] = []
        if not states:
            return stopped
        busy = sa.select(intents.c.resource_id).where(
            intents.c.resource_id.in_(list(states)),
            intents.c.state.in_([state.value for state in UNFINISHED]),
        )
        with self._cell.write() as connection:
            rows = connection.execute(
                sa.select(
                    servers.c.id, servers.c.vm_state, servers.c.power_state, servers.c.generation
                ).where(
                    servers.c.id.in_(list(states)),
                    servers.c.host == host,
                    servers.c.deleted == 0,
                    servers.c.task_state.is_(None),
                    servers.c.id.not_in(busy),
                )
            ).mappings()
            for row in rows.all():
                power = states[row["id"]]
                vm_state = power_transition(row["vm_state"], power)
                if power == row["power_state"] and vm_state == row["vm_state"]:
                    continue
                connection.execute(
                    sa.update(servers)
                    .where(servers.c.id == row["id"], servers.c.generation == row["generation"])
                    .values(
                        power_state=power,
                        vm_state=vm_state,
                        generation=row["generation"] + 1,
                        updated_at=now(),
                    )
                )
                if vm_state != row["vm_state"]:
                    stopped.append(row["id"])
                    LOG.info("server %s is %s: its guest changed by itself", row["id"], vm_state)
        return stopped


def power_transition(vm_state: str, power: int) -> str:
    """The vm_state of an idle server whose guest is in ``power``, as a table.

    A guest that ended is stopped; one that runs although it was stopped (started
    by hand on the host) is active again: the hypervisor's word counts.
    """
    table = {
        (VmState.ACTIVE, 4): VmState.STOPPED,
        (VmState.ACTIVE, 6): VmState.STOPPED,
        (VmState.ACTIVE, 3): VmState.PAUSED,
        (VmState.PAUSED, 1): VmState.ACTIVE,
        (VmState.PAUSED, 4): VmState.STOPPED,
        (VmState.STOPPED, 1): VmState.ACTIVE,
    }
    return table.get((vm_state, power), vm_state)


__all__ = ["COMPUTE_BINARY", "Hosts", "list_opts", "power_transition", "provider_uuid"]
