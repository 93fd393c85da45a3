"""Errors on their way out: the one place where a HaneulError becomes HTTP.

Each API has its own shape for error bodies; it hands a ``FaultFormat`` to its app.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import orjson
import webob
from oslo_db import exception as db_exc

from api.common.operations import MethodNotAllowed
from core.errors import HaneulError, TooLarge

LOG = logging.getLogger(__name__)

FaultFormat = Callable[[int, str, HaneulError | None], tuple[bytes, str]]
"""(status, message, error) → (body, content type)"""

FAULT_NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    406: "notAcceptable",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


def compute_format(status: int, message: str, error: HaneulError | None) -> tuple[bytes, str]:
    """{"itemNotFound": {"code": 404, "message": …}}: compute and block storage."""
    name = FAULT_NAMES.get(status, "computeFault")
    return orjson.dumps({name: {"code": status, "message": message}}), "application/json"


def html_format(status: int, message: str, error: HaneulError | None) -> tuple[bytes, str]:
    """An HTML page, as the image API answers."""
    title = webob.util.status_reasons.get(status, "Error")
    page = (
        f"<html>\n <head>\n  <title>{status} {title}</title>\n </head>\n <body>\n  <h1>{status} {title}</h1>\n"
        f"  {webob.html_escape(message)}<br /><br />\n\n </body>\n</html>"
    )
    return page.encode(), "text/html; charset=UTF-8"


def to_response(error: Exception, format_: FaultFormat) -> webob.Response:
    """The answer for an exception; what is not ours is logged and says nothing of its inside."""
    if isinstance(error, HaneulError):
        status, message, known = error.http_status, error.message, error
        if error.cause is not None or status >= 500:
            LOG.warning("%s: %s (cause: %s)", error.code, message, error.cause, exc_info=status >= 500)
    elif isinstance(error, db_exc.DBConnectionError):
        LOG.error("the database does not answer", exc_info=error)
        status, message, known = 503, "The database does not answer now. Try again later.", None
    else:
        LOG.error("unexpected error in the API", exc_info=error)
        status, known = 500, None
        message = "Unexpected API Error. Look for the request id in the log of the API."
    body, content_type = format_(status, message, known)
    response = webob.Response(status=status, body=body)
    response.headers["Content-Type"] = content_type
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, TooLarge) or status == 503:
        response.headers["Retry-After"] = "5"
    return response
