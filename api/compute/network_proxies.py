"""Until 2.35 the Compute API passed on what is the Network API's: networks, security groups, floating IPs.

The Network API is asked with the caller's token and its answers are put into the old
shapes.  From 2.36 on these paths are not there (404): clients ask the Network API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import security_group_views as views
from core.errors import BadRequest, Conflict, NotFound, OverQuota
from db.servers import places_of

_LAST = "2.35"
_GROUP = {"name": {"type": "string", "minLength": 1, "maxLength": 255}, "description": {"type": "string"}}
_PORT = {"type": ["integer", "string", "null"], "pattern": r"^-?[0-9]*$"}
_RULE = v.obj(
    {
        "security_group_rule": v.obj(
            {
                "parent_group_id": {"type": "string"},
                "ip_protocol": {"type": ["string", "null"]},
                "from_port": _PORT,
                "to_port": _PORT,
                "cidr": {"type": ["string", "null"]},
                "group_id": {"type": ["string", "null"]},
            },
            ["parent_group_id"],
        )
    },
    ["security_group_rule"],
)


class _Proxy(Controller):
    def ask(
        self, call: Call, method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any
    ) -> dict[str, Any]:
        """:raises NotFound: there is no network service, or what is asked for is not there."""
        if not self.services.networks.configured:
            raise NotFound("The resource could not be found: there is no network service.")
        found: dict[str, Any] = self.services.networks.call(
            method, path, body, token=call.context.auth_token, query=query
        )
        return found


class NetworkProxiesController(_Proxy):
    """Networks, read only."""

    @operation("GET", "/os-networks", policy="os_compute_api:os-networks:list", until=_LAST)
    def networks(self, call: Call) -> dict[str, Any]:
        """List networks."""
        return {"networks": [_network(each) for each in self.ask(call, "GET", "/networks")["networks"]]}

    @operation("GET", "/os-networks/{network_id}", policy="os_compute_api:os-networks:show", until=_LAST)
    def network(self, call: Call) -> dict[str, Any]:
        """Show a network."""
        return {"network": _network(self._one(call))}

    @operation("GET", "/os-tenant-networks", policy="os_compute_api:os-tenant-networks:list", until=_LAST)
    def tenant_networks(self, call: Call) -> dict[str, Any]:
        """List the project's networks."""
        return {"networks": [_tenant_network(each) for each in self._visible(call)]}

    @operation(
        "GET",
        "/os-tenant-networks/{network_id}",
        policy="os_compute_api:os-tenant-networks:show",
        until=_LAST,
    )
    def tenant_network(self, call: Call) -> dict[str, Any]:
        """Show one of the project's networks."""
        return {"network": _tenant_network(self._one(call))}

    def _visible(self, call: Call) -> list[dict[str, Any]]:
        own = self.ask(call, "GET", "/networks", project_id=call.context.project_id, shared=False)
        shared = self.ask(call, "GET", "/networks", shared=True)
        return [*own["networks"], *shared["networks"]]

    def _one(self, call: Call) -> dict[str, Any]:
        try:
            found = self.ask(call, "GET", f"/networks/{call.params['network_id']}")
        except NotFound as error:
            raise NotFound("Network not found") from error
        return dict(found["network"])


_UNKNOWN = (
    ["bridge", "bridge_interface", "broadcast", "cidr", "cidr_v6", "created_at", "deleted", "deleted_at"]
    + ["dhcp_server", "dhcp_start", "dns1", "dns2", "enable_dhcp", "gateway", "gateway_v6", "host"]
    + ["injected", "mtu", "multi_host", "netmask", "netmask_v6", "priority", "project_id", "rxtx_base"]
    + ["share_address", "updated_at", "vlan", "vpn_private_address", "vpn_public_address", "vpn_public_port"]
)


def _network(found: Mapping[str, Any]) -> dict[str, Any]:
    """Upstream shows every attribute of the networks of old, and knows two of them."""
    return {**dict.fromkeys(_UNKNOWN), "id": found["id"], "label": found["name"]}


