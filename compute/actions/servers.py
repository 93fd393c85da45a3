"""What the agent does with servers: create, start, stop, reboot, copy to an image, delete.

| kind | steps |
|---|---|
| server.create | check host → make and bind ports → have volumes → cache image → create disks → define → wait for ports → power on |
| server.start | connect volumes again → define again (so that the definition is current) → power on |
| server.stop | power off |
| server.reboot_soft | reboot |
| server.reboot_hard | connect volumes again → reboot |
| server.create_image | copy the root disk → upload it → remove the copy |
| server.forget_image | the way back of the former, when it could not be gone: remove the copy → delete the image |
| server.attach_interface | make or adopt a port → wait for it → plug it into the guest |
| server.detach_interface | pull the NIC out of the guest → let its port go |
| server.attach_volume | reserve the volume → connect it → plug it into the guest |
| server.detach_volume | say so → pull it out of the guest → disconnect it and let it go |
| server.forget_volume | the way back of both, when it could not be gone: pull it out → let it go |
| server.swap_volume | connect the new one → copy while the guest runs → let the old one go |
| server.settle_swap | the end of a swap that could go neither on nor back, whichever is right |
| server.extend_volume | show the guest what the volume has grown to |
| server.snapshot_volume | copy a volume for its backend, tell it |
| server.delete | power off and forget → let volumes go → let ports go → remove disks |
| server.cleanup | the same, on a host that was down when its server was deleted or built elsewhere |
| host.cache_image | fetch an image before a server needs it |

While the network agent plugs the ports, the image is fetched: so they come first, and are waited for last.

``run.worker`` is the agent's ``compute.agent.Worker``: driver, image fetcher,
host name.  All steps repeat harmlessly; the ids that they use were made before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compute.actions import ports, volumes
from compute.drivers.base import ComputeDriver, GuestImage, GuestSpec, PowerState
from core.errors import Rebuildable
from lifecycle.steps import Action, Registry, Run, Step


def _driver(run: Run) -> ComputeDriver:
    driver: ComputeDriver = run.worker.driver
    return driver


def _guest(run: Run) -> GuestSpec:
    """As the steps have made it so far, but for how its volumes are reached."""
    return GuestSpec.from_dict({**run.arguments["guest"], "nics": ports.nics(run)})


def _check_host(run: Run) -> None:
    """The last word on whether the guest fits, said where the truth is."""
    guest = _guest(run)
    if guest.memory_mib > run.worker.memory_mib:
        raise Rebuildable(f"host {run.worker.host} has less memory than {guest.memory_mib} MiB")


def _cache_image(run: Run) -> None:
    guest = _guest(run)
    if guest.image is not None and guest.boots_locally:
        _driver(run).cache_image(guest.image, run.worker.images.fetch)


def _cache_ordered_image(run: Run) -> None:
    _driver(run).cache_image(GuestImage.from_dict(run.arguments["image"]), run.worker.images.fetch)


def _create_disks(run: Run) -> None:
    _driver(run).create_disks(_guest(run))


def _remove_disks(run: Run) -> None:
    _driver(run).remove_disks(run.resource_id)


def _define(run: Run) -> None:
    _driver(run).define(volumes.with_volumes(run, _guest(run)))


def _undefine(run: Run) -> None:
    _driver(run).undefine(run.resource_id)


def _power_on(run: Run) -> dict[str, Any]:
    _driver(run).power_on(run.resource_id)
    return _seen(run)


def _power_on_new(run: Run) -> dict[str, Any]:
    """The first start: its outcome tells the server's addresses and attachments, too."""
    _driver(run).power_on(run.resource_id)
    made = ports.wait_running(run)
    told = {"network_info": made} if made else {}
    return {**_seen(run), **told, **(run.results.get("volumes") or {})}


def _attach_nic(run: Run) -> dict[str, Any]:
    (nic,) = run.results["plugged"]["nics"]
    _driver(run).attach_nic(GuestSpec.from_dict(run.arguments["guest"]), nic)
    (nic,) = ports.wait_running(run) or [nic]
    return {"nic": nic}


