"""Gauges of the database, the queues and the switches, for the API's `/metrics`.

Every query reads an index over open or recent rows and never counts all withdrawals. Samples are cached for
some seconds and refreshed in a separate thread: a scrape waits a moment for new samples, else returns the
last ones, and waits at most two seconds for the first ones. If the database or the broker is down, its gauges
are missing, and `payouts_up` shows which one it is.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import structlog
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.transactions import transaction
from shared.monitoring import gauge_queries
from shared.monitoring.overview import OPEN_EXCEPTIONS, OPEN_WITHDRAWALS
from shared.people import severities
from shared.providers.registry import provider
from shared.queues import redis_broker, workers
from shared.queues.names import EVERY_QUEUE
from shared.reconciliation import coverage
from shared.settings import settings
from shared.states import OPEN, Reason
from shared.states import WAITING as PROMISED
from shared.telemetry.metrics import OTHER, known_or_other
from shared.withdrawals import circuit_breakers

CACHE_SECONDS = 5.0  # samples are reused at least this long
CACHE_COST_FACTOR = 20  # or this multiple of the query time: queries then run at most a twentieth of the time
FRESH_WAIT_SECONDS = 0.05  # a scrape waits this long for new samples before it returns old ones
MAX_STALE_SECONDS = 20.0  # older samples are not returned
FIRST_WAIT_SECONDS = 2.0  # without usable samples a scrape waits this long, then returns no gauges
STATEMENT_TIMEOUT = "5s"  # the slowest query takes one second with a million open withdrawals
MAX_KINDS = 50  # of exception records; about twenty exist

Sample = tuple[tuple[str, ...], float]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Gauge:
    """One gauge: its name without `payouts_`, its description, and its labels."""

    name: str
    description: str
    labels: tuple[str, ...] = ()


UP = Gauge("up", "1 if the database or the broker answers", ("service",))
GAUGES_SECONDS = Gauge("gauges_seconds", "Time to query the database for all gauges")
WITHDRAWALS_OPEN = Gauge("withdrawals_open", "Withdrawals that are not final", ("status", "reason"))
WITHDRAWALS_OPEN_PAISE = Gauge("withdrawals_open_paise", "Amount of open withdrawals", ("status", "reason"))
WITHDRAWALS_OLDEST = Gauge("withdrawals_oldest_seconds", "Age of the oldest one", ("status", "reason"))
WITHDRAWALS_DUE = Gauge("withdrawals_due", "Withdrawals that are due and not claimed by a worker")
WITHDRAWALS_LATE = Gauge(
    "withdrawals_late_seconds",
    "Time since the longest overdue one was due; if it waits for the rate limit, since its promised time",
)
QUEUE_MESSAGES = Gauge("queue_messages", "Messages in the queue", ("queue",))
QUEUE_WORKED = Gauge("queue_worked", "1 if a worker consumes the queue", ("queue",))
MESSAGES_SET_ASIDE = Gauge("messages_set_aside", "Stored messages that no worker could read")
WEBHOOKS_WAITING = Gauge("webhooks_waiting", "Provider webhooks that are stored and not applied yet")
WEBHOOK_LAST = Gauge("webhook_last_timestamp_seconds", "Time of the last provider webhook")
PAUSED = Gauge("paused", "1 if all payouts, or those of the payment network, are paused", ("switch",))
PAUSED_HANDLES = Gauge("paused_handles", "UPI handles that are paused")
EXCEPTIONS_OPEN = Gauge("exceptions_open", "Open exception records", ("kind", "severity"))
EXCEPTIONS_OLDEST = Gauge("exceptions_oldest_seconds", "Age of the oldest one", ("kind", "severity"))
PROVIDER_BALANCE = Gauge("provider_balance_paise", "Balance of our account as last reported by RazorpayX")
PROVIDER_BALANCE_AT = Gauge("provider_balance_timestamp_seconds", "Time of that report")
DELIVERIES = Gauge("deliveries", "Webhooks to apps that are pending or were given up", ("state",))
DELIVERIES_OLDEST = Gauge("deliveries_oldest_seconds", "Age of the oldest pending one")
ENDPOINTS_FAILING = Gauge("endpoints_failing", "App endpoints that accept no webhooks")
EVENTS_UNSEEN = Gauge(
    "news_unseen_seconds", "Age of the oldest event that no notifier has processed", ("to",)
)
MAILS = Gauge("mails", "Mails that are pending or were given up", ("state",))
MAIL_FAILING = Gauge("mail_server_failing", "1 if the mail server accepts no mail from us")
CHECK_FAULTS = Gauge("check_faults", "Faults found by spot checks", ("promise",))
CHECK_AT = Gauge("check_timestamp_seconds", "Time of the least recent spot check")
RECONCILED_AGO = Gauge(
    "reconciled_ago_seconds", "Time since the end of the last day that was reconciled with RazorpayX"
)
DAYS_NOT_RECONCILED = Gauge(
    "days_not_reconciled", "Days that should have been reconciled by now but were not"
)
REVIEW_OLDEST = Gauge("review_oldest_seconds", "Age of the oldest item that awaits approval", ("of",))

ALL_GAUGES = (
    UP, GAUGES_SECONDS, WITHDRAWALS_OPEN, WITHDRAWALS_OPEN_PAISE, WITHDRAWALS_OLDEST, WITHDRAWALS_DUE,
    WITHDRAWALS_LATE, QUEUE_MESSAGES, QUEUE_WORKED, MESSAGES_SET_ASIDE, WEBHOOKS_WAITING, WEBHOOK_LAST,
    PAUSED, PAUSED_HANDLES, EXCEPTIONS_OPEN, EXCEPTIONS_OLDEST, PROVIDER_BALANCE, PROVIDER_BALANCE_AT,
    DELIVERIES, RECONCILED_AGO, DAYS_NOT_RECONCILED, REVIEW_OLDEST, DELIVERIES_OLDEST, ENDPOINTS_FAILING,
    EVENTS_UNSEEN, MAILS, MAIL_FAILING, CHECK_FAULTS, CHECK_AT,
)  # fmt: skip

Samples = dict[Gauge, Sequence[Sample]]


class GaugeCollector:
    """The collector that prometheus-client calls at each scrape."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All gauges of the services that answered, and `payouts_up` for each service."""
        caches = {"database": database_samples(), "broker": broker_samples()}
        for cached in caches.values():
            cached.refresh()
        by_service = {service: cached.wait() for service, cached in caches.items()}
        up: Samples = {UP: [((service,), float(bool(samples))) for service, samples in by_service.items()]}
        for gauge, samples in (up | by_service["database"] | by_service["broker"]).items():
            family = GaugeMetricFamily(f"payouts_{gauge.name}", gauge.description, labels=gauge.labels)
            for labels, value in samples:
                family.add_metric(labels, value)
            yield family


