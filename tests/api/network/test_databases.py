"""The same calls on MariaDB and PostgreSQL: what SQL differs in, and requests at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import webtest

from api.network.app import make_app
from api.network.services import NetworkServices
from tests.api.identity import authenticate
from tests.api.network import test_networks, test_ports, test_routers, test_security_groups, test_subnets
from tests.api.network.conftest import Api, make_services


@pytest.fixture
def services(database_url: str) -> Iterator[NetworkServices]:
    made = make_services(database_url)
    yield made
    made.close()


def test_lists(api: Api) -> None:
    test_networks.test_filters_fields_sorting_and_pages(api)


def test_tags_and_deletion(api: Api) -> None:
    test_networks.test_tags_and_their_filters(api)
    test_networks.test_a_network_with_ports_stays(api)


def test_addresses_and_bindings(api: Api, services: NetworkServices) -> None:
    test_ports.test_addresses_that_are_asked_for(api)
    test_ports.test_hosts_make_their_own_addresses(api)
    test_ports.test_macs_are_unique_in_a_network(api)
    test_ports.test_bindings_follow_the_agents(api, services)
    test_subnets.test_pools_hand_out_what_is_free(api)


def test_groups(api: Api) -> None:
    test_security_groups.test_every_project_has_a_default_group(api)
    made = api.post("/security-groups", {"security_group": {"name": "web"}})["security_group"]["id"]
    test_security_groups.test_the_same_rule_twice(api, made)
    test_security_groups.test_address_groups(api, made)


def test_routing(api: Api) -> None:
    test_routers.test_interfaces(api)
    test_routers.test_a_project_that_asks_for_any_network(api)


def together(number: int, function: Any) -> list[Any]:
    """The results of ``number`` threads that start at once."""
    barrier, results = threading.Barrier(number), []

    def run(index: int) -> None:
        barrier.wait()
        results.append(function(index))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == number
    return results


def test_requests_at_the_same_time(services: NetworkServices) -> None:
    """No request fails for another's sake; what is unique stays so, quotas hold."""
    application = make_app(services.conf, services, authenticate)

    def api() -> Api:
        return Api(webtest.TestApp(application))

    network = api().network()["id"]
    subnet = api().subnet(network, "10.0.0.0/28")["id"]
    api().put("/quotas/p1", {"quota": {"port": 10}}, as_="admin@p0")
    body = {"port": {"network_id": network}}
    answers = together(14, lambda _: api().request("post", "/ports", body, status="*"))
    assert sorted(answer.status_int for answer in answers) == [201] * 10 + [409] * 4
    given = [
        answer.json["port"]["fixed_ips"][0]["ip_address"] for answer in answers if answer.status_int == 201
    ]
    assert len(set(given)) == 10
    # a router gets the subnet once
    api().put("/quotas/p1", {"quota": {"port": -1}}, as_="admin@p0")
    router = api().post("/routers", {"router": {}})["router"]["id"]
    interface = {"subnet_id": subnet}
    answers = together(
        4, lambda _: api().request("put", f"/routers/{router}/add_router_interface", interface, status="*")
    )
    assert sorted(answer.status_int for answer in answers) == [200, 400, 400, 400]
    # different projects make their first network, and so their default group, at once
    answers = together(
        6, lambda index: api().request("post", "/networks", {"network": {}}, as_=f"member@q{index % 2}")
    )
    assert {answer.status_int for answer in answers} == {201}
    for project in ("q0", "q1"):
        assert len(api().get("/security-groups", as_=f"member@{project}")["security_groups"]) == 1
