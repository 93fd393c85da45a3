"""Operations: what an API offers, declared as data beside the code that does it.

A controller is a class with methods marked by ``@operation``: method, path,
policy, microversion range, schemas, status.  From these come the routing
(``Router``), the checks before the method runs (``api.common.app``), the OpenAPI
document and the tests that look for calls without policy or schema.

    class FlavorsController(Controller):
        @operation("GET", "/flavors/{flavor_id}", policy="os_compute_api:flavors:show")
        def show(self, call: Call) -> dict: ...

The method gets one ``Call`` and returns what is to be the JSON body (or None for
an empty one, or a ``webob.Response`` of its own).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import webob

from api.common.microversions import Microversion
from core.context import RequestContext
from core.errors import BadRequest, NotFound

Schema = Mapping[str, Any]
Versioned = Schema | tuple[tuple[str, Schema], ...]
"""One schema, or ((from microversion, schema), …) in ascending order."""
F = TypeVar("F", bound=Callable[..., Any])

NO_POLICY = "-"
"""For what is open to everyone: version documents, the OpenAPI document."""


@dataclasses.dataclass(frozen=True)
class Operation:
    """One call of an API. ``action``: the key of the body at POST …/action."""

    method: str
    path: str
    policy: str
    action: str | None = None
    min_version: Microversion | None = None
    max_version: Microversion | None = None
    status: int = 200
    body: tuple[tuple[Microversion | None, Schema], ...] = ()
    query: tuple[tuple[Microversion | None, Schema], ...] = ()
    response: Schema | None = None
    raw_body: bool = False
    """The handler reads the body itself (uploads)."""
    optional_body: bool = False
    media_types: tuple[str, ...] = ("application/json",)
    """Content types of the body."""
    late_policy: bool = False
    """The handler checks the policy itself, against the resource that it has found: who may
    not see the resource is to get 404 instead of 403."""
    needs_auth: bool = True
    summary: str = ""
    name: str = ""
    handler: Callable[..., Any] | None = None

    def serves(self, version: Microversion) -> bool:
        return (self.min_version is None or self.min_version <= version) and (
            self.max_version is None or version <= self.max_version
        )

    def schema(self, kind: str, version: Microversion) -> Schema | None:
        """The body or query schema in force at ``version``."""
        found = None
        for since, schema in getattr(self, kind):
            if since is None or since <= version:
                found = schema
        return found


def _versioned(value: Versioned | None) -> tuple[tuple[Microversion | None, Schema], ...]:
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return ((None, value),)
    return tuple((Microversion.parse(since), schema) for since, schema in value)


def operation(
    method: str,
    path: str,
    *,
    policy: str,
    action: str | None = None,
    since: str | None = None,
    until: str | None = None,
    status: int = 200,
    body: Versioned | None = None,
    query: Versioned | None = None,
    response: Schema | None = None,
    raw_body: bool = False,
    optional_body: bool = False,
    media_types: tuple[str, ...] = ("application/json",),
    late_policy: bool = False,
    needs_auth: bool = True,
) -> Callable[[F], F]:
    """Mark a controller's method as the handler of a call; may be stacked."""

    def mark(function: F) -> F:
        found = Operation(
            method=method,
            path=path,
            policy=policy,
            action=action,
            min_version=Microversion.parse(since) if since else None,
            max_version=Microversion.parse(until) if until else None,
            status=status,
            body=_versioned(body),
            query=_versioned(query),
            response=response,
            raw_body=raw_body,
            optional_body=optional_body,
            media_types=media_types,
            late_policy=late_policy,
            needs_auth=needs_auth,
            summary=(function.__doc__ or "").strip().split("\n")[0],
            name=function.__qualname__,
        )
        function.__dict__.setdefault("operations", []).append(found)
        return function

    return mark


