"""The only module that changes a withdrawal's status: transition, reschedule, record, hold.

`transition` moves it to another status, `reschedule` sets why it waits (`status_reason`) and when to act
again (`due_at`), `record` writes an event, and `hold` stops it until operators decide. All but `reschedule`
write an event. Callers hold the row's lock. The statement in `request.py` that creates a row also writes its
first event.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.coins import wallet
from shared.db.transactions import now, now_for, on_commit
from shared.models import Withdrawal, WithdrawalEvent
from shared.people import exception_records
from shared.providers.failures import POLICIES
from shared.states import (
    DECIDED_BY_PEOPLE,
    EDGES,
    FINAL,
    OPEN,
    REFUNDED,
    TRYING,
    WAITING,
    Reason,
    ReviewReason,
    Status,
)
from shared.telemetry import metrics
from shared.withdrawals.paid_outside import NO_PAYMENT, Payment

FAILURES = frozenset({*POLICIES, "reversed", "not_paid", *DECIDED_BY_PEOPLE})
HOLD_CHECK_SECONDS = 600  # how often a withdrawal that waits for operators is checked

log = structlog.get_logger()


def transition(
    session: Session,
    withdrawal: Withdrawal,
    to: Status,
    *,
    actor: str,
    reason: str,
    failure_reason: str | None = None,
    utr: str | None = None,
    paid: Payment = NO_PAYMENT,
    **data: Any,
) -> None:
    """Move to another status; to a final status without payment, refund the coins in the same transaction.

    `paid` is a payment that operators entered; without it, the provider paid just now.
    """
    from_status = Status(withdrawal.status)
    close_notices(session, withdrawal)
    assert not (to in REFUNDED and is_on_hold(withdrawal)), "only operators refund a withdrawal on hold"
    assert (from_status, to) in EDGES, f"{from_status} -> {to} is not a move of a withdrawal"
    assert (failure_reason is not None) == (to is Status.FAILED), "a failure has a reason, nothing else has"
    withdrawal.status = to
    withdrawal.failure_reason = failure_reason
    withdrawal.utr = paid.utr or utr or withdrawal.utr
    withdrawal.completed_at = (paid.at or now(session)) if to is Status.COMPLETED else None
    withdrawal.paid_via = paid.via or withdrawal.paid_via
    data |= paid.event_data()
    withdrawal.updated_at = now(session)
    if to in FINAL:
        withdrawal.due_at = withdrawal.expected_by = withdrawal.trying_since = None
        withdrawal.status_reason = reason if to is Status.FAILED else None
    if to in REFUNDED:
        # The rows first, the coins second: the database refuses a refund while a payout may succeed.
        session.flush()
        data["balance_coins"] = wallet.refund(session, withdrawal, reason, actor)
        data["refunded_coins"] = withdrawal.coins_amount
    _write_event(session, withdrawal, from_status, actor, reason, data)
    on_commit(
        session, partial(_count_move, to, actor, reason, withdrawal.amount_paise, withdrawal.created_at)
    )
    # A person typed the reason of a cancellation: it is stored, but never logged.
    logged_reason = None if to is Status.CANCELLED else reason
    log.info(
        "[PAYOUT] moved",
        withdrawal_id=str(withdrawal.id),
        to=str(to),
        was=str(from_status),
        reason=logged_reason,
    )


def _count_move(to: Status, actor: str, reason: str, amount_paise: int, created_at: datetime) -> None:
    metrics.count_move(
        to, by=actor, reason=metrics.known_or_other(reason, FAILURES) if to is Status.FAILED else ""
    )
    if to is Status.COMPLETED:
        metrics.PAID_PAISE.inc(amount_paise)
        metrics.PAID_SECONDS.observe((datetime.now(UTC) - created_at).total_seconds())


# Holds that only notify an operator while the system continues; every other hold stops the withdrawal.
UNANSWERED = "unanswered"
WORKER_ERROR = "worker_error"
NOTICE_ONLY = frozenset({UNANSWERED, WORKER_ERROR})
# A report that contradicts an end, such as "processed_after_failed". A newer one replaces it.
CONTRADICTION_INFIX = "_after_"
FLAGGED = "flagged:"  # prefix of a hold's event
HELD = "held:"  # prefix of a hold that contradicts nothing that the provider reported


def is_on_hold(withdrawal: Withdrawal) -> bool:
    """True if only operators may move coins or rupees for it, because the evidence is contradictory."""
    return withdrawal.hold is not None and withdrawal.hold not in NOTICE_ONLY


def was_contradicted(session: Session, withdrawal: Withdrawal) -> bool:
    """True if it was ever held for contradictory evidence: an unexpected payout may have been paid for it.

    Operators can explain that and settle it, but a new payout is never begun for it.
    """
    holds = select(func.substr(WithdrawalEvent.reason, len(FLAGGED) + 1)).where(
        WithdrawalEvent.withdrawal_id == withdrawal.id, WithdrawalEvent.reason.startswith(FLAGGED)
    )
    return any(
        not (hold in NOTICE_ONLY or hold in set(ReviewReason) or hold.startswith(HELD))
        for hold in session.scalars(holds)
    )


def last_hold_reason(session: Session, withdrawal: Withdrawal) -> str:
    """Return the reason of its last hold; empty if it was never held."""
    query = select(func.substr(WithdrawalEvent.reason, len(FLAGGED) + 1)).where(
        WithdrawalEvent.withdrawal_id == withdrawal.id, WithdrawalEvent.reason.startswith(FLAGGED)
    )
    return session.scalar(query.order_by(WithdrawalEvent.id.desc()).limit(1)) or ""


def close_notices(session: Session, withdrawal: Withdrawal) -> None:
    """Close the notices to operators: what they were about has ended without them."""
    if withdrawal.hold in NOTICE_ONLY:
        for kind in NOTICE_ONLY:
            exception_records.close_all(
                session,
                kind=kind,
                withdrawal_id=withdrawal.id,
                resolution="it continued without help",
                actor="system",
            )
        withdrawal.hold = None


def reschedule(withdrawal: Withdrawal, reason: Reason, seconds: float) -> None:
    """Set the reason why it waits (`status_reason`), and act on it again in so many seconds (`due_at`)."""
    reason = Reason.ON_HOLD if is_on_hold(withdrawal) else reason
    moment = now_for(withdrawal)
    expected = timedelta(seconds=max(WAITING[reason][1], seconds))
    if reason not in TRYING:
        withdrawal.trying_since = None
    if withdrawal.status_reason != reason:
        # `expected_by` changes only when the reason changes, so a stuck withdrawal becomes overdue.
        if reason in TRYING and withdrawal.trying_since is not None:
            # Bouncing between retry states must not extend the deadline, so measure from `trying_since`.
            deadline = withdrawal.trying_since + expected
            withdrawal.expected_by = max(withdrawal.expected_by or deadline, deadline)
        else:
            withdrawal.expected_by = moment + expected
            withdrawal.trying_since = moment if reason in TRYING else None
    withdrawal.status_reason = reason
    withdrawal.due_at = moment + timedelta(seconds=seconds)
    withdrawal.updated_at = moment


def record(session: Session, withdrawal: Withdrawal, reason: str, *, actor: str, **data: Any) -> None:
    """Write an event for something that happened without a move."""
    _write_event(session, withdrawal, Status(withdrawal.status), actor, reason, data)
    log.info("[PAYOUT] noted", withdrawal_id=str(withdrawal.id), reason=reason)


def hold(session: Session, withdrawal: Withdrawal, kind: str, *, actor: str, **data: Any) -> None:
    """Hold it for operators, with an exception record that has both sides of the evidence.

    Unless `kind` is in NOTICE_ONLY, nothing is sent and no coin moves until operators decide. Several reports
    that contradict the same end are one matter: the newest one replaces the open record.
    """
    theirs = {key: value for key, value in data.items() if value is not None}
    subject = str(withdrawal.id)
    previous = withdrawal.hold or ""
    latest = exception_records.latest(session, kind=kind, subject=subject)
    if previous == kind and exception_records.is_reported(latest, theirs):
        return  # operators have this report already
    is_same_matter = previous == kind or (CONTRADICTION_INFIX in previous and CONTRADICTION_INFIX in kind)
    if is_same_matter or not is_on_hold(withdrawal):
        withdrawal.hold = kind
        withdrawal.updated_at = now(session)
    if is_on_hold(withdrawal) and withdrawal.status in OPEN:
        # Never later than it was due before: if a worker died while sending, its lease must still expire.
        due_at = withdrawal.due_at
        reschedule(withdrawal, Reason.ON_HOLD, HOLD_CHECK_SECONDS)
        withdrawal.due_at = min(due_at or now(session), withdrawal.due_at or now(session))
    _write_event(session, withdrawal, Status(withdrawal.status), actor, FLAGGED + kind, data)
    exception_records.open_record(
        session,
        kind=kind,
        subject=subject,
        source=actor,
        withdrawal_id=withdrawal.id,
        ours=_our_side(withdrawal),
        theirs=theirs,
        replaces=exception_records.latest(session, kind=previous, subject=subject)
        if is_same_matter
        else None,
    )
    log.error("[PAYOUT] needs a person", withdrawal_id=str(withdrawal.id), why=kind)


def _our_side(withdrawal: Withdrawal) -> dict[str, Any]:
    return {
        "status": withdrawal.status,
        "status_reason": withdrawal.status_reason,
        "coins": withdrawal.coins_amount,
        "amount_paise": withdrawal.amount_paise,
        "utr": withdrawal.utr,
    }


def _write_event(
    session: Session,
    withdrawal: Withdrawal,
    from_status: Status,
    actor: str,
    reason: str,
    data: dict[str, Any],
) -> None:
    session.add(
        WithdrawalEvent(
            withdrawal_id=withdrawal.id,
            from_status=from_status,
            to_status=withdrawal.status,
            actor=actor,
            reason=reason,
            data={key: value for key, value in data.items() if value is not None},
        )
    )
