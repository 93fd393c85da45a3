"""The scheduler's options, under upstream's names, groups and defaults.

``filter_scheduler`` holds what filters and weighers read, ``scheduler`` what the service reads, and
the allocation ratios stay in ``DEFAULT`` where upstream has them.
"""

from __future__ import annotations

from oslo_config import cfg

from scheduler.request import DISK_GB, MEMORY_MB, VCPU

DEFAULT_OPTS: list[cfg.Opt] = [
    cfg.FloatOpt("cpu_allocation_ratio", min=0.0, help="Virtual CPUs per physical one, for every host."),
    cfg.FloatOpt("ram_allocation_ratio", min=0.0, help="Memory promised per MB of a host, for every host."),
    cfg.FloatOpt("disk_allocation_ratio", min=0.0, help="Disk promised per GB of a host, for every host."),
    cfg.FloatOpt(
        "initial_cpu_allocation_ratio",
        default=4.0,
        min=0.0,
        help="CPU ratio of hosts that were given none, when cpu_allocation_ratio is unset.",
    ),
    cfg.FloatOpt(
        "initial_ram_allocation_ratio",
        default=1.0,
        min=0.0,
        help="Memory ratio of hosts that were given none, when ram_allocation_ratio is unset.",
    ),
    cfg.FloatOpt(
        "initial_disk_allocation_ratio",
        default=1.0,
        min=0.0,
        help="Disk ratio of hosts that were given none, when disk_allocation_ratio is unset.",
    ),
]

SCHEDULER_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "driver",
        default="filter",
        choices=[("filter", "Weigh hosts."), ("chance", "Take any host that passes the filters.")],
        help="How a host is picked among those that pass.",
    ),
    cfg.IntOpt(
        "max_attempts",
        default=3,
        min=1,
        help="Hosts that a build is tried on before it fails: the first one and its alternates.",
    ),
]

FILTER_OPTS: list[cfg.Opt] = [
    cfg.MultiStrOpt(
        "available_filters",
        default=["haneul.scheduler.filters"],
        help="Read for compatibility and ignored: every filter registered under the entry point "
        "haneul.scheduler.filters is available.",
    ),
    cfg.ListOpt(
        "enabled_filters",
        default=[
            "ComputeFilter",
            "ComputeCapabilitiesFilter",
            "ImagePropertiesFilter",
            "ServerGroupAntiAffinityFilter",
            "ServerGroupAffinityFilter",
        ],
        help="Class names of the filters that a host must pass. Capacity, traits and the availability zone "
        "are checked always.",
    ),
    cfg.ListOpt(
        "weight_classes",
        default=["all"],
        help="Class names of the weighers to use; 'all' (also upstream's nova.scheduler.weights.all_weighers) "
        "means every registered one. A multiplier of 0 switches a weigher off.",
    ),
    cfg.IntOpt("host_subset_size", default=1, min=1, help="Pick at random among this many best hosts."),
    cfg.BoolOpt(
        "shuffle_best_same_weighed_hosts",
        default=False,
        help="Pick at random among hosts that share the best weight.",
    ),
    cfg.IntOpt(
        "max_io_ops_per_host",
        default=8,
        min=0,
        help="IoOpsFilter: hosts with this many builds, resizes and the like in progress get no more.",
    ),
    cfg.IntOpt(
        "max_instances_per_host",
        default=50,
        min=1,
        help="NumInstancesFilter: hosts with this many servers get no more.",
    ),
    cfg.StrOpt(
        "image_properties_default_architecture",
        help="ImagePropertiesFilter: the architecture of images that name none. Unset: any will do.",
    ),
    cfg.ListOpt("isolated_images", default=[], help="IsolatedHostsFilter: ids of images for isolated hosts."),
    cfg.ListOpt("isolated_hosts", default=[], help="IsolatedHostsFilter: names of the isolated hosts."),
    cfg.BoolOpt(
        "restrict_isolated_hosts_to_isolated_images",
        default=True,
        help="IsolatedHostsFilter: isolated hosts take no other images.",
    ),
    cfg.StrOpt(
        "aggregate_image_properties_isolation_namespace",
        help="AggregateImagePropertiesIsolation: only metadata keys with this prefix count. Unset: all keys.",
    ),
    cfg.StrOpt(
        "aggregate_image_properties_isolation_separator",
        default=".",
        help="AggregateImagePropertiesIsolation: what separates the prefix from the key.",
    ),
    cfg.FloatOpt("ram_weight_multiplier", default=1.0, help="RAMWeigher: above 0 spreads, below 0 stacks."),
    cfg.FloatOpt("cpu_weight_multiplier", default=1.0, help="CPUWeigher: above 0 spreads, below 0 stacks."),
    cfg.FloatOpt("disk_weight_multiplier", default=1.0, help="DiskWeigher: above 0 spreads, below 0 stacks."),
    cfg.FloatOpt(
        "num_instances_weight_multiplier",
        default=0.0,
        help="NumInstancesWeigher: below 0 prefers hosts with few servers, above 0 those with many.",
    ),
    cfg.FloatOpt(
        "io_ops_weight_multiplier",
        default=-1.0,
        help="IoOpsWeigher: below 0 prefers idle hosts, above 0 busy ones.",
    ),
    cfg.FloatOpt(
        "build_failure_weight_multiplier",
        default=1000000.0,
        help="BuildFailureWeigher: how strongly hosts with recent failed builds are avoided.",
    ),
    cfg.FloatOpt(
        "soft_affinity_weight_multiplier",
        default=1.0,
        min=0.0,
        help="ServerGroupSoftAffinityWeigher: how strongly members of a soft-affinity group attract.",
    ),
    cfg.FloatOpt(
        "soft_anti_affinity_weight_multiplier",
        default=1.0,
        min=0.0,
        help="ServerGroupSoftAntiAffinityWeigher: how strongly members of a soft-anti-affinity group repel.",
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """(group, options), for the sample configuration and core.config."""
    return [("DEFAULT", DEFAULT_OPTS), ("scheduler", SCHEDULER_OPTS), ("filter_scheduler", FILTER_OPTS)]


def register(conf: cfg.ConfigOpts) -> None:
    """Register the options; doing so twice is harmless."""
    for group, opts in list_opts():
        conf.register_opts(opts, group=None if group == "DEFAULT" else group)


def default_ratios(conf: cfg.ConfigOpts) -> dict[str, float]:
    """Allocation ratio per resource class for hosts that were given none."""
    pairs = (
        (VCPU, conf.cpu_allocation_ratio, conf.initial_cpu_allocation_ratio),
        (MEMORY_MB, conf.ram_allocation_ratio, conf.initial_ram_allocation_ratio),
        (DISK_GB, conf.disk_allocation_ratio, conf.initial_disk_allocation_ratio),
    )
    # Upstream reads 0.0 as unset, too.
    return {name: fixed or initial for name, fixed, initial in pairs}
