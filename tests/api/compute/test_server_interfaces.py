"""os-interface, actions on ports and addresses, and the old proxies, over the real Network API."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from api.compute import server_network_actions
from api.compute.services import ComputeServices
from db import cell_schema
from tests.api.compute import networks
from tests.api.compute.conftest import OTHER, READER, Api
from tests.api.compute.server_tools import booted, intents_of, make_flavor
from tests.api.network.conftest import Api as NetworkApi
from tests.stack.cloud import wait_for


@pytest.fixture
def plane(api: Api, services: ComputeServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NetworkApi:
    monkeypatch.setattr(server_network_actions, "SEEN_S", 0)  # no host will change anything
    make_flavor(api)
    return networks.attach(services, tmp_path)


@pytest.fixture
def network(plane: NetworkApi) -> dict[str, Any]:
    made = plane.network(name="net")
    plane.subnet(made["id"])
    return made


def nic_of(port: dict[str, Any], **values: Any) -> dict[str, Any]:
    """What the host's agent makes of a port."""
    fixed = [
        {
            "address": each["ip_address"],
            "version": 4,
            "type": "fixed",
            "mac": "",
            "subnet_id": each["subnet_id"],
        }
        for each in port["fixed_ips"]
    ]
    return {
        "port_id": port["id"],
        "network_id": port["network_id"],
        "label": "net",
        "mac_address": port["mac_address"],
        "active": True,
        "tag": None,
        "preserve_on_delete": False,
        "security_groups": ["default"],
        "addresses": fixed,
        **values,
    }


def write(services: ComputeServices, server_id: str, nics: list[dict[str, Any]]) -> None:
    with services.databases.cell(1).write() as connection:
        table = cell_schema.servers
        connection.execute(sa.update(table).where(table.c.id == server_id).values(network_info=nics))


class Host:
    """Ends every attach_interface at once, as told."""

    def __init__(self, services: ComputeServices, server_id: str) -> None:
        self.services, self.server_id = services, server_id
        self.nics: list[dict[str, Any]] = []
        self.error: dict[str, Any] | None = None
        self.asked: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        table = cell_schema.intents
        while not self._stop.wait(0.01):
            for intent in intents_of(self.services, self.server_id):
                if intent["state"] != "waiting":
                    continue
                self.asked.append(intent)
                if self.error is None:
                    write(self.services, self.server_id, self.nics)
                with self.services.databases.cell(1).write() as connection:
                    state = {"state": "failed" if self.error else "done", "error": self.error}
                    connection.execute(
                        sa.update(table).where(table.c.id == intent["id"]).values(exclusive_key=None, **state)
                    )

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)


@pytest.fixture
def server_id(api: Api, services: ComputeServices, plane: NetworkApi) -> str:
    return booted(api, services)


@pytest.fixture
def host(services: ComputeServices, server_id: str) -> Iterator[Host]:
    host = Host(services, server_id)
    yield host
    host.stop()


def attach(api: Api, server_id: str, status: int = 200, version: str = "2.70", **values: Any) -> Any:
    body = {"interfaceAttachment": values}
    return api.post(f"/servers/{server_id}/os-interface", body, version=version, status=status).json


def test_attach_waits_and_shows_the_port(
    api: Api, server_id: str, host: Host, plane: NetworkApi, network: dict[str, Any]
) -> None:
    port = plane.port(network["id"])
    host.nics = [nic_of(port, tag="t", preserve_on_delete=True)]
    shown = attach(api, server_id, port_id=port["id"], tag="t")["interfaceAttachment"]
    assert shown == {
        "port_state": "ACTIVE",
        "net_id": network["id"],
        "port_id": port["id"],
        "mac_addr": port["mac_address"],
        "fixed_ips": port["fixed_ips"],
        "tag": "t",
    }
    (request,) = host.asked[0]["arguments"]["networks"]
    assert request == {"network_id": network["id"], "port_id": port["id"], "fixed_ip": None, "tag": "t"}
    path = f"/servers/{server_id}/os-interface"
    assert "tag" not in api.get(path, version="2.69").json["interfaceAttachments"][0]
    assert api.get(f"{path}/{port['id']}", version="2.70").json["interfaceAttachment"] == shown
    api.get(f"{path}/{uuid.uuid4()}", status=404)
    api.get(path, as_=OTHER, status=404)