class CachedSamples:
    """The last samples of one service. One thread at a time refreshes them when they are old."""

    def __init__(self, query: Callable[[], Samples]) -> None:
        self._query = query
        self._lock = threading.Lock()
        self._samples: Samples = {}
        self._refreshed_at = self._expires_at = float("-inf")
        self._is_idle = threading.Event()
        self._is_idle.set()

    def refresh(self) -> None:
        """Start a refresh if the samples are old and no refresh is running."""
        with self._lock:
            if self._is_idle.is_set() and time.monotonic() > self._expires_at:
                self._is_idle.clear()
                threading.Thread(target=self._refresh, name="gauges", daemon=True).start()

    def wait(self) -> Samples:
        """The samples. Empty if the service is down or does not answer in time."""
        if self._is_idle.wait(FRESH_WAIT_SECONDS):
            return self._samples
        if self._samples and time.monotonic() - self._refreshed_at < MAX_STALE_SECONDS:
            return self._samples
        return self._samples if self._is_idle.wait(FIRST_WAIT_SECONDS) else {}

    def _refresh(self) -> None:
        samples: Samples = {}
        started_at = time.monotonic()
        try:
            samples = self._query()
        except Exception as error:  # whatever it is, the scrape returns the other metrics
            log.warning("[METRICS] no gauges", of=self._query.__name__, error=type(error).__name__)
        finally:
            with self._lock:
                self._samples = samples
                self._refreshed_at = time.monotonic()
                cost_seconds = CACHE_COST_FACTOR * (self._refreshed_at - started_at) if samples else 0
                self._expires_at = self._refreshed_at + max(CACHE_SECONDS, cost_seconds)
                self._is_idle.set()


@cache
def database_samples() -> CachedSamples:
    """This process's cached gauges of the database."""
    return CachedSamples(query_database)


@cache
def broker_samples() -> CachedSamples:
    """This process's cached gauges of the broker."""
    return CachedSamples(query_broker)


def query_database() -> Samples:
    """Query the current gauges of the database. Raises Unavailable."""
    started_at = time.perf_counter()
    samples: Samples = {}
    with transaction() as session:
        session.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'"))
        for query in QUERIES:
            samples |= query(session)
    samples[GAUGES_SECONDS] = [((), time.perf_counter() - started_at)]
    return samples


def query_broker() -> Samples:
    """Query the current gauges of the broker. Raises redis.RedisError."""
    with redis_broker.map_redis_errors(), redis_broker.client().pipeline(transaction=False) as pipe:
        for queue in EVERY_QUEUE:
            pipe.llen(queue)
        depths: list[Any] = pipe.execute()
    return {
        QUEUE_MESSAGES: [((queue,), int(depth)) for queue, depth in zip(EVERY_QUEUE, depths, strict=True)],
        QUEUE_WORKED: [
            ((queue,), float(is_worked)) for queue, is_worked in workers.queues_with_workers().items()
        ],
        MESSAGES_SET_ASIDE: [((), workers.number_set_aside())],
    }


