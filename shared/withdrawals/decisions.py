"""Which decisions are possible for a withdrawal now, and the facts that a decision is bound to."""

import hashlib
import json
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.errors import BadRequest, Conflict
from shared.models import PayoutAttempt, Withdrawal, WithdrawalEvent
from shared.providers.answers import ALIVE
from shared.settings import settings
from shared.states import UNSETTLED, WAITING, AttemptState, Decision, Reason, Status
from shared.withdrawals import corrections, transitions
from shared.withdrawals.corrections import CORRECTIONS
from shared.withdrawals.report_meaning import contradiction

# How long a reported "on its way" counts as current. Polls repeat the query much more often.
ON_ITS_WAY_SECONDS = 86_400


def require_possible(session: Session, withdrawal: Withdrawal, decision: Decision) -> None:
    """Refuse a decision that is not possible now. Raises BadRequest, Conflict (a worker is sending it)."""
    if decision in CORRECTIONS:
        corrections.require_possible(session, withdrawal, decision)
        return
    status = withdrawal.status
    if decision == Decision.REFUND and status in (Status.FAILED, Status.CANCELLED):
        if corrections.is_taken_back(session, withdrawal):
            raise BadRequest("It was refunded once", "Propose give_back instead", code="taken_back_already")
        raise BadRequest(
            "Already refunded", f"It is {status}, and its coins are back", code="refunded_already"
        )
    if decision == Decision.PAID and status not in (Status.PROCESSING, Status.COMPLETED):
        raise BadRequest("It cannot be marked as paid", f"It is {status}", code="cannot_be_paid")
    if decision != Decision.GO_ON and status == Status.COMPLETED and withdrawal.hold is None:
        # Another "paid" would be a decision of two operators without an effect.
        raise BadRequest("It is already paid", "Nothing contradicts the payment", code="was_paid")
    _require_no_second_payment(session, withdrawal, decision)
    _require_not_on_its_way(session, withdrawal, decision)
    leased = PayoutAttempt.last_sent_at > func.now() - timedelta(seconds=settings().lease_seconds)
    sending = (PayoutAttempt.withdrawal_id == withdrawal.id) & (PayoutAttempt.state == AttemptState.SENDING)
    if session.scalar(select(PayoutAttempt.id).where(sending, leased)):
        # Not even `go_on`: another worker would claim it while this one is sending.
        raise Conflict("A worker is sending it", "Wait until its lease expires", code="being_sent")
    if decision == Decision.GO_ON and withdrawal.hold is None:
        # It would be due too early: in the user's cancel window, or before a retry is due.
        raise BadRequest("It continues without a decision", "It is not on hold", code="goes_on")


def _require_no_second_payment(session: Session, withdrawal: Withdrawal, decision: Decision) -> None:
    """Refuse `go_on` without an open attempt: it would begin a new one beside a payout that may have been
    paid.

    Operators can settle such a withdrawal as paid or refunded instead.
    """
    if decision != Decision.GO_ON or withdrawal.status != Status.PROCESSING:
        return
    unsettled = select(PayoutAttempt.id).where(
        PayoutAttempt.withdrawal_id == withdrawal.id, PayoutAttempt.state.in_(UNSETTLED)
    )
    if session.scalar(unsettled) is None and transitions.was_contradicted(session, withdrawal):
        raise BadRequest(
            "It cannot continue",
            "It may have been paid, and it would be paid a second time. Propose paid or refund",
            code="would_pay_anew",
        )


def _require_not_on_its_way(session: Session, withdrawal: Withdrawal, decision: Decision) -> None:
    """Refuse a refund while the provider reports that a payout is on its way.

    It is allowed once the provider has not reported that for a day, or the bank's time is over.
    """
    if decision != Decision.REFUND:
        return
    _require_no_live_payout(session, withdrawal)
    if withdrawal.status != Status.PROCESSING:
        return
    bank_time = timedelta(seconds=WAITING[Reason.BANK_PROCESSING][1])
    on_its_way = select(PayoutAttempt.provider_status).where(
        PayoutAttempt.withdrawal_id == withdrawal.id,
        PayoutAttempt.state == AttemptState.ACCEPTED,
        PayoutAttempt.answered_at > func.now() - timedelta(seconds=ON_ITS_WAY_SECONDS),
        (PayoutAttempt.provider_status != "processing") | (PayoutAttempt.created_at > func.now() - bank_time),
    )
    if (status := session.scalar(on_its_way)) is not None:
        raise BadRequest(
            "It may still be paid",
            f"Its payout is {status} at RazorpayX. If it is queued, cancel it there first",
            code="may_be_paid",
        )


def fingerprint(session: Session, withdrawal: Withdrawal) -> str:
    """Return a hash of the facts that a decision is about. Not the version, which a poll changes."""
    attempts = session.scalars(
        select(PayoutAttempt)
        .where(PayoutAttempt.withdrawal_id == withdrawal.id)
        .order_by(PayoutAttempt.number)
        .execution_options(populate_existing=True)
    )
    facts = [
        [
            str(withdrawal.id),
            withdrawal.status,
            withdrawal.hold,
            withdrawal.upi_id,
            withdrawal.amount_paise,
        ],
        *[[str(a.id), a.state, a.payout_id, a.provider_status, a.sends, a.utr] for a in attempts],
        ["called", _count_holds(session, withdrawal)],
        *(["taken back"] if corrections.is_taken_back(session, withdrawal) else []),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _require_no_live_payout(session: Session, withdrawal: Withdrawal) -> None:
    """Refuse if the provider reported within a day that the payout of an ended attempt lives."""
    reported = select(PayoutAttempt.state, PayoutAttempt.provider_status).where(
        PayoutAttempt.withdrawal_id == withdrawal.id,
        PayoutAttempt.answered_at > func.now() - timedelta(seconds=ON_ITS_WAY_SECONDS),
    )
    for state, status in session.execute(reported):
        if contradiction(state, status) in ALIVE:
            raise BadRequest(
                "It may still be paid",
                f"RazorpayX reports {status} for a payout that ended here. Contact RazorpayX, or wait a day",
                code="may_be_paid",
            )


def _count_holds(session: Session, withdrawal: Withdrawal) -> int:
    """Count its holds: the evidence of each may exist only in its exception record."""
    notices = [transitions.FLAGGED + kind for kind in transitions.NOTICE_ONLY]
    holds = select(func.count()).where(
        WithdrawalEvent.withdrawal_id == withdrawal.id,
        WithdrawalEvent.reason.startswith(transitions.FLAGGED),
        WithdrawalEvent.reason.not_in(notices),
    )
    return session.scalars(holds).one()