def test_the_owners_port_is_known_before_anything_can_go_wrong(
    api: Api,
    services: ComputeServices,
    server_id: str,
    host: Host,
    plane: NetworkApi,
    network: dict[str, Any],
) -> None:
    port = plane.port(network["id"])
    host.error = {"code": "network.IpAddressGenerationFailure", "message": "no more"}
    assert attach(api, server_id, 400, port_id=port["id"])["badRequest"]["message"] == "no more"
    api.delete(f"/servers/{server_id}", status=204)
    (delete,) = [each for each in intents_of(services, server_id) if each["kind"] == "server.delete"]
    assert delete["arguments"] == {"ports": {"kept": [port["id"]]}}


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("network.OverQuota", 403),
        ("haneul.conflict", 409),
        ("haneul.driver.host", 500),
        ("haneul.cancelled", 409),
    ],
)
def test_why_it_failed(
    api: Api, server_id: str, host: Host, network: dict[str, Any], code: str, status: int
) -> None:
    host.error = {"code": code, "message": "words"}
    attach(api, server_id, status, net_id=network["id"])


def test_what_can_not_be_attached(
    api: Api, server_id: str, plane: NetworkApi, network: dict[str, Any]
) -> None:
    port = plane.port(network["id"], device_id="elsewhere")
    attach(api, server_id, 409, port_id=port["id"])
    attach(api, server_id, 404, port_id=str(uuid.uuid4()))
    attach(api, server_id, 404, net_id=str(uuid.uuid4()))
    attach(api, server_id, 400, net_id=network["id"], port_id=port["id"])
    attach(api, server_id, 400, fixed_ips=[{"ip_address": "10.0.0.9"}])
    attach(api, server_id, 400, "2.48", net_id=network["id"], tag="t")
    taken = port["fixed_ips"][0]["ip_address"]
    attach(api, server_id, 409, net_id=network["id"], fixed_ips=[{"ip_address": taken}])
    plane.subnet(plane.network()["id"], "10.1.0.0/24")
    assert "Multiple" in attach(api, server_id, 400)["badRequest"]["message"]
    body = {"interfaceAttachment": {"net_id": network["id"]}}
    api.post(f"/servers/{server_id}/os-interface", body, as_=READER, status=403)


def test_detach_is_an_intent(
    api: Api, services: ComputeServices, server_id: str, plane: NetworkApi, network: dict[str, Any]
) -> None:
    nic = nic_of(plane.port(network["id"], device_id=server_id))
    write(services, server_id, [nic])
    path = f"/servers/{server_id}/os-interface"
    api.delete(f"{path}/{uuid.uuid4()}", status=404)
    api.delete(f"{path}/{nic['port_id']}", status=202)
    (intent,) = [
        each for each in intents_of(services, server_id) if each["kind"] == "server.detach_interface"
    ]
    assert intent["arguments"] == {"nic": nic}


def act(api: Api, server_id: str, action: str, status: int = 202, **values: Any) -> None:
    api.post(f"/servers/{server_id}/action", {action: values}, version="2.43", status=status)


