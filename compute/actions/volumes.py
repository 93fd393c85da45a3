"""Steps with a server's volumes: reserve, connect, plug in, pull out, let go.

A server without volumes costs none of the calls here.  ``run.arguments``: "guest", whose
"volumes" are the server's devices (``core.block_devices``) without how they are reached;
of an attach, a detach, a swap, "device": the one that it is about; of a deletion, "volumes":
{"doomed": ids of those that go with the server}, absent when it never had any.

No order of these steps lets two hosts write: a volume is disconnected before its attachment
goes, and nothing is disconnected that a guest of this host still has.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from compute.attachments import Attachments, Volume
from compute.drivers.base import ComputeDriver, GuestSpec
from core.errors import BadRequest, NotFound
from lifecycle.service_client import patiently
from lifecycle.steps import Run


def _attachments(run: Run) -> Attachments:
    attachments: Attachments = run.worker.attachments
    return attachments


def _driver(run: Run) -> ComputeDriver:
    driver: ComputeDriver = run.worker.driver
    return driver


def _patiently(run: Run, function: Callable[[], Any]) -> Any:
    return patiently(function, run.check_cancelled)


def _devices(run: Run) -> list[dict[str, Any]]:
    return list((run.arguments.get("guest") or {}).get("volumes") or ())


def with_volumes(run: Run, guest: GuestSpec) -> GuestSpec:
    """The guest with its volumes as they are reached from here."""
    devices = _devices(run)
    if not devices:
        return guest
    known = _patiently(run, lambda: _attachments(run).known(run.resource_id, devices))
    return dataclasses.replace(guest, volumes=tuple(known))


# -- of a whole server -----------------------------------------------------------


def bring(run: Run) -> dict[str, Any] | None:
    """Of a new server: wait until its volumes are made, then have them here."""
    devices = _devices(run)
    if not devices:
        return None
    here = _attachments(run)
    for device in devices:
        here.wait_made(device["volume_id"], run.check_cancelled)
    attached = [_patiently(run, functools.partial(_bring, run, device)) for device in devices]
    return {"attached": attached}


def _bring(run: Run, device: dict[str, Any]) -> dict[str, Any]:
    here = _attachments(run)
    here.reserve(run.resource_id, device["volume_id"])
    volume = here.connect(run.resource_id, device)
    here.api.complete(volume["attachment_id"])
    return _told(volume)


def take_back(run: Run) -> None:
    """Undo of ``bring``: what this host has connected, and no more (the server may be elsewhere by now)."""
    if _devices(run):
        _attachments(run).let_go_here(run.resource_id)


def connect_again(run: Run) -> None:
    """Before a start: a host that was restarted has lost its connections, and addresses may have changed."""
    devices = _devices(run)
    if devices:
        _patiently(run, lambda: _attachments(run).refresh(run.resource_id, devices))


def release(run: Run) -> None:
    """Of a server that is being deleted: its guest is gone already."""
    told = run.arguments.get("volumes")
    if told is not None:
        _patiently(run, lambda: _attachments(run).let_go_all(run.resource_id, told["doomed"]))


def release_here(run: Run) -> None:
    """Of a server that is gone or elsewhere: only what this host has connected."""
    if run.arguments.get("volumes") is not None:
        _attachments(run).let_go_here(run.resource_id)


def _told(volume: Volume) -> dict[str, Any]:
    """What the server's row is told: nothing of how the volume is reached."""
    return {key: volume[key] for key in ("volume_id", "attachment_id", "size_gib", "multiattach")}


# -- attach ----------------------------------------------------------------------


def reserve(run: Run) -> dict[str, Any]:
    volume_id = run.arguments["device"]["volume_id"]
    here = _attachments(run)
    return {"attachment_id": _patiently(run, lambda: here.reserve(run.resource_id, volume_id))}


def unreserve(run: Run) -> None:
    _attachments(run).let_go(run.resource_id, run.arguments["device"]["volume_id"])


def connect(run: Run) -> None:
    here, device = _attachments(run), run.arguments["device"]
    _patiently(run, lambda: here.connect(run.resource_id, device))


def _here(run: Run, device: dict[str, Any]) -> Volume:
    """The volume as it is reached from here."""
    (volume,) = _patiently(run, lambda: _attachments(run).known(run.resource_id, [device]))
    return dict(volume)


def attach(run: Run) -> dict[str, Any]:
    """Plug it in, and say that it is in use."""
    volume = _here(run, run.arguments["device"])
    _driver(run).attach_volume(GuestSpec.from_dict(run.arguments["guest"]), volume)
    here = _attachments(run)
    _patiently(run, lambda: here.api.complete(volume["attachment_id"]))
    return {"attached": [_told(volume)]}


def unattach(run: Run) -> None:
    _driver(run).detach_volume(run.resource_id, run.arguments["device"]["volume_id"])


def _attached(run: Run) -> set[str]:
    """The server's volumes by the Volume API's word."""
    return {row["volume_id"] for row in _attachments(run).api.attachments_of(run.resource_id)}


# -- detach ----------------------------------------------------------------------


