"""Tags of all resources that have them: /v2.0/{collection}/{id}/tags."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, Operation
from api.network import common
from core.errors import Forbidden
from db import floating_ips as db_floating_ips
from db import network_base as base
from db import networks as db_networks
from db import ports as db_ports
from db import qos as db_qos
from db import routers as db_routers
from db import security_groups as db_security_groups
from db import subnet_pools as db_subnet_pools
from db import subnets as db_subnets
from db.network_errors import bad_request, not_found
from db.sessions import retrying

MODELS: dict[str, base.Model] = {
    "networks": db_networks.MODEL,
    "subnets": db_subnets.MODEL,
    "ports": db_ports.MODEL,
    "routers": db_routers.MODEL,
    "subnetpools": db_subnet_pools.MODEL,
    "floatingips": db_floating_ips.MODEL,
    "security-groups": db_security_groups.MODEL,
    "qos/policies": db_qos.MODEL,
    # as upstream's extension first spelled them; tempest does still
    "security_groups": db_security_groups.MODEL,
    "policies": db_qos.MODEL,
}
MAX_TAGS = 50
_TAG = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[^/]*$"}
BODY = v.obj({"tags": {"type": "array", "items": _TAG, "maxItems": MAX_TAGS}}, ["tags"])


class TagsController(Controller):
    """Read, add, replace and remove."""

    def operations(self) -> list[Operation]:
        result = []
        for collection, model in MODELS.items():
            everything = f"/{collection}/{{id}}/tags"
            one = everything + "/{tag}"
            for method, path, rule, status, body, handler in (
                ("GET", everything, "get_tags", 200, None, self.index),
                ("POST", everything, "create_tags", 200, BODY, self.add_several),
                ("PUT", everything, "update_tags", 200, BODY, self.replace),
                ("DELETE", everything, "delete_tags", 204, None, self.clear),
                ("GET", one, "get_tags", 204, None, self.show),
                ("PUT", one, "update_tags", 201, None, self.add),
                ("DELETE", one, "delete_tags", 204, None, self.remove),
            ):
                result.append(
                    Operation(
                        method=method,
                        path=path,
                        policy=rule,
                        status=status,
                        body=((None, body),) if body else (),
                        late_policy=True,
                        summary=f"{rule.replace('_', ' ').capitalize()} of {model.noun.lower()}s",
                        name=f"TagsController.{handler.__name__}_{collection.replace('/', '_').replace('-', '_')}",
                        handler=handler,
                    )
                )
        return result

    def _owner(self, call: Call, connection: sa.Connection, *, lock: bool = False) -> dict[str, Any]:
        collection = call.operation.path.removeprefix("/").split("/{")[0]
        row = base.find(connection, MODELS[collection], call.params["id"], common.viewer_of(call), lock=lock)
        if not call.allowed(call.operation.policy, row):
            raise Forbidden(f"rule:{call.operation.policy} is disallowed by policy")
        return row

    def _tags(self, connection: sa.Connection, resource_id: str) -> list[str]:
        statement = sa.select(base.tags.c.tag).where(base.tags.c.resource_id == resource_id)
        return list(connection.execute(statement.order_by(base.tags.c.tag)).scalars())

    def _change(self, call: Call, *, add: list[str], keep: bool) -> list[str]:
        def run() -> list[str]:
            with self.services.databases.global_.write() as connection:
                row = self._owner(call, connection, lock=True)
                old = self._tags(connection, row["id"]) if keep else []
                new = sorted({*old, *add})
                if len(new) > MAX_TAGS:
                    raise bad_request("InvalidInput", f"A resource has at most {MAX_TAGS} tags.")
                base.replace_tags(connection, row["id"], new)
                return new

        return retrying(run)()

    def index(self, call: Call) -> dict[str, Any]:
        """List tags."""
        with self.services.databases.global_.read() as connection:
            return {"tags": self._tags(connection, self._owner(call, connection)["id"])}

    def show(self, call: Call) -> None:
        """Is there this tag?"""
        with self.services.databases.global_.read() as connection:
            if call.params["tag"] not in self._tags(connection, self._owner(call, connection)["id"]):
                raise not_found("TagNotFound", "Tag", call.params["tag"])

    def add(self, call: Call) -> None:
        """Add a tag."""
        if len(call.params["tag"]) > 255:
            raise bad_request("InvalidInput", "A tag has at most 255 characters.")
        self._change(call, add=[call.params["tag"]], keep=True)

    def add_several(self, call: Call) -> dict[str, Any]:
        """Add tags."""
        return {"tags": self._change(call, add=call.body["tags"], keep=True)}

    def replace(self, call: Call) -> dict[str, Any]:
        """Replace all tags."""
        return {"tags": self._change(call, add=call.body["tags"], keep=False)}

    def clear(self, call: Call) -> None:
        """Remove all tags."""
        self._change(call, add=[], keep=False)

    def remove(self, call: Call) -> None:
        """Remove a tag."""

        def run() -> None:
            with self.services.databases.global_.write() as connection:
                row = self._owner(call, connection, lock=True)
                table = base.tags
                gone = connection.execute(
                    table.delete().where(table.c.resource_id == row["id"], table.c.tag == call.params["tag"])
                ).rowcount
                if not gone:
                    raise not_found("TagNotFound", "Tag", call.params["tag"])

        retrying(run)()
