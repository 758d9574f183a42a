"""What people may decide about a withdrawal as it stands, and the facts that a decision is bound to."""

import hashlib
import json
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.errors import BadRequest, Conflict
from shared.models import PayoutAttempt, Withdrawal, WithdrawalEvent
from shared.razorpayx.answers import ALIVE
from shared.settings import settings
from shared.states import UNSETTLED, WAITING, AttemptState, Decision, Reason, Status
from shared.withdrawals import correcting, journey
from shared.withdrawals.correcting import CORRECTIONS
from shared.withdrawals.meaning import contradiction

# So long the provider's "it is on its way" counts as heard: it is asked for anew much more often.
ON_ITS_WAY_SECONDS = 86_400


def must_be_possible(session: Session, withdrawal: Withdrawal, decision: Decision) -> None:
    """Whether people may decide so now. Raises BadRequest, Conflict (a worker is on the wire)."""
    if decision in CORRECTIONS:
        correcting.must_be_possible(session, withdrawal, decision)
        return
    status = withdrawal.status
    if decision == Decision.REFUND and status in (Status.FAILED, Status.CANCELLED):
        if correcting.is_taken_back(session, withdrawal):
            raise BadRequest("It was refunded once", "Propose give_back instead", code="taken_back_already")
        raise BadRequest("Refunded already", f"It is {status}: the coins are back", code="refunded_already")
    if decision == Decision.PAID and status not in (Status.PROCESSING, Status.COMPLETED):
        raise BadRequest("It cannot be paid", f"It is {status}", code="cannot_be_paid")
    if decision != Decision.GO_ON and status == Status.COMPLETED and withdrawal.review is None:
        # To say "paid" once more would be a decision of two people that does nothing.
        raise BadRequest("It was paid", "Nothing contradicts the payment", code="was_paid")
    _must_not_pay_anew(session, withdrawal, decision)
    _must_not_be_on_its_way(session, withdrawal, decision)
    leased = PayoutAttempt.last_sent_at > func.now() - timedelta(seconds=settings().lease_seconds)
    sending = (PayoutAttempt.withdrawal_id == withdrawal.id) & (PayoutAttempt.state == AttemptState.SENDING)
    if session.scalar(select(PayoutAttempt.id).where(sending, leased)):
        # Going on neither: another worker would take it up beside the one that is on the wire.
        raise Conflict("A worker is sending it", "Wait until the lease is over", code="being_sent")
    if decision == Decision.GO_ON and withdrawal.review is None:
        # It would be looked at before its time: inside the user's time to cancel, or before a retry is due.
        raise BadRequest("It goes on by itself", "Nothing contradicts it", code="goes_on")


def _must_not_pay_anew(session: Session, withdrawal: Withdrawal, decision: Decision) -> None:
    """What contradicted itself goes on with the payout that it has. It has none: going on would make a new
    one, beside one that may have been paid. Whatever people know of that, they can end it.
    """
    if decision != Decision.GO_ON or withdrawal.status != Status.PROCESSING:
        return
    unsettled = select(PayoutAttempt.id).where(
        PayoutAttempt.withdrawal_id == withdrawal.id, PayoutAttempt.state.in_(UNSETTLED)
    )
    if session.scalar(unsettled) is None and journey.was_contradicted(session, withdrawal):
        raise BadRequest(
            "It cannot go on",
            "It would be paid anew, and what contradicted itself may have been paid: decide paid or refund",
            code="would_pay_anew",
        )


def _must_not_be_on_its_way(session: Session, withdrawal: Withdrawal, decision: Decision) -> None:
    """While RazorpayX says that a payout is on its way, it is no doubt that people could end with a refund.

    Their word counts when RazorpayX has not said so for a day, or when its bank's time is over.
    """
    if decision != Decision.REFUND:
        return
    _must_not_live(session, withdrawal)
    if withdrawal.status != Status.PROCESSING:
        return
    banks_time = timedelta(seconds=WAITING[Reason.BANK_PROCESSING][1])
    alive = select(PayoutAttempt.provider_status).where(
        PayoutAttempt.withdrawal_id == withdrawal.id,
        PayoutAttempt.state == AttemptState.ACCEPTED,
        PayoutAttempt.answered_at > func.now() - timedelta(seconds=ON_ITS_WAY_SECONDS),
        (PayoutAttempt.provider_status != "processing")
        | (PayoutAttempt.created_at > func.now() - banks_time),
    )
    if (status := session.scalar(alive)) is not None:
        raise BadRequest(
            "It may still be paid",
            f"RazorpayX says that its payout is {status}; if that is queued, cancel it there first",
            code="may_be_paid",
        )


def fingerprint(session: Session, withdrawal: Withdrawal) -> str:
    """The facts that a decision is about. Not the version: a look in between changes nothing."""
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
            withdrawal.review,
            withdrawal.upi_id,
            withdrawal.amount_paise,
        ],
        *[[str(a.id), a.state, a.payout_id, a.provider_status, a.sends, a.utr] for a in attempts],
        ["called", _times_called(session, withdrawal)],
        *(["taken back"] if correcting.is_taken_back(session, withdrawal) else []),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _must_not_live(session: Session, withdrawal: Withdrawal) -> None:
    """An attempt had ended, and then RazorpayX said that its payout lives: it says so for a day."""
    said = select(PayoutAttempt.state, PayoutAttempt.provider_status).where(
        PayoutAttempt.withdrawal_id == withdrawal.id,
        PayoutAttempt.answered_at > func.now() - timedelta(seconds=ON_ITS_WAY_SECONDS),
    )
    for state, status in session.execute(said):
        if contradiction(state, status) in ALIVE:
            raise BadRequest(
                "It may still be paid",
                f"RazorpayX says of a payout that had ended here: {status}; ask them, or wait a day",
                code="may_be_paid",
            )


def _times_called(session: Session, withdrawal: Withdrawal) -> int:
    """How often people were called: what was said then may stand in a record alone."""
    told_only = [journey.FLAGGED + why for why in journey.TOLD_ONLY]
    called = select(func.count()).where(
        WithdrawalEvent.withdrawal_id == withdrawal.id,
        WithdrawalEvent.reason.startswith(journey.FLAGGED),
        WithdrawalEvent.reason.not_in(told_only),
    )
    return session.scalars(called).one()
