"""Names of a network's ports on other hosts: asked of the Network API, remembered for a short while.

A host's dnsmasq knows the ports of this host. What else is asked for in the network's domain, or about addresses of
its subnets, comes to the agent (``dns_relay``), which knows from the namespace which network the question is from: so a guest learns of its
own network's ports and of no others. Without ``[service_credentials]`` nothing is asked.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from keystoneauth1 import exceptions as keystone_exceptions
from oslo_config import cfg

from core import clients
from core.errors import Unavailable

LOG = logging.getLogger(__name__)
_A, _AAAA, _PTR, _IN = 1, 28, 12, 1
_TTL_S = 30
_ABSENT_S = 5
_MOST = 10_000
_SERVFAIL, _NXDOMAIN, _REFUSED = 2, 3, 5
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9-]{1,63})*")
_AUTOMATIC = re.compile(r"host-([0-9a-f-]+)")


class Names:
    """Answers to DNS questions about ports."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self.usable = clients.configured(conf)
        self._adapter: Any = None
        self._known: dict[tuple[str, str], tuple[float, list[str] | None]] = {}
        self._lock = threading.Lock()

    def answer(
        self, network_id: str, domain: str, question: bytes, cidrs: Sequence[str] = ()
    ) -> bytes | None:
        """The message that answers ``question``; None: it is neither about a name in ``domain`` nor an address in ``cidrs``."""
        asked = _read(question)
        if asked is None or not self.usable or not domain:
            return None
        name, kind, end = asked
        address = _address_of(name)
        if address is not None:
            known = any(address in ipaddress.ip_network(cidr) for cidr in cidrs)
        else:
            known = name.endswith(f".{domain.lower()}")
        if not known:
            return None
        try:
            if address is not None:
                found = self._remembered(network_id, str(address))
            else:
                found = self._addresses(network_id, name[: -len(domain) - 1])
        except Unavailable as error:
            LOG.warning("%s: %s", error.message, error.cause)
            return _message(question, end, _SERVFAIL, [])
        if found is None:
            return _message(question, end, _NXDOMAIN, [])
        records = _names(found, domain) if address is not None else _numbers(found)
        return _message(question, end, 0, [each for each in records if each[0] == kind])

    def _addresses(self, network_id: str, name: str) -> list[str] | None:
        """Of the ports with this name; None: there is none. :raises Unavailable:"""
        return self._remembered(network_id, name) if _NAME.fullmatch(name) else None

    def _remembered(self, network_id: str, name: str) -> list[str] | None:
        """What is known of a name or an address, asked again when it is old. :raises Unavailable:"""
        key, now = (network_id, name), time.monotonic()
        with self._lock:
            known = self._known.get(key)
            if known is not None and known[0] > now:
                return known[1]
            if len(self._known) > _MOST:
                self._known.clear()
            if self._adapter is None:
                self._adapter = clients.service_adapter(self._conf, "network")
        found = self._ask_name(network_id, name) if _plain(name) is None else self._ask_who(network_id, name)
        with self._lock:
            self._known[key] = (now + (_ABSENT_S if found is None else _TTL_S), found)
        return found

    def _ask_name(self, network_id: str, name: str) -> list[str] | None:
        """The addresses of the ports with this name."""
        only = _address_in(name)
        ports = self._ports(
            network_id, name, {"fixed_ips": f"ip_address={only}"} if only else {"dns_name": name}
        )
        wanted = "" if only else name
        mine = [port for port in ports if (port.get("dns_name") or "").lower() == wanted]
        found = [each["ip_address"] for port in mine for each in port.get("fixed_ips") or ()]
        return [each for each in found if only in (None, each)] if mine else None

    def _ask_who(self, network_id: str, address: str) -> list[str] | None:
        """The names of the port with this address, as dnsmasq calls it where it is."""
        ports = self._ports(network_id, address, {"fixed_ips": f"ip_address={address}"})
        automatic = "host-" + re.sub("[.:]", "-", address)
        return [(port.get("dns_name") or automatic).lower() for port in ports] or None

    def _ports(self, network_id: str, name: str, which: dict[str, str]) -> list[dict[str, Any]]:
        query = {"network_id": network_id, "fields": ["dns_name", "fixed_ips"], **which}
        try:
            answer = self._adapter.get("/v2.0/ports", params=query, raise_exc=False)
            if answer.status_code != 200:
                raise Unavailable(
                    f"the network service could not say who is {name}", cause=answer.status_code
                )
            return list(answer.json().get("ports", []))
        except (keystone_exceptions.ClientException, ValueError) as error:
            raise Unavailable(f"the network service could not say who is {name}", cause=error) from error


def arpa_zone(cidr: str) -> str:
    """The zone of a subnet's backward questions: on the boundary of a label at or before its prefix."""
    network = ipaddress.ip_network(cidr)
    step, all_bits = (8, 32) if network.version == 4 else (4, 128)
    labels = network.network_address.reverse_pointer.split(".")
    kept = network.prefixlen // step
    return ".".join(labels[all_bits // step - kept :])


def _plain(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Which address a backward question is about: ``5.0.0.10.in-addr.arpa``."""
    labels = name.split(".")
    if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
        return _plain(".".join(reversed(labels[:4])))
    if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
        nibbles = "".join(reversed(labels[:32]))
        return _plain(":".join(nibbles[at : at + 4] for at in range(0, 32, 4)))
    return None


def _numbers(addresses: Iterable[str]) -> list[tuple[int, bytes]]:
    found = [ipaddress.ip_address(each) for each in addresses]
    return [(_A if each.version == 4 else _AAAA, each.packed) for each in found]


def _names(names: Iterable[str], domain: str) -> list[tuple[int, bytes]]:
    return [
        (_PTR, b"".join(bytes([len(each)]) + each.encode() for each in f"{name}.{domain}".split(".")) + b"\0")
        for name in names
    ]


def _address_in(name: str) -> str | None:
    """The address in the name of a port that has no other: ``host-10-0-0-5``."""
    if (match := _AUTOMATIC.fullmatch(name)) is None:
        return None
    for mark in (".", ":"):
        try:
            return str(ipaddress.ip_address(match[1].replace("-", mark)))
        except ValueError:
            continue
    return None


def _read(question: bytes) -> tuple[str, int, int] | None:
    """(name in lower case, type, where the question ends); None: nothing that is answered here."""
    labels = []
    position = 12
    try:
        if question[2] & 0xF8 or struct.unpack_from("!H", question, 4)[0] != 1:
            return None
        while length := question[position]:
            if length > 63:
                return None
            labels.append(question[position + 1 : position + 1 + length].decode("ascii").lower())
            position += 1 + length
        kind, class_ = struct.unpack_from("!HH", question, position + 1)
    except (IndexError, struct.error, UnicodeDecodeError):
        return None
    return (".".join(labels), kind, position + 5) if class_ == _IN else None


def refusal(question: bytes) -> bytes | None:
    """The message for who asks what nobody here can find out; None: it is no question."""
    asked = _read(question)
    return _message(question, asked[2], _REFUSED, []) if asked is not None else None


def _message(question: bytes, end: int, code: int, answers: Sequence[tuple[int, bytes]]) -> bytes:
    """``answers``: (type, data) of each record about the name in question."""
    header = struct.pack("!HHHHH", 0x8580 | code, 1, len(answers), 0, 0)
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", kind, _IN, _TTL_S, len(data)) + data for kind, data in answers
    )
    return question[:2] + header + question[12:end] + records
