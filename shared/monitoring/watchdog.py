"""Scheduled checks: do webhooks still arrive, is any withdrawal overdue, is there enough money to pay.

The provider disables a webhook after 24 hours of failures and reports that by e-mail only (provider reference
§5). Polls reach the right state without webhooks, only later, so without this check nobody would notice. The
statistics for operators are here too, so that the CLI, the panel and the alerts show the same numbers.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db.transactions import transaction
from shared.models import CircuitBreaker, ProviderBalance, Withdrawal
from shared.money import rupees_text
from shared.people import exception_records
from shared.providers.registry import provider
from shared.settings import settings
from shared.withdrawals import circuit_breakers, pauses
from shared.withdrawals.pauses import LOW_BALANCE

WEBHOOKS_SILENT = "webhooks_silent"
MIN_UNHEARD_PAYOUTS = 3  # fewer may have ended without a webhook by accident
MAX_UNHEARD_PAYOUTS = 1000  # more are not counted
MAX_OVERDUE = 200  # withdrawals reported per call

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WebhookStats:
    """Statistics of the provider's webhooks in the last hours. Seconds; None if there was nothing
    to measure.
    """

    received: int
    waiting: int
    last_received_at: datetime | None
    lag_p50_seconds: float | None  # from the event to its receipt
    lag_p95_seconds: float | None
    ended_by: dict[str, int]  # channel -> payouts whose end it reported first

    @property
    def lost_share(self) -> float | None:
        """The share of ended payouts whose end was first reported by a poll or a lookup."""
        ended = sum(self.ended_by.values())
        polled = self.ended_by.get("poll", 0) + self.ended_by.get("lookup", 0)
        return polled / ended if ended else None


@dataclass(frozen=True, slots=True)
class Funds:
    """The balance of our account at the provider, and the amount still to be paid. Paise."""

    available_paise: int | None
    seen_at: datetime | None
    needed_paise: int

    @property
    def missing_paise(self) -> int:
        """The amount missing to pay all pending withdrawals, without fees."""
        return max(0, self.needed_paise - self.available_paise) if self.available_paise is not None else 0


@dataclass(frozen=True, slots=True)
class UnknownPayouts:
    """Payouts that may or may not have been made. Paise."""

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
# Withdrawals past their promised time, for example because a bank took more than three working days.
OVERDUE = text("""
    SELECT * FROM withdrawals WHERE status IN ('pending', 'processing') AND expected_by < now()
    ORDER BY expected_by LIMIT :most
""")
CLOSE_OVERDUE = text("""
    UPDATE exception_records r
    SET resolution = 'no longer overdue', resolved_by = 'system', resolved_at = now()
    FROM withdrawals w WHERE r.kind = 'overdue' AND r.resolved_at IS NULL AND w.id = r.withdrawal_id
      AND (w.status NOT IN ('pending', 'processing') OR w.expected_by >= now())
""")
LAST_RECEIVED = text("SELECT max(received_at) FROM webhook_events")
# Payouts whose end was found by polling since the last webhook, however long ago that was: a small app may
# have one payout a day. Reads the oldest ones along the index of ends.
UNHEARD = text("""
    SELECT count(*) AS payouts, min(created_at) <= now() - make_interval(secs => :silence) AS is_long
    FROM (SELECT created_at FROM withdrawal_events
          WHERE created_at > coalesce(CAST(:last AS timestamptz), '-infinity') AND from_status <> to_status
            AND to_status IN ('completed', 'failed') AND actor IN ('poll', 'lookup')
          ORDER BY created_at LIMIT :most) unheard
""")
# Found through open withdrawals, not by scanning all attempts.
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


def webhook_stats(session: Session, *, hours: int = 24) -> WebhookStats:
    """The webhooks' lag in the last `hours`, and the ends that they did not report first."""
    row = session.execute(RECEIVED, {"hours": hours}).one()
    ended_by = {str(actor): int(n) for actor, n in session.execute(ENDED_BY, {"hours": hours})}
    return WebhookStats(
        received=row.received,
        waiting=row.waiting,
        last_received_at=session.scalar(LAST_RECEIVED),
        lag_p50_seconds=None if row.p50 is None else float(row.p50),
        lag_p95_seconds=None if row.p95 is None else float(row.p95),
        ended_by=ended_by,
    )


