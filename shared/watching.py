"""What is looked after by the clock: whether webhooks still come, and whether there is money to pay with.

RazorpayX disables a webhook after 24 hours of failures and tells by e-mail only (razorpayx.md §5). Polls
reach the right state without them, later; that nobody notices would be the fault. Measures for the operators
are here too, so that a command, a panel and an alert tell the same numbers.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared import exception_records, switches
from shared.db import transaction
from shared.models import ProviderBalance, Switch, Withdrawal
from shared.money import rupees_text
from shared.settings import settings
from shared.withdrawals import pausing
from shared.withdrawals.pausing import LOW_BALANCE

SILENT, RAZORPAYX = "webhooks_silent", "razorpayx"
# Fewer payouts than this may have ended unheard by accident. More than the most are not counted.
UNHEARD_PAYOUTS, MOST_UNHEARD = 3, 1000
MOST_OVERDUE = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Webhooks:
    """How the provider's webhooks did in the last hours. Seconds; None where there was nothing to measure."""

    received: int
    waiting: int
    last_received_at: datetime | None
    lag_p50_seconds: float | None  # from the event to our door
    lag_p95_seconds: float | None
    ended_by: dict[str, int]  # channel -> payouts whose end it told first

    @property
    def lost_share(self) -> float | None:
        """Of the payouts that ended, the part whose end a poll or a look-up saw first."""
        ended = sum(self.ended_by.values())
        seen = self.ended_by.get("poll", 0) + self.ended_by.get("lookup", 0)
        return seen / ended if ended else None


@dataclass(frozen=True, slots=True)
class Money:
    """Our account at the provider against what is still to be paid. Paise."""

    available_paise: int | None
    seen_at: datetime | None
    needed_paise: int

    @property
    def missing_paise(self) -> int:
        """How much is missing to pay all that waits; fees come on top."""
        return max(0, self.needed_paise - self.available_paise) if self.available_paise is not None else 0


@dataclass(frozen=True, slots=True)
class Unknown:
    """Payouts that may have been made, and we do not know. Paise."""

    number: int
    paise: int
    oldest: datetime | None
    withdrawal_id: UUID | None  # of the oldest


ENDED_BY = text("""
    SELECT actor, count(*) FROM withdrawal_events
    WHERE created_at >= now() - make_interval(hours => :hours) AND from_status <> to_status
      AND to_status IN ('completed', 'failed')
      AND actor IN ('webhook', 'poll', 'lookup', 'reply', 'reconciliation')
    GROUP BY actor
""")
RECEIVED = text("""
    SELECT count(*) AS received, count(*) FILTER (WHERE applied_at IS NULL) AS waiting,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY lag) AS p50,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY lag) AS p95
    FROM (SELECT applied_at, extract(epoch FROM received_at - occurred_at) AS lag FROM webhook_events
          WHERE received_at >= now() - make_interval(hours => :hours)) recent
""")
# What is later than it was said to be: a bank's three working days that became more, say.
OVERDUE = text("""
    SELECT * FROM withdrawals WHERE status IN ('pending', 'processing') AND expected_by < now()
    ORDER BY expected_by LIMIT :most
""")
NO_LONGER_OVERDUE = text("""
    UPDATE exception_records r SET resolution = 'it went on', resolved_by = 'system', resolved_at = now()
    FROM withdrawals w WHERE r.kind = 'overdue' AND r.resolved_at IS NULL AND w.id = r.withdrawal_id
      AND (w.status NOT IN ('pending', 'processing') OR w.expected_by >= now())
""")
LAST_RECEIVED = text("SELECT max(received_at) FROM webhook_events")
# Ends that were found by asking, and since when, after the last webhook came: however long ago that is, for a
# small shop has one payout a day. The oldest of them, along the index of ends: of these a few are enough.
UNHEARD = text("""
    SELECT count(*) AS payouts, min(created_at) <= now() - make_interval(secs => :silence) AS is_long
    FROM (SELECT created_at FROM withdrawal_events
          WHERE created_at > coalesce(CAST(:last AS timestamptz), '-infinity') AND from_status <> to_status
            AND to_status IN ('completed', 'failed') AND actor IN ('poll', 'lookup')
          ORDER BY created_at LIMIT :most) unheard
""")
# Payouts that may have been made, and we do not know: found by what is open, not among all attempts.
UNKNOWN = text("""
    SELECT count(*) AS number, coalesce(sum(w.amount_paise), 0)::bigint AS paise, min(a.created_at) AS oldest,
           (array_agg(w.id ORDER BY a.created_at))[1] AS withdrawal_id
    FROM withdrawals w JOIN payout_attempts a ON a.withdrawal_id = w.id AND a.state = 'unknown'
    WHERE w.status = 'processing'
""")
NEEDED = text("""
    SELECT coalesce(sum(w.amount_paise), 0) FROM withdrawals w
    WHERE w.status IN ('pending', 'processing') AND NOT EXISTS
        (SELECT FROM payout_attempts a WHERE a.withdrawal_id = w.id AND a.state = 'accepted'
         AND a.provider_status = 'processing')
""")


