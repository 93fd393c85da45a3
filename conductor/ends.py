"""What an intent's end does to its server, and what else is made of an intent's row."""

from __future__ import annotations

import datetime
from typing import Any

import sqlalchemy as sa

from conductor import devices
from core.context import admin_context
from core.intents import CLEANUP_OF
from db import global_schema
from db import intents as db_intents
from db.cell_schema import server_tags, servers
from lifecycle import server_ports
from lifecycle.states import SERVER, IntentState, Transition, VmState

Row = dict[str, Any]
_CLEANUP = Transition("cleanup", "cleanup", None, None)
"""what is done behind the back of who uses the server: no state of its changes"""


def end_server(
    connection: sa.Connection,
    row: Row,
    state: str,
    outcome: Row,
    error: Row | None,
    moment: datetime.datetime,
    table: sa.Table = servers,
) -> None:
    """What the end of an intent does to its server's row, by the state table.

    ``table``: the cell's servers, or the global ones for servers without a host.
    """
    transition = SERVER.get(row["kind"])
    if row["resource_type"] != "server":
        return
    values: Row = devices.at_end(connection, table, row, state, outcome, error)
    if transition is None and not values:
        return
    transition = transition or _CLEANUP
    done = state == IntentState.DONE.value
    vm_state, power_state = transition.done if done else transition.failed
    values["updated_at"] = moment
    if row["exclusive_key"] and not row["cancel_requested"]:
        # of an intent that lets others be written beside it, the task_state may be theirs
        values["task_state"] = None
    if vm_state is not None and (done or state == IntentState.FAILED.value):
        values["vm_state"] = vm_state
    power_state = outcome.get("power_state", power_state)
    if power_state is not None:
        values["power_state"] = power_state
    if error is not None and state == IntentState.FAILED.value:
        values["fault"] = {
            "code": 500,
            "message": error.get("message", "")[:255],
            "details": error.get("details"),
            "step": error.get("step"),
            "created": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    if row["kind"] == "server.create":
        if done:
            values.update(launched_at=moment, progress=0, fault=None)
            values["launched_on"] = row["target"]
            values["network_info"] = outcome.get("network_info") or []
        else:
            values.update(host=None, node=None)
    if done and row["kind"] in ("server.attach_interface", "server.detach_interface"):
        values["network_info"] = _changed_nics(connection, table, row["resource_id"], outcome)
    if done and vm_state == VmState.DELETED:
        tags = global_schema.server_tags if table is global_schema.servers else server_tags
        connection.execute(sa.delete(tags).where(tags.c.server_id == row["resource_id"]))
        values.update(deleted=1, terminated_at=moment, task_state=None, network_info=[], block_devices=[])
    connection.execute(
        sa.update(table)
        .where(table.c.id == row["resource_id"])
        .values(generation=table.c.generation + 1, **values)
    )


def _changed_nics(connection: sa.Connection, table: sa.Table, server_id: str, outcome: Row) -> list[Row]:
    """The server's NICs after one came ("nic") or went ("removed_port"); repeats harmlessly."""
    statement = sa.select(table.c.network_info).where(table.c.id == server_id)
    if connection.dialect.name != "sqlite":
        statement = statement.with_for_update()  # what was heard of its ports may be written meanwhile
    came = outcome.get("nic")
    gone = came["port_id"] if came else outcome.get("removed_port")
    left = [nic for nic in connection.execute(statement).scalar() or [] if nic["port_id"] != gone]
    return [*left, came] if came else left


def without_secrets(arguments: Row) -> Row:
    """{"arguments": …} without the password that only the build needed; {} if there was none."""
    guest = arguments.get("guest")
    if not isinstance(guest, dict) or not guest.get("admin_password"):
        return {}
    return {"arguments": {**arguments, "guest": {**guest, "admin_password": None}}}


def message_of(row: Row) -> Row:
    """An intent as it travels to an agent."""
    return {
        "id": row["id"],
        "kind": row["kind"],
        "attempt": row["attempts"],
        "resource_id": row["resource_id"],
        "arguments": row["arguments"],
        "results": row["results"],
        "step": row["step"],
        "error": row["error"],
        "cancel": bool(row["cancel_requested"]),
        "context": {
            "request_id": row["request_id"],
            "project_id": row["project_id"],
            "user_id": row["user_id"],
        },
    }


def ports_argument(row: Row) -> Row:
    """{"ports": {"kept": […]}}: what an intent says of its server's ports; {} if it has none."""
    arguments = row["arguments"]
    if row["kind"] == "server.create":
        requests = arguments.get("networks") or []
        return {"ports": {"kept": server_ports.kept_ports(requests, ())}} if requests else {}
    return {"ports": arguments["ports"]} if arguments.get("ports") else {}


def parts_argument(row: Row) -> Row:
    """What an intent says of what its server has at other services: ports and volumes."""
    return {**ports_argument(row), **devices.argument(row)}


def cleanup_of(row: Row) -> Row:
    """An intent that removes what a host still has of a server, or of what was done to it, once the host can."""
    kind = CLEANUP_OF.get(row["kind"], "server.cleanup")
    return db_intents.row(
        kind,
        "server",
        row["resource_id"],
        admin_context(row["request_id"]),
        _cleanup_arguments(kind, row),
        target=row["target"],
        exclusive=False,
        project_id=row["project_id"],
    )


def _cleanup_arguments(kind: str, row: Row) -> Row:
    if kind == "server.cleanup":
        return parts_argument(row)
    if kind == "server.settle_swap":
        return {**row["arguments"], "forward": "swap" in (row["results"] or {})}
    arguments: Row = row["arguments"]
    return arguments
