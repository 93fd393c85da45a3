"""/os-volumes_boot: the same servers under the name that booting from volumes had once."""

from __future__ import annotations

import dataclasses

from api.common.operations import Controller, Operation
from api.compute.server_actions import ServerActionsController
from api.compute.server_images import ServerImagesController
from api.compute.servers import ServersController

_SERVERS, _HERE = "/servers", "/os-volumes_boot"
_ACTIONS = ("os-start", "os-stop", "reboot", "createImage")
"""Only what upstream kept in the servers' own controller is found here."""


class VolumesBootController(Controller):
    """Operations of servers, once more; policies, bodies and answers are theirs."""

    def operations(self) -> list[Operation]:
        found = [
            each
            for controller in (ServersController, ServerActionsController, ServerImagesController)
            for each in controller(self.services).operations()
        ]
        return [
            dataclasses.replace(each, path=each.path.replace(_SERVERS, _HERE, 1))
            for each in found
            if each.path.startswith(_SERVERS) and (each.action is None or each.action in _ACTIONS)
        ]
