"""os-simple-tenant-usage: vCPU-hours, MiB-hours and GiB-hours by project."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.common.paging import next_link
from api.compute import common
from core.errors import BadRequest
from db import usage as db_usage
from db.types import now

_TIMES = {"start": {"type": "string"}, "end": {"type": "string"}}
_DETAILED = {**_TIMES, "detailed": {"type": "string"}}
LIST = (
    ("2.1", v.query(_DETAILED)),
    ("2.40", v.query({**_DETAILED, **v.PAGING})),
    ("2.75", v.query({**_DETAILED, **v.PAGING}, additional=False)),
)
SHOW = (
    ("2.1", v.query(_TIMES)),
    ("2.40", v.query({**_TIMES, **v.PAGING})),
    ("2.75", v.query({**_TIMES, **v.PAGING}, additional=False)),
)
_PATH = "/os-simple-tenant-usage"
_POLICY = "os_compute_api:os-simple-tenant-usage:"
_FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S")


def _moment(text: str | None) -> datetime.datetime:
    if not text:
        return now()
    for form in _FORMATS:
        try:
            return datetime.datetime.strptime(text, form)
        except ValueError:
            continue
    raise BadRequest(f"Datetime is in invalid format: '{text}'. YYYY-MM-DDThh:mm:ss is expected.")


def _server_usage(
    row: Mapping[str, Any], start: datetime.datetime, end: datetime.datetime, moment: datetime.datetime
) -> dict[str, Any]:
    launched, ended = row["launched_at"], row["terminated_at"]
    seconds = (min(ended or end, end) - max(launched, start)).total_seconds()
    return {
        "instance_id": row["id"],
        "name": row["name"],
        "tenant_id": row["project_id"],
        "hours": max(seconds, 0.0) / 3600,
        "memory_mb": row["memory_mib"],
        "local_gb": row["root_gib"] + row["ephemeral_gib"],
        "vcpus": row["vcpus"],
        "flavor": (row["flavor"] or {}).get("name", ""),
        "started_at": common.micro(launched),
        "ended_at": common.micro(ended),
        "state": "terminated" if ended else row["vm_state"],
        "uptime": int(((ended or moment) - launched).total_seconds()),
    }


def _by_project(
    rows: Sequence[Mapping[str, Any]], start: datetime.datetime, end: datetime.datetime
) -> list[dict[str, Any]]:
    moment = now()
    result: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = _server_usage(row, start, end, moment)
        total = result.setdefault(
            row["project_id"],
            {
                "tenant_id": row["project_id"],
                "start": common.micro(start),
                "stop": common.micro(end),
                "total_hours": 0.0,
                "total_vcpus_usage": 0.0,
                "total_memory_mb_usage": 0.0,
                "total_local_gb_usage": 0.0,
                "server_usages": [],
            },
        )
        total["server_usages"].append(one)
        total["total_hours"] += one["hours"]
        total["total_vcpus_usage"] += one["hours"] * one["vcpus"]
        total["total_memory_mb_usage"] += one["hours"] * one["memory_mb"]
        total["total_local_gb_usage"] += one["hours"] * one["local_gb"]
    return list(result.values())


class UsageController(Controller):
    """List and show."""

    def _usages(
        self, call: Call, project_id: str | None, path: str, key: str
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """(usages by project, links)"""
        start, end = _moment(call.first("start")), _moment(call.first("end"))
        if start > end:
            raise BadRequest("Invalid start time. The start time cannot occur after the end time.")
        paged = call.since("2.40")
        limit = common.limit_of(call) if paged else None
        rows = db_usage.servers_between(
            self.services.databases,
            start,
            end,
            project_id=project_id,
            marker=call.first("marker") if paged else None,
            limit=limit,
        )
        links = {}
        if rows and len(rows) == limit:
            url = common.collection_url(call, path)
            links = {f"{key}_links": [next_link(call, url, rows[-1]["id"])]}
        return _by_project(rows, start, end), links

    @operation("GET", _PATH, policy=_POLICY + "list", query=LIST)
    def index(self, call: Call) -> dict[str, Any]:
        """Usage of all projects."""
        usages, links = self._usages(call, None, "os-simple-tenant-usage", "tenant_usages")
        if call.first("detailed") != "1":
            for each in usages:
                del each["server_usages"]
        return {"tenant_usages": usages, **links}

    @operation("GET", _PATH + "/{project_id}", policy=_POLICY + "show", query=SHOW)
    def show(self, call: Call) -> dict[str, Any]:
        """Usage of one project, by server."""
        project_id = call.params["project_id"]
        call.authorize({"project_id": project_id})
        path = f"os-simple-tenant-usage/{project_id}"
        usages, links = self._usages(call, project_id, path, "tenant_usage")
        return {"tenant_usage": usages[0] if usages else {}, **links}
