"""Consoles of servers: /remote-consoles, and the actions that older clients use.

The answer is a URL with a token that counts for some minutes; the proxy behind it
(``api.compute.console_proxy``) asks the server's host where the screen is.
"""

from __future__ import annotations

import urllib.parse
from typing import Any

from oslo_config import cfg

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import host_calls, server_access
from core.errors import BadRequest
from db import console_tokens
from db.sessions import retrying

VNC_GROUP = "vnc"
VNC_OPTS = [
    cfg.BoolOpt("enabled", default=True, help="Servers have VNC consoles that users may open."),
    cfg.URIOpt(
        "novncproxy_base_url",
        default="http://127.0.0.1:6080/vnc_lite.html",
        help="Where browsers find the console proxy and noVNC's page.",
    ),
    cfg.HostAddressOpt(
        "novncproxy_host", default="127.0.0.1", help="Address that the console proxy listens on."
    ),
    cfg.PortOpt("novncproxy_port", default=6080, help="Port that the console proxy listens on."),
    cfg.StrOpt(
        "web", default="/usr/share/novnc", help="Folder with noVNC's files, which the console proxy serves."
    ),
]
TOKEN_GROUP = "consoleauth"
TOKEN_OPTS: list[cfg.Opt] = [
    cfg.IntOpt("token_ttl", default=600, min=0, help="Seconds for which a console's token counts."),
]
CONSOLE_GROUP = "console"
CONSOLE_OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "allowed_origins",
        default=[],
        help="Hosts, besides the proxy's own, whose pages may open consoles.",
    ),
]
NOVNC = "novnc"

_TYPES = ["novnc", "xvpvnc", "rdp-html5", "spice-html5", "serial"]
_PROTOCOLS = ["vnc", "spice", "rdp", "serial"]


def _remote(protocols: list[str], types: list[str]) -> dict[str, Any]:
    fields = {"protocol": {"enum": protocols}, "type": {"enum": types}}
    return v.obj({"remote_console": v.obj(fields, ["protocol", "type"])}, ["remote_console"])


def _old(name: str, *types: str) -> dict[str, Any]:
    return v.obj({name: v.obj({"type": {"enum": list(types)}}, ["type"])}, [name])


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(VNC_GROUP, VNC_OPTS), (TOKEN_GROUP, TOKEN_OPTS), (CONSOLE_GROUP, CONSOLE_OPTS)]


class ConsolesController(Controller):
    """Open."""

    @operation(
        "POST",
        "/servers/{server_id}/remote-consoles",
        policy="os_compute_api:os-remote-consoles",
        since="2.6",
        body=(
            ("2.6", _remote(_PROTOCOLS, _TYPES)),
            ("2.8", _remote([*_PROTOCOLS, "mks"], [*_TYPES, "webmks"])),
        ),
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Open a console."""
        asked = call.body["remote_console"]
        url = self._open(call, asked["type"])
        return {"remote_console": {"protocol": asked["protocol"], "type": asked["type"], "url": url}}

    @operation(
        "POST",
        "/servers/{server_id}/action",
        action="os-getVNCConsole",
        policy="os_compute_api:os-remote-consoles",
        until="2.5",
        body=_old("os-getVNCConsole", "novnc", "xvpvnc"),
    )
    def vnc(self, call: Call) -> dict[str, Any]:
        """Open a VNC console, as older clients do."""
        return self._old(call, "os-getVNCConsole")

    @operation(
        "POST",
        "/servers/{server_id}/action",
        action="os-getSPICEConsole",
        policy="os_compute_api:os-remote-consoles",
        until="2.5",
        body=_old("os-getSPICEConsole", "spice-html5"),
    )
    def spice(self, call: Call) -> dict[str, Any]:
        """Open a SPICE console: no server has one."""
        return self._old(call, "os-getSPICEConsole")

    @operation(
        "POST",
        "/servers/{server_id}/action",
        action="os-getSerialConsole",
        policy="os_compute_api:os-remote-consoles",
        until="2.5",
        body=_old("os-getSerialConsole", "serial"),
    )
    def serial(self, call: Call) -> dict[str, Any]:
        """Open a serial console: what it has said is in the console log."""
        return self._old(call, "os-getSerialConsole")

    def _old(self, call: Call, action: str) -> dict[str, Any]:
        kind = call.body[action]["type"]
        return {"console": {"type": kind, "url": self._open(call, kind)}}

    def _open(self, call: Call, kind: str) -> str:
        """The URL. :raises BadRequest: there are no consoles of this kind. :raises Conflict: no screen now."""
        found = server_access.find(call)
        server_access.refuse_unplaced(found)
        options = self.services.conf.vnc
        if kind != NOVNC or not options.enabled:
            raise BadRequest(f"Unavailable console type {kind}.")
        place = host_calls.vnc(call, found)
        token = self._issue(found.id, kind, place)
        # noVNC's page passes "path" on to the proxy as it is
        return f"{options.novncproxy_base_url}?{urllib.parse.urlencode({'path': f'?token={token}'})}"

    @retrying
    def _issue(self, server_id: str, kind: str, place: dict[str, Any]) -> str:
        ttl_s = self.services.conf.consoleauth.token_ttl
        with self.services.databases.global_.write() as connection:
            return console_tokens.issue(connection, server_id, kind, place["host"], int(place["port"]), ttl_s)
