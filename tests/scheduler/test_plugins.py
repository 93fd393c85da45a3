"""Filters and weighers by entry point: ours, and the example of the documentation, installed for real."""

from __future__ import annotations

import configparser
import os
import pathlib
import re
import subprocess
import sys

import pytest

from core import config, errors
from scheduler import plugins
from scheduler.placement import Pass

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDE = ROOT / "doc" / "scheduler-plugins.md"

PROGRAM = """
from core import config
from scheduler import options
from scheduler.host_state import Aggregate, HostRow, HostTable, Inventory
from scheduler.placement import Pass
from scheduler.request import PlacementRequest

conf = config.load()
options.register(conf)
config.override(conf, "filter_scheduler.enabled_filters", ["ComputeFilter", "MaintenanceFilter"])
config.override(conf, "filter_scheduler.weight_classes", ["RackWeigher"])
table = HostTable()
table.set_aggregates([Aggregate(1, "m", {"maintenance": "yes"})])
table.apply(
    HostRow(f"rp-{name}", name, rack=rack, last_seen=100.0, num_instances=servers,
            inventories={"VCPU": Inventory(8)}, aggregates=frozenset(aggregates))
    for name, rack, servers, aggregates in (
        ("a", "r1", 0, {1}), ("b", "r1", 3, ()), ("c", "r2", 2, ()), ("d", "r2", 0, ()))
)
requests = [PlacementRequest(str(n), str(n), resources={"VCPU": 1}) for n in range(3)]
decisions = Pass.from_conf(table, conf).place(requests, 100.0)
print(" ".join(decision.chosen.host for decision in decisions))
table.set_aggregates([Aggregate(1, "m", {"maintenance": "yes"})])
refused = Pass.from_conf(table, conf).place([PlacementRequest("x", "x", host="a")], 100.0)[0]
print(refused.summary)
"""


def test_the_example_package_of_the_guide_works(tmp_path: pathlib.Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    blocks = re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert [name for name, _ in blocks] == ["pyproject.toml", "rackwise.py"]
    for name, text in blocks:
        (source / name).write_text(text)
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*install, "--target", str(target), str(source)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT)])}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # r2 has 2 servers, then 3 like r1: the first host wins, and then r2 again.
    assert done.stdout.splitlines() == [
        "c b c",
        "No valid host: 4 hosts; 3 other than the requested host, 1 on maintenance (MaintenanceFilter)",
    ]


def test_setup_cfg_registers_every_class_that_exists() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    for namespace in (plugins.FILTERS, plugins.WEIGHERS):
        listed = dict(
            line.split(" = ") for line in parser["options.entry_points"][namespace].strip().splitlines()
        )
        folder = ROOT / "scheduler" / namespace.rpartition(".")[2]
        defined = set()
        for path in folder.glob("*.py"):
            if path.name != "base.py":
                defined |= set(re.findall(r"^class ([A-Z]\w+)\(", path.read_text(), re.MULTILINE))
        always = {"DestinationFilter", "SizeFilter", "ResourcesFilter", "TraitsFilter"}
        assert set(listed) == defined - always
        for name, place in listed.items():
            module, _, attribute = place.partition(":")
            assert attribute == name
            assert (ROOT / (module.replace(".", "/") + ".py")).exists()


def test_an_unknown_name_is_refused_with_the_known_ones(conf) -> None:
    config.override(conf, "filter_scheduler.enabled_filters", ["ComputeFilter", "NoSuchFilter"])
    with pytest.raises(errors.BadRequest, match="NoSuchFilter.*There are: .*IoOpsFilter"):
        plugins.load_filters(conf)
    config.override(conf, "filter_scheduler.weight_classes", ["Nothing"])
    with pytest.raises(errors.BadRequest, match="weight_classes names Nothing.*RAMWeigher"):
        plugins.load_weighers(conf)


def test_upstreams_defaults_and_dotted_names_load(conf) -> None:
    from scheduler.host_state import HostTable

    assert [item.name for item in plugins.load_filters(conf)] == conf.filter_scheduler.enabled_filters
    config.override(conf, "filter_scheduler.weight_classes", ["nova.scheduler.weights.all_weighers"])
    assert len(plugins.load_weighers(conf)) >= 8
    config.override(conf, "filter_scheduler.weight_classes", ["nova.scheduler.weights.ram.RAMWeigher"])
    assert [item.name for item in plugins.load_weighers(conf)] == ["RAMWeigher"]
    assert Pass.from_conf(HostTable(), conf).place([]) == []
