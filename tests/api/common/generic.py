"""Checks that hold for every API: used by the tests of each."""

from __future__ import annotations

from typing import Any

import pytest
import webtest

from api.common.app import Api


def check_declarations(api: Api) -> None:
    """Every call's policy is registered, and every call that takes a body has a schema."""
    known = api.services.policy.known() | {"-"}
    assert [found for found in api.operations if found.policy not in known] == []
    without = [
        f"{found.method} {found.path}"
        for found in api.operations
        if found.status != 410 and not found.body and (found.method in ("POST", "PUT") or found.action)
    ]
    # calls that say all with their path
    assert [path for path in without if not path.endswith(("/activate", "/tags/{tag}"))] == []


def check_registered_rules_are_used(api: Api, *others: str) -> None:
    """No rule is registered that nothing asks for. ``others``: used by handlers themselves."""
    asked = {found.policy for found in api.operations} | set(others)
    unused = []
    for name in api.services.policy.known():
        base = name.partition(":")[0]
        if base not in asked and name not in asked:
            unused.append(name)
    assert unused == []


def check_openapi(app: webtest.TestApp, *paths: str) -> dict[str, Any]:
    """The document is valid OpenAPI and has these paths."""
    validator = pytest.importorskip("openapi_spec_validator")
    document: dict[str, Any] = app.get("/openapi.json", status=200).json
    validator.validate(document)
    for path in paths:
        assert path in document["paths"]
    return document
