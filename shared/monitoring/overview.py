"""The system's state in a few lines for operators, as `payouts status` prints it."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import redis
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from shared import proposals
from shared.coins import adjustments
from shared.db import causes
from shared.models import CircuitBreaker
from shared.money import rupees_text
from shared.monitoring import watchdog
from shared.monitoring.gauge_queries import SPOT_CHECKS
from shared.notifications.mail import mails as mail
from shared.notifications.webhooks import deliveries
from shared.people import operators, severities
from shared.providers.failures import POLICIES
from shared.queues import redis_broker
from shared.queues.names import EVERY_QUEUE
from shared.reconciliation import coverage
from shared.settings import safety_warnings, settings
from shared.withdrawals import blocks, circuit_breakers, resolve, review

MIN_ADMINS = 2  # with fewer, no one can confirm an admin's proposal
# Labels of `paise_by_age`, in its order.
AGE_LABELS = ("up to 10 min", "up to 1 h", "up to 1 day", "up to 5 days", "older")
OPEN_WITHDRAWALS = text("""
    SELECT status, status_reason, count(*) AS number, sum(amount_paise) AS paise, min(created_at) AS oldest,
           ARRAY[sum(amount_paise) FILTER (WHERE age <= interval '10 minutes'),
                 sum(amount_paise) FILTER (WHERE age > interval '10 minutes' AND age <= interval '1 hour'),
                 sum(amount_paise) FILTER (WHERE age > interval '1 hour' AND age <= interval '1 day'),
                 sum(amount_paise) FILTER (WHERE age > interval '1 day' AND age <= interval '5 days'),
                 sum(amount_paise) FILTER (WHERE age > interval '5 days')] AS paise_by_age
    FROM (SELECT *, now() - created_at AS age FROM withdrawals
          WHERE status IN ('pending', 'processing')) waiting
    GROUP BY status, status_reason ORDER BY status, number DESC
""")
# Our own results: for each handle, the number of paid and failed attempts, and of failures caused by its
# bank.
HANDLE_RESULTS = text("""
    SELECT lower(split_part(w.upi_id, '@', 2)) AS handle,
           count(*) FILTER (WHERE a.state = 'paid') AS paid,
           count(*) FILTER (WHERE a.state IN ('failed', 'reversed')) AS failed,
           count(*) FILTER (WHERE a.status_details ->> 'reason' = ANY(:banks)) AS by_bank
    FROM payout_attempts a JOIN withdrawals w ON w.id = a.withdrawal_id
    WHERE a.created_at >= now() - make_interval(hours => :hours)
    GROUP BY handle ORDER BY by_bank DESC, failed DESC, paid DESC LIMIT 20
