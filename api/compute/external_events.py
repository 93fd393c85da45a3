"""os-server-external-events: network, volume and bare metal tell what has become of a server's parts.

What concerns networks goes on to the agent of the server's host: it waits for ports to
be plugged, and tells the conductor what has changed.  A volume that grew is an intent: its guest is shown
the new size.  Other events are checked, answered with what upstream answers, and written to the log.
"""

from __future__ import annotations

import logging
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from core import block_devices
from core.errors import NotFound
from db import intents, servers

LOG = logging.getLogger(__name__)
_NAMES = ["network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted"]
_SINCE: tuple[tuple[str, list[str]], ...] = (
    ("2.1", []),
    ("2.51", ["volume-extended"]),
    ("2.76", ["power-update"]),
    ("2.82", ["accelerator-request-bound"]),
    ("2.93", ["volume-reimaged"]),
)


def _schemas() -> tuple[tuple[str, dict[str, Any]], ...]:
    names, result = list(_NAMES), []
    for since, more in _SINCE:
        names = [*names, *more]
        event = v.obj(
            {
                "server_uuid": v.UUID,
                "name": {"enum": names},
                "status": {"enum": ["failed", "completed", "in-progress"]},
                "tag": {"type": "string", "minLength": 1, "maxLength": 255},
            },
            ["server_uuid", "name"],
        )
        events = {"type": "array", "items": event, "minItems": 1, "maxItems": 1000}
        result.append((since, v.obj({"events": events}, ["events"])))
    return tuple(result)


CREATE = _schemas()


class ExternalEventsController(Controller):
    """Create."""

    @operation(
        "POST",
        "/os-server-external-events",
        policy="os_compute_api:os-server-external-events:create",
        body=CREATE,
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Take note of events that concern servers."""
        events = call.body["events"]
        server_ids = sorted({event["server_uuid"] for event in events})
        places = servers.places_of(self.services.databases, server_ids)
        answers, codes = [], set()
        for event in events:
            code = self._code(event, places)
            status = event.get("status", "completed") if code == 200 else "failed"
            answers.append({**event, "status": status, "code": code})
            codes.add(code)
            LOG.info("event %s for server %s: %s", event["name"], event["server_uuid"], code)
        if codes == {404}:
            raise NotFound("No instances found for any event")
        for answer in answers:
            if answer["code"] != 200:
                continue
            if answer["name"] in _NAMES:
                cell_id, host = places[answer["server_uuid"]]
                self.services.doorbells.tell(int(cell_id or 0), str(host), answer)
            elif answer["name"] == "volume-extended" and answer.get("tag"):
                self._extended(call, answer["server_uuid"], answer["tag"])
        if codes != {200}:
            call.response.status = 207
        return {"events": answers}

    def _extended(self, call: Call, server_id: str, volume_id: str) -> None:
        """The guest is shown how large its volume is now; whatever else goes on with the server comes first."""
        found = servers.find(self.services.databases, server_id)
        device = block_devices.find(found.row["block_devices"] or [], volume_id)
        if device is None:
            return
        intent = intents.row(
            "server.extend_volume",
            "server",
            server_id,
            call.context,
            {"device": device},
            target=found.row["host"],
            exclusive=False,
            project_id=found.row["project_id"],
        )
        with found.database.write() as connection:
            intents.insert(connection, intents.table(found.database), [intent])
        self.services.doorbells.ring_conductor(int(found.database.cell_id or 0), [intent["id"]])

    def _code(self, event: dict[str, Any], places: dict[str, tuple[int | None, str | None]]) -> int:
        """200, 404: no such server, 422: it has no host yet, 400: the tag is not one of this event's."""
        if event["server_uuid"] not in places:
            return 404
        if places[event["server_uuid"]][1] is None:
            return 422
        if event["name"] == "power-update" and event.get("tag") not in ("POWER_ON", "POWER_OFF"):
            return 400
        return 200
