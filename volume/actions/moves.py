"""Steps of what takes a volume to another backend: ``volume.migrate``, and ``volume.retype`` where the type asks for it.

| step | does | undo |
|---|---|---|
| begin | may it move, must it (a retype may find that it can stay)? notes how the row is | – |
| destination | a second row, placed by the scheduler and made by its backend, held for this move | it is deleted |
| copy | the content, then both are compared | – (it goes with the destination) |
| switch | the rows change places in one transaction, which also writes the deletion of the old data | – |

The worker of the old backend does it: it opens the old volume itself and the new one through its driver, when that
is in this process, or as a hypervisor host would: connected by what its worker answers.
Content is copied as it lies there: of an encrypted volume the ciphertext with its header, so the key stays.

An interrupted copy is nothing but a destination in status ``maintenance``, which the undo deletes. A volume that was
not locked (lock_volume, or a retype) and is touched in the meantime stays where it was: what was
written since would be missing in the copy. They run in threads of their own (``volume.taker``), since they
wait for volumes that the other threads make.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import sqlalchemy as sa

from core.context import RequestContext
from core.errors import BadRequest, DriverError
from core.volume_capabilities import fits
from db import volume_moves, volume_types
from db import volumes as db_volumes
from db.sessions import retrying
from db.volume_base import Row, pools
from db.volumes import service_of
from lifecycle.steps import Action, Registry, Run, Step
from volume import copying
from volume.drivers.base import Disk, Volume
from volume.worker import VolumeWorker

_FIRST_POLL_S, _MOST_POLL_S = 0.05, 2.0


def _worker(run: Run) -> VolumeWorker:
    worker: VolumeWorker = run.worker
    return worker


def _context(run: Run) -> RequestContext:
    """Whoever asked for the move has asked for what belongs to it."""
    return RequestContext(
        project_id=run.context.get("project_id"),
        user_id=run.context.get("user_id"),
        request_id=run.context.get("request_id"),
        overwrite=False,
    )


def _new_id(run: Run) -> str:
    return str(run.arguments["destination_id"])


# -- begin -----------------------------------------------------------------------


def _begin_migration(run: Run) -> Row:
    return _begin(run)


def _begin_retype(run: Run) -> Row:
    worker = _worker(run)
    with worker.databases.global_.read() as connection:
        specs = volume_types.get(connection, run.arguments["type_id"])["extra_specs"]
    volume = worker.volume(run.resource_id)
    if fits(_capabilities(worker, run.resource_id), specs) and worker.driver.retype(volume, specs):
        return {"moves": False}
    if run.arguments["migration_policy"] != "on-demand":
        raise BadRequest(
            "The volume would have to move to another backend for this type, and migration_policy is never."
        )
    return _begin(run)


def _capabilities(worker: VolumeWorker, volume_id: str) -> Row:
    """What the volume's pool says of itself."""
    host = worker.volume_row(volume_id)["host"]
    with worker.databases.global_.read() as connection:
        found = connection.execute(sa.select(pools.c.capabilities).where(pools.c.name == host)).scalar()
    return dict(found or {"volume_backend_name": worker.backend.backend_name})


@retrying
def _begin(run: Run) -> Row:
    worker = _worker(run)
    with worker.databases.global_.write() as connection:
        if volume_moves.is_attached(connection, run.resource_id):
            raise BadRequest("Invalid volume: an attached volume can't be moved: detach it first.")
        row = volume_moves.begin(connection, run.resource_id)
    return {"moves": True, **{key: row[key] for key in ("id", "generation", "status")}}


def _moves(run: Run) -> bool:
    return bool(run.results["begin"]["moves"])


# -- destination -------------------------------------------------------------------


def _make_destination(run: Run) -> None:
    if not _moves(run):
        return
    worker = _worker(run)
    _write_destination(run)
    worker.ring_scheduler()
    pause = _FIRST_POLL_S
    while True:
        run.check_cancelled()
        status = _destination_status(run)
        if status not in ("creating", "downloading"):
            return
        time.sleep(pause)
        pause = min(pause * 1.5, _MOST_POLL_S)


