"""etc/policy/*.yaml.sample are what the rules say now: upstream's names, our defaults, commented out."""

from __future__ import annotations

import configparser
import importlib
import re
from pathlib import Path

import pytest
import yaml
from oslo_config import cfg
from oslo_policy import policy as oslo_policy

from core import config
from core.context import RequestContext
from core.policy import Policy

ROOT = Path(__file__).resolve().parents[2]


def namespaces() -> dict[str, list[oslo_policy.RuleDefault]]:
    """API → its rules, of every namespace that setup.cfg names."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    found = {}
    for line in parser["options.entry_points"]["oslo.policy.policies"].strip().splitlines():
        name, _, place = (part.strip() for part in line.partition("="))
        module, _, function = place.partition(":")
        found[name.removeprefix("haneul.")] = getattr(importlib.import_module(module), function)()
    return found


NAMESPACES = namespaces()


def sample(api: str) -> dict[str, str]:
    """The rules in a sample, as they are when the comment signs in front of them go."""
    text = (ROOT / "etc" / "policy" / f"{api}.yaml.sample").read_text()
    rules = "\n".join(line[1:] for line in text.splitlines() if re.match(r'#"[^"]+":', line))
    loaded: dict[str, str] = yaml.safe_load(rules)
    return loaded


def test_every_api_has_one() -> None:
    # the metadata API has none: who asks is known by a signature
    apis = {path.parent.name for path in (ROOT / "api").glob("*/policies*")}
    assert set(NAMESPACES) == apis
    assert {path.name for path in (ROOT / "etc" / "policy").iterdir()} == {
        f"{api}.yaml.sample" for api in apis
    }


@pytest.mark.parametrize("api", NAMESPACES)
def test_the_sample_is_current(api: str) -> None:
    said = {rule.name: rule.check_str for rule in NAMESPACES[api]}
    assert sample(api) == said, "run: make samples"


@pytest.mark.parametrize("api", NAMESPACES)
def test_as_it_is_the_sample_changes_nothing(api: str) -> None:
    assert yaml.safe_load((ROOT / "etc" / "policy" / f"{api}.yaml.sample").read_text()) is None


def configured(folder: Path, **files: str) -> cfg.ConfigOpts:
    """A configuration in a folder with policy files."""
    file = folder / "haneul.conf"
    file.write_text("")
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".yaml").write_text(text)
    return config.load([file])


@pytest.mark.parametrize("place", ["policy", "policy.d__image"])
def test_a_rule_without_its_comment_sign_is_in_force(place: str, tmp_path: Path) -> None:
    reader = RequestContext(user_id="u", project_id="p", roles=["reader"], overwrite=False)
    rules = NAMESPACES["image"]
    (tmp_path / "a").mkdir()
    assert not Policy(configured(tmp_path / "a"), rules[10:]).allowed(reader, "add_image")
    (tmp_path / "b").mkdir()
    conf = configured(tmp_path / "b", **{place: '"add_image": "role:reader"\n'})
    assert Policy(conf, rules[10:]).allowed(reader, "add_image")
