"""Secrets: store, list, show, read, delete. Upstream's shapes, so that its clients work.

What is not here: secrets stored in two requests, containers, orders, ACLs, consumers. A secret belongs to one project.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import webob
from webob.acceptparse import create_accept_header

from api.common import validation as v
from api.common.app import ACCEPT, project_of
from api.common.operations import Call, Controller, operation
from core.errors import BadRequest, HaneulError, NotFound, TooLarge
from db import secrets
from db.sessions import retrying

BINARY, TEXT = "application/octet-stream", "text/plain"
_DEFAULT_LIMIT, _MAX_LIMIT = 10, 100
_TYPES = ("symmetric", "public", "private", "passphrase", "certificate", "opaque")
_MAYBE_TEXT = {"type": ["string", "null"], "maxLength": 255}
CREATE = v.obj(
    {
        "name": _MAYBE_TEXT,
        "secret_type": {"enum": list(_TYPES)},
        "algorithm": _MAYBE_TEXT,
        "mode": _MAYBE_TEXT,
        "bit_length": {"anyOf": [v.integer(1, 1 << 20), {"type": "null"}]},
        "expiration": {"type": ["string", "null"], "maxLength": 40},
        # looked at in ``_content``: messages of a schema say what they were given
        "payload": {},
        "payload_content_type": {"type": "string", "maxLength": 64},
        "payload_content_encoding": {"type": ["string", "null"], "maxLength": 16},
    },
    ["payload", "payload_content_type"],
)
_FILTERS = {"name": "name", "alg": "algorithm", "mode": "mode", "secret_type": "secret_type"}
_QUERY = v.query({key: {"type": "string"} for key in (*_FILTERS, "bits", "limit", "offset")})


class NotAcceptable(HaneulError):
    """The secret is not of the content type that was asked for."""

    code = "haneul.keys.not_acceptable"
    http_status = 406


def view(call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a secret."""
    return {
        "name": row["name"] or row["id"],
        "status": "ACTIVE",
        "secret_type": row["secret_type"],
        "algorithm": row["algorithm"],
        "bit_length": row["bit_length"],
        "mode": row["mode"],
        "content_types": {"default": row["content_type"]},
        "creator_id": row["creator_id"],
        "created": _moment(row["created_at"]),
        "updated": _moment(row["updated_at"] or row["created_at"]),
        "expiration": _moment(row["expiration"]),
        "secret_ref": _reference(call, row["id"]),
    }


def _moment(moment: datetime.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="microseconds")


def _reference(call: Call, identifier: str) -> str:
    return f"{call.request.application_url.rstrip('/')}/v1/secrets/{identifier}"


