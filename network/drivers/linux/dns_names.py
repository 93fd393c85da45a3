"""Names of a network's ports on other hosts: asked of the Network API, remembered for a short while.

A host's dnsmasq knows the ports of this host. What else is asked for in the network's domain comes to the
agent (``dns_relay``), which knows from the namespace which network the question is from: so a guest learns of its
own network's ports and of no others. Without ``[service_credentials]`` nothing is asked.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import struct
import threading
import time
from typing import Any

from keystoneauth1 import exceptions as keystone_exceptions
from oslo_config import cfg

from core import clients
from core.errors import Unavailable

LOG = logging.getLogger(__name__)
_A, _AAAA, _IN = 1, 28, 1
_TTL_S = 30
_ABSENT_S = 5
_MOST = 10_000
_SERVFAIL, _NXDOMAIN = 2, 3
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

    def answer(self, network_id: str, domain: str, question: bytes) -> bytes | None:
        """The message that answers ``question``; None: it is not about a name in ``domain``."""
        asked = _read(question)
        if asked is None or not self.usable or not domain:
            return None
        name, kind, end = asked
        if not name.endswith(f".{domain.lower()}"):
            return None
        try:
            addresses = self._addresses(network_id, name[: -len(domain) - 1])
        except Unavailable as error:
            LOG.warning("%s: %s", error.message, error.cause)
            return _message(question, end, _SERVFAIL, [])
        if addresses is None:
            return _message(question, end, _NXDOMAIN, [])
        found = [ipaddress.ip_address(each) for each in addresses]
        return _message(
            question, end, 0, [each for each in found if kind == (_A if each.version == 4 else _AAAA)]
        )

    def _addresses(self, network_id: str, name: str) -> list[str] | None:
        """Of the ports with this name; None: there is none. :raises Unavailable:"""
        if not _NAME.fullmatch(name):
            return None
        key, now = (network_id, name), time.monotonic()
        with self._lock:
            known = self._known.get(key)
            if known is not None and known[0] > now:
                return known[1]
            if len(self._known) > _MOST:
                self._known.clear()
            if self._adapter is None:
                self._adapter = clients.service_adapter(self._conf, "network")
        found = self._ask(network_id, name)
        with self._lock:
            self._known[key] = (now + (_ABSENT_S if found is None else _TTL_S), found)
        return found

    def _ask(self, network_id: str, name: str) -> list[str] | None:
        only = _address_in(name)
        query = {"network_id": network_id, "fields": ["dns_name", "fixed_ips"]}
        query |= {"fixed_ips": f"ip_address={only}"} if only else {"dns_name": name}
        try:
            answer = self._adapter.get("/v2.0/ports", params=query, raise_exc=False)
            if answer.status_code != 200:
                raise Unavailable(
                    f"the network service could not say who is {name}", cause=answer.status_code
                )
            ports = answer.json().get("ports", [])
        except (keystone_exceptions.ClientException, ValueError) as error:
            raise Unavailable(f"the network service could not say who is {name}", cause=error) from error
        wanted = "" if only else name
        mine = [port for port in ports if (port.get("dns_name") or "").lower() == wanted]
        found = [each["ip_address"] for port in mine for each in port.get("fixed_ips") or ()]
        return [each for each in found if only in (None, each)] if mine else None


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


def _message(question: bytes, end: int, code: int, addresses: list[Any]) -> bytes:
    header = struct.pack("!HHHHH", 0x8580 | code, 1, len(addresses), 0, 0)
    records = b""
    for each in addresses:
        kind = _A if each.version == 4 else _AAAA
        records += b"\xc0\x0c" + struct.pack("!HHIH", kind, _IN, _TTL_S, len(each.packed)) + each.packed
    return question[:2] + header + question[12:end] + records
