"""Metadata, tags and the small resources below a server; why it was placed where it is."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import webtest

from api.compute.app import make_app
from api.compute.services import ComputeServices
from core import config
from db import cell_schema
from db.global_schema import decisions
from db.types import now
from tests.api.compute.conftest import ADMIN, MEMBER, OTHER, READER, Api
from tests.api.compute.server_tools import boot, booted, make_flavor
from tests.api.identity import authenticate


@pytest.fixture(autouse=True)
def flavor(api: Api) -> None:
    make_flavor(api)


def test_metadata(api: Api, services: ComputeServices) -> None:
    path = f"/servers/{booted(api, services, metadata={'a': '1'})}/metadata"
    assert api.get(path).json == {"metadata": {"a": "1"}}
    assert api.post(path, {"metadata": {"b": "2"}}).json == {"metadata": {"a": "1", "b": "2"}}
    assert api.put(f"{path}/b", {"meta": {"b": "3"}}).json == {"meta": {"b": "3"}}
    assert api.get(f"{path}/b").json == {"meta": {"b": "3"}}
    api.delete(f"{path}/a", status=204)
    api.delete(f"{path}/a", status=404)
    api.get(f"{path}/a", status=404)
    assert api.put(path, {"metadata": {"c": "4"}}).json == {"metadata": {"c": "4"}}
    assert api.post(path, {"metadata": {}}).json == {"metadata": {"c": "4"}}
    for wrong in ({"metadata": {"": "x"}}, {"metadata": {"a": 1}}, {}, {"metadata": None}):
        api.post(path, wrong, status=400)
    api.put(f"{path}/a", {"meta": {"b": "1"}}, status=400)
    api.put(f"{path}/a", {"meta": {"a": "1", "b": "1"}}, status=400)
    api.post(path, {"metadata": {}}, as_=READER, status=403)
    api.get(path, as_=OTHER, status=404)


def test_metadata_is_bounded_and_waits_for_the_server(api: Api, services: ComputeServices) -> None:
    path = f"/servers/{booted(api, services)}/metadata"
    config.override(services.conf, "quota.metadata_items", 2)
    api.post(path, {"metadata": {"a": "1", "b": "2"}})
    assert "2" in api.post(path, {"metadata": {"c": "3"}}, status=403).json["forbidden"]["message"]
    api.post(f"/servers/{boot(api)}/metadata", {"metadata": {"a": "1"}}, status=409)


def test_changes_of_metadata_at_once_all_last(api: Api, services: ComputeServices) -> None:
    path = f"/servers/{booted(api, services)}/metadata"
    application = make_app(services.conf, services, authenticate)

    def change(number: int) -> None:
        webtest.TestApp(application).post_json(
            f"/v2.1{path}", {"metadata": {f"k{number}": "x"}}, headers={"X-Auth-Token": MEMBER}
        )

    threads = [threading.Thread(target=change, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(api.get(path).json["metadata"]) == 6


def test_tags(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    path = f"/servers/{server_id}/tags"

    def call(method: str, where: str, body: Any = None, status: int = 200, **options: Any) -> Any:
        return api.request(method, where, body, version="2.26", status=status, **options)

    api.get(path, version="2.25", status=404)
    assert call("get", path).json == {"tags": []}
    assert call("put", f"{path}/blue", status=201).headers["Location"].endswith(f"{path}/blue")
    call("put", f"{path}/blue", status=204)
    call("get", f"{path}/blue", status=204)
    call("get", f"{path}/red", status=404)
    assert call("put", path, {"tags": ["x", "y"]}).json == {"tags": ["x", "y"]}
    call("delete", f"{path}/x", status=204)
    call("delete", f"{path}/x", status=404)
    call("delete", path, status=204)
    assert call("get", path).json == {"tags": []}
    for wrong in ({"tags": ["a,b"]}, {"tags": ["x" * 61]}, {"tags": [str(n) for n in range(51)]}, {}):
        call("put", path, wrong, status=400)
    call("put", f"{path}/{'x' * 61}", status=400)
    call("put", path, {"tags": [str(n) for n in range(50)]})
    call("put", f"{path}/more", status=400)
    call("put", f"{path}/z", status=404, as_=OTHER)
    waiting = boot(api)
    call("put", f"/servers/{waiting}/tags/z", status=409)
    call("get", f"/servers/{waiting}/tags")


def test_addresses(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    assert api.get(f"/servers/{server_id}/ips").json == {"addresses": {}}
    info = [
        {"label": "private", "addresses": [{"address": "10.0.0.5", "version": 4, "mac": "fa:16:3e:00:00:01"}]}
    ]
    with services.databases.cell(1).write() as connection:
        connection.execute(cell_schema.servers.update().values(network_info=info))
    brief = [{"version": 4, "addr": "10.0.0.5"}]
    assert api.get(f"/servers/{server_id}/ips").json == {"addresses": {"private": brief}}
    assert api.get(f"/servers/{server_id}/ips/private").json == {"private": brief}
    api.get(f"/servers/{server_id}/ips/public", status=404)
    full = api.get(f"/servers/{server_id}").json["server"]["addresses"]["private"][0]
    assert full["OS-EXT-IPS:type"] == "fixed" and full["OS-EXT-IPS-MAC:mac_addr"] == "fa:16:3e:00:00:01"
    for query, count in (("ip=10.0.0", 1), ("ip=10.0.1", 0), ("ip=^10\\..*5$", 1)):
        assert len(api.get(f"/servers?{query}").json["servers"]) == count
    assert len(api.get("/servers?ip6=10.0", version="2.5").json["servers"]) == 0


def test_small_resources(api: Api, services: ComputeServices) -> None:
    path = f"/servers/{booted(api, services)}"
    assert api.get(f"{path}/os-security-groups").json == {"security_groups": []}
    assert api.get(f"{path}/os-interface").json == {"interfaceAttachments": []}
    assert api.get(f"{path}/os-volume_attachments").json == {"volumeAttachments": []}
    assert api.get(f"{path}/os-server-password").json == {"password": ""}
    api.delete(f"{path}/os-server-password", status=204)
    assert api.get(f"{path}/topology", version="2.78").json == {"nodes": [], "pagesize_kb": None}
    assert api.get(f"{path}/migrations", as_=ADMIN, version="2.23").json == {"migrations": []}
    api.get(f"{path}/migrations", version="2.23", status=403)
    api.get(f"{path}/migrations/1", as_=ADMIN, version="2.23", status=404)
    console = {"remote_console": {"protocol": "spice", "type": "spice-html5"}}
    refused = api.post(f"{path}/remote-consoles", console, version="2.6", status=400).json
    assert "spice" in refused["badRequest"]["message"]
    for below in ("ips", "os-interface", "os-volume_attachments", "os-server-password", "os-interface/x"):
        api.get(f"/servers/00000000-0000-0000-0000-000000000000/{below}", status=404)


def test_diagnostics(api: Api, services: ComputeServices) -> None:
    path = f"/servers/{booted(api, services)}/diagnostics"
    api.get(path, status=403)
    assert api.get(path, as_=ADMIN, version="2.48").json["cpu_details"][0]["time"] == 17300000000
    old = api.get(path, as_=ADMIN).json
    assert (old["cpu0_time"], old["vda_write_req"], old["memory"]) == (17300000000, 488, 524288 * 1024)
    api.get(f"/servers/{boot(api)}/diagnostics", as_=ADMIN, status=409)


def test_placement_shows_hosts_to_administrators_only(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    record = {
        "version": 1,
        "driver": "filter",
        "hosts": 3,
        "candidates": 2,
        "filters": [
            {"name": "ComputeFilter", "removed": 1, "reasons": [["disabled or down", 1]], "hosts": ["h3"]}
        ],
        "weighers": [],
        "chosen": "h1",
        "alternates": ["h2"],
    }
    with services.databases.global_.write() as connection:
        connection.execute(
            decisions.insert().values(
                intent_id="i",
                attempt=1,
                server_id=server_id,
                host="h1",
                summary="",
                explanation=record,
                created_at=now(),
            )
        )
    path = f"/haneul/servers/{server_id}/placement"
    (mine,) = api.get(path).json["placement"]["decisions"]
    assert mine["filters"][0]["reasons"] == [{"reason": "disabled or down", "hosts": 1}]
    assert not any(f'"{host}"' in api.get(path).text for host in ("h1", "h2", "h3"))
    (full,) = api.get(path, as_=ADMIN).json["placement"]["decisions"]
    assert (full["chosen"], full["filters"][0]["host_names"], full["attempt"]) == ("h1", ["h3"], 1)
    api.get(path, as_=OTHER, status=404)
