"""Servers as the API shows them, by microversion and by who asks.

A ``View`` is made once per request: what policy lets the asker see and how
links begin is found out once, not once per server.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from api.common.operations import Call
from api.compute import common
from api.compute.server_status import UNKNOWN, status_of
from api.compute.versions import PREFIX
from db.servers import Row

_WITH_PROGRESS = frozenset({"ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING"})
_WITH_FAULT = frozenset({"ERROR", "DELETED"})
INSTANCE_NAME = "instance-{}"


@functools.lru_cache(maxsize=4096)
def host_id(project_id: str, host: str) -> str:
    """What a project sees of a host's name: the same for its own servers on it, and no more."""
    return hashlib.sha224((project_id + host).encode()).hexdigest()


def addresses(network_info: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """network_info entries ({"label", "addresses": [{"address", "version", "type", "mac"}]}) by network."""
    result: dict[str, list[dict[str, Any]]] = {}
    for entry in network_info:
        shown = result.setdefault(entry["label"], [])
        for each in entry.get("addresses", ()):
            shown.append(
                {
                    "version": each["version"],
                    "addr": each["address"],
                    "OS-EXT-IPS:type": each.get("type", "fixed"),
                    "OS-EXT-IPS-MAC:mac_addr": each.get("mac", ""),
                }
            )
    return result


def security_groups(row: Row) -> list[dict[str, str]]:
    """The groups of all its NICs, each once; until it has one, those that were asked for."""
    if row["network_info"]:
        names = dict.fromkeys(name for nic in row["network_info"] for name in nic.get("security_groups", ()))
    else:
        names = dict.fromkeys(row["system_metadata"].get("security_groups", ()))
    return [{"name": name} for name in names]


class View:
    """How one request sees servers."""

    def __init__(self, call: Call) -> None:
        root = call.request.application_url.rstrip("/")
        self._self, self._bookmark = f"{root}/{PREFIX}", root
        self._minor = call.version.minor
        self._extended = call.allowed("os_compute_api:os-extended-server-attributes")
        self._extra_specs = self._minor >= 47 and call.allowed(
            "os_compute_api:servers:show:flavor-extra-specs"
        )
        self.sees_host_status = self._minor >= 16 and call.allowed("os_compute_api:servers:show:host_status")
        self.sees_unknown_hosts = (
            self._minor >= 16
            and not self.sees_host_status
            and call.allowed("os_compute_api:servers:show:host_status:unknown-only")
        )
        self.sees_deleted = common.is_admin(call)
        self.needs_everything = self._extended and self._minor >= 3
        self.needs_tags = self._minor >= 26

    def links(self, path: str) -> list[dict[str, str]]:
        return [
            {"rel": "self", "href": f"{self._self}/{path}"},
            {"rel": "bookmark", "href": f"{self._bookmark}/{path}"},
        ]

    def _bookmark_only(self, path: str) -> list[dict[str, str]]:
        return [{"rel": "bookmark", "href": f"{self._bookmark}/{path}"}]

    def brief(self, row: Row) -> dict[str, Any]:
        """In the short list."""
        return {"id": row["id"], "name": row["name"], "links": self.links(f"servers/{row['id']}")}

    def unreachable(self, mapping: Row, *, detail: bool) -> dict[str, Any]:
        """A server whose cell does not answer (2.69): what the global database knows of it."""
        server_id = mapping["server_id"]
        result = {"id": server_id, "status": UNKNOWN, "links": self.links(f"servers/{server_id}")}
        if detail:
            result["tenant_id"] = mapping["project_id"]
            result["created"] = common.zulu(mapping["created_at"])
        return result

    def full(
        self,
        row: Row,
        *,
        tags: Sequence[str] = (),
        host_status: str | None = None,
        groups: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """As show and detail give it. ``groups``: only where the call shows them (2.71)."""
        status = status_of(row["vm_state"], row["task_state"])
        result = self._always(row, status)
        if groups_of_ports := security_groups(row):
            # as upstream: without any there is no such key
            result["security_groups"] = groups_of_ports
        if status in _WITH_PROGRESS:
            result["progress"] = row["progress"]
        if status in _WITH_FAULT and row["fault"]:
            result["fault"] = self._fault(row["fault"], row)
        if self._extended:
            self._extend(result, row)
        if host_status is not None:
            result["host_status"] = host_status
        if self._minor >= 26:
            result["tags"] = list(tags)
        if self._minor >= 71 and groups is not None:
            result["server_groups"] = list(groups)
        self._since(result, row)
        return result

    def _always(self, row: Row, status: str) -> dict[str, Any]:
        """What every version shows, to everyone."""
        server_id, network_info = row["id"], row["network_info"]
        return {
            "id": server_id,
            "name": row["name"],
            "status": status,
            "tenant_id": row["project_id"],
            "user_id": row["user_id"],
            "metadata": row["metadata"],
            "hostId": host_id(row["project_id"], row["host"]) if row["host"] else "",
            "image": self._image(row["image_id"]),
            "flavor": self._flavor(row),
            "created": common.zulu(row["created_at"]),
            "updated": common.zulu(row["updated_at"]),
            "addresses": addresses(network_info) if network_info else {},
            "accessIPv4": row["access_ip_v4"] or "",
            "accessIPv6": row["access_ip_v6"] or "",
            "links": self.links(f"servers/{server_id}"),
            "OS-DCF:diskConfig": row["disk_config"],
            "OS-EXT-AZ:availability_zone": row["availability_zone"] or "",
            "config_drive": "True" if row["config_drive"] else "",
            "key_name": row["key_name"],
            "OS-SRV-USG:launched_at": common.micro(row["launched_at"]),
            "OS-SRV-USG:terminated_at": common.micro(row["terminated_at"]),
            "OS-EXT-STS:task_state": row["task_state"],
            "OS-EXT-STS:vm_state": row["vm_state"],
            "OS-EXT-STS:power_state": row["power_state"],
            "os-extended-volumes:volumes_attached": self._volumes(row["block_devices"]),
        }

    def _since(self, result: dict[str, Any], row: Row) -> None:
        """What microversions have added from the row alone."""
        minor = self._minor
        if minor >= 9:
            result["locked"] = row["locked_by"] is not None
        if minor >= 19:
            result["description"] = row["description"]
        if minor >= 63:
            result["trusted_image_certificates"] = row["system_metadata"].get("trusted_image_certificates")
        if minor >= 73:
            result["locked_reason"] = row["locked_reason"]
        if minor >= 90:
            result["OS-EXT-SRV-ATTR:hostname"] = row["hostname"]
        if minor >= 96:
            result["pinned_availability_zone"] = row["pinned_availability_zone"]

    def _extend(self, result: dict[str, Any], row: Row) -> None:
        attribute = "OS-EXT-SRV-ATTR:"
        result[attribute + "host"] = row["host"]
        result[attribute + "hypervisor_hostname"] = row["node"]
        result[attribute + "instance_name"] = INSTANCE_NAME.format(row["id"])
        if self._minor >= 3:
            image = row["image"] or {}
            properties = image.get("properties") or {}
            result[attribute + "reservation_id"] = row["reservation_id"]
            result[attribute + "launch_index"] = row["launch_index"]
            result[attribute + "hostname"] = row["hostname"]
            result[attribute + "kernel_id"] = properties.get("kernel_id", "")
            result[attribute + "ramdisk_id"] = properties.get("ramdisk_id", "")
            result[attribute + "root_device_name"] = row["root_device_name"]
            result[attribute + "user_data"] = row["user_data"]

    def _image(self, image_id: str | None) -> Any:
        if not image_id:
            return ""
        return {"id": image_id, "links": self._bookmark_only(f"images/{image_id}")}

    def _flavor(self, row: Row) -> dict[str, Any]:
        flavor = row["flavor"]
        if self._minor < 47:
            return {"id": row["flavor_id"], "links": self._bookmark_only(f"flavors/{row['flavor_id']}")}
        result = {
            "original_name": flavor["name"],
            "vcpus": row["vcpus"],
            "ram": row["memory_mib"],
            "disk": row["root_gib"],
            "ephemeral": row["ephemeral_gib"],
            "swap": flavor.get("swap_mib", 0),
        }
        if self._extra_specs:
            result["extra_specs"] = flavor.get("extra_specs") or {}
        return result

    def _volumes(self, devices: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        attached = []
        for device in devices:
            if device.get("volume_id"):
                shown = {"id": device["volume_id"]}
                if self._minor >= 3:
                    shown["delete_on_termination"] = bool(device.get("delete_on_termination"))
                attached.append(shown)
        return attached

    def _fault(self, fault: Mapping[str, Any], row: Row) -> dict[str, Any]:
        result = {
            "code": fault.get("code", 500),
            "created": fault.get("created") or common.zulu(row["updated_at"]),
            "message": fault.get("message", ""),
        }
        # the step and the inner cause are the operator's; the owner has the message
        if self._extended and fault.get("details"):
            result["details"] = fault["details"]
        return result
