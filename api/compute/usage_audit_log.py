"""os-instance_usage_audit_log: upstream's hosts may send usage records once a month; haneul's do not.

So every host is one on which the audit has not run, and that is what is answered.
"""

from __future__ import annotations

import datetime
from typing import Any

from api.common.operations import Call, Controller, operation
from core.errors import BadRequest
from db import services as db_services
from db.types import now

_PATH = "/os-instance_usage_audit_log"
_POLICY = "os_compute_api:os-instance-usage-audit-log:"
_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f")


def last_month(moment: datetime.datetime) -> tuple[datetime.datetime, datetime.datetime]:
    """The last complete month before ``moment``: (its beginning, its end)."""
    end = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if end == datetime.datetime.min:
        return end, end
    return (end - datetime.timedelta(days=1)).replace(day=1), end


class UsageAuditLogController(Controller):
    """What the last audit was."""

    def _log(self, moment: datetime.datetime) -> dict[str, Any]:
        begin, end = last_month(moment)
        rows, _ = db_services.list_(self.services.databases, binary=db_services.COMPUTE)
        hosts = sorted(row["host"] for row in rows)
        status = f"0 of {len(hosts)} hosts done. 0 errors." if hosts else "ALL hosts done. 0 errors."
        return {
            "period_beginning": begin.isoformat(sep=" "),
            "period_ending": end.isoformat(sep=" "),
            "num_hosts": len(hosts),
            "num_hosts_done": 0,
            "num_hosts_running": 0,
            "num_hosts_not_run": len(hosts),
            "hosts_not_run": hosts,
            "total_instances": 0,
            "total_errors": 0,
            "overall_status": status,
            "log": {},
        }

    @operation("GET", _PATH, policy=_POLICY + "list")
    def index(self, call: Call) -> dict[str, Any]:
        """The audit of last month."""
        return {"instance_usage_audit_logs": self._log(now())}

    @operation("GET", _PATH + "/{before}", policy=_POLICY + "show")
    def show(self, call: Call) -> dict[str, Any]:
        """The audit of the month before a time."""
        text = call.params["before"]
        for form in _FORMATS:
            try:
                return {"instance_usage_audit_log": self._log(datetime.datetime.strptime(text, form))}
            except ValueError:
                continue
        raise BadRequest(f"Invalid timestamp for date {text}: YYYY-MM-DD hh:mm:ss is expected.")
