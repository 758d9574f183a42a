"""A worker's part, first half: claim the next step, in one transaction. The call follows, then recording.py.

Between claim and record a worker may die at any line. What it leaves is a lease that runs out
(`due_at`) and an attempt in state `sending`: we do not know. The next claim says so (`in_doubt`) and goes
on with the same key and the same bytes, which RazorpayX answers with the same payout (razorpayx.md §3).
"""

import hashlib
import json
import time
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from shared import blocks, ids, pace
from shared.db import transaction
from shared.models import Destination, PayoutAttempt, Wallet, WebhookEvent, Withdrawal
from shared.razorpayx import bodies
from shared.settings import settings
from shared.states import OPEN, UNSETTLED, AttemptState, Awaits, Reason, Status
from shared.steps import LookUp, Poll, Prepare, Send, Step
from shared.withdrawals import hinting, journey, pausing, rechecking, reviewing

WORKER = "worker"
CONTRADICTED = f"{journey.HELD}contradicted"
# RazorpayX forgets a key after 7 days and would then pay again (razorpayx.md §3): stop well before.
RESEND_WITHIN_DAYS = 6

# The statements of every payment are made once, here: to make one anew costs as much as to run it.
DUE = (
    select(Withdrawal)
    .where(
        Withdrawal.id == bindparam("withdrawal_id"),
        Withdrawal.status.in_(OPEN),
        Withdrawal.due_at <= func.now(),
        ~pace.is_long(),
    )
    .with_for_update(skip_locked=True)
)
UNSETTLED_ATTEMPT = select(PayoutAttempt).where(
    PayoutAttempt.withdrawal_id == bindparam("withdrawal_id"), PayoutAttempt.state.in_(UNSETTLED)
)
# The payee as RazorpayX knows them, and whether anybody has said since that they are not paid.
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
# Webhooks that named this reference before we knew it (after a restored backup) count now.
HEAR_AGAIN = (
    update(WebhookEvent)
    .where(WebhookEvent.outcome == "unmatched", WebhookEvent.reference_id == bindparam("reference"))
    .values(
        outcome=None,
        applied_at=None,
        due_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("lease_seconds")),
    )
    .execution_options(synchronize_session=False)
)


def claim(withdrawal_id: UUID) -> Step | None:
    """Take what is due for this withdrawal, for `lease_seconds`.

    None when it is not due, final, or in another worker's hands: a second message is harmless. Also while
    RazorpayX has asked all of us for patience: it stays due.
    Raises Unavailable.
    """
    with transaction() as session:
        withdrawal = session.scalar(DUE, {"withdrawal_id": withdrawal_id, **pace.bounds()})
        if withdrawal:
            return _next_step(session, withdrawal)
        return rechecking.claim(session, withdrawal_id) or hinting.claim(session, withdrawal_id)


def _next_step(session: Session, withdrawal: Withdrawal) -> Step | None:
    attempt = _unsettled_attempt(session, withdrawal)
    if attempt is not None and (why := _never_taken(withdrawal, attempt)):
        attempt.state, attempt.ended_at = AttemptState.REFUSED, func.now()
        journey.note(session, withdrawal, why, actor=WORKER, attempt_id=str(attempt.id))
        attempt = None
    if attempt is None:
        return begin(session, withdrawal)
    if attempt.state == AttemptState.ACCEPTED:
        return _poll(session, withdrawal, attempt)
    if attempt.state == AttemptState.SENDING:
        # The lease ran out: somebody was on the wire with this and never came back.
        attempt.in_doubt = True
        attempt.state = AttemptState.UNKNOWN
        journey.note(session, withdrawal, "worker_lost", actor=WORKER, attempt_id=str(attempt.id))
    if _may_send_again(session, withdrawal, attempt) and not _is_forbidden(session, withdrawal):
        off = pausing.off_for(session, withdrawal)
        if off is None:
            return _send(session, withdrawal, attempt)
        if not attempt.in_doubt:
            pausing.hold_back(session, withdrawal, off)
            return None
    return _look_up(session, withdrawal, attempt)


