"""ImagePropertiesFilter: the host can run the image's architecture, hypervisor type and vm mode."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from scheduler.columns import BoolArray
from scheduler.filters.base import Filter, Watch
from scheduler.host_view import Hosts
from scheduler.request import PlacementRequest

# The name of each property, and the names it had in old images.
ARCHITECTURE = ("hw_architecture", "architecture")
HYPERVISOR_TYPE = ("img_hv_type", "hypervisor_type")
VM_MODE = ("hw_vm_mode", "vm_mode")
HYPERVISOR_VERSION = ("img_hv_requested_version", "hypervisor_version_requires")

_SYNONYMS = {
    "architecture": {"amd64": "x86_64", "x64": "x86_64", "i386": "i686", "i486": "i686", "i586": "i686"},
    "hypervisor": {"baremetal": "ironic", "xenapi": "xen"},
    "mode": {"hv": "hvm", "pv": "xen", "xenpv": "xen"},
}
_COMPARISON: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
_TERM = re.compile(r"^\s*(<=|>=|==|!=|<|>)\s*(\d+(?:\.\d+)*)\s*$")


def _property(properties: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((str(properties[name]) for name in names if properties.get(name)), None)


def _canonical(kind: str, value: str | None) -> str | None:
    if value is None:
        return None
    value = value.strip().lower()
    return _SYNONYMS[kind].get(value, value)


def version_satisfies(version: Any, wanted: str) -> bool:
    """Whether a hypervisor version (6002000 or '6.2.0') satisfies terms like '>=6.0,<7'.

    A host without a version passes (upstream does so); a malformed term passes nothing.
    """
    if version in (None, ""):
        return True
    if isinstance(version, int):
        have = [version // 1_000_000, version // 1000 % 1000, version % 1000]
    else:
        have = [int(part) for part in re.findall(r"\d+", str(version))]
    for term in wanted.split(","):
        parsed = _TERM.match(term)
        if parsed is None:
            return False
        want = [int(part) for part in parsed[2].split(".")]
        length = max(len(have), len(want))
        left, right = (side + [0] * (length - len(side)) for side in (have, want))
        if not _COMPARISON[parsed[1]](left, right):
            return False
    return True


class ImagePropertiesFilter(Filter):
    """Passes hosts that support (architecture, hypervisor type, vm mode) of the image.

    Properties that the image does not have are not asked for; a host that says nothing about what it
    supports passes only images that ask nothing.
    """

    watches = Watch.NOTHING
    personal = False

    def _wanted(self, request: PlacementRequest) -> tuple[str | None, str | None, str | None]:
        properties = request.image_properties
        architecture = _property(properties, ARCHITECTURE)
        if architecture is None:
            architecture = self.conf.filter_scheduler.image_properties_default_architecture
        return (
            _canonical("architecture", architecture),
            _canonical("hypervisor", _property(properties, HYPERVISOR_TYPE)),
            _canonical("mode", _property(properties, VM_MODE)),
        )

    def applies(self, request: PlacementRequest) -> bool:
        version = _property(request.image_properties, HYPERVISOR_VERSION)
        return version is not None or any(self._wanted(request))

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        wanted = self._wanted(request)
        version = _property(request.image_properties, HYPERVISOR_VERSION)

        def supported(triples: frozenset[tuple[str, str, str]]) -> bool:
            return any(
                all(want is None or want == _canonical(kind, have) for kind, want, have in rows)
                for rows in (zip(_SYNONYMS, wanted, triple, strict=True) for triple in triples)
            )

        if not any(wanted):
            passed = hosts.supported_instances.test(lambda _: True)
        else:
            passed = hosts.supported_instances.test(supported)
        if version is not None:
            passed &= hosts.capabilities.test(
                lambda value: version_satisfies(value.get("hypervisor_version"), version)
            )
        return passed

    def reason(self, request: PlacementRequest) -> str:
        asked = [word for word in self._wanted(request) if word]
        version = _property(request.image_properties, HYPERVISOR_VERSION)
        if version is not None:
            asked.append(f"hypervisor version {version}")
        return f"unable to run the image ({', '.join(asked)})"
