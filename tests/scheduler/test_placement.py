"""The pass against a naive host-by-host oracle, and what must hold within a batch."""

from __future__ import annotations

import collections
import dataclasses
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import config
from scheduler import explain, options
from scheduler.filters.affinity import ServerGroupAffinityFilter, ServerGroupAntiAffinityFilter
from scheduler.filters.base import HostFilter
from scheduler.filters.compute import ComputeFilter
from scheduler.filters.limits import NumInstancesFilter
from scheduler.host_state import Aggregate, HostRow, HostTable, Inventory
from scheduler.placement import Pass
from scheduler.request import Group, PlacementRequest
from scheduler.weighers.affinity import ServerGroupSoftAffinityWeigher, ServerGroupSoftAntiAffinityWeigher
from scheduler.weighers.load import BuildFailureWeigher, IoOpsWeigher, NumInstancesWeigher
from scheduler.weighers.resources import CPUWeigher, DiskWeigher, RAMWeigher
from tests.scheduler.conftest import NOW, request, row

FILTERS = (ComputeFilter, NumInstancesFilter, ServerGroupAffinityFilter, ServerGroupAntiAffinityFilter)
WEIGHERS = (
    *(RAMWeigher, CPUWeigher, DiskWeigher, NumInstancesWeigher, IoOpsWeigher, BuildFailureWeigher),
    *(ServerGroupSoftAffinityWeigher, ServerGroupSoftAntiAffinityWeigher),
)


def settings_of(**overrides):
    conf = config.load()
    options.register(conf)
    for name, value in overrides.items():
        config.override(conf, name.replace("__", "."), value)
    return conf


def make_pass(table: HostTable, conf=None, filters=FILTERS, weighers=WEIGHERS) -> Pass:
    conf = conf or settings_of()
    return Pass(table, [f(conf) for f in filters], [w(conf) for w in weighers], conf, random.Random(1))


host_rows = st.lists(
    st.tuples(
        st.integers(1, 8),  # vcpus
        st.integers(0, 6),  # of them used
        st.integers(512, 8192),  # memory
        st.sampled_from(["cell1", "cell2"]),
        st.sampled_from(["z1", "z2"]),
        st.booleans(),  # up
        st.sampled_from([0, 0, 0, 2]),  # failed builds
        st.sets(st.sampled_from([1, 2])),
        st.sampled_from([0, 3, 4]),  # servers
    ),
    max_size=12,
)
groups = st.one_of(
    st.none(),
    st.builds(
        lambda policy, number, most, hosts: Group(
            f"{policy}-{number}",
            policy,
            {"max_server_per_host": most} if policy == "anti-affinity" else {},
            hosts,
        ),
        st.sampled_from(["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"]),
        st.integers(0, 1),
        st.integers(1, 2),
        st.sampled_from([{}, {}, {"h0": 1}]),
    ),
)
wishes = st.lists(
    st.builds(
        lambda vcpus, ram, zone, group, project: request(
            resources={"VCPU": vcpus, "MEMORY_MB": ram},
            availability_zone=zone,
            group=group,
            project_id=project,
        ),
        st.integers(1, 3),
        st.sampled_from([256, 1024, 3000]),
        st.sampled_from([None, None, "z1"]),
        groups,
        st.sampled_from(["p1", "p2"]),
    ),
    max_size=14,
)


def build(rows: list[tuple]) -> HostTable:
    table = HostTable(ratios={"VCPU": 1.5})
    table.set_aggregates([Aggregate(1, "a", {"ram_weight_multiplier": "-2"}), Aggregate(2, "b", {})])
    table.apply(
        HostRow(
            provider_uuid=f"rp-{number}",
            host=f"h{number}",
            cell=cell,
            zone=zone,
            inventories={
                "VCPU": Inventory(vcpus),
                "MEMORY_MB": Inventory(ram, 128),
                "DISK_GB": Inventory(50),
            },
            used={"VCPU": used},
            last_seen=NOW if up else 0.0,
            failed_builds=failed,
            aggregates=frozenset(aggregates),
            num_instances=servers,
        )
        for number, (vcpus, used, ram, cell, zone, up, failed, aggregates, servers) in enumerate(rows)
    )
    return table


def naive_passes(host, wanted: PlacementRequest, group_counts: dict[str, int], limit: int) -> bool:
    if wanted.availability_zone not in (None, host.zone) or host.last_seen < NOW - 60:
        return False
    if host.num_instances >= limit:
        return False
    group = wanted.group
    if group and group.policy == "affinity" and group_counts and not group_counts.get(host.host):
        return False
    if group and group.policy == "anti-affinity" and group_counts.get(host.host, 0) >= group.max_per_host:
        return False
    return all(
        amount <= host.total(name) and host.used(name) + amount <= host.limit(name)
        for name, amount in wanted.resources.items()
    )