def test_security_groups_of_a_server(
    api: Api, services: ComputeServices, server_id: str, plane: NetworkApi, network: dict[str, Any]
) -> None:
    port = plane.port(network["id"], device_id=server_id, device_owner="compute:nova")
    group = plane.post("/security-groups", {"security_group": {"name": "web"}})["security_group"]
    act(api, server_id, "addSecurityGroup", 400, name="web")  # it has no port yet
    write(services, server_id, [nic_of(port)])
    act(api, server_id, "addSecurityGroup", 404, name="nope")
    act(api, server_id, "addSecurityGroup", name="web")
    assert group["id"] in plane.get(f"/ports/{port['id']}")["port"]["security_groups"]
    shown = api.get(f"/servers/{server_id}/os-security-groups").json["security_groups"]
    assert {each["name"] for each in shown} == {"default", "web"}
    (default,) = [each for each in shown if each["name"] == "default"]
    assert default["rules"][0]["group"] == {"name": "default", "tenant_id": "p1"}
    act(api, server_id, "removeSecurityGroup", name=group["id"])
    assert group["id"] not in plane.get(f"/ports/{port['id']}")["port"]["security_groups"]
    act(api, server_id, "removeSecurityGroup", 404, name="web")
    events = services.doorbells.events  # type: ignore[attr-defined]
    assert [event["name"] for _, _, event in events] == ["network-changed"] * 2


def test_addresses_of_a_server(
    api: Api, services: ComputeServices, server_id: str, plane: NetworkApi, network: dict[str, Any]
) -> None:
    external, _ = plane.external()
    subnet_id = network_subnet(plane, network)
    router = plane.post(
        "/routers", {"router": {"external_gateway_info": {"network_id": external["id"]}}}, as_="admin@p1"
    )["router"]
    plane.put(f"/routers/{router['id']}/add_router_interface", {"subnet_id": subnet_id})
    port = plane.port(network["id"], device_id=server_id, device_owner="compute:nova")
    write(services, server_id, [nic_of(port)])
    made = api.post("/os-floating-ips", {"pool": None}, status=200).json["floating_ip"]
    assert made["instance_id"] is None
    act(api, server_id, "addFloatingIp", 404, address="203.0.113.250")
    act(api, server_id, "addFloatingIp", 400, address=made["ip"], fixed_address="10.0.0.250")
    act(api, server_id, "removeFloatingIp", 409, address=made["ip"])
    act(api, server_id, "addFloatingIp", address=made["ip"])
    shown = api.get(f"/os-floating-ips/{made['id']}").json["floating_ip"]
    assert (shown["instance_id"], shown["fixed_ip"]) == (server_id, port["fixed_ips"][0]["ip_address"])
    act(api, server_id, "removeFloatingIp", address=made["ip"])
    act(api, server_id, "addFixedIp", networkId=network["id"])
    first, second = plane.get(f"/ports/{port['id']}")["port"]["fixed_ips"]
    assert first["subnet_id"] == second["subnet_id"] == subnet_id
    act(api, server_id, "removeFixedIp", address=second["ip_address"])
    assert plane.get(f"/ports/{port['id']}")["port"]["fixed_ips"] == [first]
    act(api, server_id, "removeFixedIp", 400, address="10.0.0.250")
    api.post(f"/servers/{server_id}/action", {"addFixedIp": {"networkId": "x"}}, version="2.44", status=404)


def test_no_group_no_key(
    api: Api, services: ComputeServices, server_id: str, plane: NetworkApi, network: dict[str, Any]
) -> None:
    path = f"/servers/{server_id}"
    assert api.get(path).json["server"]["security_groups"] == [{"name": "default"}]
    port = plane.port(network["id"], device_id=server_id)
    write(services, server_id, [nic_of(port, security_groups=["web"]), nic_of(port, security_groups=["web"])])
    assert api.get(path).json["server"]["security_groups"] == [{"name": "web"}]
    write(services, server_id, [nic_of(port, security_groups=[])])
    assert "security_groups" not in api.get(path).json["server"]


def network_subnet(plane: NetworkApi, network: dict[str, Any]) -> str:
    return str(plane.get(f"/networks/{network['id']}")["network"]["subnets"][0])