def warn_of_silence() -> bool:
    """Open an exception record if payouts end and no webhook reports it; close it when one arrives. Returns
    True if webhooks are silent. Raises Unavailable.
    """
    with transaction() as session:
        last = session.scalar(LAST_RECEIVED)
        values = {"last": last, "silence": settings().webhook_silence_seconds, "most": MAX_UNHEARD_PAYOUTS}
        unheard = session.execute(UNHEARD, values).one()
        is_silent = unheard.payouts >= MIN_UNHEARD_PAYOUTS and bool(unheard.is_long)
        if is_silent:
            ours = {"payouts_that_ended_unheard": unheard.payouts}
            theirs = {"last_webhook": last.isoformat() if last else None}
            exception_records.open_record(
                session,
                kind=WEBHOOKS_SILENT,
                subject=provider().code,
                source="watch",
                ours=ours,
                theirs=theirs,
            )
            log.error("[WEBHOOK] silent", unheard=unheard.payouts, last_webhook=theirs["last_webhook"])
        elif not unheard.payouts:
            exception_records.close_all(
                session,
                kind=WEBHOOKS_SILENT,
                subject=provider().code,
                resolution="webhooks arrive again",
                actor="system",
            )
        return is_silent


def warn_of_overdue() -> int:
    """Open an exception record for each withdrawal past its `expected_by`; close those no longer overdue.

    Returns the number of overdue withdrawals, at most MAX_OVERDUE. Raises Unavailable.
    """
    with transaction() as session:
        session.execute(CLOSE_OVERDUE)
        overdue = session.scalars(select(Withdrawal).from_statement(OVERDUE), {"most": MAX_OVERDUE}).all()
        for withdrawal in overdue:
            assert withdrawal.expected_by, "the query selects only these"
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
        if overdue:
            log.error("[PAYOUT] overdue", number=len(overdue), oldest=str(overdue[0].id))
        return len(overdue)


def unknown_payouts(session: Session) -> UnknownPayouts:
    """Payouts that may or may not have been made."""
    return UnknownPayouts(*session.execute(UNKNOWN).one())


def funds(session: Session) -> Funds:
    """The last reported balance and the amount that we need."""
    balance = session.get(ProviderBalance, provider().account(), populate_existing=True)
    needed_paise = int(session.scalar(NEEDED) or 0)
    if balance is None:
        return Funds(None, None, needed_paise)
    return Funds(balance.available_paise, balance.seen_at, needed_paise)


def record_balance(available_paise: int) -> Funds:
    """Store the provider's balance, report missing money, and allow a probe payout once there is enough.

    Raises Unavailable.
    """
    with transaction() as session:
        values: dict[str, Any] = {"available_paise": available_paise, "seen_at": func.now()}
        statement = upsert(ProviderBalance).values(account_number=provider().account(), **values)
        session.execute(statement.on_conflict_do_update(index_elements=["account_number"], set_=values))
        current = funds(session)
        _report_funds(session, current)
        return current


def _report_funds(session: Session, current: Funds) -> None:
    if current.missing_paise:
        summary = f"{rupees_text(current.missing_paise)} more is needed to pay all pending withdrawals"
        ours = {"needed_paise": current.needed_paise, "missing_paise": current.missing_paise}
        theirs = {"available_paise": current.available_paise}
        exception_records.open_record(
            session,
            kind=LOW_BALANCE,
            subject=provider().code,
            source="watch",
            ours=ours,
            theirs=theirs,
            update_sides=True,
        )
        log.error("[PAYOUT] low balance", **ours)
    else:
        summary = "the balance covers all pending withdrawals"
        exception_records.close_all(
            session, kind=LOW_BALANCE, subject=provider().code, resolution=summary, actor="system"
        )
    switch = session.scalar(
        select(CircuitBreaker)
        .where(CircuitBreaker.name == circuit_breakers.PAYOUTS, ~CircuitBreaker.is_on)
        .with_for_update()
    )
    if switch is None or switch.probe_at is None or not switch.reason.startswith(LOW_BALANCE):
        return
    switch.reason = f"{LOW_BALANCE}: {summary}"
    if current.missing_paise:
        return
    if switch.probe_id is None:
        switch.probe_at = func.now()
    pauses.resume_if_nothing_waits(session, switch.name, reason=summary)
