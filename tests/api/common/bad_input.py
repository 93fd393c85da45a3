"""Bodies with one thing wrong, made from the schemas that an API declares, and sent to it.

For every operation and every version range with a schema of its own: an unknown field in each
object of the body in turn, and each field in turn with a value of the wrong kind.  The answer is
to be 400 and to name the field.  What upstream leaves open is named by the test of each API.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonschema_rs
import webtest

from api.common.microversions import Microversion
from api.common.operations import Operation
from api.common.validation import FORMATS

UNKNOWN = "no-such-field"
_WRONG: tuple[Any, ...] = ({UNKNOWN: [None]}, [[None]], 1.5, "")
_UUID = "00000000-0000-4000-8000-000000000001"
_TEXTS = (
    *("a", "1", "", _UUID, "10.0.0.1", "::1", "10.0.0.0/24", "fa:16:3e:00:00:01", "YQ=="),
    *("2026-01-01T00:00:00Z", "2026-01-01", "12:00", "/a", "a:b", "https://a.example/", "default", "/0a"),
)
_SCALARS: dict[str, tuple[Any, ...]] = {
    "string": _TEXTS,
    "integer": (1, 0, -1, 64),
    "number": (1, 0),
    "boolean": (True,),
    "null": (None,),
}
Schema = Mapping[str, Any]
Headers = Callable[[Microversion | None], dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Bad:
    """A body, and which of its fields is wrong. ``place``: the object's path, as "server.networks"."""

    place: str
    field: str
    body: Any
    unknown: bool


class Maker:
    """Makes values for one schema; its definitions are where references lead."""

    def __init__(self, root: Schema) -> None:
        self._root = root

    def bad(self) -> Iterator[Bad]:
        return self._bad(self._root, "", lambda value: value)

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            found: Any = self._root
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema

    def _valid(self, schema: Schema, value: Any) -> bool:
        whole = {**schema, "definitions": self._root.get("definitions", {})}
        return bool(
            jsonschema_rs.Draft202012Validator(whole, formats=FORMATS, validate_formats=True).is_valid(value)
        )

    def example(self, schema: Schema) -> Any:
        """The first value that comes to mind and is valid; None if none is."""
        return next((value for value in self._ideas(schema) if self._valid(schema, value)), None)

    def _ideas(self, schema: Schema) -> Iterator[Any]:
        schema = self._resolved(schema)
        yield from schema.get("enum", ())
        if "const" in schema:
            yield schema["const"]
        if "properties" in schema or "object" in _types(schema):
            properties = schema.get("properties", {})
            least = {name: self.example(properties.get(name, {})) for name in schema.get("required", ())}
            yield least
            for name, each in properties.items():
                yield {**least, name: self.example(each)}
            for each in _values_of_map(schema):
                yield {"a": self.example(each)}
        if "array" in _types(schema):
            yield []
            yield [self.example(schema.get("items", {}))] * max(1, schema.get("minItems", 0))
        for kind in _types(schema) or _SCALARS:
            yield from _SCALARS.get(kind, ())
        if (size := schema.get("minLength", 0)) > 1:
            yield "a" * size
        for each in _alternatives(schema):
            yield from self._ideas(each)

    def _bad(self, schema: Schema, place: str, wrap: Callable[[Any], Any]) -> Iterator[Bad]:
        schema = self._resolved(schema)
        for each in _alternatives(schema):
            yield from self._bad(each, place, wrap)
        if isinstance(schema.get("items"), Mapping):
            yield from self._bad(schema["items"], f"{place}[]", lambda value: wrap([value]))
        if "properties" in schema or "object" in _types(schema):
            yield from self._bad_object(schema, place, wrap)

    def _bad_object(self, schema: Schema, place: str, wrap: Callable[[Any], Any]) -> Iterator[Bad]:
        example = self.example(schema)
        least = example if isinstance(example, dict) else {}
        if not _is_map(schema):
            yield Bad(place, UNKNOWN, wrap({**least, UNKNOWN: "x"}), True)
        for each in _values_of_map(schema):
            yield from self._bad(each, f"{place}.*", lambda value: wrap({"a": value}))
        for name, each in schema.get("properties", {}).items():

            def holding(value: Any, name: str = name, each: Schema = each) -> Any:
                right = self.example(each)
                for found in (least, {}):
                    if self._valid(schema, {**found, name: right}):
                        return wrap({**found, name: value})
                return wrap({**least, name: value})

            yield from self._bad(each, f"{place}.{name}".lstrip("."), holding)
            wrong = next((value for value in _WRONG if not self._valid(each, value)), None)
            if wrong is not None:
                yield Bad(place, name, holding(wrong), False)


def _types(schema: Schema) -> list[str]:
    found = schema.get("type", [])
    return [found] if isinstance(found, str) else list(found)


def _alternatives(schema: Schema) -> Iterator[Schema]:
    for keyword in ("anyOf", "oneOf", "allOf"):
        yield from schema.get(keyword, ())


def _values_of_map(schema: Schema) -> Iterator[Schema]:
    yield from schema.get("patternProperties", {}).values()
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield schema["additionalProperties"]


def _is_map(schema: Schema) -> bool:
    """Do keys say nothing, as in metadata?"""
    patterns = schema.get("patternProperties", {})
    return any(re.search(pattern, UNKNOWN) for pattern in patterns)


def check(
    app: webtest.TestApp,
    operations: list[Operation],
    prefix: str,
    headers: Headers,
    open_: Mapping[str, str],
    first: str | None = None,
) -> None:
    """Send all of them. ``first``: the API's first version, if it has versions.

    ``open_``: {"METHOD /path [action] place": why it is left open}; "…" at its end stands for all
    below. Each of ``open_`` must be there.
    """
    failed, unused, sent = [], set(open_), 0
    for found in operations:
        for since, schema in found.body:
            known = (since, found.min_version, Microversion.parse(first) if first else None)
            version = max((each for each in known if each), default=None)
            if version is not None and not (
                found.serves(version) and found.schema("body", version) is schema
            ):
                continue
            for bad in Maker(schema).bad():
                name = " ".join(filter(None, (found.method, found.path, found.action, bad.place)))
                reasons = {key for key in open_ if name == key or _below(name, key)}
                unused -= reasons
                if reasons:
                    continue
                sent += 1
                answer = app.request(
                    f"{prefix}{re.sub('{[^}]*}', 'x', found.path)}",
                    method=found.method,
                    headers={"Content-Type": found.media_types[0], **headers(version)},
                    body=json.dumps(bad.body).encode(),
                    status="*",
                )
                if answer.status_int != 400 or bad.field not in answer.text:
                    failed.append(f"{name} ({version}) {bad.field}: {answer.status} {answer.text[:300]}")
    assert not failed, f"{len(failed)} of {sent}:\n" + "\n".join(failed)
    assert not unused, f"not open any more: {unused}"
    assert sent


def _below(name: str, key: str) -> bool:
    return key.endswith("…") and name.startswith(key[:-1])
