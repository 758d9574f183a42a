"""Payout attempts: begin one, resend one, replace one that the provider never accepted.

claim.py decides the next step; this module holds the rules for attempts and is the only one that creates
them. record.py also begins an attempt, once the provider knows the payee.
"""

import hashlib
import time
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Text, func, select, update
from sqlalchemy.orm import Session

from shared import ids
from shared.db import batches
from shared.db.batches import Query, any_of, value
from shared.db.transactions import now
from shared.models import PayoutAttempt, WebhookEvent, Withdrawal
from shared.providers.registry import provider
from shared.providers.steps import Prepare, Send, Step
from shared.settings import settings
from shared.states import AttemptState, Reason, Status
from shared.withdrawals import pauses, review, transitions
from shared.withdrawals.cases import Case

WORKER = "worker"
CONTRADICTED = f"{transitions.HELD}contradicted"
# The provider forgets an idempotency key after some days and would then pay again: stop this long before.
KEY_MARGIN_DAYS = 1
# Webhooks that named these references before we knew them (after a restored backup) are applied now.
REQUEUE_UNMATCHED = Query(
    update(WebhookEvent)
    .where(
        WebhookEvent.outcome == "unmatched",
        WebhookEvent.reference_id == any_of("references", Text),
    )
    .values(
        outcome=None,
        applied_at=None,
        due_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, value("lease_seconds")),
    )
)


def begin(session: Session, case: Case) -> Step | None:
    """Begin the first attempt, or a new one after a temporary failure; prepare the payee first if needed."""
    withdrawal = case.withdrawal
    if transitions.is_on_hold(withdrawal):
        transitions.reschedule(withdrawal, Reason.ON_HOLD, transitions.HOLD_CHECK_SECONDS)
        return None
    if withdrawal.status == Status.PROCESSING and transitions.was_contradicted(session, withdrawal):
        # A payout of it contradicted us once, so a new key may pay a second time, whatever people decided.
        transitions.hold(session, withdrawal, CONTRADICTED, actor=WORKER)
        return None
    if not _is_ready(session, case):
        return None
    if (breaker := pauses.pausing_breaker(session, withdrawal)) is not None:
        pauses.postpone(session, withdrawal, breaker)
        return None
    if case.fund_account_id is None:
        transitions.reschedule(withdrawal, Reason.PREPARING, settings().lease_seconds)
        transitions.record(session, withdrawal, "preparing", actor=WORKER)
        assert withdrawal.due_at is not None
        return Prepare(
            withdrawal.id, withdrawal.due_at, withdrawal.user_id, case.user_name, withdrawal.upi_id
        )
    attempt = _new_attempt(session, withdrawal, case.fund_account_id)
    transitions.reschedule(withdrawal, Reason.SENDING, settings().lease_seconds)
    evidence: dict[str, Any] = {**request_evidence(attempt), "number": attempt.number}
    if withdrawal.status == Status.PENDING:
        transitions.transition(
            session, withdrawal, Status.PROCESSING, actor=WORKER, reason="claimed", **evidence
        )
    else:
        transitions.record(session, withdrawal, "new_attempt", actor=WORKER, **evidence)
    return send_step(withdrawal, attempt)


def requeue_unmatched(session: Session) -> None:
    """Apply the webhooks that arrived before the session's new attempts, with the batch's `save`."""
    references = [str(row.id) for row in session.new if isinstance(row, PayoutAttempt)]
    if references:
        batches.add_query(
            session, REQUEUE_UNMATCHED(references=references, lease_seconds=settings().lease_seconds)
        )


def hold_if_forbidden(session: Session, case: Case) -> bool:
    """True if its payee or user was blocked after it was sent: hold it; it is then only looked up."""
    if case.forbidden:
        transitions.hold(session, case.withdrawal, case.forbidden, actor=WORKER)
    return case.forbidden is not None


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
    return moment is not None and now(session) - moment >= timedelta(seconds=seconds)


def _is_ready(session: Session, case: Case) -> bool:
    """True if an attempt may begin: approved, not blocked, wait over. Otherwise hold or reschedule it."""
    withdrawal = case.withdrawal
    if case.forbidden and withdrawal.status == Status.PROCESSING:
        transitions.hold(session, withdrawal, case.forbidden, actor=WORKER)
    elif case.forbidden or withdrawal.awaits_approval:
        review.await_approval(session, withdrawal, case.forbidden)
    elif (seconds := review.seconds_until_sendable(session, withdrawal)) > 0:
        transitions.reschedule(withdrawal, Reason.NEW_UPI_ID, seconds)
    else:
        return True
    return False


def _new_attempt(session: Session, withdrawal: Withdrawal, fund_account_id: str) -> PayoutAttempt:
    number = _attempts_so_far(session, withdrawal) + 1
    attempt_id = ids.attempt_id(withdrawal.id, number)
    body = provider().payout_request(
        attempt_id=str(attempt_id),
        fund_account_id=fund_account_id,
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
    return attempt


def _attempts_so_far(session: Session, withdrawal: Withdrawal) -> int:
    if withdrawal.status == Status.PENDING:
        return 0  # the first attempt and the move to processing are one transaction
    count = select(func.count()).where(PayoutAttempt.withdrawal_id == withdrawal.id)
    return session.scalar(count.select_from(PayoutAttempt)) or 0
