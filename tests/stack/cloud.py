"""A whole control plane in one process: databases, scheduler, conductor, simulated hosts.

For tests of intents from their row to their end, without the API in front.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg

from api.compute.server_access import parts_of
from compute import service as compute_service
from compute.drivers import simulated
from conductor import service as conductor_service
from core import block_devices, config
from core.context import RequestContext
from core.errors import StaleGeneration
from core.messaging import Messaging
from db import cell_schema, cells, global_schema, migrate, sessions
from db import intents as db_intents
from db import servers as db_servers
from db.types import now
from lifecycle.rpc import AgentClient, ConductorClient, SchedulerClient
from scheduler import service as scheduler_service
from tests.compute.drivers.specs import make_guest
from tests.stack.credentials import credentials
from tests.stack.images import ImagePlane
from tests.stack.networks import NetworkPlane
from tests.stack.volumes import VolumePlane

CONTEXT = RequestContext(user_id="user-1", project_id="project-1", request_id="req-1", overwrite=False)


class Cloud:
    """``start`` brings up the roles; ``hosts`` names the simulated hosts."""

    def __init__(
        self,
        folder: Path,
        hosts: list[str],
        *,
        transport: str | None = None,
        connection: str | None = None,
        cell_connection: str | None = None,
        **overrides: Any,
    ) -> None:
        self.folder = folder
        self.hosts = hosts
        self.transport = transport or f"local:///{uuid.uuid4().hex}"
        self.connection = connection or f"sqlite:///{folder}/global.db"
        self.cell_connection = cell_connection or f"sqlite:///{folder}/cell1.db"
        self.overrides = overrides
        self.conf = self.configuration()
        self.databases = self._create_databases()
        self.cell = self.databases.cells()[0]
        self.messaging = Messaging(self.conf)
        self.roles: list[Any] = []
        self.plane: NetworkPlane | None = None
        self.images: ImagePlane | None = None
        self.volumes: VolumePlane | None = None
        self.made_volumes: dict[str, str] = {}
        """server → the volume that was made for it"""

    def configuration(self) -> cfg.ConfigOpts:
        conf = config.load()
        for options in (
            sessions.list_opts(),
            conductor_service.list_opts(),
            scheduler_service.list_opts(),
            compute_service.agents.list_opts(),
            simulated.list_opts(),
        ):
            config.register(conf, options)
        values = {
            "transport_url": self.transport,
            "host": "control",
            "state_path": str(self.folder / "state"),
            "database.connection": self.connection,
            "compute.driver": "simulated",
            "compute.simulated_hosts": self.hosts,
            "compute.heartbeat_interval_s": 0.5,
            "conductor.sweep_interval_s": 0.3,
            "conductor.lease_s": 2,
            "conductor.resend_s": 1,
            "conductor.retry_s": 0.05,
            "scheduler.interval_s": 0.5,
            "scheduler.lease_s": 2,
            "scheduler.host_lease_s": 2,
            **self.overrides,
        }
        self.values = values
        Messaging(conf).close()  # registers transport_url
        for name, value in values.items():
            config.override(conf, name, value)
        return conf

    def _create_databases(self) -> sessions.Databases:
        databases = sessions.Databases(self.conf)
        migrate.upgrade(databases.global_.engine, "global")
        cell_engine = sessions.make_engine(self.cell_connection)
        migrate.upgrade(cell_engine, "cell")
        cell_engine.dispose()
        cells.ensure_first(databases.global_, self.cell_connection)
        return databases

    def start(self, *roles: str) -> None:
        """Start roles (all of them by default) and wait until the hosts are known."""
        factories: dict[str, Callable[[cfg.ConfigOpts], Any]] = {
            "conductor": conductor_service.make_role,
            "scheduler": scheduler_service.make_role,
            "compute": compute_service.make_role,
        }
        for name in roles or tuple(factories):
            role = factories[name](self.conf)
            role.start()
            self.roles.append(role)
        if not roles or "compute" in roles:
            wait_for(lambda: self.known_hosts() == sorted(self.hosts), "hosts known")

    def with_networks(self) -> NetworkPlane:
        """A Network API beside it: from now on servers have two ports, one of them made before."""
        self.plane = NetworkPlane(self)
        self.plane.start()
        return self.plane

    def with_images(self) -> ImagePlane:
        """An Image API beside it, for what is uploaded. After ``with_networks``, if both are wanted."""
        self.images = ImagePlane(self, self.folder)
        credentials(self.conf, self.plane.url if self.plane else "http://127.0.0.1:9", self.images.url)
        self.images.start()
        return self.images

    def with_volumes(self) -> VolumePlane:
        """A Volume API and a worker beside it: from now on servers have a volume. After ``with_networks`` and ``with_images``, if they are wanted."""
        self.volumes = VolumePlane(self, self.folder)
        if self.plane is None and self.images is None:
            credentials(self.conf, "http://127.0.0.1:9")
        self.volumes.start()
        return self.volumes

    def stop(self) -> None:
        for role in reversed(self.roles):
            role.stop()
        if self.volumes is not None:
            self.volumes.stop()
        if self.images is not None:
            self.images.stop()
        if self.plane is not None:
            self.plane.stop()
        self.messaging.close()
        self.databases.dispose()

    # -- what tests ask for --------------------------------------------------

    def known_hosts(self) -> list[str]:
        with self.databases.global_.read() as connection:
            return sorted(connection.execute(sa.select(global_schema.providers.c.host)).scalars())

    def create(
        self,
        *,
        vcpus: int = 1,
        memory_mib: int = 64,
        ring: bool = True,
        admin_password: str | None = None,
        **arguments: Any,
    ) -> str:
        """Write a server and its intent as the API does; returns the server's id."""
        server_id, moment = str(uuid.uuid4()), now()
        guest = make_guest(
            server_id=server_id,
            name="s",
            hostname="s",
            project_id=CONTEXT.project_id,
            user_id=CONTEXT.user_id,
            memory_mib=memory_mib,
            vcpus=vcpus,
            admin_password=admin_password,
            availability_zone="",
            created_at=moment.isoformat(),
        )
        server = {
            "id": server_id,
            "project_id": CONTEXT.project_id,
            "user_id": CONTEXT.user_id,
            "name": "s",
            "hostname": "s",
            "vm_state": "building",
            "task_state": "scheduling",
            "flavor_id": "1",
            "vcpus": vcpus,
            "memory_mib": memory_mib,
            "root_gib": 1,
            "ephemeral_gib": 0,
            "flavor": {"name": "tiny"},
            "created_at": moment,
            "updated_at": moment,
        }
        if self.plane is not None and "networks" not in arguments:
            arguments["networks"] = self._networks(self.plane)
        server["networks"] = arguments.get("networks") or []
        server["block_devices"] = devices = self._devices(server_id) if "devices" not in arguments else []
        devices += arguments.pop("devices", [])
        guest = dataclasses.replace(guest, volumes=tuple(devices))
        resources = {"VCPU": vcpus, "MEMORY_MB": memory_mib, "DISK_GB": 1}
        intent = db_intents.row(
            "server.create",
            "server",
            server_id,
            CONTEXT,
            {"guest": dataclasses.asdict(guest), "resources": resources, **arguments},
        )
        with self.databases.global_.write() as connection:
            connection.execute(sa.insert(global_schema.servers), [server])
            connection.execute(
                sa.insert(global_schema.server_mappings).values(
                    server_id=server_id,
                    project_id=CONTEXT.project_id,
                    user_id=CONTEXT.user_id,
                    vcpus=vcpus,
                    memory_mib=memory_mib,
                )
            )
            db_intents.insert(connection, global_schema.intents, [intent])
        if ring:
            SchedulerClient(self.messaging).ring()
        return server_id

    def _devices(self, server_id: str) -> list[dict[str, Any]]:
        """With a Volume API: a volume that is being made and goes with its server."""
        if self.volumes is None:
            return []
        volume_id = self.volumes.make(wait=False)
        self.made_volumes[server_id] = volume_id
        kind = {"source_type": "blank", "destination_type": "volume", "delete_on_termination": True}
        return [block_devices.new_device(**kind, volume_id=volume_id, device_name="/dev/vdb", size_gib=1)]

    @staticmethod
    def _networks(plane: NetworkPlane) -> list[dict[str, Any]]:
        new = {"network_id": plane.network["id"], "port_id": None, "fixed_ip": None, "tag": "new"}
        return [new, {**new, "port_id": plane.make_port(), "tag": None}]

    def act(self, kind: str, server_id: str, ring: bool = True, **arguments: Any) -> str:
        """Write an intent for a placed server, as the API does; returns the intent's id."""
        server = self.server(server_id)
        if kind == "server.delete":
            arguments = {**parts_of(server), **arguments}
        intent = db_intents.row(kind, "server", server_id, CONTEXT, arguments, target=server["host"])
        with self.cell.write() as connection:
            if kind == "server.delete":
                db_intents.overtake(connection, cell_schema.intents, server_id)
            db_intents.insert(connection, cell_schema.intents, [intent])
            connection.execute(
                sa.update(cell_schema.servers)
                .where(cell_schema.servers.c.id == server_id)
                .values(task_state="deleting" if kind == "server.delete" else "working")
            )
        if ring:
            ConductorClient(self.messaging).ring([intent["id"]])
        return str(intent["id"])

    def delete(self, server_id: str, ring: bool = True) -> None:
        """Ask for a deletion as the API does, wherever the server is just now."""
        for _ in range(100):
            try:
                if self._delete(server_id, ring):
                    return
            except StaleGeneration:
                time.sleep(0.01)
        raise AssertionError(f"{server_id} never stood still")

    def _delete(self, server_id: str, ring: bool) -> bool:
        found = db_servers.find(self.databases, server_id)
        row, database = found.row, found.database
        if not found.placed:
            record = db_intents.finished_row("server.delete", "server", server_id, CONTEXT)
            with database.write() as connection:
                return db_servers.delete_unplaced(connection, database, row, record) != "moved"
        intent = db_intents.row(
            "server.delete", "server", server_id, CONTEXT, parts_of(row), target=row["host"]
        )
        table = db_intents.table(database)
        with database.write() as connection:
            db_servers.change(connection, database, row, {"task_state": "deleting"})
            overtaken = db_intents.overtake(connection, table, server_id)
            db_intents.insert(connection, table, [intent])
        if ring:
            agents = AgentClient(self.messaging)
            for other in overtaken:
                if other["target"]:
                    agents.cancel(other["target"], [other["id"]])
            ConductorClient(self.messaging).ring([intent["id"]])
        return True

    def server(self, server_id: str) -> dict[str, Any]:
        """The server's row, wherever it lives."""
        return db_servers.find(self.databases, server_id, deleted=True).row

    def intents(self, server_id: str) -> list[dict[str, Any]]:
        found = []
        for database in (self.cell, self.databases.global_):
            with database.read() as connection:
                found += db_intents.of_resource(connection, db_intents.table(database), server_id)
        return found

    def wait_state(self, server_id: str, vm_state: str, timeout_s: float = 120) -> dict[str, Any]:
        """Wait until the server is idle in ``vm_state``."""

        def reached() -> bool:
            server = self.server(server_id)
            return server["vm_state"] == vm_state and server["task_state"] is None

        wait_for(reached, f"{server_id} is {vm_state}", timeout_s, lambda: self.server(server_id))
        return self.server(server_id)

    def allocations(self) -> dict[str, dict[str, int]]:
        with self.databases.global_.read() as connection:
            rows = connection.execute(sa.select(global_schema.allocations)).mappings().all()
        result: dict[str, dict[str, int]] = {}
        for row in rows:
            result.setdefault(row["consumer_uuid"], {})[row["resource_class"]] = row["used"]
        return result

    def usage(self) -> int:
        """Servers that count against quotas."""
        mappings = global_schema.server_mappings
        with self.databases.global_.read() as connection:
            statement = sa.select(sa.func.count()).where(mappings.c.deleted.is_(sa.false()))
            return int(connection.execute(statement).scalar_one())


def wait_for(
    condition: Callable[[], bool],
    what: str,
    timeout_s: float = 120,
    describe: Callable[[], Any] = lambda: "",
) -> None:
    """Wait until ``condition`` holds; fail saying what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain: {what} {describe()}")
        time.sleep(0.02)
