"""Payout attempts: begin one, resend one, replace one that the provider never accepted.

claim.py decides the next step; this module holds the rules for attempts and is the only one that creates
them. record.py also begins an attempt, once the provider knows the payee.
"""

import hashlib
import time
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from shared import ids
from shared.models import Destination, PayoutAttempt, Wallet, WebhookEvent, Withdrawal
from shared.providers.registry import provider
from shared.providers.steps import Prepare, Send, Step
from shared.settings import settings
from shared.states import UNSETTLED, AttemptState, Reason, ReviewReason, Status
from shared.withdrawals import blocks, pauses, review, transitions

WORKER = "worker"
CONTRADICTED = f"{transitions.HELD}contradicted"
# The provider forgets an idempotency key after some days and would then pay again: stop this long before.
KEY_MARGIN_DAYS = 1
UNSETTLED_ATTEMPT = select(PayoutAttempt).where(
    PayoutAttempt.withdrawal_id == bindparam("withdrawal_id"), PayoutAttempt.state.in_(UNSETTLED)
)
# The payee as the provider knows them, and whether they were blocked or frozen since the request.
PAYEE = (
    select(Destination, Wallet.is_frozen, blocks.IS_BLOCKED.label("is_blocked"))
    .select_from(Wallet)
    .outerjoin(
        Destination,
        (Destination.user_id == Wallet.user_id)
        & (Destination.upi_id == bindparam("upi_id"))
        & (Destination.known_to == bindparam("known_to"))
        & Destination.ended_at.is_(None),
    )
    .where(Wallet.user_id == bindparam("user_id"))
)
# Webhooks that named this reference before we knew it (after a restored backup) are applied now.
REQUEUE_UNMATCHED = (
    update(WebhookEvent)
    .where(WebhookEvent.outcome == "unmatched", WebhookEvent.reference_id == bindparam("reference"))
    .values(
        outcome=None,
        applied_at=None,
        due_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("lease_seconds")),
    )
    .execution_options(synchronize_session=False)
)


def begin(session: Session, withdrawal: Withdrawal) -> Step | None:
    """Begin the first attempt, or a new one after a temporary failure; prepare the payee first if needed."""
    if transitions.is_on_hold(withdrawal):
        transitions.reschedule(withdrawal, Reason.ON_HOLD, transitions.HOLD_CHECK_SECONDS)
        return None
    if withdrawal.status == Status.PROCESSING and transitions.was_contradicted(session, withdrawal):
        # A payout of it contradicted us once, so a new key may pay a second time, whatever people decided.
        transitions.hold(session, withdrawal, CONTRADICTED, actor=WORKER)
        return None
    destination, forbidden = _payee(session, withdrawal)
    if not _is_ready(session, withdrawal, forbidden):
        return None
    if (breaker := pauses.pausing_breaker(session, withdrawal)) is not None:
        pauses.postpone(session, withdrawal, breaker)
        return None
    if destination is None:
        transitions.reschedule(withdrawal, Reason.PREPARING, settings().lease_seconds)
        transitions.record(session, withdrawal, "preparing", actor=WORKER)
        name = session.get_one(Wallet, withdrawal.user_id).name
        return Prepare(withdrawal.id, withdrawal.version, withdrawal.user_id, name, withdrawal.upi_id)
    attempt = _new_attempt(session, withdrawal, destination)
    transitions.reschedule(withdrawal, Reason.SENDING, settings().lease_seconds)
    evidence: dict[str, Any] = {**request_evidence(attempt), "number": attempt.number}
    if withdrawal.status == Status.PENDING:
        transitions.transition(
            session, withdrawal, Status.PROCESSING, actor=WORKER, reason="claimed", **evidence
        )
    else:
        transitions.record(session, withdrawal, "new_attempt", actor=WORKER, **evidence)
    return send_step(withdrawal, attempt)


def unsettled_attempt(session: Session, withdrawal: Withdrawal) -> PayoutAttempt | None:
    """Return the attempt that still needs work; there is at most one."""
    return session.scalar(UNSETTLED_ATTEMPT, {"withdrawal_id": withdrawal.id})


def hold_if_forbidden(session: Session, withdrawal: Withdrawal) -> bool:
    """True if its payee or user was blocked after it was sent: hold it; it is then only looked up."""
    forbidden = _payee(session, withdrawal)[1]
    if forbidden:
        transitions.hold(session, withdrawal, forbidden, actor=WORKER)
    return forbidden is not None