def naive_weights(hosts: list, wanted: PlacementRequest, group_counts: dict[str, int]) -> list[float]:
    policy = wanted.group.policy if wanted.group else ""
    columns = [
        (
            [h.free_ram_mb for h in hosts],
            [-2.0 if "ram_weight_multiplier" in _keys(h) else 1.0 for h in hosts],
        ),
        ([h.limit("VCPU") - h.used("VCPU") for h in hosts], [1.0] * len(hosts)),
        ([h.free_disk_mb for h in hosts], [1.0] * len(hosts)),
        ([h.num_io_ops for h in hosts], [-1.0] * len(hosts)),
        ([h.failed_builds for h in hosts], [-1000000.0] * len(hosts)),
    ]
    counts = [group_counts.get(h.host, 0) for h in hosts]
    if policy.startswith("soft"):
        columns.append((counts, [1.0 if policy == "soft-affinity" else -1.0] * len(hosts)))
    totals = [0.0] * len(hosts)
    for raw, multipliers in columns:
        low, high = min(raw), max(raw)
        for number in range(len(hosts)):
            if high > low:
                totals[number] += multipliers[number] * (raw[number] - low) / (high - low)
    return totals


def _keys(host) -> set[str]:
    return {key for aggregate in host.aggregates for key in aggregate.metadata}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(host_rows, wishes)
def test_batches_agree_with_a_naive_scheduler(rows: list[tuple], wanted: list[PlacementRequest]) -> None:
    table, shadow = build(rows), build(rows)
    conf = settings_of(filter_scheduler__max_instances_per_host=5)
    decisions = make_pass(table, conf).place(wanted, NOW)
    assert len(decisions) == len(wanted)
    members: dict[str, dict[str, int]] = collections.defaultdict(dict)
    for asked in wanted:  # what the requests know of their groups counts from the start
        for host, count in asked.group.hosts.items() if asked.group else ():
            if "rp-" + host[1:] in shadow:
                members[asked.group.id][host] = max(count, members[asked.group.id].get(host, 0))
            elif asked.group.policy == "affinity":
                return  # members on unknown hosts: covered in test_filters
    for asked, decision in zip(wanted, decisions, strict=True):
        counts = members[asked.group.id] if asked.group else {}
        hosts = [host for host in shadow.view() if naive_passes(host, asked, counts, 5)]
        record = decision.record
        assert record["candidates"] == len(hosts)
        assert sum(step["removed"] for step in record["filters"]) == len(rows) - len(hosts)
        for step in record["filters"]:
            assert sum(count for _, count in step["reasons"]) == step["removed"]
        if not hosts:
            assert decision.chosen is None
            assert decision.summary.startswith("No valid host")
            continue
        assert decision.chosen is not None
        totals = dict(zip((h.host for h in hosts), naive_weights(hosts, asked, counts), strict=True))
        assert totals[decision.chosen.host] == pytest.approx(max(totals.values()), rel=1e-9, abs=1e-6)
        cell = decision.chosen.cell
        rest = [h for h in hosts if h.cell == cell and h.host != decision.chosen.host]
        assert len(decision.alternates) == min(2, len(rest))
        assert {choice.host for choice in decision.alternates} <= {h.host for h in rest}
        for choice, ranked in zip(
            decision.alternates, sorted((totals[h.host] for h in rest), reverse=True), strict=False
        ):
            assert totals[choice.host] == pytest.approx(ranked, rel=1e-9, abs=1e-6)
        shadow.consume(shadow.slot(decision.chosen.provider_uuid), asked)
        if asked.group:
            counts[decision.chosen.host] = counts.get(decision.chosen.host, 0) + 1
    for hold in [decision.hold for decision in decisions if decision.hold]:
        assert table.release(hold)
    before = [host.used("VCPU") for host in build(rows).view()]
    assert [host.used("VCPU") for host in table.view()] == before


@pytest.mark.parametrize("seed", range(4))
def test_a_shortlist_that_followed_equals_a_new_one(seed: int) -> None:
    """Many hosts, so that the pool of the best is at work, too."""
    rng = random.Random(seed)
    rows = [
        (
            *(rng.randrange(4, 9), rng.randrange(4), rng.choice([4096, 8192]), f"cell{rng.randrange(2)}"),
            *("z1", rng.random() < 0.9, 0, {rng.randrange(3)}, 0),
        )
        for _ in range(900)
    ]
    table = build(rows)
    runner = make_pass(table, settings_of(filter_scheduler__ram_weight_multiplier=rng.choice([1.0, -1.0])))
    kinds = [
        request(resources={"VCPU": 2, "MEMORY_MB": 1024}),
        request(resources={"VCPU": 1, "MEMORY_MB": 2048}, group=Group("g", "anti-affinity")),
        request(resources={"VCPU": 1, "MEMORY_MB": 256}, group=Group("s", "soft-affinity")),
    ]
    followed = [runner.shortlist(kind, NOW) for kind in kinds]
    for _ in range(60):
        touched = []
        for shortlist, kind in zip(followed, kinds, strict=True):
            for position in shortlist.best(3).tolist()[: rng.randrange(3)]:
                slot = int(shortlist.candidates[position])
                if all(
                    table.resources[name].used[slot] + amount <= table.resources[name].limit[slot]
                    for name, amount in kind.resources.items()
                ):
                    table.consume(slot, kind)
                    touched.append(slot)
        for shortlist, kind in zip(followed, kinds, strict=True):
            shortlist.follow(touched)
            fresh = runner.shortlist(kind, NOW)
            assert shortlist.candidates.tolist() == fresh.candidates.tolist()
            np.testing.assert_allclose(shortlist.totals, fresh.totals, atol=1e-9)
            best = shortlist.totals[shortlist.best(20)]
            np.testing.assert_allclose(best, np.sort(fresh.totals)[::-1][:20], atol=1e-9)
            for mine, other in zip(shortlist.steps, fresh.steps, strict=True):
                assert mine.removed == other.removed
                assert sum(mine.reasons.values()) == mine.removed


