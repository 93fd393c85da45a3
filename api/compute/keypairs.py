"""Key pairs: what a guest lets its owner in with."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.common.paging import next_link
from api.compute import common, key_material
from core.errors import BadRequest
from db import keypairs as db_keypairs

_BASE = {"name": v.NAME, "public_key": {"type": "string"}}
_TYPED = {**_BASE, "type": {"enum": ["ssh", "x509"]}}
_OWNED = {**_TYPED, "user_id": {"type": "string", "minLength": 1, "maxLength": 255}}


def _body(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return v.obj({"keypair": v.obj(properties, required)}, ["keypair"])


CREATE = _body(_BASE, "name")
CREATE_202 = _body(_TYPED, "name")
CREATE_210 = _body(_OWNED, "name")
CREATE_292 = _body(_OWNED, "name", "public_key")
_USER = {"user_id": {"type": "string"}}
ONE = (
    ("2.1", v.query({})),
    ("2.10", v.query(_USER)),
    ("2.75", v.query(_USER, additional=False)),
)
LIST = (
    ("2.1", v.query({})),
    ("2.10", v.query(_USER)),
    ("2.35", v.query({**_USER, **v.PAGING})),
    ("2.75", v.query({**_USER, **v.PAGING}, additional=False)),
)
_PATH = "/os-keypairs"
_POLICY = "os_compute_api:os-keypairs:"
_NAMES = re.compile(r"[A-Za-z0-9_\- ]+")
_NAMES_292 = re.compile(r"[A-Za-z0-9_\- .@]+")


def _view(call: Call, row: sa.RowMapping) -> dict[str, Any]:
    result = {key: row[key] for key in ("name", "public_key", "fingerprint")}
    if call.since("2.2"):
        result["type"] = row["type"]
    return result


class KeypairsController(Controller):
    """Import or make, list, show and delete."""

    def _user(self, call: Call, asked: str | None = None) -> str:
        """Whose key pairs: from 2.10 an administrator may name another user."""
        if asked is None and call.since("2.10"):
            asked = call.first("user_id")
        user_id = asked or str(call.context.user_id)
        call.authorize({"user_id": user_id, "project_id": call.context.project_id})
        return user_id

    @operation("GET", _PATH, policy=_POLICY + "index", query=LIST)
    def index(self, call: Call) -> dict[str, Any]:
        """List a user's key pairs."""
        user_id = self._user(call)
        paged = call.since("2.35")
        limit = common.limit_of(call) if paged else None
        marker = call.first("marker") if paged else None
        with self.services.databases.global_.read() as connection:
            rows = db_keypairs.list_(connection, user_id, marker, limit)
        result: dict[str, Any] = {"keypairs": [{"keypair": _view(call, row)} for row in rows]}
        if rows and len(rows) == limit:
            url = common.collection_url(call, "os-keypairs")
            result["keypairs_links"] = [next_link(call, url, rows[-1]["name"])]
        return result

    @operation("GET", _PATH + "/{name}", policy=_POLICY + "show", query=ONE)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a key pair."""
        user_id = self._user(call)
        with self.services.databases.global_.read() as connection:
            row = db_keypairs.get(connection, user_id, call.params["name"])
        return {
            "keypair": {
                **_view(call, row),
                "id": row["id"],
                "user_id": row["user_id"],
                "created_at": common.micro(row["created_at"]),
                "updated_at": None,
                "deleted": False,
                "deleted_at": None,
            }
        }

    @operation("POST", _PATH, policy=_POLICY + "create", until="2.1", body=CREATE)
    @operation(
        "POST",
        _PATH,
        policy=_POLICY + "create",
        since="2.2",
        status=201,
        body=(("2.2", CREATE_202), ("2.10", CREATE_210), ("2.92", CREATE_292)),
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Import a public key; before 2.92 one is made where none is given."""
        asked = call.body["keypair"]
        name, kind = asked["name"], asked.get("type", "ssh")
        user_id = self._user(call, asked.get("user_id"))
        if not (_NAMES_292 if call.since("2.92") else _NAMES).fullmatch(name):
            allowed = "letters, digits, '_', '-', blanks" + (", '.' and '@'" if call.since("2.92") else "")
            raise BadRequest(
                f"Keypair data is invalid: Keypair name contains unsafe characters: {allowed} are allowed"
            )
        private_key = None
        public_key = asked.get("public_key")
        if public_key is None:
            private_key, public_key = (
                key_material.generate_ssh() if kind == "ssh" else key_material.generate_x509(user_id)
            )
        if kind == "ssh":
            fingerprint = key_material.ssh_fingerprint(public_key)
        else:
            fingerprint = key_material.x509_fingerprint(public_key)
        values = {
            "user_id": user_id,
            "name": name,
            "type": kind,
            "public_key": public_key,
            "fingerprint": fingerprint,
        }
        with self.services.databases.global_.write() as connection:
            self.services.quotas.check(connection, call.context.project_id or "", user_id, {"key_pairs": 1})
            row = db_keypairs.create(connection, values)
        result = {**_view(call, row), "user_id": user_id}
        if private_key is not None:
            result["private_key"] = private_key
        return {"keypair": result}

    @operation("DELETE", _PATH + "/{name}", policy=_POLICY + "delete", until="2.1", status=202)
    @operation("DELETE", _PATH + "/{name}", policy=_POLICY + "delete", since="2.2", status=204, query=ONE)
    def delete(self, call: Call) -> None:
        """Delete a key pair; servers keep the key that they were given."""
        user_id = self._user(call)
        with self.services.databases.global_.write() as connection:
            db_keypairs.delete(connection, user_id, call.params["name"])