class SecretsController(Controller):
    """The secrets of the asker's project. Those of others can't be told from what does not exist."""

    def _id(self, call: Call) -> str:
        try:
            return str(uuid.UUID(call.params["secret_id"]))
        except ValueError:
            raise NotFound("Secret not found.") from None

    @operation("GET", "/secrets", policy="secrets:get", query=_QUERY)
    def index(self, call: Call) -> dict[str, Any]:
        """List the project's secrets."""
        limit = min(_number(call, "limit", _DEFAULT_LIMIT), _MAX_LIMIT)
        offset = _number(call, "offset", 0)
        filters: dict[str, Any] = {
            column: call.first(key) for key, column in _FILTERS.items() if call.first(key)
        }
        if bits := _number(call, "bits", 0):
            filters["bit_length"] = bits
        with self.services.databases.global_.read() as connection:
            rows, total = secrets.list_(connection, project_of(call.context), filters, limit, offset)
        found: dict[str, Any] = {"secrets": [view(call, row) for row in rows], "total": total}
        base = f"{call.request.application_url.rstrip('/')}/v1/secrets"
        if offset + limit < total:
            found["next"] = f"{base}?{urlencode({'limit': limit, 'offset': offset + limit})}"
        if offset:
            found["previous"] = f"{base}?{urlencode({'limit': limit, 'offset': max(offset - limit, 0)})}"
        return found

    @operation("POST", "/secrets", policy="secrets:post", body=CREATE, status=201)
    def create(self, call: Call) -> dict[str, Any]:
        """Store a secret."""
        content, kind = _content(call.body, self.services.options.max_secret_bytes)
        values = {
            "creator_id": call.context.user_id,
            "name": call.body.get("name"),
            "secret_type": call.body.get("secret_type") or "opaque",
            "algorithm": call.body.get("algorithm"),
            "mode": call.body.get("mode"),
            "bit_length": call.body.get("bit_length"),
            "content_type": kind,
            "expiration": _expiration(call.body.get("expiration")),
        }
        identifier = self._store(project_of(call.context), content, values)
        reference = _reference(call, identifier)
        call.response.headers["Location"] = reference
        return {"secret_ref": reference}

    @retrying
    def _store(self, project_id: str, content: bytes, values: dict[str, Any]) -> str:
        with self.services.databases.global_.write() as connection:
            return secrets.create(connection, self.services.keys, project_id, content, values)

    @operation("GET", "/secrets/{secret_id}", policy="secret:get")
    def show(self, call: Call) -> dict[str, Any]:
        """Show what is known of a secret."""
        identifier = self._id(call)
        with self.services.databases.global_.read() as connection:
            return view(call, secrets.get(connection, project_of(call.context), identifier))

    @operation("GET", "/secrets/{secret_id}/payload", policy="secret:decrypt")
    def payload(self, call: Call) -> webob.Response:
        """Read a secret."""
        identifier, project_id = self._id(call), project_of(call.context)
        with self.services.databases.global_.read() as connection:
            row = secrets.get(connection, project_id, identifier)
            accepted = create_accept_header(call.request.environ[ACCEPT])
            if not accepted.acceptable_offers([row["content_type"]]):
                raise NotAcceptable(f"The secret's content type is {row['content_type']}.")
            content = secrets.content(connection, self.services.keys, project_id, identifier)
        answer = webob.Response(body=content)
        answer.headers["Content-Type"] = row["content_type"]
        answer.headers["Cache-Control"] = "no-store"
        return answer

    @operation("DELETE", "/secrets/{secret_id}", policy="secret:delete", status=204)
    def delete(self, call: Call) -> None:
        """Delete a secret."""
        self._delete(project_of(call.context), self._id(call))

    @retrying
    def _delete(self, project_id: str, identifier: str) -> None:
        with self.services.databases.global_.write() as connection:
            secrets.delete(connection, project_id, identifier)


def _number(call: Call, key: str, default: int) -> int:
    text = call.first(key)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 9:
        raise BadRequest(f"{key} must be a whole number.")
    return int(text)


def _content(body: Mapping[str, Any], most: int) -> tuple[bytes, str]:
    """The secret's bytes and its content type. :raises BadRequest: :raises TooLarge:"""
    kind, _, parameters = str(body["payload_content_type"]).replace(" ", "").lower().partition(";")
    encoding, payload = body.get("payload_content_encoding"), body["payload"]
    if not isinstance(payload, str):
        raise BadRequest("The payload must be a text.")
    if kind == TEXT and parameters in ("", "charset=utf-8", "charset=utf8") and not encoding:
        content = payload.encode()
    elif kind == BINARY and encoding == "base64":
        try:
            content = base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError):
            # the chain of errors would hold the payload
            raise BadRequest("The payload is not base64.") from None
    else:
        raise BadRequest(
            f"payload_content_type must be {TEXT}, or {BINARY} with payload_content_encoding base64."
        )
    if not content:
        raise BadRequest("The payload is empty.")
    if len(content) > most:
        raise TooLarge(f"A secret has {most} bytes at most.")
    return content, kind


def _expiration(text: str | None) -> datetime.datetime | None:
    if not text:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest("expiration must be a time of ISO 8601.") from None
    if moment.tzinfo is not None:
        try:
            moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
        except OverflowError:
            raise BadRequest("expiration must be a time of this age.") from None
    if moment <= datetime.datetime.now(datetime.UTC).replace(tzinfo=None):
        raise BadRequest("expiration must be in the future.")
    return moment
