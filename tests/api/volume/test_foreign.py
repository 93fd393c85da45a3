"""Another project's volumes, snapshots and so on are not there (see ``tests.api.common.foreign``)."""

from __future__ import annotations

import re
from typing import Any

import webtest

from api.common.microversions import Microversion
from api.common.operations import Operation
from api.volume.app import make_api, make_app
from api.volume.services import VolumeServices
from tests.api.common import foreign
from tests.api.identity import authenticate
from tests.api.volume import test_schemathesis as furnished
from tests.api.volume.conftest import Api

OWNED = {"volume_id", "snapshot_id", "transfer_id", "attachment_id", "key"}

_VOLUME, _SNAPSHOT = "POST /volumes/{volume_id}/action", "POST /snapshots/{snapshot_id}/action"
_CONNECTOR = {"connector": {"host": "h"}}
BODIES: dict[str, Any] = {
    f"{_VOLUME} os-migrate_volume": {"os-migrate_volume": {"host": "h1@file#pool"}},
    f"{_VOLUME} os-reset_status": {"os-reset_status": {"status": "error"}},
    f"{_VOLUME} os-attach": {"os-attach": {"host_name": "h", "mountpoint": "/dev/vdb"}},
    f"{_VOLUME} os-initialize_connection": {"os-initialize_connection": _CONNECTOR},
    f"{_SNAPSHOT} os-reset_status": {"os-reset_status": {"status": "error"}},
    "PUT /attachments/{attachment_id}": {"attachment": _CONNECTOR},
}
UNLIKE = {
    # offered to whoever has the key
    "POST /os-volume-transfer/{transfer_id}/accept": [400],
    "POST /volume-transfers/{transfer_id}/accept": [400],
}


def _path(found: Operation) -> str | None:
    if "encryption" in found.path:
        return None
    names = set(re.findall("{([^}]*)}", found.path))
    return found.path.format(**furnished.KNOWN) if names and names <= OWNED else None


def _headers(version: Microversion | None) -> dict[str, str]:
    return {"OpenStack-API-Version": f"volume {version}"}


def test_what_is_foreign_is_not_there(services: VolumeServices) -> None:
    app = webtest.TestApp(make_app(services.conf, services, authenticate))
    client = Api(app, services)
    furnished.fill(client)
    one = f"/snapshots/{furnished.KNOWN['snapshot_id']}/metadata"
    client.put(one, {"metadata": {"a": "b"}}, as_="admin@p1")
    foreign.check(app, make_api(services), "/v3", _path, _headers, "3.60", UNLIKE, BODIES)
