"""Which ports a new server is to have: the body's networks and security groups, looked up and checked.

The Network API is asked with the caller's token, so that what may be used is its to
judge, and with a few calls side by side whatever the body holds.  A server without
networks costs none.  What is found out here is checked once more where the ports are
made: between the two anything may change.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from api.common.app import project_of
from api.common.operations import Call
from core.errors import BadRequest, Conflict, Forbidden, NotFound, OverQuota

Request = dict[str, Any]
"""{"network_id", "port_id": one that exists, or None, "fixed_ip", "tag"}"""
EXTERNAL = "network:attach_external_network"
_NETWORK_FIELDS = [
    "id",
    "name",
    "router:external",
    "subnets",
    "port_security_enabled",
    "shared",
    "project_id",
]


@dataclasses.dataclass(frozen=True)
class Networks:
    """What each server of a request gets. ``security_groups``: ids; None: the project's default.

    ``most``: so many servers the project's quota of ports admits; None: no bound.
    """

    requests: tuple[Request, ...] = ()
    security_groups: tuple[str, ...] | None = None
    most: int | None = None


@dataclasses.dataclass(frozen=True)
class _Asked:
    """The body's networks, as they stand there."""

    requests: list[Request]
    automatic: bool = False
    """any network of the project"""
    allocate: bool = False
    """and if there is none, one that is made"""


def resolve(call: Call, server: Mapping[str, Any], minimum: int, maximum: int) -> Networks:
    """:raises BadRequest, Forbidden, OverQuota, Conflict: says what can't be used. :raises Unavailable:"""
    asked = _asked(call, server, maximum)
    names = [each["name"] for each in server.get("security_groups") or () if each.get("name")]
    if not (asked.requests or asked.automatic):
        return Networks()
    if not call.services.networks.configured:
        if asked.requests:
            raise BadRequest("There is no network service: servers can't be attached to networks.")
        return Networks()
    if asked.requests:
        call.authorize(policy="os_compute_api:servers:create:attach_network")
    finder = Finder(call)
    groups, (requests, most) = together(
        lambda: finder.group_ids(names),
        lambda: _found(finder, asked, minimum, maximum),
    )
    if not requests:
        return Networks()
    return Networks(tuple(requests), groups, most)


def _asked(call: Call, server: Mapping[str, Any], maximum: int) -> _Asked:
    networks = server.get("networks")
    if networks == "none":
        return _Asked([])
    if networks == "auto":
        return _Asked([], automatic=True, allocate=True)
    if not networks:
        return _Asked([], automatic=True)
    requests: list[Request] = []
    for each in networks:
        requests.append(_request(each))
    ports = [request["port_id"] for request in requests if request["port_id"]]
    if len(set(ports)) < len(ports):
        raise BadRequest("Duplicate ports are not allowed: a port can be attached once.")
    if maximum > 1:
        if ports:
            raise BadRequest(
                "Unable to launch multiple instances with a single configured port ID. Please launch your"
                " instance one by one with different ports."
            )
        if any(request["fixed_ip"] for request in requests):
            raise BadRequest("max_count cannot be greater than 1 if an fixed_ip is specified.")
    return _Asked(requests)


def _request(item: Mapping[str, Any]) -> Request:
    port_id, fixed_ip = item.get("port"), item.get("fixed_ip")
    if port_id:
        if fixed_ip:
            raise BadRequest(
                f"Specified Fixed IP '{fixed_ip}' cannot be used with port '{port_id}': the two cannot be"
                " specified together."
            )
        return {"network_id": None, "port_id": port_id, "fixed_ip": None, "tag": item.get("tag")}
    if not item.get("uuid"):
        raise BadRequest("Bad networks format: missing 'uuid'")
    try:
        network_id = str(uuid.UUID(item["uuid"]))
    except ValueError:
        raise BadRequest(
            f"Bad networks format: network uuid is not in proper format ({item['uuid']})"
        ) from None
    return {"network_id": network_id, "port_id": None, "fixed_ip": fixed_ip, "tag": item.get("tag")}


def _found(finder: Finder, asked: _Asked, minimum: int, maximum: int) -> tuple[list[Request], int | None]:
    if asked.automatic:
        network_id = finder.only_network(allocate=asked.allocate)
        if network_id is None:
            return [], None
        request = {"network_id": network_id, "port_id": None, "fixed_ip": None, "tag": None}
        return [request], finder.admitted(1, minimum, maximum)
    new = sum(1 for request in asked.requests if not request["port_id"])
    most, requests = together(
        lambda: finder.admitted(new, minimum, maximum), lambda: finder.check(asked.requests)
    )
    return requests, most


def together(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
    """Both results, found out side by side; the first one's error counts first."""
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="network-call") as pool:
        other = pool.submit(second)
        return first(), other.result()


