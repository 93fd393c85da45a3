"""Devices over netlink: one socket under a lock, names and aliases instead of indexes.

Every device that haneul makes carries an alias (``ip link`` shows it) of the form
``haneul:<kind>:<id>``: what has none is never touched, whatever its name says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError

from core.errors import DriverError

IFF_UP = 0x1
SKIP_STATISTICS = 8
"""RTEXT_FILTER_SKIP_STATS: half of a device's description are counters that nobody here reads"""
ALIAS_PREFIX = "haneul"


def alias_of(kind: str, identifier: str) -> str:
    return f"{ALIAS_PREFIX}:{kind}:{identifier}"


@dataclasses.dataclass(frozen=True)
class Link:
    """What matters of a device. ``data`` are the attributes of its kind, by their netlink names."""

    index: int
    name: str
    alias: str | None
    kind: str | None
    mtu: int
    up: bool
    mac: str | None
    master: int
    """index of its bridge, 0 if none"""
    parent: int
    """index of the device that it is a VLAN of, 0 if none"""
    queue: str | None
    """kind of its root queue: noqueue, tbf, ..."""
    data: dict[str, Any]

    def is_ours(self, kind: str, identifier: str) -> bool:
        return self.alias == alias_of(kind, identifier)


def _link(message: Any) -> Link:
    info = message.get("linkinfo")
    data = info.get("data") if info else None
    return Link(
        index=message["index"],
        name=message.get("ifname"),
        alias=message.get("ifalias"),
        kind=info.get("kind") if info else None,
        mtu=message.get("mtu") or 0,
        up=bool(message["flags"] & IFF_UP),
        mac=message.get("address"),
        master=message.get("master") or 0,
        parent=message.get("link") or 0,
        queue=message.get("qdisc"),
        data=dict(data["attrs"]) if data and "attrs" in data else {},
    )


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Netlink's refusals as DriverError that says what was tried."""
    try:
        yield
    except NetlinkError as error:
        text = errno.errorcode.get(error.code, str(error.code))
        raise DriverError(f"{what}: {text}", cause=error) from error
    except OSError as error:
        raise DriverError(f"{what}: {error.strerror or error}", cause=error) from error


class Links:
    """The devices of one network namespace: this process's, or ``netns`` by name."""

    def __init__(self, netns: str | None = None) -> None:
        with explained("open a netlink socket"):
            self._route = pyroute2.NetNS(netns, flags=0) if netns else pyroute2.IPRoute()
        self._lock = threading.RLock()
        self._known: dict[str, Link | None] | None = None
        self._complete = False
        """is every device in ``_known``?"""

    def close(self) -> None:
        self._route.close()

    @contextlib.contextmanager
    def route(self, what: str) -> Iterator[Any]:
        """The pyroute2 object, for what has no method here; refusals say ``what``."""
        with self._lock, explained(what):
            yield self._route

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Within the block, devices are looked up in one listing; what is changed through here is looked up anew."""
        with self._lock:
            self._known = {link.name: link for link in self.all()}
            self._complete = True
            try:
                yield
            finally:
                self._known = None

    def forget(self, name: str) -> None:
        """A device comes, goes or changes: what a snapshot says of it doesn't hold any more."""
        if self._known is not None:
            self._known.pop(name, None)
            self._complete = False

    def get(self, name: str) -> Link | None:
        """The device of this name, or None."""
        with self._lock, explained(f"look up {name}"):
            if self._known is not None and name in self._known:
                return self._known[name]
            if self._known is not None and self._complete:
                return None
            try:
                # not get_links: that lists all devices and drops the others
                found = list(self._route.link("get", ifname=name, ext_mask=SKIP_STATISTICS))
            except NetlinkError as error:
                if error.code == errno.ENODEV:
                    return None
                raise
            link = _link(found[0]) if found else None
            if self._known is not None and link is not None:
                self._known[name] = link
        return link

    def need(self, name: str) -> Link:
        """The device of this name. Raises DriverError if there is none."""
        found = self.get(name)
        if found is None:
            raise DriverError(f"there is no device {name}")
        return found

    def all(self) -> list[Link]:
        with self._lock, explained("list devices"):
            if self._known is not None and self._complete:
                return [link for link in self._known.values() if link is not None]
            return [_link(message) for message in self._route.get_links(ext_mask=SKIP_STATISTICS)]

    def ours(self, kind: str) -> dict[str, Link]:
        """{id: device} of those that haneul made, of one kind."""
        prefix = alias_of(kind, "")
        return {
            link.alias.removeprefix(prefix): link
            for link in self.all()
            if link.alias and link.alias.startswith(prefix)
        }

    def add(self, name: str, kind: str, **options: Any) -> Link:
        with self._lock, explained(f"make {kind} device {name}"):
            self.forget(name)
            self._route.link("add", ifname=name, kind=kind, **options)
        return self.need(name)

    def change(self, link: Link, **options: Any) -> None:
        """``options`` as pyroute2 takes them: state="up", mtu=, master=, ifalias=, ..."""
        with self._lock, explained(f"change device {link.name}"):
            self.forget(link.name)
            self._route.link("set", index=link.index, **options)

    def settle(self, link: Link, *, alias: str | None = None, mtu: int, up: bool, master: int = 0) -> bool:
        """Bring a device's common attributes right; says whether anything was changed.

        mtu first, so that the bridge never shrinks to a new member's default; up last.
        """
        wanted: dict[str, Any] = {}
        if alias is not None and link.alias != alias:
            wanted["ifalias"] = alias
        if link.mtu != mtu:
            wanted["mtu"] = mtu
        if wanted:
            self.change(link, **wanted)
        if link.master != master:
            self.change(link, master=master)
        if link.up != up:
            self.change(link, state="up" if up else "down")
        return bool(wanted) or link.master != master or link.up != up

    def delete(self, name: str) -> None:
        """Gone, or not there."""
        link = self.get(name)
        if link is None:
            return
        with self._lock, explained(f"remove device {name}"):
            self.forget(name)
            try:
                self._route.link("del", index=link.index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise

    def addresses(self, link: Link) -> set[str]:
        """{"192.0.2.1/24", ...}"""
        with self._lock, explained(f"list addresses of {link.name}"):
            found = self._route.get_addr(index=link.index)
            return {f"{each.get('address')}/{each['prefixlen']}" for each in found}


def sysctl(path: str, value: str) -> None:
    """Write ``net/...`` if it isn't so already; /proc/sys/net is this thread's network namespace."""
    file = Path("/proc/sys") / path
    with explained(f"set {path}"):
        if file.read_text().strip() != value:
            file.write_text(value)


def speak_nothing(device: str) -> None:
    """The host's own IP stack neither speaks on a device nor answers there: guests are behind it."""
    if Path("/proc/sys/net/ipv6").exists():
        sysctl(f"net/ipv6/conf/{device}/disable_ipv6", "1")
    sysctl(f"net/ipv4/conf/{device}/arp_ignore", "8")
