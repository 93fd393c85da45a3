"""Extra specs of flavors: what the scheduler and the drivers read besides the sizes."""

from __future__ import annotations

from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import extra_spec_rules, flavors
from core.errors import BadRequest, NotFound
from db import flavors as db_flavors

_SPECS = {
    "type": "object",
    "patternProperties": {r"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": ["string", "number"], "maxLength": 255}},
    "additionalProperties": False,
}
CREATE = v.obj({"extra_specs": _SPECS}, ["extra_specs"])
UPDATE = {**_SPECS, "minProperties": 1, "maxProperties": 1}
_PATH = "/flavors/{flavor_id}/os-extra_specs"
_POLICY = "os_compute_api:os-flavor-extra-specs:"


class FlavorExtraSpecsController(Controller):
    """Keys and values of one flavor."""

    def _set(self, call: Call, asked: dict[str, Any]) -> dict[str, str]:
        specs = {key: str(value) for key, value in asked.items()}
        if call.since("2.86"):
            extra_spec_rules.check(specs)
        with self.services.databases.global_.write() as connection:
            db_flavors.change_extra_specs(connection, call.params["flavor_id"], specs)
        return specs

    def _read(self, call: Call) -> dict[str, str]:
        with self.services.databases.global_.read() as connection:
            return dict(flavors.find(call, connection)["extra_specs"])

    @operation("GET", _PATH, policy=_POLICY + "index")
    def index(self, call: Call) -> dict[str, Any]:
        """List a flavor's extra specs."""
        return {"extra_specs": self._read(call)}

    @operation("POST", _PATH, policy=_POLICY + "create", body=CREATE)
    def create(self, call: Call) -> dict[str, Any]:
        """Set extra specs; others stay."""
        return {"extra_specs": self._set(call, call.body["extra_specs"])}

    @operation("GET", _PATH + "/{key}", policy=_POLICY + "show")
    def show(self, call: Call) -> dict[str, str]:
        """Show one extra spec."""
        specs, key = self._read(call), call.params["key"]
        if key not in specs:
            raise NotFound(f"Flavor {call.params['flavor_id']} has no extra specs with key {key}.")
        return {key: specs[key]}

    @operation("PUT", _PATH + "/{key}", policy=_POLICY + "update", body=UPDATE)
    def update(self, call: Call) -> dict[str, str]:
        """Set one extra spec."""
        if call.params["key"] not in call.body:
            raise BadRequest("Request body and URI mismatch")
        return self._set(call, call.body)

    @operation("DELETE", _PATH + "/{key}", policy=_POLICY + "delete")
    def delete(self, call: Call) -> None:
        """Remove one extra spec."""
        with self.services.databases.global_.write() as connection:
            db_flavors.change_extra_specs(connection, call.params["flavor_id"], {}, [call.params["key"]])
