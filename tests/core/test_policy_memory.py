"""Verdicts are remembered for a few seconds, by everything that they depend on."""

from __future__ import annotations

from pathlib import Path

import pytest
from oslo_policy import opts as policy_opts
from oslo_policy import policy as oslo_policy

from core import config
from core import policy as core_policy
from core.context import RequestContext
from core.policy import PROJECT_MEMBER_OR_ADMIN, Policy

RULES = [oslo_policy.RuleDefault("things:change", PROJECT_MEMBER_OR_ADMIN)]


def asker(project: str, *roles: str) -> RequestContext:
    return RequestContext(project_id=project, user_id="u", roles=list(roles), overwrite=False)


def test_each_asker_and_target_has_its_own_verdict() -> None:
    policy = Policy(config.load(), RULES)
    for _ in range(2):
        assert policy.allowed(asker("p1", "member"), "things:change")
        assert not policy.allowed(asker("p1", "reader"), "things:change")
        assert not policy.allowed(asker("p1", "member"), "things:change", {"project_id": "p2"})
        assert policy.allowed(asker("p2", "member"), "things:change", {"project_id": "p2"})
        assert policy.allowed(asker("p1", "admin"), "things:change", {"project_id": "p2"})
        assert policy.allowed(asker("p2", "member"), "things:change", {"project_id": "p2", "tags": ["a"]})


def test_a_changed_file_is_in_force_once_the_memory_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(core_policy.time, "monotonic", lambda: clock[0])
    conf = config.load()
    policy_opts.set_defaults(conf)
    file = tmp_path / "policy.yaml"
    file.write_text("{}")
    config.override(conf, "oslo_policy.policy_file", str(file))
    policy = Policy(conf, RULES)
    assert policy.allowed(asker("p1", "member"), "things:change")
    file.write_text('"things:change": "role:admin"\n')
    clock[0] += 60
    assert not policy.allowed(asker("p1", "member"), "things:change")
