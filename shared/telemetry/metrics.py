"""The metrics that each process counts, for Prometheus. `docs/metrics.md` explains how to read them.

Names start with `payouts_` and end with their unit; counters end with `_total`. A label has few values, all
from our own code: an unknown word from outside becomes `other`. Labels never hold a user, a UPI id or a key.
Metrics that are read from the database are in gauges.py.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram

from shared.telemetry import metric_files

OTHER = "other"
HTTP_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CALL_BUCKETS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 24)
WAIT_BUCKETS_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600)
PAID_BUCKETS_SECONDS = (5, 10, 20, 30, 60, 120, 300, 900, 3600, 4 * 3600, 86_400, 3 * 86_400, 5 * 86_400)

metric_files.share()
REGISTRY = CollectorRegistry()


def _counter(name: str, description: str, *labels: str) -> Counter:
    return Counter(f"payouts_{name}", description, labels, registry=REGISTRY)


def _histogram(name: str, description: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(f"payouts_{name}", description, labels, buckets=buckets, registry=REGISTRY)


# --- the API
HTTP_REQUESTS = _counter("http_requests_total", "HTTP requests", "route", "method", "status")
HTTP_SECONDS = _histogram(
    "http_request_seconds", "Time to respond", "route", "method", buckets=HTTP_BUCKETS_SECONDS
)
ACCEPT_SECONDS = _histogram(
    "accept_seconds",
    "Time to accept a withdrawal: from the request to the 201 response",
    buckets=HTTP_BUCKETS_SECONDS,
)
AUTH_FAILURES = _counter("auth_failures_total", "Requests with failed authentication", "why")
RATE_LIMITED = _counter("rate_limited_total", "Requests refused by a rate limit", "limit")
WEBHOOKS_RECEIVED = _counter("webhooks_received_total", "Webhooks received from the provider", "outcome")

# --- withdrawals, in every process
MOVES = _counter("withdrawal_moves_total", "Status changes of withdrawals", "to", "by", "reason")
PAID_PAISE = _counter("paid_paise_total", "Paise paid")
PAID_SECONDS = _histogram(
    "paid_seconds", "Time from the request to the confirmation of the payment", buckets=PAID_BUCKETS_SECONDS
)
NUDGES_LOST = _counter("nudges_lost_total", "Messages that the broker did not accept", "task")

# --- the worker
ANSWERS = _counter("answers_total", "Answers of the provider", "step", "answer", "reason")
CALL_SECONDS = _histogram(
    "provider_call_seconds", "Duration of calls to the provider, without waits", "operation", "outcome",
    buckets=CALL_BUCKETS_SECONDS,
)  # fmt: skip
RATE_LIMIT_WAIT_SECONDS = _histogram(
    "turn_wait_seconds", "Wait for the rate limit before a call", buckets=WAIT_BUCKETS_SECONDS
)
SWEEP_LAG_SECONDS = _histogram(
    "sweep_lag_seconds", "How long after its due time a row was nudged", "task", buckets=WAIT_BUCKETS_SECONDS
)
WEBHOOK_LAG_SECONDS = _histogram(
    "webhook_lag_seconds", "Time from the provider's event to its receipt", buckets=WAIT_BUCKETS_SECONDS
)
WEBHOOKS_APPLIED = _counter("webhooks_applied_total", "Results of applied webhooks", "outcome")
TASK_SECONDS = _histogram(
    "task_seconds", "Duration of the worker's tasks", "task", "outcome", buckets=WAIT_BUCKETS_SECONDS
)


def known_or_other(value: str | None, known: Collection[str]) -> str:
    """Return a label value: itself if it is one of `known`, else `other`; empty for None."""
    if value is None:
        return ""
    return value if value in known else OTHER


@contextmanager
def timed(histogram: Histogram) -> Iterator[None]:
    """Observe how long the block takes, also if it raises."""
    started = perf_counter()
    try:
        yield
    finally:
        histogram.observe(perf_counter() - started)


# The channels through which the provider's reports arrive.
CHANNELS = frozenset({"reply", "webhook", "poll", "lookup", "reconciliation"})
ACTOR_KINDS = CHANNELS | {"app", "user", "operator", "worker", "system"}


def count_move(to: str, *, by: str, reason: str = "") -> None:
    """Count a new withdrawal or a status change. `by` is the actor; the label holds only its kind."""
    MOVES.labels(to, known_or_other(by.partition(":")[0], ACTOR_KINDS), reason).inc()


def initialize_series(failures: Collection[str]) -> None:
    """Create the series that alerts watch, at zero. `failures` are the reasons why withdrawals fail.

    Prometheus measures an increase between two values. A series that appears with its first count shows none,
    so the first reversal after a start would raise no alert.
    """
    for by in CHANNELS | {"operator"}:
        MOVES.labels("completed", by, "")
        for reason in {*failures, OTHER}:
            MOVES.labels("failed", by, reason)
    for outcome in ("new", "known", "bad_signature", "too_many"):
        WEBHOOKS_RECEIVED.labels(outcome)
    for answer in ("accepted", "unknown"):
        ANSWERS.labels("send", answer, "")
    CALL_SECONDS.labels("send", "2xx")
    TASK_SECONDS.labels("sweep", "done")
