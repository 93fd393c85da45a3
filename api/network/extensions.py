"""Extensions: those that are served, and no others; providers of services."""

from __future__ import annotations

from typing import Any

from api.common.operations import Call, Controller, operation
from db.network_errors import not_found

# alias: (name, description)
EXTENSIONS: dict[str, tuple[str, str]] = {
    "address-group": ("Address group", "Lists of addresses for security group rules"),
    "address-scope": ("Address scope", "Subnet pools that never overlap"),
    "agent": ("agent", "Agents on hosts"),
    "allowed-address-pairs": ("Allowed Address Pairs", "Further addresses that a port may send from"),
    "allowed-address-pairs-atomic": ("Allowed Address Pairs atomic", "Changed under a lock"),
    "auto-allocated-topology": ("Auto Allocated Topology Services", "A network for who asks for any"),
    "availability_zone": ("Availability Zone", "Zones of agents"),
    "binding": ("Port Binding", "Which host a port is on"),
    "binding-extended": ("Port Bindings Extended", "Several bindings while a server moves"),
    "default-subnetpools": ("Default Subnetpools", "A pool that is used when none is named"),
    "dhcp_agent_scheduler": ("DHCP Agent Scheduler", "Networks put on hosts by hand"),
    "dns-integration": ("DNS Integration", "Names of ports"),
    "expose-port-forwarding-in-fip": ("Port forwarding in floating IPs", "Shown with the floating IP"),
    "ext-gw-mode": ("L3 router external gateway modes", "SNAT on or off"),
    "external-net": ("External network", "Networks that lead outside"),
    "extra_dhcp_opt": ("Extra DHCP options", "DHCP options of a port"),
    "extraroute": ("Extra Route", "Static routes of a router"),
    "extraroute-atomic": ("Atomically add/remove extra routes", "Routes added under a lock"),
    "filter-validation": ("Filter parameters validation", "Unknown filters are refused"),
    "fip-port-details": ("Floating IP port details", "The port behind a floating IP"),
    "floating-ip-port-forwarding": ("Floating IP port forwarding", "Single ports of a floating IP"),
    "floating-ip-port-forwarding-description": ("Port forwarding description", "A text of each"),
    "ip-substring-filtering": ("IP address substring filtering", "Ports by a part of an address"),
    "l3_agent_scheduler": ("L3 Agent Scheduler", "Routers put on hosts by hand"),
    "net-mtu": ("Network MTU", "The MTU of a network"),
    "net-mtu-writable": ("Network MTU (writable)", "It may be set"),
    "network-ip-availability": ("Network IP Availability", "How many addresses are left"),
    "network_availability_zone": ("Network Availability Zone", "Zones of a network"),
    "pagination": ("Pagination support", "limit, marker and links"),
    "port-security": ("Port Security", "Anti-spoofing, on or off"),
    "project-id": ("project_id field enabled", "project_id beside tenant_id"),
    "provider": ("Provider Network", "Which segment a network is"),
    "qos": ("Quality of Service", "Bandwidth limits of ports"),
    "qos-bw-limit-direction": ("Direction for QoS bandwidth limit rule", "Both directions"),
    "qos-default": ("QoS default policy", "A policy of a project's new networks"),
    "qos-fip": ("Floating IP QoS", "Bandwidth limits of floating IPs"),
    "qos-gateway-ip": ("Gateway IP QoS", "Bandwidth limits of a router's gateway"),
    "qos-rule-type-filter": ("Filters of QoS rule types", "all_supported and all_rules"),
    "qos-rule-type-details": ("Details of QoS rule types", "A kind of rule by itself"),
    "qos-rules-alias": ("Ability to modify QoS rules with an alias", "Rules by their own id"),
    "quotas": ("Quota management support", "Limits of projects"),
    "quota_details": ("Quota details management support", "Limits with usage"),
    "rbac-policies": ("RBAC Policies", "Networks and others shared with projects"),
    "rbac-address-group": ("RBAC for address groups", "They can be shared"),
    "rbac-address-scope": ("RBAC for address scopes", "They can be shared"),
    "rbac-security-groups": ("RBAC for security groups", "They can be shared"),
    "rbac-subnetpool": ("RBAC for subnet pools", "They can be shared"),
    "revision-if-match": ("If-Match constraints based on revision_number", "412 when it changed"),
    "router": ("Neutron L3 Router", "Routers and floating IPs"),
    "security-group": ("security-group", "What may reach a port"),
    "security-groups-default-rules": ("Default rules of security groups", "What new groups begin with"),
    "security-groups-normalized-cidr": ("Normalized CIDR of rules", "The network of a prefix"),
    "security-groups-remote-address-group": ("Remote address group", "Rules that name address groups"),
    "security-groups-shared-filtering": ("Shared security groups filter", "shared=True"),
    "security-groups-rules-belongs-to-default-sg": ("Rules of default groups", "Marked as such"),
    "service-type": ("Neutron Service Type Management", "Providers of services"),
    "sorting": ("Sorting support", "sort_key and sort_dir"),
    "standard-attr-description": ("standard-attr-description", "A text of each object"),
    "standard-attr-revisions": ("Resource revision numbers", "Counted up with each change"),
    "standard-attr-tag": ("Tag support for resources with standard attribute", "Tags"),
    "standard-attr-timestamp": ("Resource timestamps", "created_at and updated_at"),
    "stateful-security-group": ("Stateful security group", "Connection tracking, on or off"),
    "subnet-service-types": ("Subnet service types", "Subnets for some device owners"),
    "subnet_onboard": ("Subnet Onboard", "Subnets taken into a pool"),
    "subnet_allocation": ("Subnet Allocation", "Subnets from pools"),
    "subnetpool-prefix-ops": ("Subnet Pool Prefix Operations", "Prefixes added and taken"),
}
_UPDATED = "2026-01-01T00:00:00-00:00"


def view(alias: str) -> dict[str, Any]:
    name, description = EXTENSIONS[alias]
    return {"alias": alias, "name": name, "description": description, "updated": _UPDATED, "links": []}


class ExtensionsController(Controller):
    """What this API can do beyond its core."""

    @operation("GET", "/extensions", policy="get_extension")
    def index(self, call: Call) -> dict[str, Any]:
        """List extensions."""
        return {"extensions": [view(alias) for alias in EXTENSIONS]}

    @operation("GET", "/extensions/{alias}", policy="get_extension")
    def show(self, call: Call) -> dict[str, Any]:
        """Show an extension."""
        alias = call.params["alias"]
        if alias not in EXTENSIONS:
            raise not_found("HTTPNotFound", "Extension", alias)
        return {"extension": view(alias)}

    @operation("GET", "/service-providers", policy="get_service_provider")
    def service_providers(self, call: Call) -> dict[str, Any]:
        """List providers of services: there is one of routers."""
        return {"service_providers": [{"service_type": "L3_ROUTER_NAT", "name": "haneul", "default": True}]}