class Finder:
    """Questions to the Network API in the name of who calls."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._project = project_of(call.context)
        self._token = call.context.auth_token or ""

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._call.services.networks.get(path, self._token, **query)
        return found

    # -- networks --------------------------------------------------------------

    def only_network(self, *, allocate: bool) -> str | None:
        """The network for who names none: the project's, or a shared one.

        ``allocate``: one is made when there is none. None: there is none.
        :raises Conflict: there are several. :raises BadRequest: none can be made.
        """
        own, shared = together(
            lambda: self.networks(project_id=self._project, shared=False, **self._up(allocate)),
            lambda: self.networks(shared=True, **self._up(allocate)),
        )
        found = list({network["id"]: network for network in [*own, *shared]}.values())
        if len(found) > 1:
            raise Conflict("Multiple possible networks found, use a Network ID to be more specific.")
        if found:
            self.check_network(found[0])
            return str(found[0]["id"])
        return self._allocated() if allocate else None

    @staticmethod
    def _up(allocate: bool) -> dict[str, Any]:
        return {"admin_state_up": True} if allocate else {}

    def networks(self, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/networks", fields=_NETWORK_FIELDS, **query)["networks"]
        return found

    def _allocated(self) -> str:
        try:
            topology = self.get(f"/auto-allocated-topology/{self._project}")["auto_allocated_topology"]
        except (Conflict, NotFound) as error:
            raise BadRequest(
                f"Unable to automatically allocate a network for project {self._project}", cause=error
            ) from error
        return str(topology["id"])

    def check_network(self, network: Mapping[str, Any]) -> None:
        """:raises Forbidden: external, and the asker may not. :raises BadRequest: it has no subnet."""
        if network.get("router:external") and not self._call.allowed(EXTERNAL):
            raise Forbidden(f"It is not allowed to create an interface on external network {network['id']}")
        if not network.get("subnets"):
            raise BadRequest(f"Network {network['id']} requires a subnet in order to boot instances on.")

    # -- what was named --------------------------------------------------------

    def check(self, requests: Sequence[Request]) -> list[Request]:
        """The requests, with the networks of their ports.

        :raises BadRequest, Conflict, Forbidden: one of them can't be used.
        """
        network_ids = sorted({request["network_id"] for request in requests if request["network_id"]})
        port_ids = [request["port_id"] for request in requests if request["port_id"]]
        networks, ports = together(
            lambda: self.networks(id=network_ids) if network_ids else [],
            lambda: self.get("/ports", id=port_ids)["ports"] if port_ids else [],
        )
        missing = set(network_ids) - {network["id"] for network in networks}
        if missing:
            raise BadRequest(f"Network {', '.join(sorted(missing))} could not be found.")
        for network in networks:
            self.check_network(network)
        by_id = {port["id"]: port for port in ports}
        for request in requests:
            if request["fixed_ip"]:
                self.check_free(request)
        return [
            {**request, "network_id": self.check_port(request["port_id"], by_id)["network_id"]}
            if request["port_id"]
            else request
            for request in requests
        ]

    def check_port(self, port_id: str, found: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
        """:raises BadRequest: there is none, or it has no address. :raises Conflict: it is in use."""
        port = found.get(port_id)
        if port is None:
            raise BadRequest(f"Port id {port_id} could not be found.")
        if port.get("device_id"):
            raise Conflict(f"Port {port_id} is still in use.")
        if port["project_id"] != self._project:
            raise BadRequest(f"Port {port_id} not usable for a server of this project.")
        if not port.get("fixed_ips") and port.get("ip_allocation") != "deferred":
            raise BadRequest(f"Port {port_id} requires a FixedIP in order to be used.")
        return port

    def check_free(self, request: Request) -> None:
        found = self.get(
            "/ports",
            network_id=request["network_id"],
            fixed_ips=f"ip_address={request['fixed_ip']}",
            fields=["id"],
        )
        if found["ports"]:
            raise BadRequest(
                f"Fixed IP address {request['fixed_ip']} is already in use on instance {found['ports'][0]['id']}."
            )

    # -- quota and groups ------------------------------------------------------

    def admitted(self, ports: int, minimum: int, maximum: int) -> int | None:
        """For how many servers with so many new ports each the quota is left.

        :raises OverQuota: not for ``minimum``. None: it is not known or not bounded.
        """
        if not ports:
            return None
        try:
            quota = self.get(f"/quotas/{self._project}/details")["quota"]["port"]
        except (NotFound, Forbidden):
            # a Neutron without that extension: it says so when the ports are made
            return None
        if quota["limit"] < 0:
            return None
        left = (quota["limit"] - quota["used"]) // ports
        if left < minimum:
            raise OverQuota("Maximum number of ports exceeded")
        return min(left, maximum)

    def group_id(self, name: str) -> str:
        """The id of a security group given by name or id. :raises BadRequest, Conflict:"""
        groups = self.get("/security-groups", fields=["id", "name"], project_id=self._project)
        return self._group(groups["security_groups"], name)

    def group_ids(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """Ids of security groups given by name or id; None: only the default one.

        :raises BadRequest: there is none. :raises Conflict: several have that name.
        """
        wanted = list(dict.fromkeys(names))
        if not wanted or wanted == ["default"]:
            return None
        groups = self.get("/security-groups", fields=["id", "name", "project_id"], project_id=self._project)
        return tuple(self._group(groups["security_groups"], name) for name in wanted)

    def _group(self, groups: Sequence[Mapping[str, Any]], name: str) -> str:
        by_id = [group["id"] for group in groups if group["id"] == name]
        found = by_id or [group["id"] for group in groups if group["name"] == name]
        if not found and _is_uuid(name):
            # one that another project shares is found by its id only
            shared = self.get("/security-groups", id=name, fields=["id"])["security_groups"]
            found = [group["id"] for group in shared]
        if not found:
            raise BadRequest(f"Unable to find security_group with name or id '{name}'")
        if len(found) > 1:
            raise Conflict(
                f"Multiple security_group matches found for name '{name}', use an ID to be more specific."
            )
        return str(found[0])


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
