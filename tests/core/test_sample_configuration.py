"""etc/haneul.conf.sample is what the options say now, and every option of ours says what it is for."""

from __future__ import annotations

import configparser
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

ROOT = Path(__file__).resolve().parents[2]


def option_lists() -> Iterator[tuple[str, list[cfg.Opt]]]:
    """(group, options) of every list that setup.cfg names."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    for line in parser["options.entry_points"]["oslo.config.opts"].strip().splitlines():
        module, _, function = line.partition("=")[2].strip().partition(":")
        for group, options in getattr(importlib.import_module(module), function)():
            yield str(getattr(group, "name", group) or "DEFAULT"), list(options)


OPTIONS = [(group, option) for group, options in option_lists() for option in options]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: getattr(value, "name", value))
def test_every_option_has_a_help_text(group: str, option: cfg.Opt) -> None:
    assert option.help, f"[{group}]{option.name}"


def test_the_sample_is_current() -> None:
    sample = (ROOT / "etc" / "haneul.conf.sample").read_text()
    group, shown = "DEFAULT", set()
    for line in sample.splitlines():
        if header := re.match(r"\[(.+)\]$", line):
            group = header[1]
        elif option := re.match(r"#([a-z][a-z0-9_-]*) =", line):
            shown.add((group, option[1]))
    missing = {(group, option.dest) for group, option in OPTIONS} - shown
    assert not missing, "run: oslo-config-generator --config-file etc/config-generator.conf"


def test_the_sample_names_nothing_of_the_machine_that_made_it() -> None:
    sample = (ROOT / "etc" / "haneul.conf.sample").read_text()
    assert str(ROOT) not in sample
    assert sys.prefix not in sample
    host = subprocess.run(["uname", "-n"], capture_output=True, text=True, check=True).stdout.strip()
    assert f"= {host}\n" not in sample
