"""The WSGI application that all APIs share: pecan around a table of operations.

Order, outermost first, and why:

1. ``RequestEnvelope``: request id, metrics, access log; above all else, so that
   every answer carries an id and is counted.
2. ``HTTPProxyToWSGI``: the client's real scheme and host, before links are made.
3. keystonemiddleware: who asks.
4. pecan: leads every path to ``dispatch``, which finds the operation,
   checks microversion, token, policy and schema, calls the handler and renders.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import orjson
import pecan
import webob
from oslo_middleware import http_proxy_to_wsgi

from api.common import auth, faults
from api.common.microversions import Microversion, VersionRange
from api.common.operations import NO_POLICY, Call, Controller, Operation, Router, choose
from api.common.validation import Validators
from core import metrics
from core.context import RequestContext
from core.errors import BadRequest, HaneulError, NotFound, TooLarge, Unsupported

LOG = logging.getLogger(__name__)
ACCESS = logging.getLogger("api.access")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""An escaped NUL in JSON: PostgreSQL keeps none, so no database shall be asked to."""
_REQUEST_ID = "haneul.request_id"
_OPERATION = "haneul.operation"
CONTENT_TYPE = "haneul.content_type"
ACCEPT = "haneul.accept"
"""What the client said in these headers: see ``RequestEnvelope``."""