def why_replaceable(withdrawal: Withdrawal, attempt: PayoutAttempt) -> str | None:
    """Return why a new attempt may replace this one; None if it may not.

    The provider never accepted it and would not accept these bytes now: we sent it under another identity, or
    it was refused for settings that have been corrected since.
    """
    if attempt.state != AttemptState.THROTTLED or attempt.in_doubt:
        return None
    if attempt.sent_as != provider().identity():
        return "sent_as_another"
    corrected = withdrawal.refused_at is not None and not provider().is_current(attempt.request_body)
    return "settings_changed" if corrected else None


def may_send_again(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> bool:
    """True if a resend with the same key and bytes cannot pay twice, and resends are left."""
    if attempt.sent_as != provider().identity():
        return False  # under another merchant or mode, the same key would pay a second time
    if transitions.is_on_hold(withdrawal) or is_older(
        session, attempt.created_at, (provider().key_lifetime_days - KEY_MARGIN_DAYS) * 86_400
    ):
        return False
    return attempt.state == AttemptState.THROTTLED or resends(attempt) < len(settings().resend_seconds)


def resends(attempt: PayoutAttempt) -> int:
    """Return how often it was sent again, not counting sends that the provider throttled."""
    return attempt.sends - attempt.throttles - 1


def send_step(withdrawal: Withdrawal, attempt: PayoutAttempt) -> Send:
    """Return the step, with the deadline after which this worker must not begin the call."""
    deadline = time.time() + settings().lease_seconds - provider().call_seconds()
    return Send(
        withdrawal.id, attempt.id, attempt.request_body, withdrawal.amount_paise, attempt.sends, deadline
    )


def request_evidence(attempt: PayoutAttempt) -> dict[str, Any]:
    """Return evidence of the request: the attempt and the hash of its bytes."""
    return {
        "attempt_id": str(attempt.id),
        "request_sha256": hashlib.sha256(attempt.request_body).hexdigest(),
    }


def is_older(session: Session, moment: datetime | None, seconds: float) -> bool:
    """True if `moment` is at least this many seconds ago by the database's clock."""
    return bool(session.scalar(select(func.now() - moment >= timedelta(seconds=seconds))))


def _payee(session: Session, withdrawal: Withdrawal) -> tuple[Destination | None, ReviewReason | None]:
    """Return the payee, if the provider knows them, and why they must not be paid, if a block forbids it."""
    names = {"user_id": withdrawal.user_id, "upi_id": withdrawal.upi_id}
    names["known_to"] = provider().identity()
    row = session.execute(PAYEE, {**names, "subjects": blocks.block_subjects(withdrawal.upi_id)}).one()
    destination, is_frozen, is_blocked = row
    frozen = ReviewReason.WALLET_FROZEN if is_frozen else None
    return destination, frozen or (ReviewReason.UPI_BLOCKED if is_blocked else None)


def _is_ready(session: Session, withdrawal: Withdrawal, forbidden: ReviewReason | None) -> bool:
    """True if an attempt may begin: approved, not blocked, wait over. Otherwise hold or reschedule it."""
    if forbidden and withdrawal.status == Status.PROCESSING:
        transitions.hold(session, withdrawal, forbidden, actor=WORKER)
    elif forbidden or withdrawal.awaits_approval:
        review.await_approval(session, withdrawal, forbidden)
    elif (seconds := review.seconds_until_sendable(session, withdrawal)) > 0:
        transitions.reschedule(withdrawal, Reason.NEW_UPI_ID, seconds)
    else:
        return True
    return False


def _new_attempt(session: Session, withdrawal: Withdrawal, destination: Destination) -> PayoutAttempt:
    number = _attempts_so_far(session, withdrawal) + 1
    attempt_id = ids.attempt_id(withdrawal.id, number)
    body = provider().payout_request(
        attempt_id=str(attempt_id),
        fund_account_id=destination.fund_account_id,
        amount_paise=withdrawal.amount_paise,
    )
    attempt = PayoutAttempt(
        id=attempt_id,
        withdrawal_id=withdrawal.id,
        number=number,
        request_body=body,
        state=AttemptState.SENDING,
        sends=1,
        queries=0,
        absent_replies=0,
        sent_as=provider().identity(),
    )
    session.add(attempt)
    session.flush()
    session.execute(
        REQUEUE_UNMATCHED, {"reference": str(attempt.id), "lease_seconds": settings().lease_seconds}
    )
    return attempt


def _attempts_so_far(session: Session, withdrawal: Withdrawal) -> int:
    if withdrawal.status == Status.PENDING:
        return 0  # the first attempt and the move to processing are one transaction
    count = select(func.count()).where(PayoutAttempt.withdrawal_id == withdrawal.id)
    return session.scalar(count.select_from(PayoutAttempt)) or 0
