"""Every filter: which hosts pass, and that answers for few hosts agree with those for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core import config
from scheduler.filters.affinity import (
    DifferentHostFilter,
    SameHostFilter,
    ServerGroupAffinityFilter,
    ServerGroupAntiAffinityFilter,
)
from scheduler.filters.aggregate_instance_extra_specs import AggregateInstanceExtraSpecsFilter
from scheduler.filters.all_hosts import AllHostsFilter
from scheduler.filters.availability_zone import AvailabilityZoneFilter
from scheduler.filters.base import Filter
from scheduler.filters.compute import ComputeFilter
from scheduler.filters.compute_capabilities import ComputeCapabilitiesFilter
from scheduler.filters.image_properties import ImagePropertiesFilter, version_satisfies
from scheduler.filters.isolation import (
    AggregateImagePropertiesIsolation,
    AggregateMultiTenancyIsolation,
    AggregateTypeAffinityFilter,
    IsolatedHostsFilter,
)
from scheduler.filters.json_filter import JsonFilter
from scheduler.filters.limits import (
    AggregateIoOpsFilter,
    AggregateNumInstancesFilter,
    IoOpsFilter,
    NumInstancesFilter,
)
from scheduler.filters.resources import DestinationFilter, ResourcesFilter, SizeFilter, TraitsFilter
from scheduler.host_state import Aggregate, HostTable, Inventory
from scheduler.request import Group
from tests.scheduler.conftest import NOW, request, row

KVM = frozenset({("x86_64", "kvm", "hvm"), ("x86_64", "qemu", "hvm")})
ARM = frozenset({("aarch64", "qemu", "hvm")})


def cloud() -> HostTable:
    """Six hosts that differ in everything that a filter looks at."""
    table = HostTable(ratios={"VCPU": 2.0})
    table.set_aggregates(
        [
            Aggregate(
                1, "ssd", {"disk": "ssd, nvme", "availability_zone": "z1", "max_instances_per_host": "2"}
            ),
            Aggregate(
                2, "owned", {"filter_tenant_id": "p1,p2", "filter_tenant_id2": "p3", "os_type": "windows"}
            ),
            Aggregate(3, "types", {"instance_type": "small,tiny", "max_io_ops_per_host": "1"}),
        ]
    )
    kvm: dict[str, Any] = {"supported_instances": KVM}
    kvm["capabilities"] = {
        "hypervisor_type": "QEMU",
        "hypervisor_version": 6002000,
        "cpu_info": {"vendor": "Intel", "features": ["aes", "avx"]},
    }
    small = {
        "VCPU": Inventory(1),
        "MEMORY_MB": Inventory(1024, 256),
        "CUSTOM_GPU": Inventory(4, 0, None, 2, 4, 2),
    }
    table.apply(
        [
            row("a", aggregates=frozenset({1}), num_instances=3, groups={"g": 1}, **kvm),
            row("b", aggregates=frozenset({2}), num_io_ops=9, traits=frozenset({"T1"}), **kvm),
            row("c", aggregates=frozenset({1, 3}), enabled=False, num_io_ops=1, supported_instances=ARM),
            row("d", cell="cell2", last_seen=NOW - 61, num_instances=60, groups={"g": 2}),
            row(
                "e",
                forced_down=True,
                traits=frozenset({"T1", "T2"}),
                used={"VCPU": 15},
                capabilities={"x": "5"},
            ),
            row("f", inventories=small, last_seen=NOW - 60, capabilities={"cpu_info": '{"vendor": "AMD"}'}),
        ]
    )
    return table


def group(policy: str, **kwargs) -> dict[str, Any]:
    return {"group": Group(kwargs.pop("id", "g"), policy, **kwargs)}


def specs(**kwargs: str) -> dict[str, Any]:
    return {"extra_specs": {key.replace("__", ":"): value for key, value in kwargs.items()}}


def image(**kwargs: str) -> dict[str, Any]:
    return {"image_properties": kwargs}


def resources(**kwargs: int) -> dict[str, Any]:
    return {"resources": kwargs}


AGG = "aggregate_instance_extra_specs__"
CASES: list[tuple[type[Filter], dict[str, Any], dict[str, Any], str]] = [
    (AllHostsFilter, {}, {}, "abcdef"),
    (AvailabilityZoneFilter, {}, {}, "abcdef"),
    (AvailabilityZoneFilter, {"availability_zone": "z1"}, {}, "ac"),
    (AvailabilityZoneFilter, {"availability_zone": "nova"}, {}, "bdef"),
    (AvailabilityZoneFilter, {"availability_zone": "none"}, {}, ""),
    (ComputeFilter, {}, {}, "abf"),
    (ComputeFilter, {}, {"service_down_time": 61}, "abdf"),
    (ComputeCapabilitiesFilter, {}, {}, "abcdef"),
    (ComputeCapabilitiesFilter, specs(capabilities__hypervisor_type="s== QEMU"), {}, "ab"),
    (ComputeCapabilitiesFilter, specs(hypervisor_type="<or> QEMU <or> Xen"), {}, "ab"),
    (ComputeCapabilitiesFilter, specs(other__hypervisor_type="s== Xen"), {}, "abcdef"),
    (ComputeCapabilitiesFilter, specs(capabilities__cpu_info__vendor="AMD"), {}, "f"),
    (ComputeCapabilitiesFilter, specs(capabilities__cpu_info__features="<all-in> aes avx"), {}, "ab"),
    (ComputeCapabilitiesFilter, specs(capabilities__cpu_info__features="<in> avx512"), {}, ""),
    (ComputeCapabilitiesFilter, specs(capabilities__x=">= 4"), {}, "e"),
    (ComputeCapabilitiesFilter, specs(capabilities__x="== 4"), {}, ""),
    (ComputeCapabilitiesFilter, specs(capabilities__num_instances="> 2"), {}, "ad"),
    (ImagePropertiesFilter, {}, {}, "abcdef"),
    (ImagePropertiesFilter, image(hw_architecture="x86_64"), {}, "ab"),
    (ImagePropertiesFilter, image(hw_architecture="amd64", img_hv_type="KVM"), {}, "ab"),
    (ImagePropertiesFilter, image(architecture="aarch64"), {}, "c"),
    (ImagePropertiesFilter, image(hw_vm_mode="hvm"), {}, "abc"),
    (ImagePropertiesFilter, image(hw_vm_mode="xen"), {}, ""),
    (ImagePropertiesFilter, {}, {"filter_scheduler.image_properties_default_architecture": "aarch64"}, "c"),
    (ImagePropertiesFilter, image(img_hv_requested_version=">=6.0,<7"), {}, "abcdef"),
    (ImagePropertiesFilter, image(img_hv_requested_version=">6.2"), {}, "cdef"),
    (AggregateInstanceExtraSpecsFilter, {}, {}, "abcdef"),
    (AggregateInstanceExtraSpecsFilter, specs(**{AGG + "disk": "nvme"}), {}, "ac"),
    (AggregateInstanceExtraSpecsFilter, specs(disk="s!= nvme"), {}, "ac"),
    (AggregateInstanceExtraSpecsFilter, specs(**{AGG + "disk": "hdd"}), {}, ""),
    (AggregateInstanceExtraSpecsFilter, specs(**{AGG + "disk": "ssd", "os_type": "windows"}), {}, ""),
    (ServerGroupAffinityFilter, {}, {}, "abcdef"),
    (ServerGroupAffinityFilter, group("affinity"), {}, "ad"),
    (ServerGroupAffinityFilter, group("affinity", id="new"), {}, "abcdef"),
    (ServerGroupAffinityFilter, group("affinity", id="new", hosts={"gone": 1}), {}, ""),
    (ServerGroupAffinityFilter, group("anti-affinity"), {}, "abcdef"),
    (ServerGroupAntiAffinityFilter, group("anti-affinity"), {}, "bcef"),
    (ServerGroupAntiAffinityFilter, group("anti-affinity", rules={"max_server_per_host": 2}), {}, "abcef"),
    (ServerGroupAntiAffinityFilter, group("soft-anti-affinity"), {}, "abcdef"),
    (SameHostFilter, {"same_hosts": ("a", "b")}, {}, "ab"),
    (SameHostFilter, {"same_hosts": ()}, {}, ""),
    (DifferentHostFilter, {"different_hosts": ("a", "gone")}, {}, "bcdef"),
    (NumInstancesFilter, {}, {}, "abcef"),
    (NumInstancesFilter, {}, {"filter_scheduler.max_instances_per_host": 3}, "bcef"),
    (AggregateNumInstancesFilter, {}, {}, "bcef"),
    (IoOpsFilter, {}, {}, "acdef"),
    (AggregateIoOpsFilter, {}, {}, "adef"),
    (IsolatedHostsFilter, {}, {}, "abcdef"),
    (IsolatedHostsFilter, {}, {"filter_scheduler.isolated_hosts": ["a"]}, "bcdef"),
    (
        IsolatedHostsFilter,
        {"image_id": "i"},
        {"filter_scheduler.isolated_hosts": ["a"], "filter_scheduler.isolated_images": ["i"]},
        "a",
    ),
    (
        IsolatedHostsFilter,
        {},
        {
            "filter_scheduler.isolated_hosts": ["a"],
            "filter_scheduler.restrict_isolated_hosts_to_isolated_images": False,
        },
        "abcdef",
    ),
    (AggregateMultiTenancyIsolation, {"project_id": "p"}, {}, "acdef"),
    (AggregateMultiTenancyIsolation, {"project_id": "p3"}, {}, "abcdef"),
    (AggregateImagePropertiesIsolation, image(os_type="linux"), {}, "acdef"),
    (AggregateImagePropertiesIsolation, image(os_type="windows"), {}, "abcdef"),
    (
        AggregateImagePropertiesIsolation,
        image(os_type="linux"),
        {"filter_scheduler.aggregate_image_properties_isolation_namespace": "ns"},
        "abcdef",
    ),
    (AggregateTypeAffinityFilter, {"flavor_name": "big"}, {}, "abdef"),
    (AggregateTypeAffinityFilter, {"flavor_name": "tiny"}, {}, "abcdef"),
    (
        JsonFilter,
        {"hints": {"query": ['["and", [">=", "$free_ram_mb", 1024], ["=", "$cell", "cell2"]]']}},
        {},
        "d",
    ),
    (JsonFilter, {"hints": {"query": '["in", "$host", "a", "b"]'}}, {}, "ab"),
    (JsonFilter, {"hints": {"query": ["not", [">", "$num_instances", 2]]}}, {}, "bcef"),
    (JsonFilter, {"hints": {"query": ["=", "$capabilities.cpu_info.vendor", "Intel"]}}, {}, "ab"),
    (JsonFilter, {"hints": {"query": ["or", ["<", "$table", 1], ["no such", 1]]}}, {}, ""),
    (JsonFilter, {"hints": {"query": "{"}}, {}, ""),
    (DestinationFilter, {"host": "a"}, {}, "a"),
    (DestinationFilter, {"node": "b", "cell": "cell1"}, {}, "b"),
    (DestinationFilter, {"cell": "cell2"}, {}, "d"),
    (DestinationFilter, {"ignore_hosts": ("a",), "excluded": ("b",)}, {}, "cdef"),
    (ResourcesFilter, resources(VCPU=1), {}, "abcdef"),
    (ResourcesFilter, resources(VCPU=2, MEMORY_MB=700), {}, "abcdf"),
    (ResourcesFilter, resources(MEMORY_MB=15873), {}, ""),
    (ResourcesFilter, resources(MEMORY_MB=15872), {}, "abcde"),
    (ResourcesFilter, resources(NOT_THERE=1), {}, ""),
    (SizeFilter, resources(VCPU=2), {}, "abcde"),
    (SizeFilter, resources(VCPU=8), {}, "abcde"),
    (SizeFilter, resources(VCPU=9), {}, ""),
    (SizeFilter, resources(CUSTOM_GPU=2), {}, "f"),
    (SizeFilter, resources(CUSTOM_GPU=1), {}, ""),
    (SizeFilter, resources(CUSTOM_GPU=3), {}, ""),
    (TraitsFilter, {"required_traits": frozenset({"T1"})}, {}, "be"),
    (
        TraitsFilter,
        {"required_traits": frozenset({"T1"}), "forbidden_traits": frozenset({"T2"})},
        {},
        "b",
    ),
]


@pytest.mark.parametrize(("kind", "wanted", "overrides", "expected"), CASES)
def test_who_passes(conf, kind: type[Filter], wanted: dict, overrides: dict, expected: str) -> None:
    for name, value in overrides.items():
        config.override(conf, name, value)
    table = cloud()
    item, asked = kind(conf), request(**wanted)
    view = table.view(now=NOW)
    if not item.applies(asked):  # the pass does not ask it then: all pass
        assert expected == "abcdef"
        return
    passed = item.mask(view, asked)
    names = "".join(host.host for host, good in zip(view, passed, strict=True) if good)
    assert names == expected
    for slot in range(len(table)):
        for few in (slice(slot, slot + 1), np.array([slot])):
            assert item.mask(table.view(few, now=NOW), asked).tolist() == [passed[slot]]
    rejected = view.narrow(~passed)
    if len(rejected):
        told = list(item.reasons(rejected, asked))
        assert all(mask.shape == (len(rejected),) for _, mask in told)
        texts = " ".join(text for text, _ in told) + item.reason(asked)
        assert not any(f" {name} " in f" {texts} " for name in "bcdef"), "reasons name no hosts"


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        (6002000, ">=6.2", True),
        (6002000, ">6.2.0", False),
        ("7.1", ">=6.0, <8", True),
        (None, ">=6", True),
        (6002000, "rubbish", False),
        (10000000, ">=9.5", True),
    ],
)
def test_hypervisor_versions(version, wanted: str, expected: bool) -> None:
    assert version_satisfies(version, wanted) is expected
