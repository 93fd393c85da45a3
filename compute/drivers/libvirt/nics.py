"""NICs of a guest that exists: plugged in and pulled out, in what is defined and, while it runs, live."""

from __future__ import annotations

import logging
import socket
from typing import Any

import libvirt

from compute.drivers.libvirt import domains
from compute.drivers.libvirt.domain_xml import nic_element
from core.errors import DriverError

LOG = logging.getLogger(__name__)
_TAP_S = 10.0


def attach(domain: Any, nic: dict[str, Any], properties: dict[str, Any]) -> None:
    """Content when the guest has it already."""
    xml = domains.text(nic_element(nic, properties))
    if _find(domain, nic["mac_address"], live=False) is None:
        domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    if domain.isActive() and _find(domain, nic["mac_address"], live=True) is None:
        domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def detach(domain: Any, mac_address: str, *, attempts: int, wait_s: float) -> None:
    """Content when the guest has none such.

    :raises DriverError: the guest does not let go (it is asked several times).
    """
    element = _find(domain, mac_address, live=False)
    if element is not None:
        domain.detachDeviceFlags(domains.text(element), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    for _ in range(attempts):
        element = _find(domain, mac_address, live=True) if domain.isActive() else None
        if element is None:
            return
        try:
            domain.detachDeviceFlags(domains.text(element), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            # the guest was asked before and has not answered yet, or answered just now
            LOG.info("pulling out %s: %s", mac_address, error)
        if domains.wait(
            lambda: not domain.isActive() or _find(domain, mac_address, live=True) is None, wait_s
        ):
            return
    raise DriverError(f"the guest does not let go of its interface {mac_address}")


def wait_for_taps(domain: Any) -> None:
    """After a restart of the host the network agent makes the taps anew: it may need a moment.

    :raises DriverError: one is missing.
    """
    tree = domains.tree(domain, live=False)
    names = tree.xpath("devices/interface[@type='ethernet']/target[@managed='no']/@dev")
    known: set[str] = set()

    def all_there() -> bool:
        known.update(name for _, name in socket.if_nameindex())
        return known.issuperset(names)

    if names and not domains.wait(all_there, _TAP_S):
        missing = ", ".join(sorted(set(names) - known))
        raise DriverError(f"the network agent of this host has not made {missing}")


def _find(domain: Any, mac_address: str, *, live: bool) -> Any:
    for element in domains.tree(domain, live=live).findall("devices/interface"):
        if element.find("mac").get("address") == mac_address:
            return element
    return None
