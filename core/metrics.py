"""Metrics for Prometheus: what every role counts, and the text for /metrics."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)

REQUESTS = Counter("haneul_api_requests_total", "API requests answered", ["api", "operation", "status"])
REQUEST_SECONDS = Histogram(
    "haneul_api_request_seconds", "Time to answer an API request", ["api", "operation"], buckets=_BUCKETS
)
INTENTS_ENDED = Counter("haneul_intents_ended_total", "Intents that ended", ["kind", "state"])
INTENT_SECONDS = Histogram(
    "haneul_intent_seconds", "Time from an intent's creation to its end", ["kind"], buckets=_BUCKETS
)
STEP_SECONDS = Histogram("haneul_step_seconds", "Time a step took", ["kind", "step"], buckets=_BUCKETS)
INTENTS = Gauge("haneul_intents_unfinished", "Unfinished intents", ["cell", "kind", "state"])
OLDEST_INTENT = Gauge("haneul_intent_oldest_seconds", "Age of the oldest unfinished intent", ["cell", "kind"])
SCHEDULER_PASSES = Counter("haneul_scheduler_passes_total", "Scheduler passes")
SCHEDULER_PASS_SECONDS = Histogram(
    "haneul_scheduler_pass_seconds", "Time of a scheduler pass", buckets=_BUCKETS
)
SCHEDULED = Counter("haneul_scheduler_decisions_total", "Decisions of the scheduler", ["outcome"])
QUEUE = Gauge("haneul_queue_length", "Work waiting in a role's queue", ["queue"])


def render() -> tuple[bytes, str]:
    """(body, content type) of the answer to GET /metrics."""
    return generate_latest(), CONTENT_TYPE_LATEST
