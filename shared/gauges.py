"""What the books, the queues and the switches say now, as gauges. Asked by the API's `/metrics`.

Every question is answered from an index over what is open or last, never by counting all withdrawals. The
answers are kept for some seconds, and asked for in a thread of their own: a scrape waits for new ones a
moment, else tells the last, and for its first ones two seconds and no longer. While the database or the
broker is away its gauges are missing, and `payouts_up` says which it is.
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

from shared import queues, severities, switches, working
from shared.db import transaction
from shared.gauge_questions import CHECKED, LATENESS, MAILED, REVIEWS, THE_BALANCE, TOLD, UNSEEN, WEBHOOKS
from shared.metrics import OTHER, known
from shared.overview import EXCEPTIONS, WAITING
from shared.reconciliation import standing
from shared.settings import settings
from shared.states import OPEN, Reason
from shared.states import WAITING as PROMISED

KEPT_SECONDS = 5.0  # the answers serve all scrapes of so long
KEPT_TIMES = 20  # or so many times as long as it took to find them: then asking costs a twentieth at most
SOON_SECONDS = 0.05  # new answers come so soon, or old ones are told
OLD_SECONDS = 20.0  # if not older than this
PATIENCE_SECONDS = 2.0  # a scrape that waits for longer tells no gauges
STATEMENT = "5s"  # with a million withdrawals waiting the longest takes one
MOST_KINDS = 50  # of exception records; some twenty exist

Sample = tuple[tuple[str, ...], float]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Gauge:
    """One gauge: its name without `payouts_`, what it says, and its labels."""

    name: str
    words: str
    labels: tuple[str, ...] = ()


UP = Gauge("up", "Whether the database and the broker answered", ("service",))
SECONDS = Gauge("gauges_seconds", "Time it took to ask the database for all of these")
OPEN_NUMBER = Gauge("withdrawals_open", "Withdrawals that are not final", ("status", "reason"))
OPEN_PAISE = Gauge("withdrawals_open_paise", "What they come to", ("status", "reason"))
OPEN_OLDEST = Gauge("withdrawals_oldest_seconds", "Age of the oldest of them", ("status", "reason"))
DUE = Gauge("withdrawals_due", "Withdrawals that are due and in nobody's hands")
LATE = Gauge(
    "withdrawals_late_seconds",
    "How long the latest of them has been due; in a burst, since its promise was over",
)
QUEUE = Gauge("queue_messages", "Messages that wait", ("queue",))
WORKED = Gauge("queue_worked", "1 while somebody takes messages from the queue", ("queue",))
SET_ASIDE = Gauge("messages_set_aside", "Messages kept that no worker could read")
WEBHOOKS_WAITING = Gauge("webhooks_waiting", "Webhooks of the provider that are kept and not applied")
WEBHOOK_LAST = Gauge("webhook_last_timestamp_seconds", "When the last webhook of the provider came")
PAUSED = Gauge("paused", "1 while all payouts are off, or those of the whole network", ("switch",))
PAUSED_HANDLES = Gauge("paused_handles", "UPI handles that are paused")
EXCEPTIONS_OPEN = Gauge("exceptions_open", "Exception records that nobody closed", ("kind", "severity"))
EXCEPTIONS_OLDEST = Gauge("exceptions_oldest_seconds", "Age of the oldest of them", ("kind", "severity"))
BALANCE = Gauge("provider_balance_paise", "What RazorpayX said that our account holds")
BALANCE_AT = Gauge("provider_balance_timestamp_seconds", "When it said so")
DELIVERIES = Gauge("deliveries", "Webhooks to apps that are on their way, or were given up", ("state",))
DELIVERIES_OLDEST = Gauge("deliveries_oldest_seconds", "Age of the oldest that is on its way")
ENDPOINTS_FAILING = Gauge("endpoints_failing", "Endpoints of apps that take nothing")
NEWS_UNSEEN = Gauge(
    "news_unseen_seconds", "How long the first change has waited for a notifier to see it", ("to",)
)
MAILS = Gauge("mails", "Mails that wait, or were given up", ("state",))
MAIL_FAILING = Gauge("mail_server_failing", "1 while the mail server takes nothing from us")
CHECK_FAULTS = Gauge("check_faults", "Faults that spot checks found", ("promise",))
CHECK_AT = Gauge("check_timestamp_seconds", "When the least lately asked spot check was asked")
RECONCILED = Gauge("reconciled_ago_seconds", "Since the end of the last day that was compared with RazorpayX")
NOT_RECONCILED = Gauge("days_not_reconciled", "Days that should have been compared by now and were not")
REVIEW_OLDEST = Gauge("review_oldest_seconds", "How long the oldest has waited for a person's yes", ("of",))

EVERY = (
    UP, SECONDS, OPEN_NUMBER, OPEN_PAISE, OPEN_OLDEST, DUE, LATE, QUEUE, WORKED, SET_ASIDE, WEBHOOKS_WAITING,
    WEBHOOK_LAST, PAUSED, PAUSED_HANDLES, EXCEPTIONS_OPEN, EXCEPTIONS_OLDEST, BALANCE, BALANCE_AT, DELIVERIES,
    RECONCILED, NOT_RECONCILED, REVIEW_OLDEST, DELIVERIES_OLDEST, ENDPOINTS_FAILING, NEWS_UNSEEN, MAILS,
    MAIL_FAILING, CHECK_FAULTS, CHECK_AT,
)  # fmt: skip

Found = dict[Gauge, Sequence[Sample]]


class Gauges:
    """What prometheus-client asks at each scrape."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges that could be found out, and whether each service answered."""
        asked = {"database": of_books(), "broker": of_queues()}
        for latest in asked.values():
            latest.begin()
        found = {service: latest.wait() for service, latest in asked.items()}
        up: Found = {UP: [((service,), float(bool(answers))) for service, answers in found.items()]}
        for gauge, samples in (up | found["database"] | found["broker"]).items():
            family = GaugeMetricFamily(f"payouts_{gauge.name}", gauge.words, labels=gauge.labels)
            for labels, value in samples:
                family.add_metric(labels, value)
            yield family


