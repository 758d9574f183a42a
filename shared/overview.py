"""How it goes, in a few lines for operators: what `payouts status` prints."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import redis
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from shared import (
    adjusting,
    blocks,
    causes,
    operators,
    proposals,
    queues,
    severities,
    switches,
    watching,
)
from shared.gauge_questions import CHECKED
from shared.models import Switch
from shared.money import rupees_text
from shared.notifications import keeping
from shared.notifications.mail import keeping as mail
from shared.razorpayx.reasons import POLICIES
from shared.reconciliation import standing
from shared.settings import relaxed, settings
from shared.withdrawals import resolving, reviewing

TWO = 2  # admins: fewer cannot confirm anything
# How old what waits is, in the order of `paise_by_age`.
AGES = ("to 10 min", "to 1 h", "to 1 day", "to 5 days", "older")
WAITING = text("""
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
# From our own results: how many attempts to each handle ended how, and how many because of its bank.
HANDLES = text("""
    SELECT lower(split_part(w.upi_id, '@', 2)) AS handle,
           count(*) FILTER (WHERE a.state = 'paid') AS paid,
           count(*) FILTER (WHERE a.state IN ('failed', 'reversed')) AS failed,
           count(*) FILTER (WHERE a.status_details ->> 'reason' = ANY(:banks)) AS by_bank
    FROM payout_attempts a JOIN withdrawals w ON w.id = a.withdrawal_id
    WHERE a.created_at >= now() - make_interval(hours => :hours)
    GROUP BY handle ORDER BY by_bank DESC, failed DESC, paid DESC LIMIT 20
""")
REVIEWS = text(
    "SELECT review, count(*) FROM withdrawals WHERE review IS NOT NULL GROUP BY review ORDER BY 2 DESC"
)
# The worst first.
EXCEPTIONS = text(
    "SELECT kind, count(*), min(opened_at) FROM exception_records"  # noqa: S608  our own words
    f" WHERE resolved_at IS NULL GROUP BY kind ORDER BY {severities.RANK}, 2 DESC"
)

CLOSED = text("SELECT max(day) FROM day_certificates")


def overview(session: Session, *, hours: int = 24) -> Iterator[tuple[str, list[str]]]:
    """Titles, each with its lines."""
    yield "Promises", list(_promises(session))
    yield "Switches", [_switch(switch) for switch in switches.listing(session)]
    yield "Money", list(_money(watching.money(session)))
    yield "Waiting", [_waiting(row) for row in session.execute(WAITING)] or ["nothing"]
    yield "Queues", _queues()
    yield f"Webhooks in {hours} h", _webhooks(watching.webhooks(session, hours=hours))
    yield "Webhooks to apps", [_endpoint(one) for one in keeping.standings(session)] or ["no endpoint"]
    yield "Mail", [_mail(mail.standing(session)) if settings().smtp_host else "off: SMTP_HOST is not set"]
    rows = handles(session, hours=hours)
    yield f"UPI handles in {hours} h", [_handle(row) for row in rows] or ["nothing"]
    yield "Reconciliation", [standing.yesterday(session)]
    if settings().certificate_key:
        day = session.execute(CLOSED).scalar_one()
        yield "Closed days", [f"the last one: {day}" if day else "NONE was closed yet"]
    flags = [f"{count} withdrawals: {review}" for review, count in session.execute(REVIEWS)]
    yield "Operators", list(_operators(session))
    decide = list(_to_decide(session))
    open_ones = [
        f"{severities.of_kind(kind)}: {n} × {kind}, oldest {_when(oldest)}"
        for kind, n, oldest in session.execute(EXCEPTIONS)
    ]
    yield "For a person", open_ones + decide + flags or ["nothing"]


def _promises(session: Session) -> Iterator[str]:
    rows = session.execute(CHECKED).all()
    for row in rows:
        if row.faults:
            yield f"BROKEN: promise {row.promise}, {row.faults} rows: payouts pause, then payouts check"
    if not rows:
        yield "not checked: no spot check has run yet"
    elif not any(row.faults for row in rows):
        yield f"kept, as spot checks saw at {_when(min(row.checked_at for row in rows))}"


def _operators(session: Session) -> Iterator[str]:
    admins = operators.number_of_admins(session)
    yield f"{admins} admin{'' if admins == 1 else 's'} may sign in"
    if admins < TWO:
        yield "ONE ADMIN IS TOO FEW: nobody can confirm what another proposes"
    for words in relaxed(settings().second_admin_required, settings().admin_totp_required_roles):
        yield f"RELAXED: {words}"