def begin(session: Session, withdrawal: Withdrawal) -> Step | None:
    """A first attempt, or a new one after a passing failure; first of all the payee."""
    if journey.is_blocked(withdrawal):
        journey.wait(withdrawal, Reason.IN_REVIEW, journey.REVIEW_SECONDS)
        return None
    if withdrawal.status == Status.PROCESSING and journey.was_contradicted(session, withdrawal):
        # Whatever people explained, a new key beside a payout that surprised us once may pay a second time.
        journey.flag(session, withdrawal, CONTRADICTED, actor=WORKER)
        return None
    destination, forbidden = _payee(session, withdrawal)
    if not _may_be_begun(session, withdrawal, forbidden):
        return None
    if (off := pausing.off_for(session, withdrawal)) is not None:
        pausing.hold_back(session, withdrawal, off)
        return None
    if destination is None:
        journey.wait(withdrawal, Reason.PREPARING, settings().lease_seconds)
        journey.note(session, withdrawal, "preparing", actor=WORKER)
        name = session.get_one(Wallet, withdrawal.user_id).name
        return Prepare(withdrawal.id, withdrawal.version, withdrawal.user_id, name, withdrawal.upi_id)
    attempt = _new_attempt(session, withdrawal, destination)
    journey.wait(withdrawal, Reason.SENDING, settings().lease_seconds)
    evidence: dict[str, Any] = {**_request(attempt), "number": attempt.number}
    if withdrawal.status == Status.PENDING:
        journey.move(session, withdrawal, Status.PROCESSING, actor=WORKER, reason="claimed", **evidence)
    else:
        journey.note(session, withdrawal, "new_attempt", actor=WORKER, **evidence)
    return _sending(withdrawal, attempt)


def _payee(session: Session, withdrawal: Withdrawal) -> tuple[Destination | None, Awaits | None]:
    """The payee, if RazorpayX knows them, and why nothing may be sent to them, if anything forbids it."""
    names = {"user_id": withdrawal.user_id, "upi_id": withdrawal.upi_id}
    names["known_to"] = settings().razorpayx_identity
    found = session.execute(PAYEE, {**names, "subjects": blocks.subjects(withdrawal.upi_id)}).one()
    destination, is_frozen, is_blocked = found
    frozen = Awaits.WALLET_FROZEN if is_frozen else None
    return destination, frozen or (Awaits.UPI_BLOCKED if is_blocked else None)


def _may_be_begun(session: Session, withdrawal: Withdrawal, forbidden: Awaits | None) -> bool:
    """Whether an attempt may be made: approved where that is needed, its time come, nobody against it."""
    if forbidden and withdrawal.status == Status.PROCESSING:
        journey.flag(session, withdrawal, forbidden, actor=WORKER)
    elif forbidden or withdrawal.awaits_approval:
        reviewing.await_approval(session, withdrawal, forbidden)
    elif (seconds := reviewing.seconds_left(session, withdrawal)) > 0:
        journey.wait(withdrawal, Reason.NEW_UPI_ID, seconds)
    else:
        return True
    return False


def _is_forbidden(session: Session, withdrawal: Withdrawal) -> bool:
    """Whether its payee or user was blocked after it was sent: a person is told, and it is only looked up."""
    forbidden = _payee(session, withdrawal)[1]
    if forbidden:
        journey.flag(session, withdrawal, forbidden, actor=WORKER)
    return forbidden is not None


def _new_attempt(session: Session, withdrawal: Withdrawal, destination: Destination) -> PayoutAttempt:
    number = _attempts_so_far(session, withdrawal) + 1
    attempt_id = ids.attempt_id(withdrawal.id, number)
    body = bodies.payout(
        settings=settings(),
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
        checks=0,
        absent_looks=0,
        sent_as=settings().razorpayx_identity,
    )
    session.add(attempt)
    session.flush()
    session.execute(HEAR_AGAIN, {"reference": str(attempt.id), "lease_seconds": settings().lease_seconds})
    return attempt