class Latest:
    """The last answers of one service, asked for anew when they are old, by one thread at a time."""

    def __init__(self, ask: Callable[[], Found]) -> None:
        self._ask, self._lock = ask, threading.Lock()
        self._found: Found = {}
        self._found_at = self._old_at = float("-inf")
        self._answered = threading.Event()
        self._answered.set()  # nobody asks now

    def begin(self) -> None:
        """Ask anew if the answers are old and nobody does so already."""
        with self._lock:
            if self._answered.is_set() and time.monotonic() > self._old_at:
                self._answered.clear()
                threading.Thread(target=self._ask_now, name="gauges", daemon=True).start()

    def wait(self) -> Found:
        """The answers; nothing when the service is away, or does not answer in time."""
        if self._answered.wait(SOON_SECONDS):
            return self._found
        if self._found and time.monotonic() - self._found_at < OLD_SECONDS:
            return self._found
        return self._found if self._answered.wait(PATIENCE_SECONDS) else {}

    def _ask_now(self) -> None:
        found: Found = {}
        began = time.monotonic()
        try:
            found = self._ask()
        except Exception as error:  # whatever it is, a scrape is told the rest
            log.warning("[METRICS] no gauges", of=self._ask.__name__, error=type(error).__name__)
        finally:
            with self._lock:
                self._found, self._found_at = found, time.monotonic()
                cost = KEPT_TIMES * (self._found_at - began) if found else 0
                self._old_at = self._found_at + max(KEPT_SECONDS, cost)
                self._answered.set()


@cache
def of_books() -> Latest:
    """The gauges of the database, as this process knows them."""
    return Latest(books)


@cache
def of_queues() -> Latest:
    """The gauges of the broker, as this process knows them."""
    return Latest(messages)


def books() -> Found:
    """What the database says now. Raises Unavailable."""
    began = time.perf_counter()
    found: Found = {}
    with transaction() as session:
        session.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT}'"))
        for part in PARTS:
            found |= part(session)
    found[SECONDS] = [((), time.perf_counter() - began)]
    return found


def messages() -> Found:
    """What waits at the broker now. Raises redis.RedisError."""
    with queues.understood(), queues.broker().pipeline(transaction=False) as pipe:
        for queue in queues.EVERY_QUEUE:
            pipe.llen(queue)
        depths: list[Any] = pipe.execute()
    return {
        QUEUE: [((queue,), int(depth)) for queue, depth in zip(queues.EVERY_QUEUE, depths, strict=True)],
        WORKED: [((queue,), float(is_worked)) for queue, is_worked in working.worked().items()],
        SET_ASIDE: [((), working.number_set_aside())],
    }


