"""What was done to a server: its intents, as upstream shows instance actions and events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.common.paging import next_link
from api.compute import common, server_access, server_filters
from api.compute.server_views import host_id
from core.errors import BadRequest, NotFound
from core.intents import IntentState
from db import server_details
from db.servers import Located, Row
from lifecycle.states import SERVER

_PATH = "/servers/{server_id}/os-instance-actions"
_POLICY = "os_compute_api:os-instance-actions:"
_TIME = {"type": "string", "minLength": 1, "maxLength": 64}
_LIST_258 = v.query({**v.PAGING, "changes-since": _TIME}, additional=False)
_LIST_266 = v.query({**v.PAGING, "changes-since": _TIME, "changes-before": _TIME}, additional=False)
_RESULTS = {"done": "Success", "failed": "Error"}
EVENTS = {
    ("server.create", "power_on"): "compute__do_build_and_run_instance",
    ("server.delete", "remove_disks"): "compute_terminate_instance",
    ("server.start", "power_on"): "compute_start_instance",
    ("server.stop", "power_off"): "compute_stop_instance",
    ("server.reboot_soft", "reboot"): "compute_reboot_instance",
    ("server.reboot_hard", "reboot"): "compute_reboot_instance",
    ("server.create_image", "remove_snapshot"): "compute_snapshot_instance",
    ("server.attach_interface", "attach"): "compute_attach_interface",
    ("server.detach_interface", "ports"): "compute_detach_interface",
    ("server.attach_volume", "attach"): "compute_attach_volume",
    ("server.detach_volume", "let_go"): "compute_detach_volume",
    ("server.swap_volume", "let_go"): "compute_swap_volume",
    ("server.extend_volume", "extend"): "compute_extend_volume",
}
"""(kind, its last step) → upstream's event: clients wait for it, so it must mean that all is done. Other steps
show as events of their own."""


def name_of(kind: str) -> str:
    """``server.reboot_soft`` → ``reboot``."""
    transition = SERVER.get(kind)
    return transition.action if transition else kind.partition(".")[2]


def _view(call: Call, row: Row) -> dict[str, Any]:
    failed = row["state"] == IntentState.FAILED.value
    result = {
        "action": name_of(row["kind"]),
        "instance_uuid": row["resource_id"],
        "request_id": row["request_id"],
        "user_id": row["user_id"],
        "project_id": row["project_id"],
        "start_time": common.micro(row["created_at"]),
        "message": row["message"] or ("Error" if failed else None),
    }
    if call.since("2.58"):
        result["updated_at"] = common.micro(row["updated_at"])
    return result


def _event(call: Call, found: Located, row: Row, event: Mapping[str, Any], details: bool) -> dict[str, Any]:
    host = event.get("host") or row["target"]
    result = event.get("result")
    shown = {
        "event": EVENTS.get((row["kind"], event["step"]), f"compute_{event['step']}"),
        "start_time": _text(event.get("started_at")),
        "finish_time": _text(event.get("finished_at")),
        "result": _RESULTS.get(str(result), result),
    }
    if details:
        # what a step said when it failed; tracebacks stay in the log
        shown["traceback"] = event.get("message") if shown["result"] == "Error" else None
    if call.since("2.62"):
        shown["hostId"] = host_id(found.row["project_id"], host) if host else ""
        if details:
            shown["host"] = host
    if call.since("2.84"):
        allowed = call.allowed(_POLICY + "events:details", server_access.target_of(found.row))
        shown["details"] = event.get("message") if allowed else None
    return shown


def _text(moment: str | None) -> str | None:
    """Events carry ISO 8601 texts: shown as all times of this resource."""
    if moment is None:
        return None
    return common.micro(server_filters.moment(moment, "time"))


class InstanceActionsController(Controller):
    """List and show."""

    @operation("GET", _PATH, policy=_POLICY + "list", query=(("2.58", _LIST_258), ("2.66", _LIST_266)))
    def index(self, call: Call) -> dict[str, Any]:
        """Actions on a server, newest first."""
        found = server_access.find(call, deleted=call.since("2.21"))
        if not call.since("2.58"):
            return {"instanceActions": [_view(call, row) for row in server_details.actions(found)]}
        limit = common.limit_of(call)
        times = {}
        for key, name in (("changes-since", "since"), ("changes-before", "before")):
            if (text := call.first(key)) is not None:
                times[name] = server_filters.moment(text, key)
        if len(times) == 2 and times["since"] > times["before"]:
            raise BadRequest("The value of changes-since must be less than or equal to changes-before.")
        rows = server_details.actions(found, marker=call.first("marker"), limit=limit, **times)
        result: dict[str, Any] = {"instanceActions": [_view(call, row) for row in rows]}
        if rows and len(rows) == limit:
            url = common.collection_url(call, f"servers/{found.id}/os-instance-actions")
            result["links"] = [next_link(call, url, rows[-1]["request_id"])]
        return result

    @operation("GET", _PATH + "/{request_id}", policy=_POLICY + "show")
    def show(self, call: Call) -> dict[str, Any]:
        """One action with its events."""
        found = server_access.find(call, deleted=call.since("2.21"))
        request_id = call.params["request_id"]
        row = server_details.action(found, request_id)
        if row is None:
            raise NotFound(f"Action for request_id {request_id} on instance {found.id} not found")
        result = _view(call, row)
        details = call.allowed(_POLICY + "events", server_access.target_of(found.row))
        if details or call.since("2.51"):
            result["events"] = [_event(call, found, row, event, details) for event in row["events"] or ()]
        return {"instanceAction": result}
