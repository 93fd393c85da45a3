"""Records of decisions: bounded, of JSON types, and honest to each audience."""

from __future__ import annotations

import json

import pytest

from scheduler import explain
from scheduler.host_state import HostTable
from scheduler.placement import Decision
from tests.scheduler.conftest import NOW, request, row
from tests.scheduler.test_placement import make_pass


def decide(number: int, **kwargs) -> Decision:
    table = HostTable()
    table.apply(row(f"secret-{n}", enabled=n % 5 != 0, used={"VCPU": n % 3}) for n in range(number))
    return make_pass(table).place([request(**kwargs)], NOW)[0]


def test_a_refusal_in_one_line() -> None:
    decision = decide(10, resources={"MEMORY_MB": 15000, "VCPU": 8})
    assert decision.summary == "Placed: 3 of 10 hosts could take the server."
    removed = {step["name"]: step["reasons"] for step in decision.record["filters"] if step["removed"]}
    assert removed == {
        "ComputeFilter": [["disabled or down", 2]],
        "ResourcesFilter": [["without 8 VCPUs free", 5]],
    }
    decision = decide(10, resources={"MEMORY_MB": 65536})
    assert decision.chosen is None
    assert decision.summary == (
        "No valid host: 10 hosts; 2 disabled or down (ComputeFilter), 8 too small for 65536 MB of memory"
    )
    assert decide(0).summary == "No valid host: the cloud has no hosts yet."


def test_the_record_is_bounded_json() -> None:
    record = decide(3000).record
    text = json.dumps(record)
    assert json.loads(text) == record
    assert len(text) < 12_000
    step = next(step for step in record["filters"] if step["name"] == "ComputeFilter")
    assert (step["removed"], len(step["hosts"])) == (600, explain.MAX_HOSTS_PER_FILTER)
    assert len(record["top"]["hosts"]) == explain.MAX_TOP


def test_owners_see_counts_and_admins_hosts() -> None:
    record = decide(100).record
    owner = explain.owner_view(record)
    assert "secret" not in json.dumps(owner)
    assert owner["hosts"] == owner["candidates"] + sum(step["removed"] for step in owner["filters"])
    admin = explain.admin_view(record)
    assert admin["chosen"].startswith("secret-")
    assert len(admin["alternates"]) == 2
    assert admin["scores"][0]["host"] == admin["chosen"]
    for score in admin["scores"]:
        assert score["weight"] == pytest.approx(sum(part["weight"] for part in score["weighers"]))
        assert all(0 <= part["normalized"] <= 1 for part in score["weighers"])
    weights = [score["weight"] for score in admin["scores"]]
    assert weights == sorted(weights, reverse=True)
