"""os-console-auth-tokens: a console proxy asks where a token leads."""

from __future__ import annotations

from typing import Any

from api.common.auth import Unauthorized
from api.common.operations import Call, Controller, operation
from db import console_tokens


class ConsoleAuthTokensController(Controller):
    """Show."""

    @operation(
        "GET", "/os-console-auth-tokens/{console_token}", policy="os_compute_api:os-console-auth-tokens"
    )
    def show(self, call: Call) -> dict[str, Any]:
        """Where a console's token leads."""
        with self.services.databases.global_.read() as connection:
            found = console_tokens.find(connection, call.params["console_token"])
        if not call.since("2.31"):
            # until then this call was for RDP only, which no server here has
            raise Unauthorized()
        return {
            "console": {
                "instance_uuid": found["server_id"],
                "host": found["host"],
                "port": found["port"],
                "internal_access_path": None,
            }
        }
