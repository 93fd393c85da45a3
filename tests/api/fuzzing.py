"""Requests made up from an API's own OpenAPI document: whatever they hold, no 5xx.

Each API has a ``test_schemathesis.py`` that says what exists there.  The data are derandomised,
so a failure repeats; ``HANEUL_FUZZ_EXAMPLES`` asks for more of them than the suite has time for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import hypothesis
import orjson
from hypothesis import strategies
from schemathesis import GenerationMode, openapi

SETTINGS = hypothesis.settings(
    max_examples=int(os.environ.get("HANEUL_FUZZ_EXAMPLES", "6")),
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)


class App:
    """The application under test; before it exists, only its document (tests are named after that)."""

    def __init__(self, document: Callable[[], dict[str, Any]]) -> None:
        self._document = document
        self.target: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if self.target is not None:
            return self.target(environ, start_response)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [orjson.dumps(self._document())]

    def operations(self) -> list[Any]:
        """Every operation of the document that is not gone for good."""
        found = [each.ok() for each in openapi.from_wsgi("/openapi.json", self).get_all_operations()]
        return [each for each in found if "410" not in each.definition.raw["responses"]]


def check(
    operation: Any,
    known: Mapping[str, str],
    headers: Sequence[Mapping[str, str]],
    allowed: Collection[int] = (),
) -> None:
    """Send examples of an operation, each with each of the headers; 5xx fail but for those ``allowed``.

    ``known``: path parameters of things that exist, so that more than 404 is seen.
    """

    @SETTINGS
    @hypothesis.given(case=_cases(operation, known))
    def send(case: Any) -> None:
        for each in headers:
            case.headers = dict(each)
            answer = case.call()
            assert answer.status_code < 500 or answer.status_code in allowed, (
                f"{each} {case.as_curl_command()}\n{answer.text}"
            )

    send()


def _cases(operation: Any, known: Mapping[str, str]) -> strategies.SearchStrategy[Any]:
    """What the schema allows, at made-up paths and at those of things that exist; and what it forbids."""
    names = {parameter.name for parameter in operation.path_parameters}
    existing = {name: value for name, value in known.items() if name in names}
    return strategies.one_of(
        operation.as_strategy(),
        operation.as_strategy(path_parameters=existing) if existing else operation.as_strategy(),
        operation.as_strategy(GenerationMode.NEGATIVE),
    )