@dataclasses.dataclass
class Call:
    """One request on its way through a handler.

    ``params``: from the path. ``query``: {key: [values]}, validated. ``body``: the
    parsed JSON, validated. ``services``: what the API was made with (databases,
    RPC clients, …). ``authorize`` checks the operation's policy against a resource.
    """

    request: webob.Request
    response: webob.Response
    context: RequestContext
    version: Microversion
    operation: Operation
    params: dict[str, str]
    query: dict[str, list[str]]
    body: Any
    services: Any

    def authorize(self, target: Mapping[str, Any] | None = None, policy: str | None = None) -> None:
        """Raise Forbidden unless policy allows the call on ``target`` (project_id, user_id)."""
        self.services.policy.authorize(self.context, policy or self.operation.policy, target)

    def allowed(self, policy: str, target: Mapping[str, Any] | None = None) -> bool:
        return bool(self.services.policy.allowed(self.context, policy, target))

    def since(self, version: str) -> bool:
        """Is the request's microversion at least ``version``?"""
        return self.version >= Microversion.parse(version)

    def first(self, key: str, default: str | None = None) -> str | None:
        """The first value of a query key."""
        values = self.query.get(key)
        return values[0] if values else default


class Controller:
    """Base of controllers: holds what the API was made with."""

    def __init__(self, services: Any) -> None:
        self.services = services

    def operations(self) -> list[Operation]:
        """The operations of this object's methods, bound to them."""
        result = []
        for name in dir(type(self)):
            for found in getattr(getattr(type(self), name), "operations", ()):
                if isinstance(found, Operation):
                    result.append(dataclasses.replace(found, handler=getattr(self, name)))
        return result


class MethodNotAllowed(NotFound):
    """The path is known, the method is not."""

    code = "haneul.method_not_allowed"
    http_status = 405

    def __init__(self, allowed: Iterable[str]) -> None:
        super().__init__("The method is not allowed for this resource.")
        self.allowed = sorted(set(allowed))


class _Node:
    __slots__ = ("children", "operations", "param")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.param: _Node | None = None
        self.operations: dict[str, list[tuple[Operation, tuple[str, ...]]]] = {}


class Router:
    """A tree over path segments; fixed segments win over parameters."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._root = _Node()
        self.operations = list(operations)
        for found in self.operations:
            self._add(found)

    def _add(self, found: Operation) -> None:
        node, names = self._root, []
        for segment in _segments(found.path):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.param = node.param or _Node()
                node = node.param
            else:
                node = node.children.setdefault(segment, _Node())
        node.operations.setdefault(found.method, []).append((found, tuple(names)))

    def knows(self, first_segment: str) -> bool:
        return first_segment in self._root.children

    def match(self, method: str, segments: list[str]) -> tuple[list[Operation], dict[str, str]]:
        """Operations at this method and path (several: versions, actions), and path parameters.

        :raises NotFound: no such path. :raises MethodNotAllowed: no such method there.
        """
        found = self._walk(self._root, segments, ())
        if found is None:
            raise NotFound("The resource could not be found.")
        node, values = found
        candidates = node.operations.get(method)
        if candidates is None and method == "HEAD":
            candidates = node.operations.get("GET")
        if not candidates:
            raise MethodNotAllowed(node.operations)
        return [operation for operation, _ in candidates], dict(zip(candidates[0][1], values, strict=True))

    def _walk(
        self, node: _Node, segments: list[str], values: tuple[str, ...]
    ) -> tuple[_Node, tuple[str, ...]] | None:
        if not segments:
            return (node, values) if node.operations else None
        head, rest = segments[0], segments[1:]
        child = node.children.get(head)
        if child is not None and (found := self._walk(child, rest, values)) is not None:
            return found
        if node.param is not None and head:
            return self._walk(node.param, rest, (*values, head))
        return None


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]


def choose(candidates: list[Operation], version: Microversion, body: Any) -> Operation:
    """Of several operations at one path the one for this version and action.

    :raises BadRequest: no such action. :raises NotFound: not at this version.
    """
    if any(candidate.action for candidate in candidates):
        if not isinstance(body, dict) or not body:
            raise BadRequest("Malformed request body: an action is expected, an object with one key.")
        keys = [key for key in body if any(candidate.action == key for candidate in candidates)]
        if len(keys) != 1 or len(body) != 1:
            names = ", ".join(sorted(str(key) for key in body))
            raise BadRequest(f"There is no such action: {names}")
        candidates = [candidate for candidate in candidates if candidate.action == keys[0]]
    for candidate in candidates:
        if candidate.serves(version):
            return candidate
    raise NotFound(f"API version {version} is not supported on this method.")