def _unattach_nic(run: Run) -> None:
    for nic in (run.results.get("ports") or {}).get("nics", ()):
        _driver(run).detach_nic(run.resource_id, nic["mac_address"])


def _detach_nic(run: Run) -> None:
    _driver(run).detach_nic(run.resource_id, run.arguments["nic"]["mac_address"])


def _power_off(run: Run) -> dict[str, Any]:
    timeout = float(run.arguments.get("timeout_s", run.worker.shutdown_timeout_s))
    _driver(run).power_off(run.resource_id, timeout)
    return _seen(run)


def _power_off_hard(run: Run) -> None:
    """Undo of power_on: content when there is no guest, since define may never have run."""
    if _driver(run).power_state(run.resource_id) != PowerState.NOSTATE:
        _driver(run).power_off(run.resource_id, 0)


def _reboot_soft(run: Run) -> dict[str, Any]:
    _driver(run).reboot(run.resource_id, hard=False, timeout_s=run.worker.shutdown_timeout_s)
    return _seen(run)


def _reboot_hard(run: Run) -> dict[str, Any]:
    _power_off_hard(run)
    if "guest" in run.arguments:
        _define(run)
    _driver(run).power_on(run.resource_id)
    return _seen(run)


def _define_current(run: Run) -> None:
    if "guest" in run.arguments:
        _define(run)


def _seen(run: Run) -> dict[str, Any]:
    """The outcome: the power state that the hypervisor shows."""
    return {"power_state": int(_driver(run).power_state(run.resource_id))}


def _take_snapshot(run: Run) -> None:
    _driver(run).take_snapshot(run.resource_id, run.arguments["image_id"], run.check_cancelled)


def _remove_snapshot(run: Run) -> None:
    _driver(run).remove_snapshot(run.resource_id, run.arguments["image_id"])


def _upload(run: Run) -> None:
    image_id = run.arguments["image_id"]

    def data() -> Iterator[bytes]:
        return _driver(run).read_snapshot(run.resource_id, image_id)

    run.worker.images.upload(image_id, data, run.check_cancelled)


def _delete_image(run: Run) -> None:
    """Undo of what the API did: an image that gets no data is nobody's use."""
    run.worker.images.delete(run.arguments["image_id"])


_CONNECTED = "the guest has them, running or not"
_FREE = "the volume may be another server's by now"
_FORWARD = "a cleanup only goes forward"
_KEEPS = "the guest is left as the hypervisor has it; the fault says what failed"

