"""The OpenAPI 3.1 document of an API, made from its operations."""

from __future__ import annotations

import re
from typing import Any

from api.common.operations import NO_POLICY, Operation


def document(title: str, version: str, operations: list[Operation], prefix: str) -> dict[str, Any]:
    """All operations at their newest schemas; actions of one path become one oneOf body."""
    paths: dict[str, dict[str, Any]] = {}
    used: dict[str, int] = {}
    for found in operations:
        path = found.path[1:] if found.path.startswith("//") else f"/{prefix}{found.path}"
        entry = paths.setdefault(path, {})
        if (described := entry.get(found.method.lower())) is None:
            described = entry[found.method.lower()] = _describe(found, path)
            # a method may serve several paths: operation ids must differ all the same
            identifier = described["operationId"]
            used[identifier] = used.get(identifier, 0) + 1
            if used[identifier] > 1:
                described["operationId"] += f"_{used[identifier]}"
        _add_body(described, found)
        _add_query(described, found)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}}
        },
    }


def _describe(found: Operation, path: str) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{([^}]+)}", path)
    ]
    result: dict[str, Any] = {
        "operationId": found.name.replace(".", "_") + "_" + found.method.lower(),
        "summary": found.summary,
        "parameters": parameters,
        "responses": {
            str(found.status): {"description": found.summary or "Done."},
            "default": {"description": "An error; the body says what is wrong and what would be right."},
        },
    }
    if found.policy != NO_POLICY or found.needs_auth:
        result["security"] = [{"token": []}]
    return result


def _add_body(described: dict[str, Any], found: Operation) -> None:
    if found.raw_body and not found.body:
        if found.method in ("PUT", "POST"):
            described["requestBody"] = {"content": {"application/octet-stream": {}}}
        return
    if not found.body and not found.action:
        return
    schema = dict(found.body[-1][1]) if found.body else {"type": "object", "required": [found.action]}
    media_type = found.media_types[0]
    media = described.setdefault("requestBody", {"content": {media_type: {"schema": {}}}})
    holder = media["content"][media_type]
    if found.action:
        holder["schema"].setdefault("oneOf", []).append(schema)
    else:
        holder["schema"] = schema


def _add_query(described: dict[str, Any], found: Operation) -> None:
    if not found.query:
        return
    known = {parameter["name"] for parameter in described["parameters"]}
    for name, schema in found.query[-1][1].get("properties", {}).items():
        if name not in known:
            described["parameters"].append({"name": name, "in": "query", "schema": schema})