@retrying
def _write_destination(run: Run) -> None:
    worker = _worker(run)
    values = {}
    if run.kind == "volume.retype":
        values = {key: run.arguments[key] for key in ("type_id", "multiattach")}
    with worker.databases.global_.write() as connection:
        row = db_volumes.get(connection, run.resource_id)
        if volume_moves.switched(row, _new_id(run)):
            return
        pool = run.arguments.get("host")
        volume_moves.add_destination(connection, _context(run), row, _new_id(run), pool=pool, values=values)


@retrying
def _destination_status(run: Run) -> str:
    """:raises DriverError: it could not be made. :raises Conflict: somebody took it away."""
    with _worker(run).databases.global_.write() as connection:
        if volume_moves.switched(db_volumes.get(connection, run.resource_id), _new_id(run)):
            return "switched"
        found = db_volumes.get(connection, _new_id(run))
        if found["status"] == "error":
            raise DriverError(
                f"The volume has no place on another backend: {volume_moves.failure_of(connection, found['id'])}"
            )
        if found["status"] in ("creating", "downloading"):
            return str(found["status"])
        return str(volume_moves.hold(connection, found["id"])["status"])


def _drop_destination(run: Run) -> None:
    worker = _worker(run)
    target = _give_up(run)
    if target is not None:
        worker.client.ring(target)


@retrying
def _give_up(run: Run) -> str | None:
    with _worker(run).databases.global_.write() as connection:
        return volume_moves.give_up(connection, _context(run), _new_id(run))


# -- copy and switch ---------------------------------------------------------------


def _copy(run: Run) -> None:
    if not _moves(run):
        return
    worker = _worker(run)
    row, new_row = worker.volume_row(run.resource_id), worker.volume_row(_new_id(run))
    if volume_moves.switched(row, _new_id(run)):
        return
    source, new = worker.volume(run.resource_id), worker.volume(_new_id(run))
    with worker.driver.disk(source) as old, _opened(worker, new_row, new) as made:
        copying.copy(worker.conf, old, made, source.size_bytes, run.check_cancelled)


@contextlib.contextmanager
def _opened(worker: VolumeWorker, row: Row, volume: Volume) -> Iterator[Disk]:
    """The destination, by its driver or as a host is given it."""
    host = str(service_of(row["host"]))
    if host in worker.peers:
        with worker.peers[host].driver.disk(volume, write=True) as disk:
            yield disk
        return
    connector = worker.connector.properties()
    context = _admin(row)
    info = worker.client.initialize_connection(context, host, row["id"], connector, "rw")
    try:
        with worker.connector.disk(info) as disk:
            yield disk
    finally:
        worker.client.terminate_connection(context, host, row["id"], connector)


def _admin(row: Row) -> RequestContext:
    return RequestContext(is_admin=True, roles=["admin"], project_id=row["project_id"], overwrite=False)


@retrying
def _switch(run: Run) -> Row:
    if not _moves(run):
        return {}
    worker = _worker(run)
    values = {}
    if run.kind == "volume.retype":
        values = {key: run.arguments[key] for key in ("type_id", "multiattach")}
    with worker.databases.global_.write() as connection:
        before = db_volumes.get(connection, run.resource_id)
        volume_moves.switch(connection, _context(run), run.results["begin"], _new_id(run), values)
    worker.client.ring(str(service_of(before["host"])))
    return {}


def _steps(begin: Step) -> tuple[Step, ...]:
    return (
        begin,
        Step("destination", _make_destination, _drop_destination),
        Step("copy", _copy, no_undo="it goes with the destination", durable=True),
        Step("switch", _switch, no_undo="from here the copy is the volume", durable=True),
    )


_NOTHING = "it only notes that the move has begun"
MOVES = Registry(
    Action("volume.migrate", _steps(Step("begin", _begin_migration, no_undo=_NOTHING, durable=True))),
    Action("volume.retype", _steps(Step("begin", _begin_retype, no_undo=_NOTHING, durable=True))),
)
