"""Errors that haneul raises on purpose.

    HaneulError
    ├── BadRequest          400  what was asked is malformed or impossible
    ├── Forbidden           403  policy says no
    │   └── OverQuota       403  a limit would be exceeded (413 where an API says so)
    ├── NotFound            404  there is no such thing, or none that the asker may see
    ├── Conflict            409  the thing is not in a state that allows it
    │   └── StaleGeneration 409  someone else changed it meanwhile; read again and retry
    ├── TooLarge            413  a body or an upload is over its bound
    ├── Unsupported         415  a media type or a content that is not accepted
    ├── Unavailable         503  a part that is needed does not answer now
    └── DriverError         500  the outside world (hypervisor, disk) refused

Every error carries a stable ``code`` (never reused for another meaning), a
message for the person who asked, and optionally an internal ``cause`` that is
logged and never shown.  HTTP is spoken only at the edge: ``http_status`` is a
hint that ``api.common.faults`` reads; nothing below the API uses it.
"""

from __future__ import annotations


class HaneulError(Exception):
    """Base class: ``message`` is for the outside, ``cause`` for the log."""

    code = "haneul.internal"
    http_status = 500

    def __init__(self, message: str, *, code: str | None = None, cause: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        if code is not None:
            self.code = code


class BadRequest(HaneulError):
    """The request is malformed, or names something that can't be used."""

    code = "haneul.bad_request"
    http_status = 400


class Forbidden(HaneulError):
    """Policy forbids it."""

    code = "haneul.forbidden"
    http_status = 403


class OverQuota(Forbidden):
    """A quota would be exceeded."""

    code = "haneul.over_quota"


class NotFound(HaneulError):
    """There is no such resource for the one who asks."""

    code = "haneul.not_found"
    http_status = 404


class Conflict(HaneulError):
    """The resource's state does not allow it now."""

    code = "haneul.conflict"
    http_status = 409


class StaleGeneration(Conflict):
    """A conditional update found another generation: read again and retry."""

    code = "haneul.stale_generation"


class TooLarge(HaneulError):
    """A body, an upload or a page is larger than allowed."""

    code = "haneul.too_large"
    http_status = 413


class Unsupported(HaneulError):
    """A media type or content that is not accepted."""

    code = "haneul.unsupported"
    http_status = 415


class Unavailable(HaneulError):
    """Something needed does not answer now; trying again later may work."""

    code = "haneul.unavailable"
    http_status = 503


class DriverError(HaneulError):
    """The outside world (hypervisor, disk, network) refused or failed."""

    code = "haneul.driver"


class Rebuildable(DriverError):
    """A failure that another host might not have: the create is tried on an alternate."""

    code = "haneul.driver.host"