""")
HOLDS = text("SELECT hold, count(*) FROM withdrawals WHERE hold IS NOT NULL GROUP BY hold ORDER BY 2 DESC")
# The most severe first.
OPEN_EXCEPTIONS = text(
    "SELECT kind, count(*), min(opened_at) FROM exception_records"  # noqa: S608  our own words
    f" WHERE resolved_at IS NULL GROUP BY kind ORDER BY {severities.RANK}, 2 DESC"
)

LAST_CLOSED_DAY = text("SELECT max(day) FROM day_certificates")


def overview(session: Session, *, hours: int = 24) -> Iterator[tuple[str, list[str]]]:
    """Section titles, each with its lines."""
    yield "Integrity checks", list(_check_lines(session))
    yield "Switches", [_breaker_line(switch) for switch in circuit_breakers.all_breakers(session)]
    yield "Balance", list(_funds_lines(watchdog.funds(session)))
    yield "Open withdrawals", [_open_line(row) for row in session.execute(OPEN_WITHDRAWALS)] or ["none"]
    yield "Queues", _queue_lines()
    yield (
        f"Webhooks from RazorpayX in {hours} h",
        _webhook_lines(watchdog.webhook_stats(session, hours=hours)),
    )
    endpoints = deliveries.endpoint_health(session)
    yield "Webhooks to apps", [_endpoint_line(endpoint) for endpoint in endpoints] or ["no endpoint"]
    is_mail_on = settings().smtp_host is not None
    yield "Mail", [_mail_line(mail.mail_health(session)) if is_mail_on else "off: SMTP_HOST is not set"]
    rows = handle_results(session, hours=hours)
    yield f"UPI handles in {hours} h", [_handle_line(row) for row in rows] or ["none"]
    yield "Reconciliation", [coverage.yesterday_summary(session)]
    if settings().certificate_key:
        day = session.execute(LAST_CLOSED_DAY).scalar_one()
        yield "Closed days", [f"last: {day}" if day else "NONE yet"]
    holds = [f"{count} withdrawals on hold: {reason}" for reason, count in session.execute(HOLDS)]
    yield "Operators", list(_operator_lines(session))
    decisions = list(_decision_lines(session))
    exceptions = [
        f"{severities.severity_of(kind)}: {count} × {kind}, oldest {_utc(oldest)}"
        for kind, count, oldest in session.execute(OPEN_EXCEPTIONS)
    ]
    yield "Action needed", exceptions + decisions + holds or ["none"]


def _check_lines(session: Session) -> Iterator[str]:
    rows = session.execute(SPOT_CHECKS).all()
    for row in rows:
        if row.faults:
            yield f"FAILED: promise {row.promise}, {row.faults} rows. Run payouts pause, then payouts check"
    if not rows:
        yield "not run: no spot check has run yet"
    elif not any(row.faults for row in rows):
        yield f"passed at {_utc(min(row.checked_at for row in rows))}"


def _operator_lines(session: Session) -> Iterator[str]:
    admins = operators.count_admins(session)
    yield f"{admins} admin{'' if admins == 1 else 's'} may sign in"
    if admins < MIN_ADMINS:
        yield "ONE ADMIN IS TOO FEW: no one can confirm an admin's proposals"
    for warning in safety_warnings(settings().second_admin_required, settings().admin_totp_required_roles):
        yield f"RELAXED: {warning}"


def _decision_lines(session: Session) -> Iterator[str]:
    for count, label in (
        (review.count_awaiting(session), "withdrawals await approval: payouts review list"),
        (resolve.count_open(session), "decisions about withdrawals await a second person"),
        (
            adjustments.count_open(session),
            "coin adjustments await a second person: payouts wallet proposals",
        ),
        (
            blocks.count_open(session),
            "block removals await a second person: payouts block proposals",
        ),
        (
            proposals.count_open(session),
            "proposals about operators, keys and imports await a second person: payouts proposals list",
        ),
    ):
        if count:
            yield f"{count} {label}"


def _breaker_line(switch: CircuitBreaker) -> str:
    state = "on" if switch.is_on else "OFF"
    probe = f", next probe payout at {_utc(switch.probe_at)}" if switch.probe_at else ""
    return (
        f"{switch.name}: {state} since {_utc(switch.changed_at)} by {switch.actor} ({switch.reason}){probe}"
    )


def _open_line(row: Row[Any]) -> str:
    label = f"{row.status}, {row.status_reason}"
    return f"{label}: {row.number}, {rupees_text(int(row.paise))}, oldest {_utc(row.oldest)}"


def handle_results(session: Session, *, hours: int = 24) -> Sequence[Row[Any]]:
    """The results of attempts by UPI handle, handles with bank failures first."""
    banks = [reason for reason, policy in POLICIES.items() if policy.fault_domain == "handle"]
    return session.execute(HANDLE_RESULTS, {"hours": hours, "banks": banks}).all()


def _handle_line(row: Row[Any]) -> str:
    return f"@{row.handle}: {row.paid} paid, {row.failed} failed, {row.by_bank} of them because of its bank"


def _funds_lines(funds: watchdog.Funds) -> Iterator[str]:
    yield f"to be paid: {rupees_text(funds.needed_paise)}"
    if funds.available_paise is None:
        yield "balance: not yet reported by RazorpayX"
        return
    yield f"balance: {rupees_text(funds.available_paise)}, reported {_utc(funds.seen_at)}"
    yield f"missing: {rupees_text(funds.missing_paise)}"


def _webhook_lines(stats: watchdog.WebhookStats) -> list[str]:
    last = _utc(stats.last_received_at) if stats.last_received_at else "never"
    lines = [f"{stats.received} received, {stats.waiting} not applied yet, last {last}"]
    if stats.lag_p50_seconds is not None and stats.lag_p95_seconds is not None:
        lines.append(
            f"delay: median {stats.lag_p50_seconds:.1f} s, 95 % within {stats.lag_p95_seconds:.1f} s"
        )
    if stats.lost_share is not None:
        ended = ", ".join(f"{channel} {count}" for channel, count in sorted(stats.ended_by.items()))
        lines.append(f"{stats.lost_share:.1%} of payouts ended without a webhook first ({ended})")
    return lines


def _endpoint_line(endpoint: deliveries.EndpointHealth) -> str:
    state = (
        f"FAILING since {_utc(endpoint.failing_since)}: {endpoint.last_error or 'given up'}"
        if endpoint.failing_since
        else "works"
    )
    return f"{endpoint.url}: {state}; {_pending(endpoint)}"


def _mail_line(mails: mail.MailHealth) -> str:
    state = f"FAILING since {_utc(mails.failing_since)}" if mails.failing_since else "works"
    error = f" ({mails.last_error})" if mails.last_error else ""
    return f"{settings().smtp_host}: {state}{error}; {_pending(mails)}"


def _pending(health: deliveries.EndpointHealth | mail.MailHealth) -> str:
    oldest = f", oldest {_utc(health.oldest)}" if health.oldest else ""
    behind = "; new events are not processed: is a notifier running?" if health.is_behind else ""
    return f"{health.waiting} pending{oldest}; {health.failed} failed{behind}"


def _queue_lines() -> list[str]:
    try:
        depths = {queue: redis_broker.depth(queue) for queue in EVERY_QUEUE}
    except redis.RedisError as error:
        reason = causes.message_of(error)
        return [f"Redis is unavailable ({reason}). Nothing is lost: the sweep finds due work in the database"]
    return [f"{queue}: {depth}" for queue, depth in depths.items()]


def _utc(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "never"
