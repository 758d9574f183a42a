"""How a withdrawal changes: it moves, it waits, it is noted, it is flagged.

A status changes here and nowhere else, and each move, note and flag leaves an event; `wait` only says until
when. Callers hold the row's lock. The statement in `requesting.py` that creates a row writes its event too.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from shared import exception_records, metrics, wallet
from shared.db import on_commit
from shared.models import Withdrawal, WithdrawalEvent
from shared.razorpayx.reasons import POLICIES
from shared.states import BY_PEOPLE, EDGES, FINAL, OPEN, REFUNDED, TRYING, WAITING, Awaits, Reason, Status
from shared.withdrawals.paid_outside import NOT_TOLD, Payment

EVENT = insert(WithdrawalEvent.__table__)  # type: ignore[arg-type]
FAILURES = frozenset({*POLICIES, "reversed", "not_paid", *BY_PEOPLE})
REVIEW_SECONDS = 600  # how often a withdrawal that waits for a person is looked at

log = structlog.get_logger()


def move(
    session: Session,
    withdrawal: Withdrawal,
    to: Status,
    *,
    actor: str,
    reason: str,
    failure_reason: str | None = None,
    utr: str | None = None,
    paid: Payment = NOT_TOLD,
    **data: Any,
) -> None:
    """Move to another status; final ones that did not pay give the coins back in the same transaction.

    `paid` is people's word on a payment; without it RazorpayX paid, just now.
    """
    came_from = Status(withdrawal.status)
    answered(session, withdrawal)
    assert not (to in REFUNDED and is_blocked(withdrawal)), "only people refund what contradicts itself"
    assert (came_from, to) in EDGES, f"{came_from} -> {to} is no move of a withdrawal"
    assert (failure_reason is not None) == (to is Status.FAILED), "a failure says why, nothing else does"
    withdrawal.status = to
    withdrawal.failure_reason = failure_reason
    withdrawal.utr = paid.utr or utr or withdrawal.utr
    withdrawal.completed_at = (paid.at or func.now()) if to is Status.COMPLETED else None
    withdrawal.paid_via = paid.via or withdrawal.paid_via
    data |= paid.told()
    withdrawal.updated_at = func.now()
    if to in FINAL:
        withdrawal.due_at = withdrawal.expected_by = withdrawal.trying_since = None
        withdrawal.status_reason = reason if to is Status.FAILED else None
    # The rows first, the coins second: the database refuses a refund beside a payout that may succeed.
    session.flush()
    if to in REFUNDED:
        data["balance_coins"] = wallet.refund(session, withdrawal, reason, actor)
        data["refunded_coins"] = withdrawal.coins_amount
    _event(session, withdrawal, came_from, actor, reason, data)
    on_commit(session, partial(_count, to, actor, reason, withdrawal.amount_paise, withdrawal.created_at))
    # Why it was cancelled is what somebody typed: it belongs in the books, and in no log.
    told = None if to is Status.CANCELLED else reason
    log.info("[PAYOUT] moved", withdrawal_id=str(withdrawal.id), to=str(to), was=str(came_from), reason=told)


def _count(to: Status, actor: str, reason: str, amount_paise: int, created_at: datetime) -> None:
    metrics.moved(to, by=actor, reason=metrics.known(reason, FAILURES) if to is Status.FAILED else "")
    if to is Status.COMPLETED:
        metrics.PAID_PAISE.inc(amount_paise)
        metrics.PAID_SECONDS.observe((datetime.now(UTC) - created_at).total_seconds())


# Why a person is told although the system goes on by itself; every other reason to look stops it.
UNANSWERED, WORKER_ERROR = "unanswered", "worker_error"
TOLD_ONLY = frozenset({UNANSWERED, WORKER_ERROR})
# One word of RazorpayX's against an end: "processed_after_failed". The next such word takes its place.
CONTRADICTS = "_after_"
# What a flag is called in the story, and one that says nothing against what RazorpayX told so far.
FLAGGED, HELD = "flagged:", "held:"


def is_blocked(withdrawal: Withdrawal) -> bool:
    """Whether this withdrawal contradicts itself, so that only people may move coins or rupees for it."""
    return withdrawal.review is not None and withdrawal.review not in TOLD_ONLY


def was_contradicted(session: Session, withdrawal: Withdrawal) -> bool:
    """Whether it ever contradicted itself: then something that we did not expect may have been paid for it.

    People can explain that, and end it; a new payout is never begun for it again.
    """
    flags = select(func.substr(WithdrawalEvent.reason, len(FLAGGED) + 1)).where(
        WithdrawalEvent.withdrawal_id == withdrawal.id, WithdrawalEvent.reason.startswith(FLAGGED)
    )
    return any(
        not (why in TOLD_ONLY or why in set(Awaits) or why.startswith(HELD)) for why in session.scalars(flags)
    )


def last_call(session: Session, withdrawal: Withdrawal) -> str:
    """Why people were last called to it; empty when they never were."""
    query = select(func.substr(WithdrawalEvent.reason, len(FLAGGED) + 1)).where(
        WithdrawalEvent.withdrawal_id == withdrawal.id, WithdrawalEvent.reason.startswith(FLAGGED)
    )
    return session.scalar(query.order_by(WithdrawalEvent.id.desc()).limit(1)) or ""


def answered(session: Session, withdrawal: Withdrawal) -> None:
    """What a person was told about has ended by itself."""
    if withdrawal.review in TOLD_ONLY:
        for kind in TOLD_ONLY:
            exception_records.close_all(
                session,
                kind=kind,
                withdrawal_id=withdrawal.id,
                resolution="it went on by itself",
                actor="system",
            )
        withdrawal.review = None


def wait(withdrawal: Withdrawal, why: Reason, seconds: float) -> None:
    """Say why the withdrawal waits, and when the system looks at it again."""
    why = Reason.IN_REVIEW if is_blocked(withdrawal) else why
    expected = timedelta(seconds=max(WAITING[why][1], seconds))
    if why not in TRYING:
        withdrawal.trying_since = None
    if withdrawal.status_reason != why:
        # Only news moves the promise: what waits on for the same reason becomes overdue in the end.
        withdrawal.expected_by = func.now() + expected
        if why in TRYING and withdrawal.trying_since is not None:
            # From one of these to another and back is no news either: it counts from the first of them.
            withdrawal.expected_by = func.greatest(
                Withdrawal.expected_by, func.coalesce(Withdrawal.trying_since, func.now()) + expected
            )
        elif why in TRYING:
            withdrawal.trying_since = func.now()
    withdrawal.status_reason = why
    withdrawal.due_at = func.now() + timedelta(seconds=seconds)
    withdrawal.updated_at = func.now()


def note(session: Session, withdrawal: Withdrawal, reason: str, *, actor: str, **data: Any) -> None:
    """Record something that happened and moved nothing."""
    _event(session, withdrawal, Status(withdrawal.status), actor, reason, data)
    log.info("[PAYOUT] noted", withdrawal_id=str(withdrawal.id), reason=reason)


def flag(session: Session, withdrawal: Withdrawal, why: str, *, actor: str, **data: Any) -> None:
    """Ask a person to look, with an exception record that holds both sides.

    But for TOLD_ONLY, nothing is sent and no coin moves until people have decided. A payout that says one
    thing after another is one matter: the record that is open goes on as that of the newest word.
    """
    theirs = {key: value for key, value in data.items() if value is not None}
    subject, before = str(withdrawal.id), withdrawal.review or ""
    last = exception_records.last_of(session, kind=why, subject=subject)
    if before == why and exception_records.tells(last, theirs):
        return  # they know
    goes_on = before == why or (CONTRADICTS in before and CONTRADICTS in why)
    if goes_on or not is_blocked(withdrawal):
        withdrawal.review = why
        withdrawal.updated_at = func.now()
    if is_blocked(withdrawal) and withdrawal.status in OPEN:
        # Not later than it was due before: where a worker may have died on the wire, its lease still ends.
        due_at = withdrawal.due_at
        wait(withdrawal, Reason.IN_REVIEW, REVIEW_SECONDS)
        withdrawal.due_at = func.least(due_at, withdrawal.due_at)
    _event(session, withdrawal, Status(withdrawal.status), actor, FLAGGED + why, data)
    exception_records.open_record(
        session,
        kind=why,
        subject=subject,
        source=actor,
        withdrawal_id=withdrawal.id,
        ours=_our_side(withdrawal),
        theirs=theirs,
        after=exception_records.last_of(session, kind=before, subject=subject) if goes_on else None,
    )
    log.error("[PAYOUT] needs a person", withdrawal_id=str(withdrawal.id), why=why)


def _our_side(withdrawal: Withdrawal) -> dict[str, Any]:
    return {
        "status": withdrawal.status,
        "status_reason": withdrawal.status_reason,
        "coins": withdrawal.coins_amount,
        "amount_paise": withdrawal.amount_paise,
        "utr": withdrawal.utr,
    }


def _event(
    session: Session, withdrawal: Withdrawal, came_from: Status, actor: str, reason: str, data: dict[str, Any]
) -> None:
    session.flush()  # the row first, its story second
    # Not as an object: of all that a payment writes there are most of these, and nobody reads them back here.
    session.connection().execute(
        EVENT,
        {
            "withdrawal_id": withdrawal.id,
            "from_status": came_from,
            "to_status": withdrawal.status,
            "actor": actor,
            "reason": reason,
            "data": {key: value for key, value in data.items() if value is not None},
        },
    )
