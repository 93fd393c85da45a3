"""Names of ports on other hosts: what the agent answers, with the real Network API behind it, and dnsmasq before it."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest
from keystoneauth1 import exceptions as keystone_exceptions

from api.network.app import make_app
from api.network.services import NetworkServices
from core import clients, config
from network.drivers.linux.dns_names import Names, arpa_zone
from tests.api.identity import authenticate
from tests.api.network.conftest import ADMIN, Api, make_services
from tests.network.drivers.linux import lab
from tests.network.drivers.linux.edges import OPEN, configure, guest_port, lease, make_subnet, served
from tests.network.drivers.linux.lab import eventually, make_network, needs_lab


class Adapter:
    """What keystoneauth's adapter looks like, with the Network API behind it; ``network_id``: instead of the asker's."""

    def __init__(self, app: webtest.TestApp, network_id: str | None = None) -> None:
        self._app = app
        self._network_id = network_id
        self.asked = 0
        self.away = False

    def get(self, path: str, *, params: dict[str, Any], raise_exc: bool) -> Any:
        self.asked += 1
        if self.away:
            raise keystone_exceptions.ConnectFailure("the network service is away")
        if self._network_id:
            params = {**params, "network_id": self._network_id}
        answer = self._app.get(path, params=params, headers={"X-Auth-Token": ADMIN}, expect_errors=True)

        class Answer:
            status_code = answer.status_code

            def json(self) -> Any:
                return answer.json

        return Answer()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[NetworkServices]:
    made = make_services(f"sqlite:///{tmp_path}/global.sqlite")
    yield made
    made.close()


@pytest.fixture
def api(services: NetworkServices) -> Api:
    return Api(webtest.TestApp(make_app(services.conf, services, authenticate)))


def _question(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def _read(answer: bytes | None) -> tuple[int, list[bytes]]:
    """(code, the records' data)"""
    assert answer is not None and answer[:2] == b"\0\7" and answer[2] & 0x80
    position = answer.index(b"\0", 12) + 5
    records = []
    for _ in range(int.from_bytes(answer[6:8])):
        length = int.from_bytes(answer[position + 10 : position + 12])
        records.append(answer[position + 12 : position + 12 + length])
        position += 12 + length
    return answer[3] & 0x0F, records


def test_names_of_one_network(api: Api) -> None:
    network, other = api.network()["id"], api.network()["id"]
    for each in (network, other):
        api.subnet(each, "10.0.0.0/24")
    api.subnet(network, "2001:db8::/64", ipv6_address_mode="slaac", ipv6_ra_mode="slaac")
    web = api.port(network, dns_name="web", fixed_ips=[{"ip_address": "10.0.0.11"}])
    six = [each["ip_address"] for each in web["fixed_ips"] if ":" in each["ip_address"]]
    api.port(network, fixed_ips=[{"ip_address": "10.0.0.12"}])
    api.port(other, dns_name="db", fixed_ips=[{"ip_address": "10.0.0.13"}])
    names = Names(config.load())
    assert names.answer(network, "example.org", _question("web.example.org")) is None  # it may not ask
    names.usable, names._adapter = True, Adapter(api.app)

    def ask(name: str, kind: int = 1) -> tuple[int, list[bytes]]:
        return _read(names.answer(network, "example.org", _question(name, kind)))

    assert ask("Web.Example.org") == (0, [bytes([10, 0, 0, 11])])
    code, (found,) = ask("web.example.org", 28)
    assert code == 0 and six and len(found) == 16
    assert ask("web.example.org", 15) == (0, [])  # it exists, without a mail exchanger
    assert ask("host-10-0-0-12.example.org") == (0, [bytes([10, 0, 0, 12])])
    # a port with a name is known by it alone; another network's by none
    assert ask("host-10-0-0-11.example.org") == (3, []) and ask("db.example.org") == (3, [])
    assert ask("a_b.example.org") == (3, [])
    asked = names._adapter.asked
    assert ask("web.example.org") == (0, [bytes([10, 0, 0, 11])]) and names._adapter.asked == asked
    for question in (
        _question("example.com"),
        _question("web.example.org.evil"),
        b"\0" * 12,
        b"",
        b"\xff" * 40,
    ):
        assert names.answer(network, "example.org", question) is None
    # backwards: addresses of this network's subnets, and no others
    cidrs = ["10.0.0.0/24", "2001:db8::/64"]

    def who(address: str) -> tuple[int, list[bytes]]:
        pointer = ipaddress.ip_address(address).reverse_pointer
        return _read(names.answer(network, "example.org", _question(pointer, 12), cidrs))

    assert who("10.0.0.11") == who(six[0]) == (0, [b"\3web\7example\3org\0"])
    assert who("10.0.0.12") == (0, [b"\x0ehost-10-0-0-12\7example\3org\0"])
    assert who("10.0.0.13") == (3, [])
    other_s = _question(ipaddress.ip_address("10.0.1.1").reverse_pointer, 12)
    assert names.answer(network, "example.org", other_s, cidrs) is None
    names._adapter.away = True
    assert ask("new.example.org") == (2, [])


@needs_lab
def test_a_guest_finds_a_port_on_another_host(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = api.network()["id"]
    api.subnet(there, "10.0.0.0/24")
    api.port(there, dns_name="far", fixed_ips=[{"ip_address": "10.0.0.77"}])
    monkeypatch.setattr(clients, "configured", lambda _conf: True)
    network = served(make_network(1001, dns_domain="example.org."), make_subnet("10.0.0.0/24"))
    with lab.underlay() as underlay:
        host = underlay.host("a")
        assert host.driver is not None
        host.driver.dhcp.names._adapter = Adapter(api.app, there)
        port = guest_port(network, 11, dns_name="web")
        host.put(network, port, OPEN)
        host.apply()
        guest = underlay.guest(host, port, addresses=False)
        configure(guest, lease(guest, tmp_path))

        def lookup(name: str) -> str:
            done = guest.run("busybox", "nslookup", name, "10.0.0.2", check=False)
            return str(done.stdout + done.stderr)

        assert eventually(lambda: "10.0.0.77" in lookup("far.example.org"), 15)
        assert "10.0.0.11" in lookup("web.example.org")
        assert "NXDOMAIN" in lookup("nobody.example.org")
        assert "far.example.org" in lookup("10.0.0.77")
        assert "web.example.org" in lookup("10.0.0.11")
        assert "NXDOMAIN" in lookup("10.0.0.78")


def test_zones_end_at_a_label() -> None:
    assert arpa_zone("10.1.2.0/24") == arpa_zone("10.1.2.128/26") == "2.1.10.in-addr.arpa"
    assert arpa_zone("10.0.0.0/12") == "10.in-addr.arpa"
    assert arpa_zone("2001:db8::/30") == "b.d.0.1.0.0.2.ip6.arpa"
