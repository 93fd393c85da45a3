"""Quota sets, quota classes and limits through the API."""

from __future__ import annotations

import uuid

import pytest

from api.compute.services import ComputeServices
from core.errors import OverQuota
from db.global_schema import server_mappings
from tests.api.compute.conftest import ADMIN, MEMBER, OTHER, Api

NETWORK = {"fixed_ips", "floating_ips", "security_groups", "security_group_rules"}
INJECTED = {"injected_files", "injected_file_content_bytes", "injected_file_path_bytes"}
BASE = {
    *("id", "instances", "cores", "ram", "metadata_items", "key_pairs"),
    *("server_groups", "server_group_members"),
}


def use(services: ComputeServices, vcpus: int = 2, memory: int = 512, user: str = "member-of-p1") -> None:
    with services.databases.global_.write() as connection:
        connection.execute(
            server_mappings.insert().values(
                server_id=str(uuid.uuid4()), project_id="p1", user_id=user, vcpus=vcpus, memory_mib=memory
            )
        )


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        ("2.1", BASE | NETWORK | INJECTED),
        ("2.35", BASE | NETWORK | INJECTED),
        ("2.36", BASE | INJECTED),
        ("2.57", BASE),
    ],
)
def test_keys_by_microversion(api: Api, version: str, keys: set[str]) -> None:
    for path in ("", "/defaults", "/detail"):
        assert set(api.get(f"/os-quota-sets/p1{path}", version=version).json["quota_set"]) == keys
    updated = api.put("/os-quota-sets/p1", {"quota_set": {"cores": 21}}, as_=ADMIN, version=version)
    assert set(updated.json["quota_set"]) == keys - {"id"}


def test_who_may(api: Api) -> None:
    api.get("/os-quota-sets/p1", as_=OTHER, status=403)
    api.get("/os-quota-sets/p1/defaults", as_=OTHER)
    api.put("/os-quota-sets/p1", {"quota_set": {"cores": 1}}, as_=MEMBER, status=403)
    api.delete("/os-quota-sets/p1", as_=MEMBER, status=403)
    assert api.get("/os-quota-sets/p1", as_="admin@p9").json["quota_set"]["cores"] == 20


def test_set_in_use_and_defaults_again(api: Api, services: ComputeServices) -> None:
    use(services)
    use(services, user="other")
    detail = api.get("/os-quota-sets/p1/detail").json["quota_set"]
    assert detail["cores"] == {"limit": 20, "in_use": 4, "reserved": 0}
    assert detail["ram"]["in_use"] == 1024 and detail["instances"]["in_use"] == 2

    def put(query: str = "", status: int = 200, **limits: object) -> dict[str, int]:
        path = f"/os-quota-sets/p1{query}"
        answer = api.put(path, {"quota_set": limits}, as_=ADMIN, version="2.57", status=status)
        return answer.json.get("quota_set", {})

    assert put(cores="30", ram=-1)["cores"] == 30
    put(cores=3, status=400)
    assert put(cores=3, force=True)["cores"] == 3
    for wrong in ({"cores": -2}, {"cores": "x"}, {"cores": 2**31}, {"floating_ips": 1}, {"volumes": 1}):
        put(status=400, **wrong)
    # a user's limit lies within the project's
    put("?user_id=member-of-p1", instances=11, status=400)
    assert put("?user_id=member-of-p1", instances=2)["instances"] == 2
    assert api.get("/os-quota-sets/p1?user_id=member-of-p1").json["quota_set"]["instances"] == 2
    assert api.get("/os-quota-sets/p1").json["quota_set"]["instances"] == 10
    mine = api.get("/os-quota-sets/p1/detail?user_id=member-of-p1").json["quota_set"]
    assert mine["instances"] == {"limit": 2, "in_use": 1, "reserved": 0}
    assert api.delete("/os-quota-sets/p1", as_=ADMIN, status=202).body == b""
    assert api.get("/os-quota-sets/p1").json["quota_set"]["cores"] == 20
    api.get("/os-quota-sets/p1?colour=red", version="2.75", status=400)


def test_classes(api: Api) -> None:
    def keys(version: str) -> set[str]:
        answer = api.get("/os-quota-class-sets/default", as_=ADMIN, version=version)
        return set(answer.json["quota_class_set"])

    groups = {"server_groups", "server_group_members"}
    assert keys("2.1") == (BASE | NETWORK | INJECTED) - groups
    assert keys("2.50") == BASE | INJECTED
    assert keys("2.57") == BASE
    api.get("/os-quota-class-sets/default", as_=MEMBER, status=403)
    body = {"quota_class_set": {"instances": 3}}
    assert api.put("/os-quota-class-sets/default", body, as_=ADMIN).json["quota_class_set"]["instances"] == 3
    assert api.get("/os-quota-sets/p1").json["quota_set"]["instances"] == 3
    assert api.get("/os-quota-sets/p1/defaults").json["quota_set"]["instances"] == 3
    api.put("/os-quota-class-sets/default", {"quota_class_set": {"x": 3}}, as_=ADMIN, status=400)


def test_limits(api: Api, services: ComputeServices) -> None:
    use(services)

    def absolute(version: str, query: str = "", **options: str) -> dict[str, int]:
        return api.get(f"/limits{query}", version=version, **options).json["limits"]["absolute"]

    oldest = absolute("2.1")
    assert oldest["totalCoresUsed"] == 2 and oldest["maxTotalCores"] == 20 and len(oldest) == 19
    assert len(absolute("2.36")) == 14
    assert "maxImageMeta" in absolute("2.38") and "maxImageMeta" not in absolute("2.39")
    assert set(absolute("2.57")) == {
        *("maxServerMeta", "maxTotalInstances", "maxTotalCores", "maxTotalRAMSize", "maxTotalKeypairs"),
        *("maxServerGroups", "maxServerGroupMembers", "totalInstancesUsed", "totalCoresUsed"),
        *("totalRAMUsed", "totalServerGroupsUsed"),
    }
    assert absolute("2.57", "?tenant_id=p1&reserved=1", as_="admin@p9")["totalInstancesUsed"] == 1
    api.get("/limits?tenant_id=p2", status=403)
    api.get("/limits?colour=red", version="2.75", status=400)


def test_check_names_everything_that_is_over(services: ComputeServices) -> None:
    use(services, vcpus=19)
    with services.databases.global_.write() as connection:
        services.quotas.check(connection, "p1", "u", {"instances": 1, "cores": 1, "ram": 1})
        with pytest.raises(OverQuota) as caught:
            services.quotas.check(connection, "p1", "u", {"instances": 10, "cores": 2, "ram": 1})
    assert caught.value.message == (
        "Quota exceeded for instances, cores: Requested 10, 2, but already used 1, 19 of 10, 20 instances, cores"
    )


def test_a_users_limit_counts_only_the_user(services: ComputeServices) -> None:
    from db import quotas

    use(services, user="a")
    with services.databases.global_.write() as connection:
        quotas.set_limits(connection, "p1", "b", {"instances": 1})
        services.quotas.check(connection, "p1", "b", {"instances": 1})
        with pytest.raises(OverQuota):
            services.quotas.check(connection, "p1", "b", {"instances": 2})
        services.quotas.check(connection, "p1", "a", {"instances": 2})
