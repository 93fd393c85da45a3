"""The host table against a plain dict of rows."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.host_state import Aggregate, HostRow, HostTable, Inventory
from scheduler.request import Group, PlacementRequest, demand_of_flavor
from tests.scheduler.conftest import request, row


def contents(table: HostTable) -> dict[str, tuple]:
    found = {}
    for host in table.view():
        found[host.provider_uuid] = (
            host.host,
            host.zone,
            host.cell,
            host.traits,
            host.used("VCPU"),
            host.total("MEMORY_MB"),
            host.num_instances,
            host.group_count("g"),
            dict(host.capabilities),
        )
    return found


rows = st.builds(
    lambda number, zone, cell, traits, used, ram, servers, members, capability: row(
        f"h{number}",
        zone=zone,
        cell=cell,
        traits=frozenset(traits),
        used={"VCPU": used},
        inventories={"MEMORY_MB": Inventory(ram)} if ram else {},
        num_instances=servers,
        groups={"g": members},
        capabilities={"cpu_info": {"model": capability}},
    ),
    st.integers(0, 9),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["cell1", "cell2"]),
    st.sets(st.sampled_from(["T1", "T2", "T3"])),
    st.integers(0, 8),
    st.integers(0, 1000),
    st.integers(0, 5),
    st.integers(0, 3),
    st.sampled_from(["x", "y"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(rows, st.integers(0, 9).map(lambda number: f"rp-h{number}")), max_size=60))
def test_the_table_holds_what_the_last_rows_said(steps: list) -> None:
    table = HostTable(capacity=1)
    model: dict[str, HostRow] = {}
    for step in steps:
        if isinstance(step, str):
            table.remove(step)
            model.pop(step, None)
        else:
            table.apply([step])
            model[step.provider_uuid] = step
    assert len(table) == len(model)
    assert contents(table) == {
        uuid: (
            item.host,
            item.zone,
            item.cell,
            item.traits,
            item.used["VCPU"],
            item.inventories["MEMORY_MB"].total if item.inventories else 0,
            item.num_instances,
            item.groups["g"],
            dict(item.capabilities),
        )
        for uuid, item in model.items()
    }
    for slot, uuid in enumerate(table.uuids):
        assert table.slot(uuid) == slot
    zones = {item.zone for item in model.values()}
    for zone in "abc":
        expected = [model[uuid].zone == zone for uuid in table.uuids]
        assert table.view().zones.equals(zone).tolist() == expected
        assert (table.coded["zone"].code(zone) >= 0) == (zone in zones)
    expected_counts = [model[uuid].groups["g"] for uuid in table.uuids]
    assert table.view().group_counts("g").tolist() == expected_counts


def test_consume_and_release_balance() -> None:
    table = HostTable()
    table.apply([row("a"), row("b")])
    before = contents(table)
    wanted = request(group=Group("g", "affinity"))
    hold = table.consume(1, wanted, 2)
    assert table.resources["MEMORY_MB"].used[:2].tolist() == [0, 4096]
    assert table.view().group_counts("g").tolist() == [0, 2]
    assert table.view().project_counts("p").tolist() == [0, 2]
    assert table.release(hold)
    assert contents(table) == before
    assert table.view().project_counts("p").tolist() == [0, 0]


def test_a_hold_is_void_after_its_row_was_read_again() -> None:
    table = HostTable()
    table.apply([row("a"), row("b")])
    hold = table.consume(0, request())
    table.apply([row("a", used={"VCPU": 1})])
    assert not table.release(hold)
    assert table.resources["VCPU"].used[0] == 1
    other = table.consume(1, request())
    table.remove("rp-b")
    assert not table.release(other)


def test_a_hold_follows_its_host_to_another_slot() -> None:
    table = HostTable()
    table.apply([row("a"), row("b"), row("c")])
    hold = table.consume(2, request())
    table.remove("rp-a")
    assert table.slot("rp-c") == 0
    assert table.resources["VCPU"].used[0] == 2
    assert table.release(hold)
    assert table.resources["VCPU"].used[0] == 0


def test_zones_and_ratios_follow_aggregates() -> None:
    table = HostTable(ratios={"VCPU": 4.0}, default_zone="nova")
    table.apply([row("a", aggregates=frozenset({1, 2})), row("b"), row("c", zone="fixed")])
    assert [host.zone for host in table.view()] == ["nova", "nova", "fixed"]
    assert table.resources["VCPU"].limit[:3].tolist() == [32, 32, 32]
    table.set_aggregates(
        [
            Aggregate(1, "one", {"availability_zone": "z1", "cpu_allocation_ratio": "2"}),
            Aggregate(2, "two", {"cpu_allocation_ratio": "3.5", "ram_allocation_ratio": "rubbish"}),
        ]
    )
    assert [host.zone for host in table.view()] == ["z1", "nova", "fixed"]
    assert table.resources["VCPU"].limit[:3].tolist() == [16, 32, 32]
    assert table.resources["MEMORY_MB"].ratio[0] == 1.0
    table.set_aggregates([])
    assert [host.zone for host in table.view()] == ["nova", "nova", "fixed"]
    assert table.resources["VCPU"].limit[:3].tolist() == [32, 32, 32]


def test_a_snapshot_is_independent() -> None:
    table = HostTable()
    table.apply([row("a", groups={"g": 1}, capabilities={"x": 1}), row("b")])
    copy = table.snapshot()
    before = contents(copy)
    table.consume(0, request(group=Group("g", "affinity")))
    table.apply([row("b", zone="other", capabilities={"x": 2}), row("c")])
    table.remove("rp-a")
    assert contents(copy) == before
    assert copy.lock is not table.lock


def test_views_of_few_hosts_agree_with_the_whole() -> None:
    table = HostTable()
    table.apply(row(f"h{number}", zone=f"z{number % 7}", groups={"g": number % 3}) for number in range(50))
    some = np.array([3, 44, 17])
    view = table.view(some)
    whole = table.view()
    assert view.group_counts("g").tolist() == whole.group_counts("g")[some].tolist()
    assert view.zones.test(lambda zone: zone == "z3").tolist() == [True, False, True]
    assert whole.narrow(whole.zones.equals("z3")).slot_array().tolist() == list(range(3, 50, 7))
    assert view.narrow(np.array([False, True, True])).slot_array().tolist() == [44, 17]


def test_learned_groups_only_rise() -> None:
    table = HostTable()
    table.apply([row("a", groups={"g": 2}), row("b")])
    table.learn_group("g", {"a": 1, "b": 1, "unknown": 5})
    assert table.view().group_counts("g").tolist() == [2, 1]


def test_requests_survive_json() -> None:
    wanted = request(
        group=Group("g", "anti-affinity", {"max_server_per_host": 2}, {"a": 1}),
        required_traits=frozenset({"HW_X"}),
        excluded=("a",),
        different_hosts=(),
        hints={"query": ["=", "$host", "a"]},
        image_properties={"hw_architecture": "x86_64"},
    )
    again = PlacementRequest.from_json(json.loads(json.dumps({**wanted.to_json(), "later_release": 1})))
    assert again == wanted
    assert again.profile == wanted.profile


def test_profiles_differ_where_placement_may_differ() -> None:
    base = request()
    assert dataclasses.replace(base, server_id="x", intent_id="y", attempt=2).profile == base.profile
    assert dataclasses.replace(base, project_id="x").profile == base.profile
    assert dataclasses.replace(base, project_id="x").personal_profile != base.personal_profile
    assert dataclasses.replace(base, resources={"VCPU": 3}).profile != base.profile
    assert dataclasses.replace(base, excluded=("a",)).profile != base.profile
    one, true = ({"query": [value]} for value in (1, True))
    assert dataclasses.replace(base, hints=one).profile != dataclasses.replace(base, hints=true).profile


def test_the_demand_of_a_flavor() -> None:
    demand = demand_of_flavor(
        2,
        512,
        10,
        5,
        100,
        {"resources:VGPU": "1", "trait:HW_A": "required", "trait:HW_B": "forbidden", "x:y": "z"},
    )
    assert demand.resources == {"VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 16, "VGPU": 1}
    assert demand.required_traits == {"HW_A"}
    assert demand.forbidden_traits == {"HW_B"}
    assert demand_of_flavor(1, 64, 10, boot_from_volume=True).resources == {"VCPU": 1, "MEMORY_MB": 64}
    assert demand_of_flavor(1, 64, 1, 0, 0, {"resources:VCPU": "0"}).resources == {
        "MEMORY_MB": 64,
        "DISK_GB": 1,
    }