def webhooks(session: Session, *, hours: int = 24) -> Webhooks:
    """How webhooks did in the last `hours`: their lag, and what they did not tell."""
    row = session.execute(RECEIVED, {"hours": hours}).one()
    ended_by = {str(actor): int(n) for actor, n in session.execute(ENDED_BY, {"hours": hours})}
    return Webhooks(
        received=row.received,
        waiting=row.waiting,
        last_received_at=session.scalar(LAST_RECEIVED),
        lag_p50_seconds=None if row.p50 is None else float(row.p50),
        lag_p95_seconds=None if row.p95 is None else float(row.p95),
        ended_by=ended_by,
    )


def warn_of_silence() -> bool:
    """Open an exception record when payouts end and no webhook says so; close it when one came. True: silent.

    Raises Unavailable.
    """
    with transaction() as session:
        last = session.scalar(LAST_RECEIVED)
        values = {"last": last, "silence": settings().webhook_silence_seconds, "most": MOST_UNHEARD}
        unheard = session.execute(UNHEARD, values).one()
        is_silent = unheard.payouts >= UNHEARD_PAYOUTS and bool(unheard.is_long)
        if is_silent:
            ours = {"payouts_that_ended_unheard": unheard.payouts}
            theirs = {"last_webhook": last.isoformat() if last else None}
            exception_records.open_record(
                session, kind=SILENT, subject=RAZORPAYX, source="watch", ours=ours, theirs=theirs
            )
            log.error("[WEBHOOK] silent", unheard=unheard.payouts, last_webhook=theirs["last_webhook"])
        elif not unheard.payouts:
            exception_records.close_all(
                session, kind=SILENT, subject=RAZORPAYX, resolution="webhooks come again", actor="system"
            )
        return is_silent


def warn_of_overdue() -> int:
    """Open an exception record for each withdrawal that is past its `expected_by`; close those that went on.

    Returns how many are overdue, of the first MOST_OVERDUE. Raises Unavailable.
    """
    with transaction() as session:
        session.execute(NO_LONGER_OVERDUE)
        late = session.scalars(select(Withdrawal).from_statement(OVERDUE), {"most": MOST_OVERDUE}).all()
        for withdrawal in late:
            assert withdrawal.expected_by, "asked for"
            ours = {
                "status": withdrawal.status,
                "status_reason": withdrawal.status_reason,
                "expected_by": withdrawal.expected_by.isoformat(),
            }
            exception_records.open_record(
                session,
                kind="overdue",
                subject=str(withdrawal.id),
                source="watch",
                ours=ours,
                theirs={},
                withdrawal_id=withdrawal.id,
            )
        if late:
            log.error("[PAYOUT] overdue", number=len(late), oldest=str(late[0].id))
        return len(late)


def unknown(session: Session) -> Unknown:
    """Payouts of which we do not know whether they were made."""
    return Unknown(*session.execute(UNKNOWN).one())


def money(session: Session) -> Money:
    """What we have, as far as the provider told us, and what we need."""
    balance = session.get(ProviderBalance, settings().razorpayx_account_number, populate_existing=True)
    needed = int(session.scalar(NEEDED) or 0)
    if balance is None:
        return Money(None, None, needed)
    return Money(balance.available_paise, balance.seen_at, needed)


def learn_balance(available_paise: int) -> Money:
    """Keep what the provider says we have; tell what is missing, and let a probe go when there is money.

    Raises Unavailable.
    """
    with transaction() as session:
        values: dict[str, Any] = {"available_paise": available_paise, "seen_at": func.now()}
        statement = upsert(ProviderBalance).values(
            account_number=settings().razorpayx_account_number, **values
        )
        session.execute(statement.on_conflict_do_update(index_elements=["account_number"], set_=values))
        now = money(session)
        _tell_what_is_missing(session, now)
        return now


def _tell_what_is_missing(session: Session, now: Money) -> None:
    if now.missing_paise:
        words = f"{rupees_text(now.missing_paise)} is missing to pay all that waits"
        ours = {"needed_paise": now.needed_paise, "missing_paise": now.missing_paise}
        theirs = {"available_paise": now.available_paise}
        exception_records.open_record(
            session,
            kind=LOW_BALANCE,
            subject=RAZORPAYX,
            source="watch",
            ours=ours,
            theirs=theirs,
            is_news=True,
        )
        log.error("[PAYOUT] low balance", missing_paise=now.missing_paise, needed_paise=now.needed_paise)
    else:
        words = "there is money for all that waits"
        exception_records.close_all(
            session, kind=LOW_BALANCE, subject=RAZORPAYX, resolution=words, actor="system"
        )
    switch = session.scalar(
        select(Switch).where(Switch.name == switches.PAYOUTS, ~Switch.is_on).with_for_update()
    )
    if switch is None or switch.probe_at is None or not switch.reason.startswith(LOW_BALANCE):
        return
    switch.reason = f"{LOW_BALANCE}: {words}"
    if now.missing_paise:
        return
    if switch.probe_id is None:
        switch.probe_at = func.now()
    pausing.resume_if_nobody_waits(session, switch.name, reason=words)
