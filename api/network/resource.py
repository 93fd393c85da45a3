"""The controller that all collections share: list, show, create (also several), change, delete.

A subclass names its resource, its attributes and its database ``Model``, and says in
``insert``, ``modify`` and ``remove`` what happens in the transaction.  Policies have
upstream's names: ``create_network``, and ``create_network:shared`` for attributes that
not everyone may set.  Who may not see an object gets 404, who may see but not change it 403.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, Operation
from api.network import common
from api.network.attributes import MISSING, Attr
from core.errors import Forbidden
from db import network_base as base
from db.network_base import Model, Viewer
from db.network_errors import bad_request
from db.sessions import retrying

Row = dict[str, Any]
ALL = ("index", "show", "create", "update", "delete")
_HOW = {
    "index": ("GET", "", 200),
    "create": ("POST", "", 201),
    "show": ("GET", "/{id}", 200),
    "update": ("PUT", "/{id}", 200),
    "delete": ("DELETE", "/{id}", 204),
}
_VERB = {"index": "get", "show": "get", "create": "create", "update": "update", "delete": "delete"}


def body_schema(name: str, collection: str | None, attributes: Mapping[str, Attr], method: str) -> Any:
    """The schema of POST (one, or a list of them) or PUT."""
    allowed = {key: attr for key, attr in attributes.items() if getattr(attr, method)}
    required = [key for key, attr in allowed.items() if method == "post" and attr.default is MISSING]
    one = v.obj({key: attr.schema or {} for key, attr in allowed.items()}, required)
    if method == "put" or collection is None:
        return v.obj({name: one}, [name])
    several = {"type": "array", "items": one, "minItems": 1, "maxItems": 1000}
    return {**v.obj({name: one, collection: several}), "minProperties": 1, "maxProperties": 1}


class ResourceController(Controller):
    """One collection at ``path``."""

    name: ClassVar[str]
    collection: ClassVar[str]
    path: ClassVar[str]
    attributes: ClassVar[Mapping[str, Attr]]
    model: ClassVar[Model]
    actions: ClassVar[Sequence[str]] = ALL
    quota: ClassVar[str | None] = None
    policy_name: ClassVar[str | None] = None

    def operations(self) -> list[Operation]:
        """Those of this table, and what the subclass marks."""
        result = super().operations()
        for action in self.actions:
            method, suffix, status = _HOW[action]
            body: tuple[tuple[None, Any], ...] = ()
            if action == "create":
                body = ((None, body_schema(self.name, self.collection, self.attributes, "post")),)
            elif action == "update":
                body = ((None, body_schema(self.name, None, self.attributes, "put")),)
            result.append(
                Operation(
                    method=method,
                    path=self.path + suffix,
                    policy=self.rule(_VERB[action]),
                    status=status,
                    body=body,
                    late_policy=True,
                    summary=f"{action.capitalize()}: {self.collection.replace('_', ' ')}",
                    name=f"{type(self).__name__}.{action}",
                    handler=getattr(self, action),
                )
            )
        return result

    # -- hooks ----------------------------------------------------------------

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        """Create; ``values`` are complete and by column, ``asked`` is the body. The new id."""
        raise NotImplementedError

    def modify(
        self, call: Call, connection: sa.Connection, row: Row, values: Row, revision: int | None
    ) -> None:
        """Change ``row``; ``values`` by column."""
        base.change(connection, self.model.table, row["id"], values, revision)

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        base.delete(connection, self.model.table, row["id"])

    def target(self, call: Call, connection: sa.Connection, row: Mapping[str, Any]) -> Row:
        """What policies look at: the row, with what is known of its parent."""
        return {**row, "tenant_id": row["project_id"]}

    def before_list(self, call: Call) -> None:
        """What has to exist before it can be listed."""

    def extra(self, call: Call) -> Sequence[base.Condition]:
        """Conditions that the path sets."""
        return ()

    def decorate(self, call: Call, row: Row, view: Row) -> None:
        """Last changes of an answer."""

    # -- policy ----------------------------------------------------------------

    def rule(self, verb: str, attribute: str | None = None) -> str:
        name = f"{verb}_{self.policy_name or self.name}"
        return f"{name}:{attribute}" if attribute else name

    def enforce(self, call: Call, verb: str, target: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """The rule of the call, then those of the attributes that were given.

        :raises Forbidden: with the name of the rule.
        """
        rules = [self.rule(verb)]
        flagged = f"{verb}_rule"
        for key, value in given.items():
            attr = self.attributes[key]
            if verb == "create" and value == attr.default:
                continue  # as if it had not been given
            if getattr(attr, flagged, False):
                rules.append(self.rule(verb, key))
        for name in rules:
            if not call.allowed(name, target):
                raise Forbidden(f"rule:{name} is disallowed by policy")

    # -- views -----------------------------------------------------------------

    def view(self, call: Call, row: Row, seen: dict[str, bool] | None = None) -> Row:
        """A row as the asker may see it. ``seen`` keeps what policy said, for a whole list."""
        seen = {} if seen is None else seen
        result: Row = {}
        for key, attr in self.attributes.items():
            if attr.hidden:
                continue
            if attr.get_rule:
                rule = self.rule("get", key)
                if rule not in seen:
                    seen[rule] = call.allowed(rule)
                if not seen[rule]:
                    continue
            value = row.get(attr.column or key)
            result[key] = common.zulu(value) if key in ("created_at", "updated_at") else value
        self.decorate(call, row, result)
        return result

    # -- calls -------------------------------------------------------------------

    @property
    def database(self) -> Any:
        return self.services.databases.global_

    def index(self, call: Call) -> Row:
        """List what the asker may see."""
        if not call.allowed(self.rule("get")):
            return {self.collection: []}
        self.before_list(call)
        window = common.window_of(call)
        with self.database.read() as connection:
            rows = base.page(
                connection,
                self.model,
                common.viewer_of(call),
                common.filters_of(call),
                window,
                self.extra(call),
            )
        seen: dict[str, Any] = {}
        views = [self.view(call, row, seen) for row in rows]
        result: Row = {self.collection: [common.only_fields(call, view) for view in views]}
        if found := common.page_links(call, self._path(call), rows, window):  # type: ignore[arg-type]
            result[f"{self.collection}_links"] = found
        return result

    def _path(self, call: Call) -> str:
        return self.path.format(**call.params)

    def show(self, call: Call) -> Row:
        """Show one."""
        with self.database.read() as connection:
            row = base.show(connection, self.model, self._id(call), common.viewer_of(call))
            target = self.target(call, connection, row)
        if not call.allowed(self.rule("get"), target):
            raise self.model.missing(self._id(call))
        return {self.name: common.only_fields(call, self.view(call, row))}

    def _id(self, call: Call) -> str:
        return call.params["id"]

    def create(self, call: Call) -> Row:
        """Create one, or several in one transaction: all or none."""
        several = self.collection in call.body
        items = call.body[self.collection] if several else [call.body[self.name]]
        prepared = [self._prepared(call, item) for item in items]
        rows = retrying(self._create)(call, items, prepared)
        self.after_write(call, rows)
        views = [common.only_fields(call, self.view(call, row)) for row in rows]
        return {self.collection: views} if several else {self.name: views[0]}

    def after_write(self, call: Call, rows: Sequence[Row]) -> None:
        """Once it is committed: ring doorbells."""

    def _create(self, call: Call, items: Sequence[Row], prepared: Sequence[Row]) -> list[Row]:
        viewer = common.viewer_of(call)
        with self.database.write() as connection:
            if self.quota:
                amounts: dict[str, int] = {}
                for values in prepared:
                    amounts[values["project_id"]] = amounts.get(values["project_id"], 0) + 1
                for project_id, amount in sorted(amounts.items()):
                    self.services.quotas.check(connection, project_id, {self.quota: amount})
            identifiers = []
            for item, values in zip(items, prepared, strict=True):
                self.enforce(call, "create", self.target(call, connection, values), item)
                row = dict(values)
                names = row.pop("tags", None)
                identifier = self.insert(call, connection, row, item)
                if names:
                    base.replace_tags(connection, identifier, names)
                identifiers.append(identifier)
            return [base.show(connection, self.model, each, _creator(viewer)) for each in identifiers]

    def _prepared(self, call: Call, item: Row) -> Row:
        """The row of a body: defaults filled in, converted, with its project."""
        values: Row = {}
        for key, attr in self.attributes.items():
            if not attr.post or key in ("tenant_id", "project_id"):
                continue
            value = item.get(key, attr.default)
            if key in item and attr.convert is not None:
                value = attr.convert(value)
            if isinstance(value, list):
                value = list(value)
            values[attr.column or key] = value
        values["project_id"] = self.project(call, item)
        return values

    def project(self, call: Call, item: Mapping[str, Any]) -> str:
        """Whose it will be: the asker's, unless who may names another project.

        :raises Forbidden: another project's, by someone who is no administrator.
        """
        given = item.get("project_id") or item.get("tenant_id")
        own = call.context.project_id or ""
        if item.get("project_id") and item.get("tenant_id") and item["project_id"] != item["tenant_id"]:
            raise bad_request("HTTPBadRequest", "'project_id' and 'tenant_id' do not match")
        if given is None or given == own:
            if not own and given is None and not common.is_elevated(call):
                raise Forbidden("This call needs a token with a project.")
            return own
        if not common.is_elevated(call):
            raise Forbidden(f"rule:{self.rule('create')} is disallowed by policy")
        return str(given)

    def update(self, call: Call) -> Row:
        """Change one."""
        asked = call.body[self.name]
        revision = common.if_match(call)
        row = retrying(self._update)(call, asked, revision)
        self.after_write(call, [row])
        return {self.name: common.only_fields(call, self.view(call, row))}

    def _update(self, call: Call, asked: Row, revision: int | None) -> Row:
        viewer = common.viewer_of(call)
        with self.database.write() as connection:
            row = base.find(connection, self.model, self._id(call), viewer, lock=True)
            self.enforce(call, "update", self.target(call, connection, row), asked)
            values = {}
            for key, value in asked.items():
                attr = self.attributes[key]
                values[attr.column or key] = attr.convert(value) if attr.convert else value
            self.modify(call, connection, row, values, revision)
            return base.show(connection, self.model, row["id"], _creator(viewer))

    def delete(self, call: Call) -> None:
        """Delete one."""
        retrying(self._delete)(call)

    def _delete(self, call: Call) -> None:
        with self.database.write() as connection:
            row = base.find(connection, self.model, self._id(call), common.viewer_of(call), lock=True)
            self.enforce(call, "delete", self.target(call, connection, row), {})
            revision = common.if_match(call)
            if revision is not None and revision != row["revision_number"]:
                raise base.RevisionMismatch(f"Constrained to {revision}, but it is {row['revision_number']}.")
            self.remove(call, connection, row)
        self.after_write(call, [row])


def _creator(viewer: Viewer) -> Viewer:
    """The eyes of who has just made or changed an object: it is found even if no longer shared with it."""
    return Viewer(viewer.project_id, everything=True)