def _to_decide(session: Session) -> Iterator[str]:
    for number, what in (
        (reviewing.number_waiting(session), "withdrawals await approval: payouts review list"),
        (resolving.number_waiting(session), "decisions about withdrawals wait for a second person"),
        (
            adjusting.number_waiting(session),
            "proposals of coins wait for a second person: payouts wallet proposals",
        ),
        (
            blocks.number_waiting(session),
            "ends of blocks wait for a second person: payouts block proposals",
        ),
        (
            proposals.number_waiting(session),
            "proposals of operators, keys and imports wait: payouts proposals list",
        ),
    ):
        if number:
            yield f"{number} {what}"


def _switch(switch: Switch) -> str:
    state = "on" if switch.is_on else "OFF"
    probe = f", one payout tries at {_when(switch.probe_at)}" if switch.probe_at else ""
    return (
        f"{switch.name}: {state} since {_when(switch.changed_at)} by {switch.actor} ({switch.reason}){probe}"
    )


def _waiting(row: Row[Any]) -> str:
    what = f"{row.status}, {row.status_reason}"
    return f"{what}: {row.number}, {rupees_text(int(row.paise))}, oldest {_when(row.oldest)}"


def handles(session: Session, *, hours: int = 24) -> Sequence[Row[Any]]:
    """How attempts to each UPI handle ended, those with trouble of its bank first."""
    banks = [reason for reason, policy in POLICIES.items() if policy.whose == "handle"]
    return session.execute(HANDLES, {"hours": hours, "banks": banks}).all()


def _handle(row: Row[Any]) -> str:
    return f"@{row.handle}: {row.paid} paid, {row.failed} failed, {row.by_bank} of them by its bank"


def _money(money: watching.Money) -> Iterator[str]:
    yield f"to be paid: {rupees_text(money.needed_paise)}"
    if money.available_paise is None:
        yield "balance: RazorpayX has not told it yet"
        return
    yield f"balance: {rupees_text(money.available_paise)}, as told {_when(money.seen_at)}"
    yield f"missing: {rupees_text(money.missing_paise)}"


def _webhooks(told: watching.Webhooks) -> list[str]:
    last = _when(told.last_received_at) if told.last_received_at else "never"
    lines = [f"{told.received} came, {told.waiting} not applied yet, the last one {last}"]
    if told.lag_p50_seconds is not None and told.lag_p95_seconds is not None:
        lines.append(
            f"they take {told.lag_p50_seconds:.1f} s, 95 of 100 at most {told.lag_p95_seconds:.1f} s"
        )
    if told.lost_share is not None:
        ended = ", ".join(f"{channel} {number}" for channel, number in sorted(told.ended_by.items()))
        lines.append(f"{told.lost_share:.1%} of the ends were seen by asking first ({ended})")
    return lines


def _endpoint(one: keeping.Standing) -> str:
    state = (
        f"FAILING since {_when(one.failing_since)}: {one.last_error or 'given up'}"
        if one.failing_since
        else "works"
    )
    behind = "; new changes are not looked at: does a notifier run?" if one.is_behind else ""
    waiting = f"{one.waiting} waiting" + (f", oldest {_when(one.oldest)}" if one.oldest else "")
    return f"{one.url}: {state}; {waiting}; {one.failed} failed{behind}"


def _mail(now: mail.Standing) -> str:
    state = f"FAILING since {_when(now.failing_since)}" if now.failing_since else "works"
    why = f" ({now.last_error})" if now.last_error else ""
    behind = "; news is not looked at: does a notifier run?" if now.is_behind else ""
    waiting = f"{now.waiting} waiting" + (f", oldest {_when(now.oldest)}" if now.oldest else "")
    return f"{settings().smtp_host}: {state}{why}; {waiting}; {now.failed} failed{behind}"


def _queues() -> list[str]:
    try:
        depths = {queue: queues.depth(queue) for queue in queues.EVERY_QUEUE}
    except redis.RedisError as error:
        why = causes.words_of(error)
        return [f"Redis cannot be used ({why}); nothing is lost, the sweep finds it in the database"]
    return [f"{queue}: {depth}" for queue, depth in depths.items()]


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "never"