def _open(session: Session) -> Found:
    # Empty ones too: a gauge that comes and goes is hard to draw, and harder to alert on.
    numbers: dict[tuple[str, ...], float] = {(str(status), ""): 0.0 for status in sorted(OPEN)}
    paise, oldest = dict(numbers), dict(numbers)
    now = float(session.scalar(text("SELECT extract(epoch FROM now())")) or 0)
    for row in session.execute(WAITING):
        labels = (row.status, known(row.status_reason, set(Reason)))
        numbers[labels] = row.number
        paise[labels] = float(row.paise)
        oldest[labels] = max(0.0, now - row.oldest.timestamp())
    return {
        OPEN_NUMBER: list(numbers.items()),
        OPEN_PAISE: list(paise.items()),
        OPEN_OLDEST: list(oldest.items()),
    }


def _late(session: Session) -> Found:
    row = session.execute(LATENESS).one()
    return {DUE: [((), row.number)], LATE: [((), float(row.seconds))]}


def _webhooks(session: Session) -> Found:
    row = session.execute(WEBHOOKS).one()
    last = [] if row.last is None else [((), float(row.last))]
    return {WEBHOOKS_WAITING: [((), row.waiting)], WEBHOOK_LAST: last}


def _switches(session: Session) -> Found:
    is_on = {switch.name: switch.is_on for switch in switches.listing(session)}
    handles = sum(not on for name, on in is_on.items() if name.startswith(switches.HANDLE))
    # No row for all payouts means that none may go (switches.py).
    paused = {switches.PAYOUTS: not is_on.get(switches.PAYOUTS, False)}
    paused[switches.NETWORK] = not is_on.get(switches.NETWORK, True)
    return {PAUSED: [((name,), float(off)) for name, off in paused.items()], PAUSED_HANDLES: [((), handles)]}


def _exceptions(session: Session) -> Found:
    now = float(session.scalar(text("SELECT extract(epoch FROM now())")) or 0)
    numbers: dict[tuple[str, ...], float] = {}
    ages: dict[tuple[str, ...], float] = {}
    for place, (kind, number, oldest) in enumerate(session.execute(EXCEPTIONS)):
        labels = (kind if place < MOST_KINDS else OTHER, severities.of_kind(kind))
        numbers[labels] = numbers.get(labels, 0) + number
        ages[labels] = max(ages.get(labels, 0), now - oldest.timestamp())
    return {EXCEPTIONS_OPEN: list(numbers.items()), EXCEPTIONS_OLDEST: list(ages.items())}


def _reviews(session: Session) -> Found:
    row = session.execute(REVIEWS, {"promise": PROMISED[Reason.AWAITING_REVIEW][1]}).one()
    return {REVIEW_OLDEST: [((of,), max(0.0, float(age or 0))) for of, age in row._mapping.items()]}


def _days_compared(session: Session) -> Found:
    ago: list[Sample] = [((), seconds) for seconds in standing.seconds_ago(session)]
    return {RECONCILED: ago, NOT_RECONCILED: [((), float(len(standing.missing(session))))]}


def _balance(session: Session) -> Found:
    row = session.execute(THE_BALANCE, {"account": settings().razorpayx_account_number}).one_or_none()
    if row is None:
        return {}
    return {BALANCE: [((), row.available_paise)], BALANCE_AT: [((), float(row.seen_at))]}


def _deliveries(session: Session) -> Found:
    row = session.execute(TOLD).one()
    return {
        DELIVERIES: [(("waiting",), row.waiting), (("failed",), row.failed)],
        DELIVERIES_OLDEST: [((), float(row.oldest or 0))],
        ENDPOINTS_FAILING: [((), row.failing)],
    }


def _news(session: Session) -> Found:
    unseen = session.execute(UNSEEN, {"mails": settings().smtp_host is not None}).all()
    mails = session.execute(MAILED).one()
    return {
        NEWS_UNSEEN: [((str(row.to),), float(row.seconds or 0)) for row in unseen],
        MAILS: [(("waiting",), mails.waiting), (("failed",), mails.failed)],
        MAIL_FAILING: [((), float(mails.is_failing))],
    }


def _checks(session: Session) -> Found:
    rows = session.execute(CHECKED).all()
    if not rows:
        return {}
    faults: Sequence[Sample] = [((str(row.promise),), float(row.faults)) for row in rows]
    return {CHECK_FAULTS: faults, CHECK_AT: [((), min(float(row.asked_at) for row in rows))]}


# One function for each group; what comes later is added here and in EVERY.
PARTS: tuple[Callable[[Session], Found], ...] = (
    _open, _late, _webhooks, _switches, _exceptions, _balance, _deliveries, _news, _checks, _days_compared,
    _reviews,
)  # fmt: skip
