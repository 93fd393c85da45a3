"""Look at everything that this cloud needs; say what is missing or wrong, and how to mend it."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from cli import cloud, packages, settings
from cli.down import DAEMON
from cli.state import StateFolder
from core.errors import HaneulError

EXAMPLES = """\
examples:
  haneul doctor                             exit status 1 if something is wrong
  haneul doctor --state /var/lib/haneul     another state folder
"""
# (what is all right?, what was looked at, what was found or how to mend it)
Finding = tuple[bool, str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def run(options: argparse.Namespace) -> int:
    state, wrong = StateFolder(options.state), 0
    for check in CHECKS:
        try:
            for fine, what, detail in check(state):
                wrong += not fine
                print(f"{'ok   ' if fine else 'WRONG'} {what}: {detail}")
        except HaneulError as error:
            wrong += 1
            print(f"WRONG {check.__name__}: {error.message}")
        except ImportError as error:
            wrong += 1
            print(f"WRONG {check.__name__}: {error}: this is not the environment of 'make up' (.venv)")
    return 1 if wrong else 0


def machine(state: StateFolder) -> Iterator[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    yield sys.version_info >= (3, 11), "python", f"{version} (3.11 or later is needed)"
    folder = next(path for path in [state.path, *state.path.parents] if path.exists())
    free_gib = shutil.disk_usage(folder).free / 2**30
    yield free_gib > 2, "disk", f"{free_gib:.0f} GiB free at {folder} (2 GiB are needed)"
    # MemAvailable counts caches that the kernel would give up
    memory = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
    yield int(memory) > 700_000, "memory", f"{int(memory) // 1024} MiB available (700 are needed)"


def hypervisor(state: StateFolder) -> Iterator[Finding]:
    if state.exists() and settings.Addresses(state).driver == "simulated":
        yield True, "hypervisor", "simulated, as the configuration says: no guest is real"
        return
    lacking = packages.missing(packages.HYPERVISOR)
    how = f"missing {' '.join(lacking)}; {packages.how_to_install(lacking)}" if lacking else "all there"
    yield not lacking, "packages of the hypervisor", how
    binding = importlib.util.find_spec("libvirt") is not None
    yield binding, "libvirt-python", "there" if binding else "missing in this environment: make .venv"
    if not Path("/dev/kvm").exists():
        yield True, "kvm", "no /dev/kvm: guests run under QEMU emulation, slower but the same"
    elif not os.access("/dev/kvm", os.R_OK | os.W_OK):
        yield False, "kvm", "/dev/kvm is not ours to use: add this user to the group kvm"
    else:
        yield True, "kvm", _probe(state)


def _probe(state: StateFolder) -> str:
    """What the compute agent found when it booted a small kernel under KVM."""
    verdict = state.read_json("cache/kvm-probe.json").get("verdict")
    if not verdict:
        return "/dev/kvm is there; the agent tries at its start whether guests run under it"
    return verdict["reason"] or "a small kernel booted under KVM: guests run under it"


def services(state: StateFolder) -> Iterator[Finding]:
    if not state.exists():
        yield False, "cloud", f"none in {state.path}: haneul up"
        return
    pid = state.pid(DAEMON)
    yield pid is not None, "services", f"running, pid {pid}" if pid else "stopped: haneul up"
    for name, what in (state.read_json("run/roles.json") if pid else {}).items():
        yield what == "running", f"role {name}", what
    addresses = settings.Addresses(state)
    urls = {kind: addresses.url(group, path) for _n, kind, group, path, _t in settings.CATALOG}
    for name, url in {"identity": addresses.auth_url, **urls}.items():
        fine = cloud.answers(url, addresses.cafile)
        yield fine, f"API {name}", f"{url} {'answers' if fine else 'does not answer'}"


def databases(state: StateFolder) -> Iterator[Finding]:
    if not state.exists():
        return
    from cli import database

    opened = database.open_databases([state.config_file])
    try:
        found = database.differences(opened)
    finally:
        opened.dispose()
    if found:
        many = f" (and {len(found) - 1} more: haneul db check)" if len(found) > 1 else ""
        yield False, "databases", f"{found[0]}{many}: {database.advice(found)}"
    else:
        yield True, "databases", "fit this version"


def secrets(state: StateFolder) -> Iterator[Finding]:
    for name in ("haneul.conf", "passwords.json", "clouds.yaml", "admin-openrc", "identity/plan.json"):
        path = state / name
        if path.exists():
            fine = path.stat().st_mode & 0o077 == 0
            yield fine, f"mode of {name}", "private" if fine else f"others may read it: chmod 600 {path}"


CHECKS: tuple[Callable[[StateFolder], Iterator[Finding]], ...] = (
    machine,
    hypervisor,
    services,
    databases,
    secrets,
)