ACTIONS = Registry(
    Action(
        "server.create",
        (
            Step("check_host", _check_host, no_undo="only looks"),
            Step("ports", ports.make, undo=ports.unmake, shows_as="networking"),
            Step("volumes", volumes.bring, undo=volumes.take_back, shows_as="block_device_mapping"),
            Step("cache_image", _cache_image, no_undo="the cache is shared and expires by itself"),
            Step("create_disks", _create_disks, undo=_remove_disks, shows_as="block_device_mapping"),
            Step("define", _define, undo=_undefine, shows_as="spawning"),
            Step("plugged", ports.wait_plugged, no_undo="only waits"),
            Step("power_on", _power_on_new, undo=_power_off_hard, shows_as="spawning"),
        ),
    ),
    Action(
        "server.start",
        (
            Step("volumes", volumes.connect_again, no_undo=_CONNECTED),
            Step("define", _define_current, no_undo="the definition is what the database says"),
            Step("power_on", _power_on, no_undo=_KEEPS),
        ),
    ),
    Action("server.stop", (Step("power_off", _power_off, no_undo=_KEEPS),)),
    Action("server.reboot_soft", (Step("reboot", _reboot_soft, no_undo=_KEEPS, shows_as="reboot_started"),)),
    Action(
        "server.reboot_hard",
        (
            Step("volumes", volumes.connect_again, no_undo=_CONNECTED),
            Step("reboot", _reboot_hard, no_undo=_KEEPS, shows_as="reboot_started_hard"),
        ),
    ),
    Action(
        "server.create_image",
        (
            Step("snapshot", _take_snapshot, undo=_remove_snapshot, shows_as="image_snapshot"),
            Step("upload", _upload, undo=_delete_image, shows_as="image_uploading"),
            Step("remove_snapshot", _remove_snapshot, no_undo="a copy that is gone is what the end wants"),
        ),
    ),
    Action(
        "server.forget_image",
        (
            Step("remove_snapshot", _remove_snapshot, no_undo=_FORWARD),
            Step("delete_image", _delete_image, no_undo=_FORWARD),
        ),
        undo_on_failure=False,
    ),
    Action(
        "server.attach_interface",
        (
            Step("ports", ports.make_more, undo=ports.unmake_more),
            Step("plugged", ports.wait_plugged, no_undo="only waits"),
            Step("attach", _attach_nic, undo=_unattach_nic),
        ),
    ),
    Action(
        "server.detach_interface",
        (
            Step("detach", _detach_nic, no_undo="the guest has let go of it already"),
            Step("ports", ports.release_one, no_undo="what is let go may be someone else's by now"),
        ),
        undo_on_failure=False,
    ),
    Action(
        "server.attach_volume",
        (
            # durable: who asked waits for it, since it is here that the Volume API refuses
            Step("reserve", volumes.reserve, undo=volumes.unreserve, durable=True),
            Step("connect", volumes.connect, no_undo="the undo of reserve disconnects, too"),
            Step("attach", volumes.attach, undo=volumes.unattach),
        ),
    ),
    Action(
        "server.detach_volume",
        (
            Step("begin", volumes.begin_detaching, undo=volumes.roll_detaching),
            Step("detach", volumes.detach, undo=volumes.reattach),
            Step("let_go", volumes.let_go, no_undo=_FREE, forward=True),
        ),
    ),
    Action(
        "server.forget_volume",
        (
            Step("detach", volumes.detach, no_undo=_FORWARD),
            Step("let_go", volumes.let_go, no_undo=_FORWARD),
        ),
        undo_on_failure=False,
    ),
    Action(
        "server.swap_volume",
        (
            Step("connect", volumes.connect_new, undo=volumes.unconnect_new),
            # A copy back may not fit: who can't copy leaves the guest as it was, and it is tried again.
            # Durable: once the old volume is let go, a repeat would look for it in vain.
            Step(
                "swap",
                volumes.swap,
                no_undo="a guest that has the new volume keeps it",
                durable=True,
                forward=True,
            ),
            Step("let_go", volumes.let_go_old, no_undo=_FREE, forward=True),
        ),
    ),
    Action(
        "server.settle_swap",
        (Step("settle", volumes.settle_swap, no_undo=_FORWARD),),
        undo_on_failure=False,
    ),
    Action(
        "server.extend_volume",
        (Step("extend", volumes.extend, no_undo="a guest that sees the volume's size is as it should be"),),
    ),
    Action(
        "server.snapshot_volume",
        (
            Step("copy", volumes.snapshot, undo=volumes.give_snapshot_up),
            Step("tell", volumes.tell_snapshot, no_undo="what is told is true"),
        ),
    ),
    *(
        Action(
            kind,
            (
                Step("undefine", _undefine, no_undo="a deletion only goes forward"),
                Step("volumes", let_go, no_undo="a deletion only goes forward"),
                Step("ports", release, no_undo="a deletion only goes forward"),
                Step("remove_disks", _remove_disks, no_undo="a deletion only goes forward"),
            ),
            undo_on_failure=False,
        )
        for kind, let_go, release in (
            ("server.delete", volumes.release, ports.release),
            ("server.cleanup", volumes.release_here, ports.release_here),
        )
    ),
    Action(
        "host.cache_image",
        (Step("cache_image", _cache_ordered_image, no_undo="the cache is shared and expires by itself"),),
        undo_on_failure=False,
    ),
)

__all__ = ["ACTIONS", "PowerState"]
