"""POST /servers with networks: what is asked of the Network API, and what is refused."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from api.compute.services import ComputeServices
from tests.api.compute import networks
from tests.api.compute.conftest import ADMIN, MEMBER, Api
from tests.api.compute.server_tools import body, boot, intents_of, make_flavor
from tests.api.network.conftest import Api as NetworkApi


@pytest.fixture
def plane(api: Api, services: ComputeServices, tmp_path: Path) -> NetworkApi:
    make_flavor(api)
    return networks.attach(services, tmp_path)


def arguments(services: ComputeServices, server_id: str) -> dict[str, Any]:
    (intent,) = intents_of(services, server_id, None)
    return dict(intent["arguments"])


def calls(services: ComputeServices) -> list[tuple[str, str]]:
    found = services.networks
    assert isinstance(found, networks.InProcessNetworks)
    return found.calls


def refused(api: Api, status: int, version: str = "2.42", as_: str = MEMBER, **values: Any) -> str:
    answer = api.post("/servers", body(**values), version=version, as_=as_, status=status).json
    (fault,) = answer.values()
    return str(fault["message"])


def test_without_networks_nothing_is_asked(api: Api, services: ComputeServices, plane: NetworkApi) -> None:
    plane.subnet(plane.network()["id"])
    server_id = boot(api, version="2.42", networks="none")
    assert "networks" not in arguments(services, server_id)
    assert calls(services) == []


def test_the_only_network_is_taken(api: Api, services: ComputeServices, plane: NetworkApi) -> None:
    assert "networks" not in arguments(services, boot(api)), "there is none: no NIC"
    network = plane.network()
    plane.subnet(network["id"])
    for server_id in (boot(api), boot(api, version="2.37", networks="auto")):
        (request,) = arguments(services, server_id)["networks"]
        assert request == {"network_id": network["id"], "port_id": None, "fixed_ip": None, "tag": None}
    other = plane.network(as_=ADMIN.replace("p1", "p0"), shared=True)
    plane.subnet(other["id"], as_="admin@p0")
    assert "Multiple possible networks" in refused(api, 409, "2.1")
    assert "Multiple possible networks" in refused(api, 409, networks="auto")


def test_auto_makes_a_network_or_says_that_it_can_not(
    api: Api, services: ComputeServices, plane: NetworkApi
) -> None:
    assert refused(api, 400, networks="auto").startswith("Unable to automatically allocate a network")
    external = plane.network(as_="admin@p0", is_default=True, **{"router:external": True})
    plane.subnet(external["id"], "203.0.113.0/24", as_="admin@p0")
    pool = {
        "name": "p",
        "prefixes": ["10.8.0.0/16"],
        "default_prefixlen": 24,
        "is_default": True,
        "shared": True,
    }
    plane.post("/subnetpools", {"subnetpool": pool}, as_="admin@p0")
    server_id = boot(api, version="2.37", networks="auto")
    (request,) = arguments(services, server_id)["networks"]
    (made,) = [net for net in plane.get("/networks")["networks"] if not net["router:external"]]
    assert request["network_id"] == made["id"]


def test_networks_by_id_port_and_address(api: Api, services: ComputeServices, plane: NetworkApi) -> None:
    network = plane.network()
    plane.subnet(network["id"])
    port = plane.port(network["id"])
    asked = [
        {"uuid": network["id"], "fixed_ip": "10.0.0.9", "tag": "front"},
        {"port": port["id"]},
        {"uuid": network["id"]},
    ]
    server_id = boot(api, version="2.42", networks=asked)
    assert arguments(services, server_id)["networks"] == [
        {"network_id": network["id"], "port_id": None, "fixed_ip": "10.0.0.9", "tag": "front"},
        {"network_id": network["id"], "port_id": port["id"], "fixed_ip": None, "tag": None},
        {"network_id": network["id"], "port_id": None, "fixed_ip": None, "tag": None},
    ]
    assert len(calls(services)) <= 5


def test_what_is_no_network(api: Api, services: ComputeServices, plane: NetworkApi) -> None:
    network = plane.network()
    unknown = str(uuid.uuid4())
    assert unknown in refused(api, 400, networks=[{"uuid": unknown}])
    assert "proper format" in refused(api, 400, "2.1", networks=[{"uuid": "net"}])
    assert "missing 'uuid'" in refused(api, 400, networks=[{"fixed_ip": "10.0.0.9"}])
    assert "requires a subnet" in refused(api, 400, networks=[{"uuid": network["id"]}])
    foreign = plane.network(as_="member@p2")
    assert foreign["id"] in refused(api, 400, networks=[{"uuid": foreign["id"]}])
    external, _ = plane.external()
    assert "external network" in refused(api, 403, networks=[{"uuid": external["id"]}])
    boot(api, as_=ADMIN, version="2.42", networks=[{"uuid": external["id"]}])


def test_what_is_no_port_for_a_server(api: Api, services: ComputeServices, plane: NetworkApi) -> None:
    network = plane.network()
    plane.subnet(network["id"])
    used = plane.port(network["id"], device_id="elsewhere")
    bare = plane.port(network["id"], fixed_ips=[])
    foreign = plane.port(network["id"], as_="admin@p0")
    assert "in use" in refused(api, 409, networks=[{"port": used["id"]}])
    assert "requires a FixedIP" in refused(api, 400, networks=[{"port": bare["id"]}])
    assert foreign["id"] in refused(api, 400, networks=[{"port": foreign["id"]}])
    assert "not usable" in refused(api, 400, as_=ADMIN, networks=[{"port": foreign["id"]}])
    free = {"port": plane.port(network["id"])["id"]}
    assert "cannot be specified together" in refused(api, 400, networks=[{**free, "fixed_ip": "10.0.0.7"}])
    assert "Duplicate" in refused(api, 400, networks=[free, free])
    assert "one by one" in refused(api, 400, networks=[free], max_count=2)
    address = {"uuid": network["id"], "fixed_ip": used["fixed_ips"][0]["ip_address"]}
    assert "already in use" in refused(api, 400, networks=[address])
    assert "max_count" in refused(api, 400, networks=[{**address, "fixed_ip": "10.0.0.8"}], max_count=2)


def test_the_quota_of_ports_bounds_how_many(api: Api, services: ComputeServices, plane: NetworkApi) -> None:
    network = plane.network()
    plane.subnet(network["id"])
    plane.put("/quotas/p1", {"quota": {"port": 5}}, as_="admin@p0")
    used = 5 - int(plane.get("/quotas/p1/details")["quota"]["port"]["used"])
    asked = [{"uuid": network["id"]}, {"uuid": network["id"]}]
    assert "ports" in refused(api, 403, networks=asked, min_count=3)
    api.post("/servers", body(networks=asked, min_count=1, max_count=9), version="2.42", status=202)
    listed = api.get("/servers").json["servers"]
    assert len(listed) == used // 2


def test_security_groups_by_name_or_id(api: Api, services: ComputeServices, plane: NetworkApi) -> None:
    network = plane.network()
    plane.subnet(network["id"])
    groups = [
        plane.post("/security-groups", {"security_group": {"name": name}})["security_group"]["id"]
        for name in ("web", "db", "twice", "twice")
    ]
    names = [{"name": "web"}, {"name": groups[1]}, {"name": "web"}]
    server_id = boot(api, security_groups=names)
    assert arguments(services, server_id)["security_groups"] == groups[:2]
    assert arguments(services, boot(api))["security_groups"] is None
    assert arguments(services, boot(api, security_groups=[{"name": "default"}]))["security_groups"] is None
    assert "Unable to find" in refused(api, 400, "2.1", security_groups=[{"name": "nope"}])
    assert "Multiple" in refused(api, 409, "2.1", security_groups=[{"name": "twice"}])


def test_no_network_service_at_all(api: Api, services: ComputeServices) -> None:
    make_flavor(api)
    boot(api, version="2.42", networks="auto")
    assert "no network service" in refused(api, 400, networks=[{"uuid": str(uuid.uuid4())}])
