"""Every body of the Volume API, at every range of versions, with an unknown field, and with each
field wrong: 400, by name."""

from __future__ import annotations

import webtest

from api.common.microversions import Microversion
from api.volume.app import make_api, make_app
from api.volume.services import VolumeServices
from tests.api.common import bad_input
from tests.api.identity import authenticate
from tests.api.volume.conftest import ADMIN

_HINTS = "schedulers of one's own may know further hints"
_CONNECTOR = "what a host says of itself differs by driver"
_REFERENCE = "how a backend names what it has is the driver's own"
OPEN = {
    "POST /volumes OS-SCH-HNT:scheduler_hints": _HINTS,
    "POST /volumes scheduler_hints": _HINTS,
    "POST /attachments attachment.connector": _CONNECTOR,
    "PUT /attachments/{attachment_id} attachment.connector": _CONNECTOR,
    **{
        f"POST /volumes/{{volume_id}}/action {action} {action}.connector": _CONNECTOR
        for action in ("os-initialize_connection", "os-terminate_connection", "os-force_detach")
    },
    "POST /os-volume-manage volume.ref": _REFERENCE,
    "POST /manageable_volumes volume.ref": _REFERENCE,
    "POST /os-snapshot-manage snapshot.ref": _REFERENCE,
    "POST /manageable_snapshots snapshot.ref": _REFERENCE,
}


def _headers(version: Microversion | None) -> dict[str, str]:
    return {"X-Auth-Token": ADMIN, "OpenStack-API-Version": f"volume {version}"}


def test_bad_fields_are_refused_by_name(services: VolumeServices) -> None:
    app = webtest.TestApp(make_app(services.conf, services, authenticate))
    bad_input.check(app, make_api(services).operations, "/v3", _headers, OPEN, first="3.0")