def begin_detaching(run: Run) -> None:
    """The volume shows it, and nobody else begins. One that vanished is detached all the same."""
    here, volume_id = _attachments(run), run.arguments["device"]["volume_id"]
    try:
        _patiently(run, lambda: here.api.act(volume_id, "os-begin_detaching"))
    except NotFound:
        return
    except BadRequest:
        # an earlier attempt of ours began, or its attachment is gone: what counts is that the guest lets go
        if here.api.volume(volume_id)["status"] not in ("detaching", "available"):
            raise


def roll_detaching(run: Run) -> None:
    """The guest keeps it: in use again, never detaching for ever."""
    try:
        _attachments(run).api.act(run.arguments["device"]["volume_id"], "os-roll_detaching")
    except (NotFound, BadRequest):
        return  # it is not detaching, or not there


def detach(run: Run) -> None:
    _driver(run).detach_volume(run.resource_id, run.arguments["device"]["volume_id"])


def reattach(run: Run) -> None:
    """Undo of ``detach``: as long as the server has the attachment, its guest has the volume."""
    here, device = _attachments(run), run.arguments["device"]
    if device["volume_id"] not in _attached(run):
        return
    (volume,) = here.refresh(run.resource_id, [device])
    _driver(run).attach_volume(GuestSpec.from_dict(run.arguments["guest"]), volume)


def let_go(run: Run) -> None:
    """From here it goes on: what is disconnected is somebody else's soon."""
    volume_id = run.arguments["device"]["volume_id"]
    patiently(lambda: _attachments(run).let_go(run.resource_id, volume_id), run.check_fenced)


# -- swap ------------------------------------------------------------------------


def _new_device(run: Run) -> dict[str, Any]:
    """The device as it will be."""
    return {**run.arguments["device"], **run.arguments["device"]["swap_to"], "attachment_id": None}


def connect_new(run: Run) -> None:
    here, device = _attachments(run), _new_device(run)
    _patiently(run, lambda: here.reserve(run.resource_id, device["volume_id"]))
    _patiently(run, lambda: here.connect(run.resource_id, device))


def unconnect_new(run: Run) -> None:
    _attachments(run).let_go(run.resource_id, _new_device(run)["volume_id"])


def swap(run: Run) -> None:
    """The guest goes on with a copy on the new volume."""
    old, new = _here(run, run.arguments["device"]), _here(run, _new_device(run))
    guest = GuestSpec.from_dict(run.arguments["guest"])
    _driver(run).swap_volume(guest, old, new, run.check_cancelled)


def _unswap(run: Run) -> None:
    """Content when the guest has never left the old volume; else what was written since is copied back.

    :raises BadRequest: the old one is smaller. Then nothing may be disconnected.
    """
    here, new = _attachments(run), _new_device(run)
    record = here.records.get(run.resource_id, new["volume_id"])
    if record is None or "connection_info" not in record:
        return  # it was never within reach of the guest
    if run.arguments["device"]["volume_id"] not in _attached(run):
        return  # let go already: the server is being deleted
    old, new = _here(run, run.arguments["device"]), _here(run, new)
    _driver(run).swap_volume(GuestSpec.from_dict(run.arguments["guest"]), new, old, lambda: None)


def let_go_old(run: Run) -> dict[str, Any]:
    """From here it goes on, as ``let_go`` does."""

    def go() -> dict[str, Any]:
        here, old, new = _attachments(run), run.arguments["device"], _here(run, _new_device(run))
        here.api.complete(new["attachment_id"])
        here.let_go(run.resource_id, old["volume_id"])
        return {"swapped": _told(new)}

    told: dict[str, Any] = patiently(go, run.check_fenced)
    return told


def settle_swap(run: Run) -> dict[str, Any]:
    """Cleanup of a swap that could go neither way: forward if the guest has the new volume, else back."""
    if _new_device(run)["volume_id"] not in _attached(run):
        return {}
    if run.arguments["forward"]:
        return let_go_old(run)
    _unswap(run)
    unconnect_new(run)
    return {}


# -- snapshot --------------------------------------------------------------------


def snapshot(run: Run) -> None:
    """For a backend that can't take one while a guest has the volume open: a copy, to the file that it has made."""
    volume = _here(run, run.arguments["device"])
    guest = GuestSpec.from_dict(run.arguments["guest"])
    _driver(run).snapshot_volume(guest, volume, run.arguments["new_file"], run.check_cancelled)


def give_snapshot_up(run: Run) -> None:
    """The backend need not wait for it any longer."""
    _report(run, "error")


def tell_snapshot(run: Run) -> None:
    """The copy is whole; what becomes of it is the backend's."""
    _patiently(run, lambda: _report(run, "creating", "90%"))


def _report(run: Run, status: str, progress: str | None = None) -> None:
    try:
        _attachments(run).api.report_snapshot(run.arguments["snapshot_id"], status, progress)
    except (NotFound, BadRequest):
        return  # nobody waits for it any more


# -- extend ----------------------------------------------------------------------


def extend(run: Run) -> dict[str, Any]:
    """The guest's disk grows to what the volume is by now."""
    device = run.arguments["device"]
    size = int(_attachments(run).api.volume(device["volume_id"])["size"])
    volume = _here(run, device)
    _driver(run).extend_volume(run.resource_id, volume, size)
    # without the passphrase that an encrypted one has here
    _attachments(run).records.put(run.resource_id, {**volume, "size_gib": size, "encryption": None})
    return {"extended": {"volume_id": device["volume_id"], "size_gib": size}}