class Api:
    """One public API: its operations, versions, fault shape and what handlers need.

    ``prefix`` ("v2.1") is the first path segment below which the operations live;
    operations whose path starts with "//" live at the root.  ``project_prefix``:
    ``/v2.1/{project_id}/servers`` is served like ``/v2.1/servers``.  ``strict_slash``:
    ``/v2/images/`` is not ``/v2/images``, but an image without an id.
    """

    def __init__(
        self,
        name: str,
        services: Any,
        controllers: Iterable[Controller],
        *,
        prefixes: tuple[str, ...],
        versions: VersionRange | None = None,
        fault_format: faults.FaultFormat = faults.compute_format,
        max_body_bytes: int = 1024 * 1024,
        project_prefix: bool = False,
        strict_slash: bool = False,
        request_id_headers: tuple[str, ...] = ("x-openstack-request-id",),
    ) -> None:
        self.name = name
        self.services = services
        self.prefixes = prefixes
        self.versions = versions
        self.fault_format = fault_format
        self.max_body_bytes = max_body_bytes
        self.project_prefix = project_prefix
        self.strict_slash = strict_slash
        self.request_id_headers = request_id_headers
        self.operations = [found for controller in controllers for found in controller.operations()]
        self._root = Router(found for found in self.operations if found.path.startswith("//"))
        self._router = Router(found for found in self.operations if not found.path.startswith("//"))
        self._validators = Validators()
        self._default = Microversion(1, 0)

    # -- one request ---------------------------------------------------------

    def handle(self, request: webob.Request) -> webob.Response:
        """Answer a request; every exception becomes a fault in this API's shape."""
        version = self.versions.minimum if self.versions else self._default
        try:
            if self.versions:
                version = self.versions.select(request)
            response = self._handle(request, version)
        except Exception as error:  # noqa: BLE001 - the edge: to_response logs what is not ours
            response = faults.to_response(error, self.fault_format)
            if response.status_int == 401:
                response.headers["WWW-Authenticate"] = f"Keystone uri='{self.services.auth_uri}'"
        if self.versions:
            response.headers.update(self.versions.headers(version))
        return response

    def _find(
        self, request: webob.Request, context: RequestContext
    ) -> tuple[list[Operation], dict[str, str]]:
        segments = [part for part in request.path_info.split("/") if part]
        if self.strict_slash and len(segments) > 1 and request.path_info.endswith("/"):
            raise NotFound("The resource could not be found.")
        if segments and segments[0] in self.prefixes:
            rest = segments[1:]
            if self.project_prefix and rest and not self._router.knows(rest[0]):
                # /v2.1/{project_id}/…: the project must be the token's own
                if len(rest) > 1 and not self._router.knows(rest[1]):
                    raise NotFound("The resource could not be found.")
                if len(rest) == 1 and rest[0] != context.project_id:
                    raise NotFound("The resource could not be found.")
                if context.project_id != rest[0] and auth.confirmed(request):
                    raise BadRequest(
                        "Malformed request URL: URL's project_id doesn't match Context's project_id"
                    )
                rest = rest[1:]
            return self._router.match(request.method, rest)
        return self._root.match(request.method, segments)

    def _handle(self, request: webob.Request, version: Microversion) -> webob.Response:
        context = auth.context_of(request, request.environ[_REQUEST_ID])
        query = _query(request)
        try:
            candidates, params = self._find(request, context)
        except NotFound:
            # who is not known learns nothing about which paths exist
            if not auth.confirmed(request) and request.path_info.strip("/"):
                raise auth.Unauthorized() from None
            raise
        if candidates[0].needs_auth and not auth.confirmed(request):
            raise auth.Unauthorized()
        body = None
        if not candidates[0].raw_body:
            body = self._body(request, candidates)
        operation = choose(candidates, version, body)
        request.environ[_OPERATION] = operation.name
        if operation.policy != NO_POLICY and not operation.late_policy:
            self.services.policy.authorize(context, operation.policy)
        if (schema := operation.schema("query", version)) is not None:
            self._validators.check(schema, query)
        if body is not None and (schema := operation.schema("body", version)) is not None:
            self._validators.check(schema, body)
        response = webob.Response(status=operation.status)
        call = Call(request, response, context, version, operation, params, query, body, self.services)
        return self._render(call, self.run(operation, call))

    def run(self, operation: Operation, call: Call) -> Any:
        """The handler's answer; an API that has to do something around all of its calls does it here."""
        assert operation.handler is not None
        return operation.handler(call)

    def _body(self, request: webob.Request, candidates: list[Operation]) -> Any:
        """The parsed JSON, or None where the operation has no body."""
        expects = any(candidate.body or candidate.action for candidate in candidates)
        if not expects:
            return None
        if request.content_length and request.content_length > self.max_body_bytes:
            raise TooLarge(f"Request is too large: at most {self.max_body_bytes} bytes.")
        content_type = request.environ.get(CONTENT_TYPE, "").split(";")[0].strip().lower()
        data = request.body_file.read(self.max_body_bytes + 1) if _has_body(request) else b""
        if len(data) > self.max_body_bytes:
            raise TooLarge(f"Request is too large: at most {self.max_body_bytes} bytes.")
        if not data:
            if all(candidate.optional_body for candidate in candidates):
                return None
            raise BadRequest("Malformed request body: a JSON object is expected.")
        if content_type and not (content_type.endswith("json") or content_type == "text/plain"):
            raise Unsupported(f"Unsupported Content-Type {content_type}: application/json is expected.")
        if _NUL.search(data):
            raise BadRequest("Malformed request body: NUL characters can't be kept.")
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"Malformed request body: not JSON: {error}") from error
        if body is None and not all(candidate.optional_body for candidate in candidates):
            # null would pass for "no body", which no schema is asked about
            raise BadRequest("Malformed request body: a JSON object is expected.")
        return body

    def _render(self, call: Call, result: Any) -> webob.Response:
        if isinstance(result, webob.Response):
            return result
        response = call.response
        if result is None:
            if response.status_int in (204, 304):
                response.headers.pop("Content-Type", None)
            elif "Content-Type" not in response.headers or response.content_type == "text/html":
                response.headers["Content-Type"] = "application/json"
            return response
        response.headers["Content-Type"] = "application/json"
        response.body = _json(result)
        return response


