"""Steps with a server's ports: make and bind them, wait until they are plugged, let go.

A server without networks costs none of the calls here.  What was made stands in
``run.results["ports"]`` as NICs (``compute.nics``), for the steps behind.

``run.arguments``: of a create, "networks" (requests, see ``compute.ports.Request``) and
"security_groups" (ids, or None for the default); of a deletion or a cleanup, "ports":
{"kept": ids of ports that the owner made}, absent when the server never had any.
"""

from __future__ import annotations

from typing import Any

from compute.drivers.base import GuestSpec
from compute.nics import Nic
from compute.ports import Ports
from lifecycle.server_ports import kept_ports
from lifecycle.service_client import patiently
from lifecycle.steps import Run


def _ports(run: Run) -> Ports:
    ports: Ports = run.worker.ports
    return ports


def nics(run: Run) -> list[Nic]:
    """The NICs that the intent has made so far, or those that the server had."""
    made = run.results.get("ports")
    if made is not None:
        return list(made["nics"])
    return list((run.arguments.get("guest") or {}).get("nics") or ())


def make(run: Run) -> dict[str, Any] | None:
    requests = run.arguments.get("networks") or []
    if not requests:
        return None
    guest, groups = GuestSpec.from_dict(run.arguments["guest"]), run.arguments.get("security_groups")
    made = patiently(lambda: _ports(run).ensure(guest, requests, groups), run.check_cancelled)
    return {"nics": made}


def unmake(run: Run) -> None:
    """Those bound here: by now the server may be built elsewhere, if this host was thought dead."""
    requests = run.arguments.get("networks") or []
    if requests:
        project_id = run.arguments["guest"]["project_id"]
        _ports(run).release(run.resource_id, project_id, kept_ports(requests, ()), here=True)


def make_more(run: Run) -> dict[str, Any]:
    """For a server that has NICs already (``arguments["guest"]``): one port more."""
    guest, groups = GuestSpec.from_dict(run.arguments["guest"]), run.arguments.get("security_groups")
    requests = run.arguments["networks"]
    made = patiently(
        lambda: _ports(run).ensure(guest, requests, groups, others=_others(run)), run.check_cancelled
    )
    return {"nics": made}


def unmake_more(run: Run) -> None:
    kept = kept_ports(run.arguments["networks"], ())
    project_id = run.arguments["guest"]["project_id"]
    _ports(run).release(run.resource_id, project_id, kept, others=_others(run))


def _others(run: Run) -> list[str]:
    return [nic["port_id"] for nic in run.arguments["guest"].get("nics") or ()]


def release_one(run: Run) -> dict[str, Any]:
    """Of a server that goes on without it; the outcome tells which NIC it has no more."""
    nic = run.arguments["nic"]
    kept = [nic["port_id"]] if nic["preserve_on_delete"] else []
    _ports(run).release(run.resource_id, run.context.get("project_id"), kept, only=[nic["port_id"]])
    return {"removed_port": nic["port_id"]}


def wait_plugged(run: Run) -> dict[str, Any] | None:
    """Before the start: taps that the network agent makes."""
    made = nics(run)
    if not made or run.results.get("ports") is None:
        return None
    return {"nics": _ports(run).wait_plugged(made, run.check_cancelled)}


def wait_running(run: Run) -> list[Nic]:
    """Behind the start: what the hypervisor has made and an agent only wires."""
    waited = run.results.get("plugged") or {"nics": nics(run)}
    if run.results.get("ports") is None:
        return []
    return _ports(run).wait_plugged(waited["nics"], run.check_cancelled, running=True)


def release(run: Run) -> None:
    """Of a server that is being deleted."""
    told = run.arguments.get("ports")
    if told is not None:
        _ports(run).release(run.resource_id, run.context.get("project_id"), told["kept"])


def release_here(run: Run) -> None:
    """Of a server that is gone or elsewhere: only what is still bound to this host."""
    told = run.arguments.get("ports")
    if told is not None:
        _ports(run).release(run.resource_id, run.context.get("project_id"), told["kept"], here=True)
