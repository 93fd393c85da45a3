"""QoS policies and their rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, Operation, operation
from api.network import attributes as a
from api.network import common
from api.network.attributes import Attr
from api.network.resource import Row
from api.network.shared_resource import SharedResourceController
from core.errors import Forbidden
from db import network_base as base
from db import qos as db_qos
from db.network_errors import bad_request, not_found
from db.sessions import retrying

ATTRIBUTES: dict[str, Attr] = {
    **a.STANDARD,
    "shared": a.boolean(False),
    "is_default": a.boolean(False),
    "rules": a.read_only(),
}
_DIRECTION = {"enum": ["ingress", "egress"]}
_NUMBER = a.integer(0, 2147483647)
# the rule's kind: its own fields, and which of them must be given
KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "bandwidth_limit": (
        {"max_kbps": _NUMBER, "max_burst_kbps": _NUMBER, "direction": _DIRECTION},
        ["max_kbps"],
    ),
    "dscp_marking": (
        {"dscp_mark": {"enum": [0, *range(8, 41, 2), 46, 48, 56]}},
        ["dscp_mark"],
    ),
    "minimum_bandwidth": ({"min_kbps": _NUMBER, "direction": _DIRECTION}, ["min_kbps"]),
    "packet_rate_limit": (
        {"max_kpps": _NUMBER, "max_burst_kpps": _NUMBER, "direction": _DIRECTION},
        ["max_kpps"],
    ),
    "minimum_packet_rate": (
        {"min_kpps": _NUMBER, "direction": {"enum": ["ingress", "egress", "any"]}},
        ["min_kpps"],
    ),
}
_FIRST = {"bandwidth_limit": {"max_burst_kbps": 0}, "packet_rate_limit": {"max_burst_kpps": 0}}
_NO_ALIAS = ("packet_rate_limit",)


class QosPoliciesController(SharedResourceController):
    """QoS policies: administrators make them, projects use them."""

    name, collection, path = "policy", "policies", "/qos/policies"
    attributes = ATTRIBUTES
    model = db_qos.MODEL
    object_type = db_qos.RBAC

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        db_qos.check_deletable(connection, row["id"])
        base.delete(connection, self.model.table, row["id"])


class QosRulesController(Controller):
    """Rules of one kind, within a policy and by their own id."""

    kind: ClassVar[str]

    def operations(self) -> list[Operation]:
        fields, required = KINDS[self.kind]
        key = f"{self.kind}_rule"
        create = v.obj({key: v.obj(fields, required)}, [key])
        update = v.obj({key: v.obj(fields)}, [key])
        everything = f"/qos/policies/{{policy_id}}/{self.kind}_rules"
        one, alias = everything + "/{rule_id}", f"/qos/alias_{self.kind}_rules/{{rule_id}}"
        result = []
        for method, path, verb, status, body, handler in (
            ("GET", everything, "get", 200, None, self.index),
            ("POST", everything, "create", 201, create, self.create),
            ("GET", one, "get", 200, None, self.show),
            ("PUT", one, "update", 200, update, self.update),
            ("DELETE", one, "delete", 204, None, self.delete),
            ("GET", alias, "get", 200, None, self.show),
            ("PUT", alias, "update", 200, update, self.update),
            ("DELETE", alias, "delete", 204, None, self.delete),
        ):
            if path == alias and self.kind in _NO_ALIAS:
                continue
            result.append(
                Operation(
                    method=method,
                    path=path,
                    policy=f"{verb}_policy_{key}",
                    status=status,
                    body=((None, body),) if body else (),
                    late_policy=True,
                    summary=f"{verb.capitalize()} {self.kind.replace('_', ' ')} rules",
                    name=f"{type(self).__name__}.{handler.__name__}",
                    handler=handler,
                )
            )
        return result

    def _policy(self, call: Call, connection: sa.Connection, policy_id: str) -> Row:
        row = base.find(connection, db_qos.MODEL, policy_id, common.viewer_of(call))
        # rules are read by who may read their policy
        if call.operation.method != "GET" and not call.allowed(call.operation.policy, row):
            raise Forbidden(f"rule:{call.operation.policy} is disallowed by policy")
        return row

    def _rule(self, call: Call, connection: sa.Connection) -> Row:
        row = db_qos.rule(connection, call.params["rule_id"], self.kind, call.params.get("policy_id"))
        self._policy(call, connection, row["qos_policy_id"])
        return row

    def _view(self, row: Mapping[str, Any]) -> Row:
        return {f"{self.kind}_rule": db_qos.rule_view(row)}

    def _values(self, asked: Mapping[str, Any], old: Row | None) -> tuple[str, Row]:
        """(direction, the other values) of a rule."""
        values: Row = {key: value if key == "direction" else int(value) for key, value in asked.items()}
        direction = values.pop("direction", None) or (old or {}).get("direction")
        if direction is None:
            direction = "" if self.kind == "dscp_marking" else "egress"
        return str(direction), {**_FIRST.get(self.kind, {}), **(old["values"] if old else {}), **values}

    def index(self, call: Call) -> Row:
        """List a policy's rules of this kind."""
        with self.services.databases.global_.read() as connection:
            policy = self._policy(call, connection, call.params["policy_id"])
            rows = db_qos.rules_of(connection, policy["id"], self.kind)
        return {f"{self.kind}_rules": [common.only_fields(call, row) for row in rows]}

    def show(self, call: Call) -> Row:
        """Show a rule."""
        with self.services.databases.global_.read() as connection:
            return self._view(self._rule(call, connection))

    def create(self, call: Call) -> Row:
        """Add a rule."""
        direction, values = self._values(call.body[f"{self.kind}_rule"], None)

        def run() -> Row:
            with self.services.databases.global_.write() as connection:
                policy = self._policy(call, connection, call.params["policy_id"])
                identifier = db_qos.set_rule(connection, policy["id"], self.kind, direction, values)
                return self._view(db_qos.rule(connection, identifier, self.kind))

        return retrying(run)()

    def update(self, call: Call) -> Row:
        """Change a rule."""

        def run() -> Row:
            with self.services.databases.global_.write() as connection:
                old = self._rule(call, connection)
                direction, values = self._values(call.body[f"{self.kind}_rule"], old)
                db_qos.set_rule(connection, old["qos_policy_id"], self.kind, direction, values, old["id"])
                return self._view(db_qos.rule(connection, old["id"], self.kind))

        return retrying(run)()

    def delete(self, call: Call) -> None:
        """Remove a rule."""

        def run() -> None:
            with self.services.databases.global_.write() as connection:
                db_qos.delete_rule(connection, self._rule(call, connection))

        retrying(run)()


