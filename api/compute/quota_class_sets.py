"""Quota classes. Only "default" has an effect: it sets what projects have without quotas of their own."""

from __future__ import annotations

from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import quota_sets
from api.compute.quota_sets import ALL, SINCE_236, SINCE_257, limits_schema
from db import quotas as db_quotas

BEFORE_250 = tuple(name for name in ALL if not name.startswith("server_group"))


def _update(names: tuple[str, ...]) -> dict[str, Any]:
    return v.obj({"quota_class_set": v.obj(limits_schema(names))}, ["quota_class_set"])


UPDATE = (
    ("2.1", _update((*BEFORE_250, "networks"))),
    ("2.50", _update(SINCE_236)),
    ("2.57", _update(SINCE_257)),
)
_PATH = "/os-quota-class-sets/{class_name}"
_POLICY = "os_compute_api:os-quota-class-sets:"


def _shown(call: Call) -> tuple[str, ...]:
    return SINCE_257 if call.since("2.57") else SINCE_236 if call.since("2.50") else BEFORE_250


class QuotaClassSetsController(Controller):
    """Show and set."""

    @operation("GET", _PATH, policy=_POLICY + "show")
    def show(self, call: Call) -> dict[str, Any]:
        """Show the quotas of a class."""
        name = call.params["class_name"]
        with self.services.databases.global_.read() as connection:
            limits = self.services.quotas.class_limits(connection, name)
        return {"quota_class_set": {"id": name, **{key: limits[key] for key in _shown(call)}}}

    @operation("PUT", _PATH, policy=_POLICY + "update", body=UPDATE)
    def update(self, call: Call) -> dict[str, Any]:
        """Set quotas of a class."""
        name = call.params["class_name"]
        wanted = quota_sets.new_limits(call.body["quota_class_set"])
        with self.services.databases.global_.write() as connection:
            db_quotas.set_class_limits(connection, name, wanted)
            limits = self.services.quotas.class_limits(connection, name)
        return {"quota_class_set": {key: limits[key] for key in _shown(call)}}
