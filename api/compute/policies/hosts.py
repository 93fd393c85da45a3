"""Rules of what administrators see of hosts: services, hypervisors, aggregates, zones, os-hosts."""

from __future__ import annotations

from api.compute.policies.base import plain, rule
from core.policy import ADMIN, ANYONE

_HV = "/os-hypervisors"
_AG = "/os-aggregates/{aggregate_id}"
_HOST = "/os-hosts/{host}"

RULES = [
    rule("os-availability-zone:list", ANYONE, "List zones.", ("GET", "/os-availability-zone")),
    rule("os-availability-zone:detail", ADMIN, "With hosts.", ("GET", "/os-availability-zone/detail")),
    rule("os-services:list", ADMIN, "List services.", ("GET", "/os-services")),
    rule("os-services:update", ADMIN, "Change a service.", ("PUT", "/os-services/{service_id}")),
    rule("os-services:delete", ADMIN, "Forget a service.", ("DELETE", "/os-services/{service_id}")),
    rule("os-hypervisors:list", ADMIN, "List hypervisors.", ("GET", _HV)),
    rule("os-hypervisors:list-detail", ADMIN, "List hypervisors, all of it.", ("GET", _HV + "/detail")),
    rule("os-hypervisors:statistics", ADMIN, "Sum up hypervisors.", ("GET", _HV + "/statistics")),
    rule("os-hypervisors:show", ADMIN, "Show a hypervisor.", ("GET", _HV + "/{hypervisor_id}")),
    rule("os-hypervisors:uptime", ADMIN, "Show its uptime.", ("GET", _HV + "/{hypervisor_id}/uptime")),
    rule("os-hypervisors:search", ADMIN, "Search by hostname.", ("GET", _HV + "/{hypervisor_id}/search")),
    rule("os-hypervisors:servers", ADMIN, "List servers.", ("GET", _HV + "/{hypervisor_id}/servers")),
    rule("os-aggregates:index", ADMIN, "List aggregates.", ("GET", "/os-aggregates")),
    rule("os-aggregates:create", ADMIN, "Create an aggregate.", ("POST", "/os-aggregates")),
    rule("os-aggregates:show", ADMIN, "Show an aggregate.", ("GET", _AG)),
    rule("os-aggregates:update", ADMIN, "Change name or zone.", ("PUT", _AG)),
    rule("os-aggregates:delete", ADMIN, "Delete an aggregate.", ("DELETE", _AG)),
    rule("os-aggregates:add_host", ADMIN, "Add a host.", ("POST", _AG + "/action")),
    rule("os-aggregates:remove_host", ADMIN, "Remove a host.", ("POST", _AG + "/action")),
    rule("os-aggregates:set_metadata", ADMIN, "Set metadata.", ("POST", _AG + "/action")),
    plain("compute:aggregates:images", ADMIN, "Have hosts fetch images.", _AG + "/images", "POST"),
    plain("haneul:aggregates:images", ADMIN, "See which have.", "/haneul/aggregates/{aggregate_id}/images"),
    rule("os-hosts:list", ADMIN, "List hosts.", ("GET", "/os-hosts")),
    rule("os-hosts:show", ADMIN, "Show what a host has.", ("GET", _HOST)),
    rule("os-hosts:update", ADMIN, "Enable or disable a host.", ("PUT", _HOST)),
    rule("os-hosts:reboot", ADMIN, "Reboot a host.", ("GET", _HOST + "/reboot")),
    rule("os-hosts:shutdown", ADMIN, "Shut a host down.", ("GET", _HOST + "/shutdown")),
    rule("os-hosts:start", ADMIN, "Start a host.", ("GET", _HOST + "/startup")),
]
