"""Which calls of upstream's API, of 3.71, are not there: named here and in doc/volumes.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.volume.controllers import CONTROLLERS
from tests.api.volume.conftest import ADMIN, Api

MISSING = {
    ("PUT", "/os-hosts"),
    ("GET", "/cgsnapshots"),
    ("POST", "/cgsnapshots"),
    ("GET", "/cgsnapshots/{}"),
    ("DELETE", "/cgsnapshots/{}"),
    ("GET", "/consistencygroups"),
    ("POST", "/consistencygroups"),
    ("POST", "/consistencygroups/create_from_src"),
    ("GET", "/consistencygroups/{}"),
    ("PUT", "/consistencygroups/{}"),
    ("DELETE", "/consistencygroups/{}"),
}


def test_what_is_said_to_be_missing_is() -> None:
    found = [each for controller in CONTROLLERS for each in controller(None).operations()]
    assert not MISSING & {(each.method, re.sub(r"\{[^}]*\}", "{}", each.path)) for each in found}


@pytest.mark.parametrize(("method", "path"), sorted(MISSING))
def test_what_is_missing_is_refused_in_order(api: Api, method: str, path: str) -> None:
    path = path.replace("{}", "0" * 8 + "-0000" * 3 + "-" + "0" * 12)
    body: dict[str, object] | None = None if method in ("GET", "DELETE") else {}
    answer = api.request(method.lower(), path, body, as_=ADMIN, status="*")
    assert answer.status_int in (404, 405)


def test_the_operators_are_told() -> None:
    text = (Path(__file__).parents[3] / "doc/volumes.md").read_text()
    (line,) = (each for each in text.splitlines() if each.startswith("Not served: `consistencygroups`"))
    assert "cgsnapshots" in line and "PUT /os-hosts" in line