def test_a_full_cloud_says_no_and_not_more() -> None:
    table = HostTable()
    table.apply(row(f"h{number}") for number in range(5))
    decisions = make_pass(table).place([request(str(number)) for number in range(50)], NOW)
    assert [decision.chosen is not None for decision in decisions] == [True] * 20 + [False] * 30
    assert (table.resources["VCPU"].used[:5] == 8).all()
    assert decisions[-1].summary == "No valid host: 5 hosts; 5 without 2 VCPUs free"


def test_num_asks_for_several_servers() -> None:
    table = HostTable()
    table.apply([row("a"), row("b")])
    decisions = make_pass(table).place([request(num=3)], NOW)
    assert [decision.chosen is not None for decision in decisions] == [True] * 3


def test_forced_hosts_skip_the_enabled_filters_but_not_capacity() -> None:
    table = HostTable()
    table.apply([row("a", enabled=False), row("b", enabled=False, used={"VCPU": 8}), row("c")])
    place = make_pass(table).place
    assert place([request(host="a")], NOW)[0].chosen is None
    assert place([request(host="a", forced=True)], NOW)[0].chosen.host == "a"
    assert place([request(host="b", forced=True)], NOW)[0].chosen is None


def test_zones_hold_without_their_filter() -> None:
    table = HostTable()
    table.apply([row("a", zone="z1"), row("b", zone="z2")])
    runner = make_pass(table, filters=[ComputeFilter])
    assert runner.place([request(availability_zone="z2")], NOW)[0].chosen.host == "b"
    decision = runner.place([request(availability_zone="z3")], NOW)[0]
    assert (
        decision.summary == "No valid host: 2 hosts; 2 outside availability zone z3 (AvailabilityZoneFilter)"
    )


def test_subset_shuffle_and_chance_spread_the_choice() -> None:
    table = HostTable()
    table.apply(row(f"h{number}") for number in range(10))

    def chosen(asked: PlacementRequest, **overrides) -> set[str]:
        runner = make_pass(table.snapshot(), settings_of(**overrides), weighers=[BuildFailureWeigher])
        seen = set()
        for _ in range(60):
            decision = runner.place([asked], NOW)[0]
            runner.table.release(decision.hold)
            assert decision.chosen.host in decision.record["top"]["hosts"]
            seen.add(decision.chosen.host)
        return seen

    assert len(chosen(request())) == 1
    assert len(chosen(request(), filter_scheduler__host_subset_size=3)) == 3
    assert len(chosen(request(), filter_scheduler__shuffle_best_same_weighed_hosts=True)) > 5
    assert len(chosen(request(), scheduler__driver="chance")) > 5
    assert chosen(request(host="h7"), scheduler__driver="chance") == {"h7"}


def test_personal_filters_are_asked_per_project() -> None:
    class OnlyProjectOne(HostFilter):
        def passes(self, host, request) -> bool:
            return request.project_id == "one"

    table = HostTable()
    table.apply([row("a")])
    runner = make_pass(table, filters=[OnlyProjectOne])
    decisions = runner.place([request(project_id=name) for name in ("one", "two", "one")], NOW)
    assert [decision.chosen is not None for decision in decisions] == [True, False, True]


def test_a_plugin_that_raises_costs_only_its_request() -> None:
    class Picky(HostFilter):
        def passes(self, host, request) -> bool:
            return bool(len(request.flavor_name) / len(request.flavor_name))

    table = HostTable()
    table.apply([row("a")])
    runner = make_pass(table, filters=[Picky])
    wanted = [request(flavor_name=name) for name in ("x", "", "x")]
    decisions = runner.place(wanted, NOW)
    assert [decision.chosen is not None for decision in decisions] == [True, False, True]
    assert "ZeroDivisionError" in decisions[1].summary
    assert explain.owner_view(decisions[1].record)["candidates"] == 0


def test_alternates_stay_in_the_cell_even_when_it_is_weaker() -> None:
    table = HostTable()
    strong = {"VCPU": Inventory(64), "MEMORY_MB": Inventory(99999), "DISK_GB": Inventory(900)}
    table.apply([row(f"s{number}", cell="cell2", inventories=strong) for number in range(40)])
    best = {name: dataclasses.replace(item, total=item.total * 2) for name, item in strong.items()}
    table.apply([row("best", cell="cell1", inventories=best), row("weak", cell="cell1")])
    decision = make_pass(table).place([request()], NOW)[0]
    assert decision.chosen.host == "best"
    assert [choice.host for choice in decision.alternates] == ["weak"]
