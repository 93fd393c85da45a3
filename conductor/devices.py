"""What the end of an intent does to its server's block devices, and what an intent says of them.

A device goes only when its attachment has gone (``core.block_devices``): at the end of what
let go of it, or of an attach whose undo is complete.  While a cleanup has yet to let go, it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from core.block_devices import Device
from lifecycle.states import IntentState

Row = dict[str, Any]
Change = Callable[[Device], Device | None]
"""a device → as it is now; None: it is gone"""


def at_end(
    connection: sa.Connection, table: sa.Table, row: Row, state: str, outcome: Row, error: Row | None
) -> Row:
    """{"block_devices": …} if the end of the intent ``row`` changes them, else {}; repeats harmlessly."""
    change = _change(row, state == IntentState.DONE.value, outcome, error or {})
    if change is None:
        return {}
    statement = sa.select(table.c.block_devices).where(table.c.id == row["resource_id"])
    if connection.dialect.name != "sqlite":
        statement = statement.with_for_update()
    devices = connection.execute(statement).scalar() or []
    return {"block_devices": [new for device in devices if (new := change(device)) is not None]}


def _change(row: Row, done: bool, outcome: Row, error: Row) -> Change | None:
    kind, about = row["kind"], (row["arguments"].get("device") or {}).get("id")
    if done and outcome.get("attached"):
        known = {each["volume_id"]: each for each in outcome["attached"]}
        return lambda device: {**device, **known.get(device["volume_id"], {})}
    if kind == "server.attach_volume" and not done and not error.get("stuck"):
        return lambda device: None if device["id"] == about else device
    if kind in ("server.detach_volume", "server.forget_volume") and done:
        return lambda device: None if device["id"] == about else device
    if (kind == "server.swap_volume" and not error.get("stuck")) or (kind == "server.settle_swap" and done):
        new = outcome.get("swapped") or {}
        return lambda device: _swapped(device, new) if device["id"] == about else device
    if kind == "server.extend_volume" and done:
        size = outcome["extended"]
        return lambda device: {**device, **size} if device["volume_id"] == size["volume_id"] else device
    return None


def _swapped(device: Device, new: Row) -> Device:
    return {key: value for key, value in {**device, **new}.items() if key != "swap_to"}


def argument(row: Row) -> Row:
    """{"volumes": {"doomed": […]}}: what an intent says of its server's volumes; {} if it has none."""
    arguments = row["arguments"]
    if row["kind"] == "server.create":
        devices = (arguments.get("guest") or {}).get("volumes") or []
        return {"volumes": {"doomed": []}} if devices else {}
    return {"volumes": arguments["volumes"]} if arguments.get("volumes") else {}
