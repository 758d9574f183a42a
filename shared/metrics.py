"""What each process counts and measures, for Prometheus. `docs/metrics.md` says what to make of it.

Names begin with `payouts_` and end with their unit; counters end with `_total`. A label has few values, all
from our own code: a word that comes from outside is told only if it is one that we know, else as `other`.
No user, no UPI id and no key ever stands in one. What the books say is measured in gauges.py.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram

from shared import metric_files

OTHER = "other"
QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CALLS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 24)
WAITS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600)
DAYS = (5, 10, 20, 30, 60, 120, 300, 900, 3600, 4 * 3600, 86_400, 3 * 86_400, 5 * 86_400)

metric_files.share()
REGISTRY = CollectorRegistry()


def _counter(name: str, words: str, *labels: str) -> Counter:
    return Counter(f"payouts_{name}", words, labels, registry=REGISTRY)


def _histogram(name: str, words: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(f"payouts_{name}", words, labels, buckets=buckets, registry=REGISTRY)


# --- the API
HTTP_REQUESTS = _counter("http_requests_total", "Requests answered", "route", "method", "status")
HTTP_SECONDS = _histogram("http_request_seconds", "Time to answer", "route", "method", buckets=QUICK)
ACCEPT_SECONDS = _histogram(
    "accept_seconds", "Time to take a withdrawal: coins taken, 201 answered", buckets=QUICK
)
AUTH_FAILURES = _counter("auth_failures_total", "Callers who were not let in", "why")
RATE_LIMITED = _counter("rate_limited_total", "Requests refused because there were too many", "limit")
WEBHOOKS_RECEIVED = _counter("webhooks_received_total", "Webhooks of the provider at our door", "outcome")

# --- withdrawals, wherever they move
MOVES = _counter("withdrawal_moves_total", "Moves of withdrawals", "to", "by", "reason")
PAID_PAISE = _counter("paid_paise_total", "Paise that arrived")
PAID_SECONDS = _histogram("paid_seconds", "From the request to the word that it is paid", buckets=DAYS)
NUDGES_LOST = _counter("nudges_lost_total", "Messages that the broker did not take", "task")

# --- the worker
ANSWERS = _counter("answers_total", "What the provider answered", "step", "answer", "reason")
CALL_SECONDS = _histogram(
    "provider_call_seconds", "Calls to the provider, without the wait before", "operation", "outcome",
    buckets=CALLS,
)  # fmt: skip
TURN_SECONDS = _histogram("turn_wait_seconds", "Wait for the pace before a call", buckets=WAITS)
SWEEP_LAG_SECONDS = _histogram(
    "sweep_lag_seconds", "How long after its time a thing was nudged", "task", buckets=WAITS
)
WEBHOOK_LAG_SECONDS = _histogram(
    "webhook_lag_seconds", "From the provider's event to our door", buckets=WAITS
)
WEBHOOKS_APPLIED = _counter("webhooks_applied_total", "What webhooks did", "outcome")
TASK_SECONDS = _histogram("task_seconds", "Tasks of the worker", "task", "outcome", buckets=WAITS)


def known(word: str | None, words: Collection[str]) -> str:
    """The word as a label may tell it: itself when it is one of these, else `other`; nothing for none."""
    if word is None:
        return ""
    return word if word in words else OTHER


@contextmanager
def timed(histogram: Histogram) -> Iterator[None]:
    """Observe how long the block took, however it ended."""
    began = perf_counter()
    try:
        yield
    finally:
        histogram.observe(perf_counter() - began)


# Whose word moved it; the provider's comes by one of these channels.
CHANNELS = frozenset({"reply", "webhook", "poll", "lookup", "reconciliation"})
BY = CHANNELS | {"app", "user", "operator", "worker", "system"}


def moved(to: str, *, by: str, reason: str = "") -> None:
    """A withdrawal has moved, or was asked for. `by` is the actor: only what it is is told, not who."""
    MOVES.labels(to, known(by.partition(":")[0], BY), reason).inc()


def begin(failures: Collection[str]) -> None:
    """Let what alerts look at begin at zero; `failures` are the words for why a withdrawal fails.

    Prometheus sees an increase from one value to the next. A series that is born with its first count shows
    none: the first reversal after a start would tell nobody.
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
