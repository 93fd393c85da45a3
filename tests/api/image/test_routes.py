"""Which calls of the Image API are there; those that are not are named here and in doc/operating.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.image.controllers import CONTROLLERS
from tests.api.image.conftest import ADMIN, Api

MISSING = {
    ("DELETE", "/tasks/{}"),
    ("GET", "/cache/nodes/{}"),
    ("POST", "/cache/clean"),
    ("POST", "/cache/prune"),
}


def served() -> set[tuple[str, str]]:
    found = [each for controller in CONTROLLERS for each in controller(None).operations()]
    return {(each.method, re.sub(r"\{[^}]*\}", "{}", each.path)) for each in found}


def test_what_is_said_to_be_missing_is() -> None:
    assert not MISSING & served()


@pytest.mark.parametrize(("method", "path"), sorted(MISSING))
def test_what_is_missing_is_refused_in_order(api: Api, method: str, path: str) -> None:
    answer = api.request(
        method, path.replace("{}", "0" * 8 + "-0000" * 3 + "-" + "0" * 12), as_=ADMIN, status="*"
    )
    assert answer.status_int in (404, 405)


def test_the_operators_are_told() -> None:
    text = (Path(__file__).parents[3] / "doc/operating.md").read_text()
    assert "Not served, and not advertised" in text
