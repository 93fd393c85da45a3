"""What the roles say to each other: topics, and one small client per listener.

Messages are doorbells or whole intents; the journal in SQL is what counts.  A
lost message is found by the sweeper.

Scheduler (topic ``scheduler``, global transport):
    ring()                           there are intents that need a host
Conductor (topic ``conductor``, the cell's transport):
    ring(intent_ids)                 intents wait to be sent to their hosts
    report(host, reports)            → verdicts, one per report: "ok", "refused", "cancel"
    heartbeat(host, beat)            → {"refused": [ids], "cancelled": [ids], "intents": [messages that
                                     it was sent and does not hold]}, or {"unknown": True}
    hello(host, greeting)            → {"intents": [messages]}: what the host held
    power_states(host, states)       {server id: power state} seen on the host
    network_info(host, known, gone)  what the Network API says of servers' ports:
                                     → {"missing", "removed"} (``conductor.network_info``)
Agent (topic ``compute``, server = host, the cell's transport):
    run(intents)                     whole intents, lease granted
    cancel(intent_ids)               stop at the next step boundary
    external_events(events)          what the Network API says of servers' ports:
                                     {"name", "server_uuid", "tag": port, "status"}
    console_output(server_id, max_bytes), diagnostics(server_id), vnc(server_id)

An intent travels as ``{"id", "kind", "attempt", "resource_id", "arguments",
"results", "step", "context"}``.  A report is ``{"intent_id", "attempt", "type":
"begin" | "showing" | "checkpoint" | "undoing" | "done" | "failed" | "cancelled" |
"retry", "step", "results", "events", "outcome", "error"}``.
"""

from __future__ import annotations

from typing import Any

from core.context import RequestContext, admin_context
from core.messaging import Messaging

SCHEDULER_TOPIC = "scheduler"
CONDUCTOR_TOPIC = "conductor"
AGENT_TOPIC = "compute"
_HELLO_S = 5.0
"""A greeting sent before the conductor listens is lost: so it is not waited for long."""


class SchedulerClient:
    """Rings the schedulers."""

    def __init__(self, messaging: Messaging) -> None:
        self._client = messaging.client(SCHEDULER_TOPIC)

    def ring(self, context: RequestContext | None = None) -> None:
        self._client.cast(context or admin_context(), "ring")


class ConductorClient:
    """Speaks to the conductors of one cell."""

    def __init__(self, messaging: Messaging, timeout_s: float = 15) -> None:
        # all reports of a host wait for the answer to the last: not for long, when a conductor died over it
        self._client = messaging.client(CONDUCTOR_TOPIC, timeout_s)

    def ring(self, intent_ids: list[str]) -> None:
        self._client.cast(admin_context(), "ring", intent_ids=intent_ids)

    def report(self, host: str, reports: list[dict[str, Any]]) -> list[str]:
        result: list[str] = self._client.call(admin_context(), "report", host=host, reports=reports)
        return result

    def heartbeat(self, host: str, beat: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._client.call(admin_context(), "heartbeat", host=host, beat=beat)
        return result

    def hello(self, host: str, greeting: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._client.prepare(timeout=_HELLO_S).call(
            admin_context(), "hello", host=host, greeting=greeting
        )
        return result

    def power_states(self, host: str, states: dict[str, int]) -> None:
        self._client.cast(admin_context(), "power_states", host=host, states=states)

    def network_info(
        self, host: str, known: dict[str, list[dict[str, Any]]], gone: list[str]
    ) -> dict[str, Any]:
        result: dict[str, Any] = self._client.call(
            admin_context(), "network_info", host=host, known=known, gone=gone
        )
        return result


class AgentClient:
    """Speaks to the compute agents of one cell."""

    def __init__(self, messaging: Messaging, timeout_s: float = 20) -> None:
        self._client = messaging.client(AGENT_TOPIC, timeout_s)

    def run(self, host: str, intents: list[dict[str, Any]]) -> None:
        self._client.prepare(server=host).cast(admin_context(), "run", intents=intents)

    def cancel(self, host: str, intent_ids: list[str]) -> None:
        self._client.prepare(server=host).cast(admin_context(), "cancel", intent_ids=intent_ids)

    def external_events(self, host: str, events: list[dict[str, Any]]) -> None:
        self._client.prepare(server=host).cast(admin_context(), "external_events", events=events)

    def console_output(self, context: RequestContext, host: str, server_id: str, max_bytes: int) -> str:
        client = self._client.prepare(server=host)
        return str(client.call(context, "console_output", server_id=server_id, max_bytes=max_bytes))

    def diagnostics(self, context: RequestContext, host: str, server_id: str) -> dict[str, Any]:
        result: dict[str, Any] = self._client.prepare(server=host).call(
            context, "diagnostics", server_id=server_id
        )
        return result

    def vnc(self, context: RequestContext, host: str, server_id: str) -> dict[str, Any]:
        result: dict[str, Any] = self._client.prepare(server=host).call(context, "vnc", server_id=server_id)
        return result
