"""What API and scheduler say to volume workers: a doorbell, and calls that need the backend at once.

Worker (topic ``volume``, server = ``host@backend``, the global transport):
    ring()                                        intents wait
    initialize_connection(volume_id, connector, mode) → connection info, {"driver_volume_type", "data"}
    terminate_connection(volume_id, connector, force)
    manageable_volumes(), manageable_snapshots()  → [{"reference", "size", "extra_info", …}]
The worker reads the volume itself: nothing but ids and the connector travels.
"""

from __future__ import annotations

from typing import Any

import oslo_messaging

from core.context import RequestContext, admin_context
from core.errors import Unavailable
from core.messaging import Messaging

VOLUME_TOPIC = "volume"


class VolumeClient:
    """Speaks to volume workers."""

    def __init__(self, messaging: Messaging, timeout_s: float = 60) -> None:
        self._client = messaging.client(VOLUME_TOPIC, timeout_s)

    def ring(self, host: str) -> None:
        self._client.prepare(server=host).cast(admin_context(), "ring")

    def _call(self, context: RequestContext, host: str, method: str, **arguments: Any) -> Any:
        try:
            return self._client.prepare(server=host).call(context, method, **arguments)
        except oslo_messaging.MessagingTimeout as error:
            raise Unavailable(f"The volume service {host} does not answer now.", cause=error) from error

    def initialize_connection(
        self, context: RequestContext, host: str, volume_id: str, connector: dict[str, Any], mode: str
    ) -> dict[str, Any]:
        """``mode``: "rw" or "ro". :raises Unavailable: the worker does not answer. :raises DriverError: the backend refuses."""
        result: dict[str, Any] = self._call(
            context, host, "initialize_connection", volume_id=volume_id, connector=connector, mode=mode
        )
        return result

    def terminate_connection(
        self,
        context: RequestContext,
        host: str,
        volume_id: str,
        connector: dict[str, Any] | None,
        force: bool = False,
    ) -> None:
        self._call(
            context, host, "terminate_connection", volume_id=volume_id, connector=connector, force=force
        )

    def manageable_volumes(self, context: RequestContext, host: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self._call(context, host, "manageable_volumes")
        return result

    def manageable_snapshots(self, context: RequestContext, host: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self._call(context, host, "manageable_snapshots")
        return result


def service_host(pool: str) -> str:
    """``host@backend`` of a pool ``host@backend#pool``."""
    return pool.partition("#")[0]