class BandwidthLimitRulesController(QosRulesController):
    """Bandwidth limits."""

    kind = "bandwidth_limit"


class DscpMarkingRulesController(QosRulesController):
    """DSCP marks."""

    kind = "dscp_marking"


class MinimumBandwidthRulesController(QosRulesController):
    """Bandwidth that is promised."""

    kind = "minimum_bandwidth"


class PacketRateLimitRulesController(QosRulesController):
    """Limits of packets per second: they can be written down, but no policy with one can be used."""

    kind = "packet_rate_limit"


class MinimumPacketRateRulesController(QosRulesController):
    """Packets per second that are promised: as above."""

    kind = "minimum_packet_rate"


class QosRuleTypesController(Controller):
    """Kinds of rule that can be made."""

    @operation("GET", "/qos/rule-types", policy="get_rule_type")
    def index(self, call: Call) -> Row:
        """List kinds of rule: those that can be used, or with ``all_rules`` those that can be made."""
        if call.first("all_supported") and call.first("all_rules"):
            raise bad_request("InvalidInput", "Only one of all_supported and all_rules can be asked for.")
        all_rules = base.truth(call.first("all_rules") or "false")
        rows = [{"type": kind} for kind in KINDS if all_rules or kind not in db_qos.UNUSABLE]
        return {"rule_types": [row for row in rows if row["type"] in call.query.get("type", KINDS)]}

    @operation("GET", "/qos/rule-types/{rule_type}", policy="get_rule_type")
    def show(self, call: Call) -> Row:
        """Show a kind of rule."""
        kind = call.params["rule_type"]
        if kind not in KINDS or kind in db_qos.UNUSABLE:
            raise not_found("QosRuleTypeNotFound", "QoS rule type", kind)
        return {"rule_type": {"type": kind, "drivers": []}}