def _json(result: Any) -> bytes:
    try:
        return orjson.dumps(result, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:
        # orjson knows no number above 2**64 - 1: an IPv6 subnet has that many addresses
        return json.dumps(result, separators=(",", ":")).encode()


def _query(request: webob.Request) -> dict[str, list[str]]:
    """{key: [values]}. :raises BadRequest: path or query is no text that a database can hold."""
    query: dict[str, list[str]] = {}
    try:
        strange = "\0" in request.path_info
        if request.query_string:
            for key, value in request.GET.items():
                query.setdefault(key, []).append(value)
                strange = strange or "\0" in value
    except UnicodeDecodeError as error:
        raise BadRequest("Malformed request URL: it is not UTF-8.") from error
    if strange:
        raise BadRequest("Malformed request URL: it holds a NUL character.")
    return query


def _has_body(request: webob.Request) -> bool:
    return bool(request.content_length) or "chunked" in request.headers.get("Transfer-Encoding", "").lower()


class _Root:
    """pecan's root controller: every path goes to ``dispatch``."""

    def __init__(self, api: Api) -> None:
        self._api = api

    @pecan.expose(content_type=None)
    def dispatch(self, request: webob.Request, response: webob.Response) -> webob.Response:
        return self._api.handle(request)


class _Pecan(pecan.core.ExplicitPecan):
    """pecan, without its own opinion on empty bodies: an operation says its status.

    The explicit kind hands the request over; the other keeps it in variables of the
    module, which a second application in the process would replace.
    """

    def find_controller(self, state: Any) -> tuple[Any, list[Any], dict[str, Any]]:
        """Always the same: no need to walk the path, inspect signatures and parse what may be arguments."""
        state.controller = self.root.dispatch
        return state.controller, [state.request, state.response], {}

    def invoke_controller(self, controller: Any, args: list[Any], kwargs: Any, state: Any) -> None:
        state.response = controller(*args)

    def _handle_empty_response_body(self, state: Any) -> None:
        """Upstream has calls that answer 200 with nothing; and a streamed body must not be looked at."""
        if state.response.status_int in (204, 304):
            state.response.content_type = None


class Named(Protocol):
    """What an envelope has to know of what it holds."""

    name: str
    request_id_headers: tuple[str, ...]


class RequestEnvelope:
    """Outermost: gives the request an id, counts and logs the answer."""

    def __init__(self, application: auth.WsgiApp, api: Named) -> None:
        self._application = application
        self._api = api

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        started = time.monotonic()
        request_id = f"req-{uuid.uuid4()}"
        environ[_REQUEST_ID] = request_id
        # the thread's logs carry this id from here on, not the previous request's
        RequestContext(request_id=request_id)
        # pecan would parse a form (and so read an upload whole): bodies are ours
        environ[CONTENT_TYPE] = environ.get("CONTENT_TYPE", "")
        # (and webob takes a body without a type for a form)
        if environ[CONTENT_TYPE].startswith(("application/x-www-form-urlencoded", "multipart/")) or (
            not environ[CONTENT_TYPE] and environ.get("REQUEST_METHOD") in ("POST", "PUT", "PATCH")
        ):
            environ["CONTENT_TYPE"] = "application/octet-stream"
        # pecan would negotiate among content types that its one controller does not declare
        environ[ACCEPT] = environ.pop("HTTP_ACCEPT", "*/*")

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            headers = [*headers, *((name, request_id) for name in self._api.request_id_headers)]
            self._account(environ, status, time.monotonic() - started)
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        return self._application(environ, start)

    def _account(self, environ: dict[str, Any], status: str, seconds: float) -> None:
        operation = environ.get(_OPERATION, "-")
        metrics.REQUESTS.labels(self._api.name, operation, status[:3]).inc()
        metrics.REQUEST_SECONDS.labels(self._api.name, operation).observe(seconds)
        ACCESS.info(
            '%s "%s %s" %s %.1f ms',
            environ.get("REMOTE_ADDR", "-"),
            environ.get("REQUEST_METHOD"),
            environ.get("PATH_INFO"),
            status[:3],
            seconds * 1000,
        )


def make_wsgi(api: Api, authenticate: Callable[[auth.WsgiApp], auth.WsgiApp]) -> auth.WsgiApp:
    """The whole stack for one API."""
    application: auth.WsgiApp = _Pecan(
        _Root(api), request_cls=webob.Request, response_cls=webob.Response, guess_content_type_from_ext=False
    )
    application = authenticate(application)
    application = http_proxy_to_wsgi.HTTPProxyToWSGI(application)
    return RequestEnvelope(application, api)


def project_of(context: RequestContext) -> str:
    """The asker's project. :raises HaneulError: a system- or domain-scoped token has none."""
    if not context.project_id:
        raise HaneulError("This call needs a token with a project.", code="haneul.no_project")
    return str(context.project_id)
