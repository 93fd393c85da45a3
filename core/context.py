"""Who asks: the request context that travels with every call, cast and intent."""

from __future__ import annotations

from typing import Any

from oslo_context import context as oslo_context


class RequestContext(oslo_context.RequestContext):
    """oslo.context's context; ``to_dict``/``from_dict`` carry it over RPC and in intents.

    ``project_id``, ``user_id``, ``roles``, ``request_id``, ``system_scope`` as upstream.
    The auth token is never stored in an intent (``to_stored``).
    """

    def to_stored(self) -> dict[str, Any]:
        """What an intent keeps of its asker: ids and the request, no secret."""
        return {
            "project_id": self.project_id,
            "user_id": self.user_id,
            "request_id": self.request_id,
            "global_request_id": self.global_request_id,
            "is_admin": bool(self.is_admin),
        }


def admin_context(request_id: str | None = None) -> RequestContext:
    """The context of haneul's own periodic work."""
    return RequestContext(is_admin=True, roles=["admin"], request_id=request_id, overwrite=False)
