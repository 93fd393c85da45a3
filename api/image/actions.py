"""Actions on images: deactivate and reactivate, which forbid and allow downloads."""

from __future__ import annotations

from api.common.operations import Call, Controller, operation
from api.image.common import find, permit
from api.image.services import ImageServices
from core.errors import Forbidden
from db import images
from db.sessions import retrying


class ActionsController(Controller):
    """/v2/images/{image_id}/actions."""

    services: ImageServices

    @operation(
        "POST", "/images/{image_id}/actions/deactivate", policy="deactivate", late_policy=True, status=204
    )
    def deactivate(self, call: Call) -> None:
        """Forbid downloads to all but administrators."""
        self._turn(call, "active", "deactivated")

    @operation(
        "POST", "/images/{image_id}/actions/reactivate", policy="reactivate", late_policy=True, status=204
    )
    def reactivate(self, call: Call) -> None:
        """Allow downloads again."""
        self._turn(call, "deactivated", "active")

    def _turn(self, call: Call, before: str, after: str) -> None:
        @retrying
        def turn() -> None:
            with self.services.databases.global_.write() as connection:
                image = find(call, connection)
                permit(call, image)
                if image["status"] not in (before, after):
                    raise Forbidden(
                        f"Not allowed to {call.operation.policy} image in status '{image['status']}'"
                    )
                if image["status"] == before:
                    images.update(connection, image, {"status": after})

        turn()
