"""Ports for servers: made or adopted at the Network API, bound to this host, let go.

The Network API chooses a port's id, so repeating is made harmless by looking first:
what already carries the server's id (``lifecycle.server_ports``) is taken up, wherever
it was bound, and only what is missing is made, in one call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from oslo_config import cfg

from compute.drivers.base import GuestSpec
from compute.nics import FactFinder, Nic, nic_of
from compute.plugging import Plugging
from core.errors import (
    BadRequest,
    Conflict,
    NotFound,
    Rebuildable,
    StaleGeneration,
    Unavailable,
)
from lifecycle import server_ports
from lifecycle.network_client import NetworkClient

LOG = logging.getLogger(__name__)
Port = dict[str, Any]
Request = Mapping[str, Any]
"""What was asked for: {"network_id", "port_id": one that exists, or None, "fixed_ip", "tag"}"""

OPTS = [
    cfg.IntOpt(
        "vif_plugging_timeout",
        default=300,
        min=0,
        help="Seconds to wait until a new server's ports are plugged; 0: it is not waited for.",
    ),
    cfg.BoolOpt(
        "vif_plugging_is_fatal",
        default=True,
        help="Does a server fail when its ports are not plugged in time? Otherwise it is started anyway.",
    ),
]
_POLL_FIRST_S = 2.0
_POLL_S = 5.0
_SLICE_S = 0.5
_PLUGGED_LATER = ("ovs",)
"""vif_types whose tap the hypervisor makes: they are plugged once the guest runs"""


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [("DEFAULT", OPTS)]


class Ports:
    """The Network API as one host uses it. One per agent; safe to share between threads."""

    def __init__(self, conf: cfg.ConfigOpts, host: str) -> None:
        self._conf = conf
        self._host = host
        self.client = NetworkClient(conf)
        self.facts = FactFinder(self.client)
        self.plugging = Plugging()

    # -- making and binding ----------------------------------------------------

    def ensure(
        self,
        guest: GuestSpec,
        requests: Sequence[Request],
        groups: Sequence[str] | None,
        others: Collection[str] | None = None,
    ) -> list[Nic]:
        """A port of this host for each request, in their order, whatever an earlier attempt did.

        ``groups``: ids of security groups for new ports; None: the project's default.
        ``others``: ports of the server's other NICs; None: it has none (a create), and what
        serves no request goes away.

        :raises Rebuildable: no network agent of this host takes a port. :raises HaneulError:
            the Network API refuses (no address is left, the port is someone else's, …).
        """
        own = server_ports.of_server(self.client, guest.server_id, guest.project_id)
        wanted = [request["port_id"] for request in requests if request.get("port_id")]
        adopted = self._adoptable(guest, wanted)
        spare = [port for port in own if port["id"] not in adopted and port["id"] not in (others or ())]
        chosen = [adopted.get(request.get("port_id") or "") or _take(spare, request) for request in requests]
        if others is None:
            for port in spare:
                # left by an attempt that died while it asked
                self._delete(port["id"])
        missing = [request for request, port in zip(requests, chosen, strict=True) if port is None]
        made = iter(self._make(guest, missing, groups) if missing else ())
        ports = [self._bound(guest, port) if port is not None else next(made) for port in chosen]
        self._check_bound(ports)
        facts = self.facts.facts(ports, floating=bool(wanted))
        return [
            nic_of(port, facts, tag=request.get("tag"), kept=bool(request.get("port_id")))
            for port, request in zip(ports, requests, strict=True)
        ]

    def _adoptable(self, guest: GuestSpec, port_ids: Sequence[str]) -> dict[str, Port]:
        if not port_ids:
            return {}
        found = {port["id"]: port for port in self.client.get("/ports", id=list(port_ids))["ports"]}
        for port_id in port_ids:
            port = found.get(port_id)
            if port is None:
                raise NotFound(f"Port {port_id} could not be found.")
            if port["project_id"] != guest.project_id:
                raise BadRequest(f"Port {port_id} not usable for instance {guest.server_id}.")
            if port.get("device_id") and port["device_id"] != guest.server_id:
                raise Conflict(f"Port {port_id} is still in use.")
        return found

    def _make(
        self, guest: GuestSpec, requests: Sequence[Request], groups: Sequence[str] | None
    ) -> list[Port]:
        bodies = []
        for request in requests:
            body = {
                "network_id": request["network_id"],
                "project_id": guest.project_id,
                "admin_state_up": True,
                **self._binding(guest),
            }
            if request.get("fixed_ip"):
                body["fixed_ips"] = [{"ip_address": request["fixed_ip"]}]
            if groups is not None:
                body["security_groups"] = list(groups)
            bodies.append(body)
        made: list[Port] = self.client.call("POST", "/ports", {"ports": bodies})["ports"]
        return made

    def _binding(self, guest: GuestSpec) -> dict[str, Any]:
        return {
            "device_id": guest.server_id,
            "device_owner": f"compute:{guest.availability_zone or 'nova'}",
            "binding:host_id": self._host,
        }

    def _bound(self, guest: GuestSpec, port: Port) -> Port:
        """The port, bound here; only if nobody else changed it since we looked."""
        failed = port.get("binding:vif_type") == "binding_failed"
        if (
            port.get("binding:host_id") == self._host
            and port.get("device_id") == guest.server_id
            and not failed
        ):
            return port
        self.plugging.forget([port["id"]])
        if failed and port.get("binding:host_id") == self._host:
            # the same host again would change nothing: Neutron binds anew when it changes
            self.client.call("PUT", f"/ports/{port['id']}", {"port": {"binding:host_id": ""}})
            port = self.client.get(f"/ports/{port['id']}")["port"]
        try:
            answer = self.client.call(
                "PUT",
                f"/ports/{port['id']}",
                {"port": self._binding(guest)},
                revision=port.get("revision_number"),
            )
        except StaleGeneration as error:
            raise Conflict(f"Port {port['id']} is still in use.", cause=error) from error
        bound: Port = answer["port"]
        return bound

    def _check_bound(self, ports: Sequence[Port]) -> None:
        for port in ports:
            if port.get("binding:vif_type") in (None, "binding_failed", "unbound"):
                raise Rebuildable(
                    f"no network agent of host {self._host} can plug port {port['id']}"
                    f" of network {port['network_id']}"
                )

    def _delete(self, port_id: str) -> None:
        try:
            self.client.call("DELETE", f"/ports/{port_id}")
        except NotFound:
            LOG.debug("port %s is gone already", port_id)

    # -- waiting ---------------------------------------------------------------

    def wait_plugged(
        self, nics: Sequence[Nic], check: Callable[[], None], *, running: bool = False
    ) -> list[Nic]:
        """Wait for the network agents to plug these; returns the NICs as they are then.

        ``running``: the guest runs, so also what its start makes is waited for. ``check``
        raises when the wait is no longer wanted.

        :raises Rebuildable: not in time, with vif_plugging_is_fatal.
        """
        waiting = {
            nic["port_id"]
            for nic in nics
            if not nic["active"] and (nic["vif_type"] in _PLUGGED_LATER) == running
        }
        timeout_s = float(self._conf.vif_plugging_timeout)
        if waiting and timeout_s:
            missing = self._wait(waiting, timeout_s, check)
            if missing:
                text = f"port {', '.join(sorted(missing))} was not plugged within {timeout_s:.0f} s"
                if self._conf.vif_plugging_is_fatal:
                    raise Rebuildable(f"{text} on host {self._host}")
                LOG.warning("%s; the server goes on without", text)
                waiting -= missing
        return [{**nic, "active": nic["active"] or nic["port_id"] in waiting} for nic in nics]

    def _wait(self, port_ids: set[str], timeout_s: float, check: Callable[[], None]) -> set[str]:
        """The ports that were not plugged."""
        missing = set(port_ids)
        began = time.monotonic()
        asked = began + _POLL_FIRST_S
        while missing and time.monotonic() - began < timeout_s:
            check()
            plugged, failed = self.plugging.wait(missing, _SLICE_S)
            if failed:
                return failed
            missing -= plugged
            if missing and time.monotonic() > asked:
                # an event may be lost: seldom enough to cost nothing
                asked = time.monotonic() + _POLL_S
                missing -= self._active(missing)
        return missing

    def _active(self, port_ids: Collection[str]) -> set[str]:
        try:
            found = self.client.get("/ports", id=sorted(port_ids), fields=["id", "status"])["ports"]
        except Unavailable as error:
            LOG.warning("can't ask whether ports are plugged: %s", error)
            return set()
        return {port["id"] for port in found if port["status"] == "ACTIVE"}

    # -- letting go ------------------------------------------------------------

    def release(
        self,
        server_id: str,
        project_id: str | None,
        kept: Collection[str],
        *,
        only: Collection[str] | None = None,
        others: Collection[str] = (),
        here: bool = False,
    ) -> None:
        """Delete the server's ports, unbind kept ones; ``here``: only those bound to this host.

        ``only``: no more than these; ``others``: these not.
        """
        server_ports.release(
            self.client,
            server_id,
            project_id,
            kept,
            only=only,
            others=others,
            host=self._host if here else None,
        )


def _take(spare: list[Port], request: Request) -> Port | None:
    """One of ``spare`` that does what is asked for, taken out of it."""
    for port in spare:
        addresses = [each["ip_address"] for each in port.get("fixed_ips") or ()]
        if port["network_id"] == request["network_id"] and (
            not request.get("fixed_ip") or request["fixed_ip"] in addresses
        ):
            spare.remove(port)
            return port
    return None