def _open(session: Session) -> Samples:
    # Empty statuses too: a gauge that comes and goes is hard to plot and harder to alert on.
    numbers: dict[tuple[str, ...], float] = {(str(status), ""): 0.0 for status in sorted(OPEN)}
    paise = dict(numbers)
    oldest = dict(numbers)
    now = float(session.scalar(text("SELECT extract(epoch FROM now())")) or 0)
    for row in session.execute(OPEN_WITHDRAWALS):
        labels = (row.status, known_or_other(row.status_reason, set(Reason)))
        numbers[labels] = row.number
        paise[labels] = float(row.paise)
        oldest[labels] = max(0.0, now - row.oldest.timestamp())
    return {
        WITHDRAWALS_OPEN: list(numbers.items()),
        WITHDRAWALS_OPEN_PAISE: list(paise.items()),
        WITHDRAWALS_OLDEST: list(oldest.items()),
    }


def _late(session: Session) -> Samples:
    row = session.execute(gauge_queries.LATENESS, {"provider": provider().code}).one()
    return {WITHDRAWALS_DUE: [((), row.number)], WITHDRAWALS_LATE: [((), float(row.seconds))]}


def _webhooks(session: Session) -> Samples:
    row = session.execute(gauge_queries.WEBHOOKS).one()
    last = [] if row.last is None else [((), float(row.last))]
    return {WEBHOOKS_WAITING: [((), row.waiting)], WEBHOOK_LAST: last}


def _switches(session: Session) -> Samples:
    is_on = {switch.name: switch.is_on for switch in circuit_breakers.all_breakers(session)}
    handles = sum(not on for name, on in is_on.items() if name.startswith(circuit_breakers.HANDLE))
    # Without a row for all payouts, none may be sent (circuit_breakers.py).
    paused = {circuit_breakers.PAYOUTS: not is_on.get(circuit_breakers.PAYOUTS, False)}
    paused[circuit_breakers.NETWORK] = not is_on.get(circuit_breakers.NETWORK, True)
    return {PAUSED: [((name,), float(off)) for name, off in paused.items()], PAUSED_HANDLES: [((), handles)]}


def _exceptions(session: Session) -> Samples:
    now = float(session.scalar(text("SELECT extract(epoch FROM now())")) or 0)
    numbers: dict[tuple[str, ...], float] = {}
    ages: dict[tuple[str, ...], float] = {}
    for place, (kind, number, oldest) in enumerate(session.execute(OPEN_EXCEPTIONS)):
        labels = (kind if place < MAX_KINDS else OTHER, severities.severity_of(kind))
        numbers[labels] = numbers.get(labels, 0) + number
        ages[labels] = max(ages.get(labels, 0), now - oldest.timestamp())
    return {EXCEPTIONS_OPEN: list(numbers.items()), EXCEPTIONS_OLDEST: list(ages.items())}


def _reviews(session: Session) -> Samples:
    row = session.execute(
        gauge_queries.OLDEST_REVIEWS, {"promise": PROMISED[Reason.AWAITING_REVIEW][1]}
    ).one()
    return {REVIEW_OLDEST: [((of,), max(0.0, float(age or 0))) for of, age in row._mapping.items()]}


def _reconciled_days(session: Session) -> Samples:
    ago: list[Sample] = [((), seconds) for seconds in coverage.seconds_since_compared(session)]
    return {RECONCILED_AGO: ago, DAYS_NOT_RECONCILED: [((), float(len(coverage.missing_days(session))))]}


def _balance(session: Session) -> Samples:
    row = session.execute(gauge_queries.BALANCE, {"account": provider().account()}).one_or_none()
    if row is None:
        return {}
    return {PROVIDER_BALANCE: [((), row.available_paise)], PROVIDER_BALANCE_AT: [((), float(row.seen_at))]}


def _deliveries(session: Session) -> Samples:
    row = session.execute(gauge_queries.DELIVERIES).one()
    return {
        DELIVERIES: [(("waiting",), row.waiting), (("failed",), row.failed)],
        DELIVERIES_OLDEST: [((), float(row.oldest or 0))],
        ENDPOINTS_FAILING: [((), row.failing)],
    }


def _notifications(session: Session) -> Samples:
    unseen = session.execute(gauge_queries.UNSEEN_EVENTS, {"mails": settings().smtp_host is not None}).all()
    mails = session.execute(gauge_queries.MAILS).one()
    return {
        EVENTS_UNSEEN: [((str(row.to),), float(row.seconds or 0)) for row in unseen],
        MAILS: [(("waiting",), mails.waiting), (("failed",), mails.failed)],
        MAIL_FAILING: [((), float(mails.is_failing))],
    }


def _checks(session: Session) -> Samples:
    rows = session.execute(gauge_queries.SPOT_CHECKS).all()
    if not rows:
        return {}
    faults: Sequence[Sample] = [((str(row.promise),), float(row.faults)) for row in rows]
    return {CHECK_FAULTS: faults, CHECK_AT: [((), min(float(row.asked_at) for row in rows))]}


# Add new gauges here and to ALL_GAUGES.
QUERIES: tuple[Callable[[Session], Samples], ...] = (
    _open, _late, _webhooks, _switches, _exceptions, _balance, _deliveries, _notifications, _checks,
    _reconciled_days, _reviews,
)  # fmt: skip
