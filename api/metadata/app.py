"""The metadata service as a WSGI application: no tokens, only what a proxy has signed for.

Paths are a tree of documents, not operations on resources, so this application stands on its own;
request ids, counters and the access log are those of all APIs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import webob
from oslo_config import cfg

from api.common import auth, faults
from api.common.app import RequestEnvelope
from api.common.operations import MethodNotAllowed
from api.common.server import ApiRole
from api.metadata import documents, identity, password
from api.metadata.services import GROUP, MetadataServices
from core.errors import HaneulError
from db.servers import Located
from lifecycle.guest_metadata import GRIZZLY, LATEST, VERSIONS, reached


def text_format(status: int, message: str, error: HaneulError | None) -> tuple[bytes, str]:
    """One line: whoever reads it is a shell script."""
    return f"{status} {message}\n".encode(), documents.TEXT


class MetadataApplication:
    """Answers one server at a time about itself."""

    name = "metadata"
    request_id_headers: tuple[str, ...] = ("x-openstack-request-id",)

    def __init__(self, services: MetadataServices) -> None:
        self.services = services

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        request = webob.Request(environ)
        try:
            response = self._answer(request)
        except Exception as error:  # noqa: BLE001 - the edge: to_response logs what is not ours
            response = faults.to_response(error, text_format)
        return response(environ, start_response)

    def _answer(self, request: webob.Request) -> webob.Response:
        services = self.services
        found = identity.server_of(request, services.databases, services.secret)
        path = [part for part in request.path_info.split("/") if part]
        if _is_password(path):
            return self._password(request, found)
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(("GET", "HEAD"))
        facts = documents.facts_of(found.row, services.options.default_availability_zone)
        content, kind = documents.find(path, facts, services.vendor_data)
        return _response(content, kind)

    def _password(self, request: webob.Request, found: Located) -> webob.Response:
        if request.method in ("GET", "HEAD"):
            return _response(password.read(found), documents.TEXT)
        if request.method != "POST":
            raise MethodNotAllowed(("GET", "HEAD", "POST"))
        password.leave(request, self.services.databases, found.id)
        return _response(b"", documents.TEXT)


def _is_password(path: list[str]) -> bool:
    return (
        len(path) == 3
        and path[0] == "openstack"
        and path[1] in (*VERSIONS, LATEST)
        and path[2] == "password"
        and reached(GRIZZLY, path[1])
    )


def _response(content: bytes, kind: str) -> webob.Response:
    response = webob.Response(body=content)
    response.headers["Content-Type"] = kind
    return response


def make_app(conf: cfg.ConfigOpts, services: MetadataServices | None = None) -> auth.WsgiApp:
    """The whole stack. Tests hand in ``services``."""
    application = MetadataApplication(services or MetadataServices(conf))
    return RequestEnvelope(application, application)


def make_role(conf: cfg.ConfigOpts) -> ApiRole:
    """This service behind the embedded web server."""
    return ApiRole("metadata-api", conf, GROUP, make_app)