def _attempts_so_far(session: Session, withdrawal: Withdrawal) -> int:
    if withdrawal.status == Status.PENDING:
        return 0  # the first attempt and the move to processing are one transaction
    theirs = select(func.count()).where(PayoutAttempt.withdrawal_id == withdrawal.id)
    return session.scalar(theirs.select_from(PayoutAttempt)) or 0


def _request(attempt: PayoutAttempt) -> dict[str, Any]:
    """What was asked for, as evidence: the attempt and the hash of its bytes."""
    return {
        "attempt_id": str(attempt.id),
        "request_sha256": hashlib.sha256(attempt.request_body).hexdigest(),
    }


def _never_taken(withdrawal: Withdrawal, attempt: PayoutAttempt) -> str | None:
    """Why a new attempt may replace this one: the provider never took it, and would not take these bytes now.

    It told another identity of ours so, or refused settings that have been mended since.
    """
    if attempt.state != AttemptState.THROTTLED or attempt.in_doubt:
        return None
    if attempt.sent_as != settings().razorpayx_identity:
        return "sent_as_another"
    mended = withdrawal.refused_at is not None and not bodies.is_of(settings(), attempt.request_body)
    return "settings_changed" if mended else None


def _may_send_again(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> bool:
    if attempt.sent_as != settings().razorpayx_identity:
        return False  # for another merchant, or in another mode, the same key pays a second time
    if journey.is_blocked(withdrawal) or is_older(session, attempt.created_at, RESEND_WITHIN_DAYS * 86_400):
        return False
    return attempt.state == AttemptState.THROTTLED or sent_again(attempt) < len(settings().resend_seconds)


def sent_again(attempt: PayoutAttempt) -> int:
    """How often it was sent again, not counting what RazorpayX sent away unseen."""
    return attempt.sends - attempt.waits - 1


def _send(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> Send:
    attempt.state = AttemptState.SENDING
    attempt.sends += 1
    attempt.last_sent_at = func.now()
    attempt.absent_since, attempt.absent_looks = None, 0  # absent before this send says nothing after it
    journey.wait(
        withdrawal, Reason.CONFIRMING if attempt.in_doubt else Reason.SENDING, settings().lease_seconds
    )
    journey.note(session, withdrawal, "sent_again", actor=WORKER, **_request(attempt), sends=attempt.sends)
    return _sending(withdrawal, attempt)


def _sending(withdrawal: Withdrawal, attempt: PayoutAttempt) -> Send:
    """The step, with the moment after which this worker must not begin the call any more."""
    patience = settings().razorpayx_connect_seconds + settings().razorpayx_read_seconds
    until = time.time() + settings().lease_seconds - patience
    return Send(
        withdrawal.id, attempt.id, attempt.request_body, withdrawal.amount_paise, attempt.sends, until
    )


def _look_up(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> LookUp:
    # `unknown`, whatever it was: from here on only evidence counts.
    attempt.state = AttemptState.UNKNOWN
    attempt.in_doubt = True
    attempt.checks += 1
    journey.wait(withdrawal, Reason.CONFIRMING, settings().lease_seconds)
    # The account that was asked to pay, whichever the settings name today.
    account_number = json.loads(attempt.request_body)["account_number"]
    return LookUp(withdrawal.id, attempt.id, account_number, attempt.checks)


def _poll(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> Poll:
    assert attempt.payout_id, "an accepted attempt knows its payout"
    attempt.checks += 1
    withdrawal.due_at = func.now() + timedelta(seconds=settings().lease_seconds)
    return Poll(withdrawal.id, attempt.id, attempt.payout_id, withdrawal.amount_paise, attempt.checks)


def _unsettled_attempt(session: Session, withdrawal: Withdrawal) -> PayoutAttempt | None:
    return session.scalar(UNSETTLED_ATTEMPT, {"withdrawal_id": withdrawal.id})


def is_older(session: Session, moment: datetime | None, seconds: float) -> bool:
    """Whether `moment` is so long past, by the database's clock."""
    return bool(session.scalar(select(func.now() - moment >= timedelta(seconds=seconds))))