def test_events_reach_the_servers_host(api: Api, services: ComputeServices, server_id: str) -> None:
    event = {"name": "network-vif-plugged", "server_uuid": server_id, "tag": "p", "status": "completed"}
    power = {"name": "power-update", "server_uuid": server_id, "tag": "POWER_ON"}
    body = {"events": [event, power]}
    api.post("/os-server-external-events", body, as_="admin@p1", version="2.76", status=200)
    assert services.doorbells.events == [(1, "h1", {**event, "code": 200})]  # type: ignore[attr-defined]


def test_old_networks(api: Api, plane: NetworkApi, network: dict[str, Any]) -> None:
    (shown,) = api.get("/os-networks").json["networks"]
    assert (shown["id"], shown["label"], shown["cidr"]) == (network["id"], "net", None)
    assert api.get(f"/os-networks/{network['id']}").json["network"] == shown
    (mine,) = api.get("/os-tenant-networks").json["networks"]
    assert mine == {"id": network["id"], "label": "net", "cidr": "None"}
    api.get(f"/os-networks/{uuid.uuid4()}", status=404)
    api.get("/os-networks", version="2.36", status=404)


def test_old_security_groups(api: Api, plane: NetworkApi) -> None:
    body = {"security_group": {"name": "web", "description": "d"}}
    group = api.post("/os-security-groups", body, status=200).json["security_group"]
    assert (group["name"], group["description"], group["rules"], group["tenant_id"]) == ("web", "d", [], "p1")
    path = f"/os-security-groups/{group['id']}"
    rule = {"parent_group_id": group["id"], "ip_protocol": "tcp", "from_port": 22, "to_port": "80"}
    made = api.post("/os-security-group-rules", {"security_group_rule": rule}, status=200).json
    made = made["security_group_rule"]
    expected = {"ip_protocol": "tcp", "from_port": 22, "to_port": 80, "ip_range": {"cidr": "0.0.0.0/0"}}
    assert {key: made[key] for key in expected} == expected
    assert api.get(path).json["security_group"]["rules"] == [made]
    api.post("/os-security-group-rules", {"security_group_rule": rule}, status=400)
    api.delete(f"/os-security-group-rules/{made['id']}", status=202)
    renamed = api.put(path, {"security_group": {"name": "new"}}).json["security_group"]
    assert renamed["name"] == "new"
    assert {each["name"] for each in api.get("/os-security-groups").json["security_groups"]} >= {"new"}
    api.delete(path, status=202)
    api.get(path, status=404)
    api.get("/os-security-groups/x", status=400)
    api.get("/os-security-groups", version="2.36", status=404)


def test_old_floating_ips(api: Api, plane: NetworkApi) -> None:
    api.post("/os-floating-ips", {"pool": "nope"}, status=404)
    external, _ = plane.external()
    assert api.get("/os-floating-ip-pools").json == {"floating_ip_pools": [{"name": external["id"]}]}
    made = api.post("/os-floating-ips", {"pool": external["id"]}, status=200).json["floating_ip"]
    assert made["pool"] == external["id"]
    assert api.get("/os-floating-ips").json["floating_ips"] == [made]
    api.delete(f"/os-floating-ips/{made['id']}", status=202)
    api.get(f"/os-floating-ips/{made['id']}", status=404)
    api.get("/os-floating-ips/7", status=404)


def test_one_change_of_interfaces_waits_for_the_other(
    api: Api, services: ComputeServices, server_id: str, plane: NetworkApi, network: dict[str, Any]
) -> None:
    nics = [nic_of(plane.port(network["id"], device_id=server_id)) for _ in range(2)]
    write(services, server_id, nics)
    path = f"/servers/{server_id}/os-interface"
    api.delete(f"{path}/{nics[0]['port_id']}", status=202)
    second = threading.Thread(target=lambda: api.delete(f"{path}/{nics[1]['port_id']}", status=202))
    second.start()
    host = Host(services, server_id)
    host.nics = nics
    second.join(20)
    assert not second.is_alive()
    wait_for(lambda: len(host.asked) == 2, "both are done")
    host.stop()
