"""Policies: every call names one that exists, and personas get what they should."""

from __future__ import annotations

import pytest

from api.common.operations import NO_POLICY
from api.volume.app import make_api
from api.volume.policies import all_rules
from api.volume.services import VolumeServices
from tests.api.volume.conftest import Api

OPEN = {"VersionsController.index", "VersionsController.describe"}


def test_every_operation_names_a_policy_that_exists(services: VolumeServices) -> None:
    known = {rule.name for rule in all_rules()}
    without = {each.name for each in make_api(services).operations if each.policy == NO_POLICY}
    assert without == OPEN
    unknown = {each.policy for each in make_api(services).operations} - known - {NO_POLICY}
    assert unknown == set()


# persona: may it read what is p1's, change it, and do what is for administrators
PERSONAS = {
    "reader@p1": (True, False, False),
    "member@p1": (True, True, False),
    "manager@p1": (True, True, False),
    "admin@p0": (True, True, True),
    "member@p2": (False, False, False),
    "reader@p2": (False, False, False),
    "service@services": (False, False, False),
}


@pytest.mark.parametrize("persona", PERSONAS)
def test_a_projects_volumes(api: Api, persona: str) -> None:
    reads, writes, _ = PERSONAS[persona]
    made = api.volume()["id"]
    refused = 403 if reads else 404
    path = f"/volumes/{made}"
    api.request("get", path, as_=persona, status=200 if reads else 404)
    api.request("put", path, {"volume": {"name": "n"}}, as_=persona, status=200 if writes else refused)
    action = {"os-set_bootable": {"bootable": True}}
    api.request("post", f"{path}/action", action, as_=persona, status=200 if writes else refused)
    snapshot = {"snapshot": {"volume_id": made}}
    api.request("post", "/snapshots", snapshot, as_=persona, status=202 if writes else refused)
    listed = api.request("get", "/volumes", as_=persona, status="*")
    if persona == "admin@p0":
        listed = api.request("get", "/volumes?all_tenants=1", as_=persona)
    shown = [each["id"] for each in listed.json.get("volumes", [])]
    assert (made in shown) is reads


@pytest.mark.parametrize("persona", PERSONAS)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("get", "/os-services", None),
        ("get", "/scheduler-stats/get_pools", None),
        ("get", "/capabilities/h1@file", None),
        ("get", "/os-hosts", None),
        ("get", "/qos-specs", None),
        ("post", "/types", {"volume_type": {"name": "t"}}),
        ("post", "/qos-specs", {"qos_specs": {"name": "q"}}),
        ("put", "/os-quota-sets/p1", {"quota_set": {"volumes": 1}}),
        ("get", "/os-quota-class-sets/default", None),
        ("get", "/manageable_volumes?host=h1@file", None),
    ],
)
def test_what_is_for_administrators(api: Api, persona: str, method: str, path: str, body: object) -> None:
    allowed = PERSONAS[persona][2]
    api.request(method, path, body, as_=persona, status=200 if allowed else 403)
