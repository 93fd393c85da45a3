"""os-console-auth-tokens: a console proxy asks where a token leads. No console hands out tokens yet."""

from __future__ import annotations

from api.common.operations import Call, Controller, operation
from core.errors import NotFound


class ConsoleAuthTokensController(Controller):
    """Show."""

    @operation(
        "GET", "/os-console-auth-tokens/{console_token}", policy="os_compute_api:os-console-auth-tokens"
    )
    def show(self, call: Call) -> None:
        """Where a console's token leads: as none was ever handed out, none is known."""
        raise NotFound("Token not found")
