"""The boxes of the dashboard: integrity checks, money, results, and what needs attention."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from flask import url_for

from api.admin.dashboard_data import HOURS, RATE_MINUTES, Facts
from api.admin.template_filters import counted, duration, percent
from shared.money import grouped, rupees_text
from shared.monitoring import watchdog
from shared.monitoring.totals import counts, sums
from shared.notifications.mail import operator_mails as mail_to_operators
from shared.notifications.webhooks import endpoints
from shared.people.severities import Severity, severity_of
from shared.proof import spot_checks
from shared.settings import settings
from shared.states import WAITING, Reason, Status
from shared.withdrawals import pauses, search

# A box is red beyond these values.
MAX_UNKNOWN_SECONDS = WAITING[Reason.CONFIRMING][1]
MAX_LATE_SECONDS = 120
MAX_FAILURE_RATE = 0.1
MIN_TRIED_FOR_RATE = 20  # payments; a rate of fewer means little
MIN_BALANCE_HOURS = 2  # that the balance lasts
MAX_BALANCE_AGE_INTERVALS = 5  # multiples of WATCH_SECONDS, the interval between two queries
MAX_CHECK_AGE_INTERVALS = 15  # the same for spot checks; the alert PayoutsPromisesNotChecked waits as long
NEED_A_DECISION = (Reason.AWAITING_REVIEW, Reason.ON_HOLD)  # pending, but not sent automatically
BEHIND = "; new events are not processed: is a notifier running?"


@dataclass(frozen=True, slots=True)
class Box:
    """One box: a short value, details, whether it needs attention, and a link to its source."""

    title: str
    value: str
    details: str
    is_red: bool = False
    url: str = ""
    is_wide: bool = False  # takes a whole row


def boxes(facts: Facts) -> list[Box]:
    """All boxes: integrity checks first, then money."""
    return [
        _integrity(facts),
        _held(facts),
        _unknown(facts),
        _paid_today(facts),
        _balance(facts),
        *_results(facts),
        _to_be_sent(facts),
        _provider_webhooks(facts),
        _app_webhooks(facts),
        _mail(facts),
        _pauses(facts),
        _action_needed(facts),
    ]


def _integrity(facts: Facts) -> Box:
    """A failed integrity check is the worst possible state, so this box comes first."""
    title = "Integrity checks"
    url = url_for("exceptions.index", kind=spot_checks.PROMISE_BROKEN)
    open_records = facts.exceptions.get(spot_checks.PROMISE_BROKEN, 0)
    faults = [f"{row.promise} ({row.faults} rows)" for row in facts.spot_checks if row.faults]
    if faults or open_records:
        state = f"promise {', '.join(faults)}" if faults else "passing again"
        details = f"{state}; {counted(open_records, 'open record')}. Pause payouts, then run payouts check"
        return Box(title, "FAILED", details, True, url)
    if not facts.spot_checks:
        return Box(title, "not run", "No spot check has run yet", url=url)
    seconds = (facts.now - min(row.checked_at for row in facts.spot_checks)).total_seconds()
    is_old = seconds > MAX_CHECK_AGE_INTERVALS * settings().watch_seconds
    hint = "; does a worker consume the queue maintenance?" if is_old else ""
    return Box(
        title, "out of date" if is_old else "passed", f"last run {duration(seconds)} ago{hint}", is_old, url
    )


def _held(facts: Facts) -> Box:
    number = sum(row.number for row in facts.waiting)
    if not number:
        return Box("Amount held", rupees_text(0), "No open withdrawals", url="#held")
    oldest = min(row.oldest for row in facts.waiting)
    overdue = facts.exceptions.get("overdue", 0)
    late = f"; {grouped(overdue)} overdue" if overdue else ""
    details = f"{counted(number, 'withdrawal')}; oldest: {_age(facts, oldest)}{late}"
    url = url_for("exceptions.index", kind="overdue") if overdue else "#held"
    paise = int(sum(row.paise for row in facts.waiting))
    return Box("Amount held", rupees_text(paise), details, bool(overdue), url)


def _unknown(facts: Facts) -> Box:
    unknown = facts.unknown
    url = url_for("withdrawals.index", reason=Reason.CONFIRMING, order=search.OLDEST)
    if unknown.oldest is None:
        return Box("Unknown", rupees_text(0), "The result of every payout is known", url=url)
    seconds = (facts.now - unknown.oldest).total_seconds()
    details = f"{counted(unknown.number, 'payout')} that may have been made; oldest: {duration(seconds)}"
    return Box("Unknown", rupees_text(unknown.paise), details, seconds > MAX_UNKNOWN_SECONDS, url)


def _paid_today(facts: Facts) -> Box:
    today = facts.today
    paid = counted(today.paid, "withdrawal")
    details = f"{paid}; {grouped(today.requested)} requested, {grouped(today.refunded)} refunded"
    url = url_for("withdrawals.index", status=Status.COMPLETED)
    return Box("Paid today (IST)", rupees_text(today.paise[counts.PAID]), details, url=url)


def _balance(facts: Facts) -> Box:
    title = "Balance at RazorpayX"
    funds = facts.funds
    url = url_for("exceptions.index", kind=pauses.LOW_BALANCE)
    if funds.available_paise is None or funds.seen_at is None:
        return Box(title, "unknown", "RazorpayX has not reported it yet", True, url)
    hourly_paise = facts.last_hour.paise[counts.PAID]
    hours = funds.available_paise / hourly_paise if hourly_paise else None
    lasts = (
        f"lasts {duration(hours * 3600)} at the last hour's rate"
        if hours is not None
        else "nothing was paid in the last hour"
    )
    missing = f"{rupees_text(funds.missing_paise)} missing; " if funds.missing_paise else ""
    age_seconds = (facts.now - funds.seen_at).total_seconds()
    needed = rupees_text(funds.needed_paise)
    details = f"{missing}{lasts}; {needed} to be paid; reported {duration(age_seconds)} ago"
    is_old = age_seconds > MAX_BALANCE_AGE_INTERVALS * settings().watch_seconds
    is_red = bool(funds.missing_paise) or (hours is not None and hours < MIN_BALANCE_HOURS) or is_old
    return Box(title, rupees_text(funds.available_paise), details, is_red, url)


def _results(facts: Facts) -> Iterator[Box]:
    day = sums.total(facts.totals)
    is_red = day.tried >= MIN_TRIED_FOR_RATE and (day.failure_rate or 0) > MAX_FAILURE_RATE
    failed = grouped(day.number[counts.FAILED])
    reversals = grouped(day.number[counts.REVERSED])
    details = f"{failed} of {counted(day.tried, 'payment')} in {HOURS} h; also {reversals} reversed"
    if rejected := day.number[counts.REJECTED]:
        details += f", {grouped(rejected)} rejected or refunded by operators"
    url = url_for("withdrawals.index", status=Status.FAILED)
    yield Box("Failure rate", percent(day.failure_rate), details, is_red, url)
    refunded = counted(day.refunded, "withdrawal")
    details = f"{rupees_text(day.refunded_paise)} of {refunded} in {HOURS} h, including cancelled ones"
    yield Box("Refund rate", percent(day.refund_rate), details, url="#handles")
    details = f"median in {HOURS} h; 95 % within {duration(day.p95_seconds)}"
    details = details if day.paid else f"Nothing was paid in {HOURS} h"
    url = url_for("analytics.index", _anchor="times")
    yield Box("Time from request to paid", duration(day.p50_seconds), details, url=url)


def _to_be_sent(facts: Facts) -> Box:
    number = sum(
        row.number
        for row in facts.waiting
        if row.status == Status.PENDING and row.status_reason not in NEED_A_DECISION
    )
    per_minute = facts.recent.tried / RATE_MINUTES
    if not number:
        details = "No pending withdrawals"
    elif per_minute:
        rate = f"{per_minute:.1f} per minute, as in the last {RATE_MINUTES} min"
        details = f"done in {duration(number / per_minute * 60)} at {rate}"
    else:
        details = f"none ended in the last {RATE_MINUTES} min, so there is no estimate"
    is_late = facts.late_seconds > MAX_LATE_SECONDS
    late = f"; due for {duration(facts.late_seconds)}, not claimed: are workers running?" if is_late else ""
    broker = "; Redis does not answer" if facts.queue_depths is None else ""
    url = url_for("withdrawals.index", status=Status.PENDING, order=search.OLDEST)
    is_red = is_late or facts.queue_depths is None
    return Box("To be sent", grouped(number), details + late + broker, is_red, url)


def _provider_webhooks(facts: Facts) -> Box:
    stats = facts.webhooks
    is_silent = watchdog.WEBHOOKS_SILENT in facts.exceptions
    details = "; ".join(_webhook_details(stats, facts))
    url = url_for("exceptions.index", kind=watchdog.WEBHOOKS_SILENT)
    value = "silent" if is_silent else grouped(stats.received)
    return Box("Webhooks from RazorpayX", value, details, is_silent, url)


def _webhook_details(stats: watchdog.WebhookStats, facts: Facts) -> Iterator[str]:
    yield f"in {HOURS} h, {grouped(stats.waiting)} not applied yet"
    yield (
        f"last one {_age(facts, stats.last_received_at)} ago"
        if stats.last_received_at
        else "none received yet"
    )
    if stats.lag_p95_seconds is not None:
        yield f"95 % within {duration(max(0, stats.lag_p95_seconds))}"
    if stats.lost_share is not None:
        yield f"{percent(stats.lost_share)} of payouts ended without a webhook first"


def _app_webhooks(facts: Facts) -> Box:
    title = "Webhooks to apps"
    url = url_for("exceptions.index", kind=endpoints.ENDPOINT_FAILING)
    if not facts.apps:
        return Box(title, "no endpoint", "No app has an endpoint", url=url)
    failing = sum(endpoint.failing_since is not None for endpoint in facts.apps)
    pending = grouped(sum(endpoint.waiting for endpoint in facts.apps))
    failed = grouped(sum(endpoint.failed for endpoint in facts.apps))
    is_behind = any(endpoint.is_behind for endpoint in facts.apps)
    state = f"{failing} of {counted(len(facts.apps), 'endpoint')} failing"
    details = f"{state}; {pending} pending, {failed} given up{BEHIND if is_behind else ''}"
    return Box(title, "failing" if failing else "working", details, bool(failing) or is_behind, url)


def _mail(facts: Facts) -> Box:
    mails = facts.mail
    url = url_for("exceptions.index", kind=mail_to_operators.MAIL_FAILING)
    if mails is None:
        return Box("Mail", "off", "SMTP_HOST is not set", url=url)
    behind = BEHIND if mails.is_behind else ""
    details = f"{grouped(mails.waiting)} pending, {grouped(mails.failed)} given up{behind}"
    is_red = bool(mails.failing_since) or mails.is_behind
    return Box("Mail", "failing" if mails.failing_since else "working", details, is_red, url)


def _pauses(facts: Facts) -> Box:
    url = url_for("switches.index")
    if not facts.paused:
        return Box("Pauses", "none", "Payouts are sent", url=url)
    names = ", ".join(switch.name for switch in facts.paused)
    return Box("Pauses", str(len(facts.paused)), names, True, url)


def _action_needed(facts: Facts) -> Box:
    awaiting = sum(row.number for row in facts.waiting if row.status_reason == Reason.AWAITING_REVIEW)
    records = sum(facts.exceptions.values())
    critical = sum(n for kind, n in facts.exceptions.items() if severity_of(kind) is Severity.CRITICAL)
    details = f"{counted(awaiting, 'withdrawal')} to approve, {counted(records, 'exception record')}"
    details += f" ({critical} critical)" if critical else ""
    details += f", {counted(facts.decisions, 'decision')} for a second person"
    number = awaiting + records + facts.decisions
    url = url_for("exceptions.index", severity=Severity.CRITICAL) if critical else "#people"
    return Box("Action needed", grouped(number), details, bool(critical), url, is_wide=True)


def _age(facts: Facts, moment: datetime) -> str:
    return duration((facts.now - moment).total_seconds())
