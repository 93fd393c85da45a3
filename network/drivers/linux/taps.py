"""Guests' tap devices: made here and persistent, opened by QEMU by name.

The agent makes them, so that a port is wired, filtered and limited before its guest says a word, and so that a guest
that is stopped and started finds its port as it was. QEMU (libvirt with ``managed='no'``) opens them as
root, or as ``[network_linux] tap_user``.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import struct
from collections.abc import Iterable
from pathlib import Path

from core.errors import DriverError
from lifecycle.host_network import Network, Port
from network.drivers.linux.bridges import bridge_name
from network.drivers.linux.netlink import Link, Links, alias_of, explained, speak_nothing

KIND = "port"
TUN = "/dev/net/tun"
TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000


def is_tap(port: Port) -> bool:
    """Is it a guest's port? Those of services (DHCP, routers) are legs of namespaces, made elsewhere."""
    return not port.device_owner.startswith("network:")


def make_tap(name: str, owner: int | None = None) -> None:
    """A persistent tap device. It outlives this process; the open file only makes it.

    vnet_hdr says that guests may leave checksums and segmentation to the host.
    """
    with explained(f"make tap device {name}"):
        handle = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
        try:
            request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
            fcntl.ioctl(handle, TUNSETIFF, request)
            if owner is not None:
                fcntl.ioctl(handle, TUNSETOWNER, owner)
            fcntl.ioctl(handle, TUNSETPERSIST, 1)
        finally:
            os.close(handle)


class Taps:
    """The tap devices of this network namespace."""

    def __init__(self, links: Links, user: str | None) -> None:
        self.links = links
        self.user = user
        self._owner: int | None = None

    def start(self) -> None:
        """Can taps be made here? Raises DriverError with what is missing."""
        if not Path(TUN).exists():
            raise DriverError(f"{TUN} is missing: load the kernel module tun (modprobe tun)")
        if self.user:
            try:
                self._owner = pwd.getpwnam(self.user).pw_uid
            except KeyError:
                raise DriverError(f"[network_linux] tap_user: there is no user {self.user}") from None

    def ensure(self, port: Port, network: Network) -> None:
        """The port's tap, on its network's bridge; up if the port's and the network's admin states are."""
        link = self.links.get(port.device)
        if link is not None and not link.is_ours(KIND, port.id):
            # QEMU of an earlier release, or an operator, may have made it: it is taken over only if it
            # is a tap that nobody else has put to use
            if link.kind != "tun" or link.alias or link.master:
                raise DriverError(f"device {port.device} is not haneul's: port {port.id} can't have its tap")
            self.links.change(link, ifalias=alias_of(KIND, port.id))
        if link is None:
            link = self._make(port)
        bridge = self.links.need(bridge_name(network.id))
        up = port.admin_state_up and network.admin_state_up
        if not up and link.up:
            self.links.change(link, state="down")
            link = self.links.need(port.device)
        speak_nothing(port.device)
        self.links.settle(link, alias=alias_of(KIND, port.id), mtu=network.mtu, up=up, master=bridge.index)

    def _make(self, port: Port) -> Link:
        self.links.forget(port.device)
        make_tap(port.device, self._owner)
        link = self.links.need(port.device)
        self.links.change(link, ifalias=alias_of(KIND, port.id))
        return self.links.need(port.device)

    def remove(self, port_id: str, device: str) -> None:
        link = self.links.get(device)
        if link is not None and link.is_ours(KIND, port_id):
            self.links.delete(device)

    def remove_strangers(self, wanted: Iterable[str]) -> list[str]:
        """Remove haneul's taps of ports that aren't ``wanted``; returns those ports' ids."""
        keep = set(wanted)
        gone = {port_id: link for port_id, link in self.links.ours(KIND).items() if port_id not in keep}
        for link in gone.values():
            self.links.delete(link.name)
        return sorted(gone)
