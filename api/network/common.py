"""What all nouns of the Network API share: errors, who asks, times, pages."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import orjson

from api.common import links
from api.common.operations import Call
from core.errors import BadRequest, HaneulError
from db.network_base import Viewer, Window
from db.network_errors import PREFIX as ERROR_PREFIX

PREFIX = "v2.0"
_TYPES = {
    400: "HTTPBadRequest",
    401: "HTTPUnauthorized",
    403: "PolicyNotAuthorized",
    404: "HTTPNotFound",
    405: "HTTPMethodNotAllowed",
    409: "HTTPConflict",
    413: "HTTPRequestEntityTooLarge",
    415: "HTTPUnsupportedMediaType",
    503: "HTTPServiceUnavailable",
}
_RESERVED = {"fields", "limit", "marker", "page_reverse", "sort_key", "sort_dir"}


def neutron_format(status: int, message: str, error: HaneulError | None) -> tuple[bytes, str]:
    """{"NeutronError": {"type", "message", "detail"}}; the type is the error's code where it has one."""
    type_ = _TYPES.get(status, "HTTPInternalServerError")
    if error is not None and error.code.startswith(ERROR_PREFIX):
        type_ = error.code.removeprefix(ERROR_PREFIX)
    body = {"NeutronError": {"type": type_, "message": message, "detail": ""}}
    return orjson.dumps(body), "application/json"


def is_elevated(call: Call) -> bool:
    """An administrator, or another service of the cloud: sees and uses what is anyone's."""
    return bool(call.services.policy.is_admin(call.context)) or call.allowed("context_is_advsvc", {})


def viewer_of(call: Call) -> Viewer:
    return Viewer(call.context.project_id or "", is_elevated(call))


def zulu(moment: datetime.datetime | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def filters_of(call: Call) -> dict[str, list[str]]:
    """The query without what steers paging; texts that clients send for "not given" are dropped."""
    return {key: values for key, values in call.query.items() if key not in _RESERVED and values != ["None"]}


def only_fields(call: Call, view: dict[str, Any]) -> dict[str, Any]:
    """What ``fields`` asks for; all when it is not given."""
    wanted = [name for name in call.query.get("fields", []) if name]
    return {name: view[name] for name in wanted if name in view} if wanted else view


def window_of(call: Call) -> Window:
    """Which rows: limit, marker, page_reverse, sort_key, sort_dir. :raises BadRequest: bad ones."""
    keys, directions = call.query.get("sort_key", []), call.query.get("sort_dir", [])
    if directions and len(keys) != len(directions):
        raise BadRequest("The number of sort_keys and sort_dirs must be same")
    for direction in directions:
        if direction not in ("asc", "desc"):
            raise BadRequest("The sort direction must be asc or desc.")
    sort = tuple((key, directions[index] if directions else "asc") for index, key in enumerate(keys))
    most = int(call.services.options.max_limit) or None
    limit = most
    if (text := call.first("limit")) is not None:
        if not text.lstrip("-").isdigit() or int(text) < 0:
            raise BadRequest(f"Limit must be an integer 0 or greater and not '{text}'")
        asked = int(text) or None  # 0: no limit
        limit = asked if most is None or asked is None else min(asked, most)
        limit = limit or most
    reverse = (call.first("page_reverse") or "").lower() == "true"
    return Window(sort, limit, call.first("marker"), reverse)


def page_links(call: Call, path: str, views: list[Mapping[str, Any]], window: Window) -> list[dict[str, str]]:
    """next and previous, as upstream gives them for limited lists."""
    if window.limit is None or not views:
        return []
    base = f"{links.base_url(call, PREFIX)}{path}"
    kept = [
        (key, value)
        for key, values in call.query.items()
        if key not in ("marker", "page_reverse")
        for value in values
    ]
    result = []
    full = len(views) >= window.limit
    if full and not window.reverse or (window.reverse and window.marker):
        query = urlencode([*kept, ("marker", views[-1]["id"])])
        result.append({"rel": "next", "href": f"{base}?{query}"})
    if (window.marker and not window.reverse) or (window.reverse and full):
        query = urlencode([*kept, ("marker", views[0]["id"]), ("page_reverse", "True")])
        result.append({"rel": "previous", "href": f"{base}?{query}"})
    return result


def if_match(call: Call) -> int | None:
    """The revision that an If-Match header asks for. :raises BadRequest: it asks for something else."""
    header = call.request.headers.get("If-Match")
    if header is None:
        return None
    key, _, number = header.strip().strip('"').partition("=")
    if key != "revision_number" or not number.isdigit():
        raise BadRequest("Invalid value for If-Match header: revision_number=N is expected.")
    return int(number)
