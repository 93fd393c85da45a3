#!/usr/bin/env python3
"""How long a scheduler's pass takes, without database and messages.

    python bench/scheduler_pass.py --hosts 10000 --requests 1000

prints the time for one request on a table of that many hosts (five filters, three weighers), and
placements per second for batches: of equal requests, of three flavors mixed, of an anti-affinity
group, and on hosts in use to different degrees.  Explanations are made as in production.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import statistics
import sys
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from core import config  # noqa: E402
from scheduler import options  # noqa: E402
from scheduler.filters.affinity import ServerGroupAntiAffinityFilter  # noqa: E402
from scheduler.filters.availability_zone import AvailabilityZoneFilter  # noqa: E402
from scheduler.filters.compute import ComputeFilter  # noqa: E402
from scheduler.filters.compute_capabilities import ComputeCapabilitiesFilter  # noqa: E402
from scheduler.filters.image_properties import ImagePropertiesFilter  # noqa: E402
from scheduler.host_state import HostRow, HostTable, Inventory  # noqa: E402
from scheduler.placement import Pass  # noqa: E402
from scheduler.request import Group, PlacementRequest  # noqa: E402
from scheduler.weighers.resources import CPUWeigher, DiskWeigher, RAMWeigher  # noqa: E402

FILTERS = (
    AvailabilityZoneFilter,
    ComputeFilter,
    ComputeCapabilitiesFilter,
    ImagePropertiesFilter,
    ServerGroupAntiAffinityFilter,
)
WEIGHERS = (RAMWeigher, CPUWeigher, DiskWeigher)
NOW = 1_000_000.0


def table_of(hosts: int, *, in_use: bool) -> HostTable:
    """A cloud of three zones and four cells, 2% of the hosts down; ``in_use``: unevenly filled."""
    rng = random.Random(7)
    table = HostTable(ratios={"VCPU": 4.0})
    inventories = {"VCPU": Inventory(64), "MEMORY_MB": Inventory(524288, 4096), "DISK_GB": Inventory(4000)}
    for number in range(hosts):
        servers = rng.randrange(40) if in_use else 0
        used = {
            "VCPU": servers * 2 + rng.randrange(3) * in_use,
            "MEMORY_MB": servers * 4096 + rng.randrange(4096) * in_use,
            "DISK_GB": servers * 20 + rng.randrange(100) * in_use,
        }
        row = HostRow(
            provider_uuid=f"00000000-0000-0000-0000-{number:012d}",
            host=f"compute-{number}",
            cell=f"cell{number % 4}",
            zone=f"az{number % 3}",
            inventories=inventories,
            used=used,
            num_instances=servers,
            last_seen=NOW - (1000 if number % 50 == 0 else 5),
            capabilities={"hypervisor_type": "QEMU", "cpu_info": {"arch": "x86_64"}},
            supported_instances=frozenset({("x86_64", "kvm", "hvm"), ("x86_64", "qemu", "hvm")}),
        )
        table.apply([row])
    return table


def request(number: int, **kwargs: object) -> PlacementRequest:
    values: dict = {
        "resources": {"VCPU": 2, "MEMORY_MB": 4096, "DISK_GB": 20},
        "extra_specs": {"capabilities:hypervisor_type": "s== QEMU"},
        "image_properties": {"hw_architecture": "x86_64", "hw_vm_mode": "hvm"},
        "project_id": f"project-{number % 10}",
        **kwargs,
    }
    return PlacementRequest(f"intent-{number}", f"server-{number}", **values)


def mixed(number: int) -> PlacementRequest:
    size = number % 3 + 1
    return request(number, resources={"VCPU": size, "MEMORY_MB": size * 2048, "DISK_GB": 10 * size})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--profile", action="store_true", help="profile the batch of equal requests")
    arguments = parser.parse_args()
    conf = config.load()
    options.register(conf)

    def pass_over(table: HostTable) -> Pass:
        filters = [item(conf) for item in FILTERS]
        return Pass(table, filters, [item(conf) for item in WEIGHERS], conf)

    used = table_of(arguments.hosts, in_use=True)
    empty = table_of(arguments.hosts, in_use=False)
    single = pass_over(used.snapshot())
    times = []
    for number in range(50):
        group = Group(f"group-{number}", "anti-affinity")
        wanted = request(number, availability_zone="az1" if number % 2 else None, group=group)
        begin = time.perf_counter()
        single.place([wanted], NOW)
        times.append((time.perf_counter() - begin) * 1000)
    print(f"{arguments.hosts} hosts, {len(FILTERS)} filters, {len(WEIGHERS)} weighers")
    print(f"one request: {statistics.median(times):.2f} ms (median), {max(times):.2f} ms (longest of 50)")

    group = Group("group", "anti-affinity")
    batches: list[tuple[str, HostTable, Callable[[int], PlacementRequest]]] = [
        ("equal requests, empty hosts", empty, request),
        ("equal requests, hosts in use", used, request),
        ("three flavors mixed, hosts in use", used, mixed),
        ("one anti-affinity group, hosts in use", used, lambda number: request(number, group=group)),
        ("a group for every request", used, lambda n: request(n, group=Group(f"g{n}", "anti-affinity"))),
    ]
    for title, table, make in batches:
        wanted_all = [make(number) for number in range(arguments.requests)]
        runner = pass_over(table.snapshot())
        begin = time.perf_counter()
        decisions = runner.place(wanted_all, NOW)
        seconds = time.perf_counter() - begin
        placed = sum(decision.chosen is not None for decision in decisions)
        print(f"batch, {title}: {placed} placed, {len(decisions) / seconds:.0f}/s")
    if arguments.profile:
        import cProfile

        runner = pass_over(used.snapshot())
        requests = [request(number) for number in range(arguments.requests)]
        cProfile.runctx("runner.place(requests, NOW)", globals(), locals(), sort="tottime")


if __name__ == "__main__":
    main()