def _tenant_network(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": found["id"], "label": found["name"], "cidr": "None"}


class SecurityGroupProxiesController(_Proxy):
    """Security groups and their rules for what comes in."""

    @operation("GET", "/os-security-groups", policy="os_compute_api:os-security-groups:get", until=_LAST)
    def index(self, call: Call) -> dict[str, Any]:
        """List security groups."""
        query: dict[str, Any] = {"project_id": call.context.project_id}
        if call.first("all_tenants") in ("1", "true", "True"):
            query = {}
        groups = self.ask(call, "GET", "/security-groups", **query)["security_groups"]
        groups.sort(key=lambda group: (group["project_id"], group["name"]))
        return {"security_groups": [views.group(call, each) for each in groups]}

    @operation(
        "GET",
        "/os-security-groups/{group_id}",
        policy="os_compute_api:os-security-groups:show",
        until=_LAST,
    )
    def show(self, call: Call) -> dict[str, Any]:
        """Show a security group."""
        return {"security_group": views.group(call, self._one(call, call.params["group_id"]))}

    @operation(
        "POST",
        "/os-security-groups",
        policy="os_compute_api:os-security-groups:create",
        until=_LAST,
        body=v.obj({"security_group": v.obj(_GROUP, ["name"])}, ["security_group"]),
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Create a security group."""
        asked = call.body["security_group"]
        group = {"name": asked["name"], "description": asked.get("description") or ""}
        try:
            made = self.ask(call, "POST", "/security-groups", {"security_group": group})
        except Conflict as error:
            raise BadRequest(error.message) from error
        return {"security_group": views.group(call, made["security_group"])}

    @operation(
        "PUT",
        "/os-security-groups/{group_id}",
        policy="os_compute_api:os-security-groups:update",
        until=_LAST,
        body=v.obj({"security_group": v.obj(_GROUP, ["name"])}, ["security_group"]),
    )
    def update(self, call: Call) -> dict[str, Any]:
        """Rename a security group."""
        group = self._one(call, call.params["group_id"])
        asked = call.body["security_group"]
        values = {"name": asked["name"], "description": asked.get("description") or ""}
        changed = self.ask(call, "PUT", f"/security-groups/{group['id']}", {"security_group": values})
        return {"security_group": views.group(call, changed["security_group"])}

    @operation(
        "DELETE",
        "/os-security-groups/{group_id}",
        policy="os_compute_api:os-security-groups:delete",
        until=_LAST,
        status=202,
    )
    def delete(self, call: Call) -> None:
        """Delete a security group."""
        try:
            self.ask(call, "DELETE", f"/security-groups/{_uuid(call.params['group_id'])}")
        except Conflict as error:
            raise BadRequest(error.message) from error

    def _one(self, call: Call, group_id: str) -> dict[str, Any]:
        return dict(self.ask(call, "GET", f"/security-groups/{_uuid(group_id)}")["security_group"])

    @operation(
        "POST",
        "/os-security-group-rules",
        policy="os_compute_api:os-security-groups:rule:create",
        until=_LAST,
        body=_RULE,
    )
    def create_rule(self, call: Call) -> dict[str, Any]:
        """Add a rule for what comes in."""
        asked = call.body["security_group_rule"]
        group = self._one(call, asked["parent_group_id"])
        first, last = _number(asked.get("from_port")), _number(asked.get("to_port"))
        protocol = (asked.get("ip_protocol") or "").lower() or None
        if protocol == "icmp" and first == -1:
            first = last = None
        cidr, remote = asked.get("cidr"), asked.get("group_id")
        if protocol is None and not remote:
            raise BadRequest(
                "Security group rule: ip_protocol, from_port and to_port, or group_id, are needed."
            )
        rule = {
            "security_group_id": group["id"],
            "direction": "ingress",
            "ethertype": "IPv6" if ":" in (cidr or "") else "IPv4",
            "protocol": protocol,
            "port_range_min": first,
            "port_range_max": last,
            "remote_group_id": remote,
            "remote_ip_prefix": None if remote else (cidr or "0.0.0.0/0"),
        }
        try:
            made = self.ask(call, "POST", "/security-group-rules", {"security_group_rule": rule})
        except Conflict as error:
            raise BadRequest(error.message) from error
        of = self._one(call, remote) if remote else group
        return {"security_group_rule": views.rule(made["security_group_rule"], of)}

    @operation(
        "DELETE",
        "/os-security-group-rules/{rule_id}",
        policy="os_compute_api:os-security-groups:rule:delete",
        until=_LAST,
        status=202,
    )
    def delete_rule(self, call: Call) -> None:
        """Delete a rule."""
        self.ask(call, "DELETE", f"/security-group-rules/{_uuid(call.params['rule_id'])}")


def _number(value: Any) -> int | None:
    return None if value in (None, "") else int(value)


def _uuid(text: str) -> str:
    """:raises BadRequest: as upstream says it of what is no id."""
    if not v.is_uuid(text):
        raise BadRequest("Security group id should be uuid")
    return text


class FloatingIpProxiesController(_Proxy):
    """Floating IPs and where they come from."""

    @operation("GET", "/os-floating-ip-pools", policy="os_compute_api:os-floating-ip-pools", until=_LAST)
    def pools(self, call: Call) -> dict[str, Any]:
        """List the networks that floating IPs come from."""
        found = self._pools(call)
        return {"floating_ip_pools": [{"name": name} for name in found.values()]}

    def _pools(self, call: Call) -> dict[str, str]:
        query: dict[str, Any] = {"router:external": True}
        found = self.ask(call, "GET", "/networks", None, **query)["networks"]
        return {network["id"]: network["name"] or network["id"] for network in found}

    @operation("GET", "/os-floating-ips", policy="os_compute_api:os-floating-ips:list", until=_LAST)
    def index(self, call: Call) -> dict[str, Any]:
        """List the project's floating IPs."""
        found = self.ask(call, "GET", "/floatingips", project_id=call.context.project_id)["floatingips"]
        return {"floating_ips": self._views(call, found)}

    @operation(
        "GET", "/os-floating-ips/{floating_ip_id}", policy="os_compute_api:os-floating-ips:show", until=_LAST
    )
    def show(self, call: Call) -> dict[str, Any]:
        """Show a floating IP."""
        return {"floating_ip": self._views(call, [self._one(call)])[0]}

    @operation(
        "POST",
        "/os-floating-ips",
        policy="os_compute_api:os-floating-ips:create",
        until=_LAST,
        body={
            "anyOf": [{"type": "null"}, v.obj({"pool": {"type": ["string", "null"]}})],
        },
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Take a floating IP out of a pool."""
        pools, wanted = self._pools(call), (call.body or {}).get("pool")
        chosen = [id_ for id_, name in pools.items() if wanted in (None, id_, name)]
        if not chosen:
            raise NotFound("Floating IP pool not found.")
        try:
            made = self.ask(call, "POST", "/floatingips", {"floatingip": {"floating_network_id": chosen[0]}})
        except OverQuota as error:
            raise OverQuota(error.message) from error
        except Conflict as error:
            raise NotFound(f"No more floating IPs in pool {wanted}.", cause=error) from error
        return {"floating_ip": self._views(call, [made["floatingip"]])[0]}

    @operation(
        "DELETE",
        "/os-floating-ips/{floating_ip_id}",
        policy="os_compute_api:os-floating-ips:delete",
        until=_LAST,
        status=202,
    )
    def delete(self, call: Call) -> None:
        """Give a floating IP back."""
        self.ask(call, "DELETE", f"/floatingips/{self._one(call)['id']}")

    def _one(self, call: Call) -> dict[str, Any]:
        floating_ip_id = call.params["floating_ip_id"]
        if not v.is_uuid(floating_ip_id):
            raise NotFound(f"Floating IP not found for ID {floating_ip_id}")
        try:
            return dict(self.ask(call, "GET", f"/floatingips/{floating_ip_id}")["floatingip"])
        except NotFound as error:
            raise NotFound(f"Floating IP not found for ID {floating_ip_id}") from error

    def _views(self, call: Call, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        pools = self._pools(call) if found else {}
        port_ids = [each["port_id"] for each in found if each["port_id"]]
        devices: dict[str, str] = {}
        if port_ids:
            ports = self.ask(call, "GET", "/ports", id=port_ids, fields=["id", "device_id"])["ports"]
            devices = {port["id"]: port["device_id"] for port in ports}
        servers = places_of(self.services.databases, sorted(set(devices.values()))) if devices else {}
        return [
            {
                "id": each["id"],
                "ip": each["floating_ip_address"],
                "pool": pools.get(each["floating_network_id"], each["floating_network_id"]),
                "fixed_ip": each["fixed_ip_address"],
                "instance_id": server if (server := devices.get(each["port_id"])) in servers else None,
            }
            for each in found
        ]
