"""The effects of a report: the payout is followed, the attempt ends, a payment is confirmed.

`apply_report.py` and `record.py` decide which effect applies. Callers hold the withdrawal's lock.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, select
from sqlalchemy.orm import Session

from shared.db.batches import Query, any_of
from shared.db.transactions import now, now_for
from shared.errors import Conflict
from shared.models import ExceptionRecord, PayoutAttempt, Withdrawal
from shared.people import exception_records
from shared.providers.answers import PayoutReport
from shared.providers.failures import REVERSED, policy_for, user_message
from shared.providers.registry import provider
from shared.settings import settings
from shared.states import REFUNDED, AttemptState, Reason, Status
from shared.withdrawals import blocks, pauses, transitions

STOPPED_STATUSES = frozenset({"cancelled", "rejected"})
WEBHOOK = "webhook"
# Kinds of exception records that hold nothing.
NOT_CONFIRMED = "not_confirmed"
WEBHOOK_UNTRUE = "webhook_untrue"
OPEN_RECORDS = Query(
    select(ExceptionRecord.withdrawal_id).where(
        ExceptionRecord.withdrawal_id == any_of("ids", Uuid),
        ExceptionRecord.kind == NOT_CONFIRMED,
        ExceptionRecord.resolved_at.is_(None),
    )
)
OPEN_RECORDS_OF = "open_records_of"


def follow(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    """The payout is on its way: update the attempt and schedule the next poll."""
    is_new = attempt.state != AttemptState.ACCEPTED or report.status != attempt.provider_status
    transitions.close_notices(session, withdrawal)
    pauses.update_breakers_from_report(session, withdrawal, report)
    if report.progress >= provider().progress_of(attempt.provider_status):
        _update_from_report(attempt, report)
    attempt.state = AttemptState.ACCEPTED
    reason = Reason.PROVIDER_QUEUED if attempt.provider_status != "processing" else Reason.BANK_PROCESSING
    transitions.reschedule(withdrawal, reason, seconds_to_next_poll(attempt))
    if is_new:
        transitions.record(session, withdrawal, f"payout_{report.status}", actor=channel, **evidence)


def end_attempt(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    """The attempt ends: it is paid, failed, or reversed after it was paid."""
    was_paid = attempt.state == AttemptState.PAID
    was_unconfirmed = attempt.unconfirmed
    _update_from_report(attempt, report)
    if report.outcome == "paid":
        attempt.state = AttemptState.PAID
        attempt.unconfirmed = channel == WEBHOOK
        seconds = settings().confirm_seconds if attempt.unconfirmed else min(settings().recheck_seconds)
        attempt.recheck_at = now(session) + timedelta(seconds=seconds)
        # The attempt's UTR, because an earlier report may have carried it.
        transitions.transition(
            session, withdrawal, Status.COMPLETED, actor=channel, reason="paid", utr=attempt.utr, **evidence
        )
        if not attempt.unconfirmed:
            pauses.update_breakers_from_report(session, withdrawal, report)
        return
    if was_unconfirmed:
        # Only a webhook reported this payment, and it was untrue: the UTR may belong to another one.
        withdrawal.utr = None if withdrawal.utr == attempt.utr else withdrawal.utr
        attempt.utr = report.utr
        attempt.fees_paise = report.fees_paise
        attempt.tax_paise = report.tax_paise
    attempt.recheck_at = None
    attempt.unconfirmed = False
    attempt.state = AttemptState.REVERSED if report.outcome == "reversed" else AttemptState.FAILED
    attempt.ended_at = now(session)
    if was_unconfirmed:
        _close_exceptions(session, withdrawal, "RazorpayX reported how it ended")
        if report.outcome == "not_paid":
            open_exception(session, withdrawal, WEBHOOK_UNTRUE, channel, evidence)
    if was_paid:
        reason = "reversed" if report.outcome == "reversed" else report.reason or report.status
        fail(session, withdrawal, actor=channel, reason=reason, **evidence)
        return
    # A payout that was cancelled or rejected at the provider is not retried, whatever delayed it before.
    reason = report.status if report.status in STOPPED_STATUSES else report.reason or report.status
    end_or_retry(session, withdrawal, attempt, actor=channel, reason=reason, **evidence)
    pauses.update_breakers_from_report(session, withdrawal, report)


def confirm(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    """Our own call confirms what a webhook reported. If the UTRs differ, the one from our call counts."""
    previous_utr = attempt.utr
    _update_from_report(attempt, report)
    attempt.utr = report.utr
    attempt.unconfirmed = False
    attempt.fees_paise = report.fees_paise
    attempt.tax_paise = report.tax_paise
    if withdrawal.utr in (None, previous_utr):
        withdrawal.utr = attempt.utr
    replaced_utr = previous_utr if previous_utr != attempt.utr else None
    transitions.record(
        session, withdrawal, "confirmed", actor=channel, **evidence, utr=report.utr, told_before=replaced_utr
    )
    _close_exceptions(session, withdrawal, "RazorpayX confirmed the payment")
    pauses.update_breakers_from_report(session, withdrawal, report)


def add_information(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    """Add a UTR, fees or tax to a payout that has ended."""
    _update_from_report(attempt, report)
    if attempt.state == AttemptState.PAID:
        withdrawal.utr = withdrawal.utr or attempt.utr  # a UTR that operators entered stays
    transitions.record(session, withdrawal, "learnt", actor=channel, **evidence, utr=report.utr)


def adds_information(attempt: PayoutAttempt, report: PayoutReport) -> bool:
    """True if the report adds a value that we lack. Values that differ from ours are for reconciliation."""
    if report.utr and attempt.utr and report.utr != attempt.utr:
        return False
    pairs = (
        (attempt.utr, report.utr),
        (attempt.fees_paise, report.fees_paise),
        (attempt.tax_paise, report.tax_paise),
    )
    return any(ours is None and theirs is not None for ours, theirs in pairs)


def end_or_retry(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    *,
    actor: str,
    reason: str | None,
    **data: Any,
) -> None:
    """After a definite failure, follow the policy for its reason: a new attempt, a hold, or a refund."""
    data["attempt_id"] = str(attempt.id)
    policy = policy_for(reason)
    may_retry = policy.action == "retry" and attempt.number < min(
        policy.max_attempts, settings().max_attempts
    )
    if transitions.is_on_hold(withdrawal):
        # This attempt is over, but another payout may have been paid, so nothing is refunded.
        transitions.reschedule(withdrawal, Reason.ON_HOLD, transitions.HOLD_CHECK_SECONDS)
    elif may_retry and withdrawal.status == Status.PROCESSING:
        transitions.reschedule(
            withdrawal, Reason.RETRY_LATER, settings().retry_seconds * policy.wait_minutes / 30
        )
    elif policy.action == "hold" and withdrawal.status == Status.PROCESSING:
        transitions.hold(session, withdrawal, f"held:{reason}", actor=actor, **data)
    else:
        fail(session, withdrawal, actor=actor, reason=reason, **data)
        return
    transitions.record(session, withdrawal, f"attempt_failed:{reason}", actor=actor, **data)


def fail(session: Session, withdrawal: Withdrawal, *, actor: str, reason: str | None, **data: Any) -> None:
    """The payment definitely did not happen: fail, refund the coins, and give the user the reason."""
    was_paid = withdrawal.status == Status.COMPLETED
    message = REVERSED if was_paid and reason == "reversed" else user_message(reason)
    transitions.transition(
        session,
        withdrawal,
        Status.FAILED,
        actor=actor,
        reason=reason or "not_paid",
        failure_reason=message,
        **data,
    )


def keep_contradiction(attempt: PayoutAttempt, report: PayoutReport) -> None:
    """Store a report that contradicts the attempt's end, for operators and for comparison with later ones."""
    if attempt.state == AttemptState.PAID:
        attempt.utr = attempt.utr or report.utr  # the first reported UTR stays
    if attempt.payout_id in (None, report.payout_id):
        attempt.payout_id = report.payout_id
        attempt.provider_status = report.status
        attempt.answered_at = now_for(attempt)


def freeze_if_refunded(session: Session, withdrawal: Withdrawal) -> None:
    """Freeze the wallet if the coins were refunded although a payout lives or was paid, until operators
    decide.

    A user who can cause this could repeat it with the same coins. The caller holds the withdrawal's lock.
    """
    if withdrawal.status not in REFUNDED:
        return
    reason = f"RazorpayX reports a payout for withdrawal {withdrawal.id}, whose coins were refunded"
    with suppress(Conflict):  # it is already frozen
        blocks.freeze(session, withdrawal.user_id, reason=reason, actor="system")


def open_exception(
    session: Session, withdrawal: Withdrawal, kind: str, channel: str, evidence: dict[str, Any]
) -> None:
    """Open an exception record that holds nothing: a call of our own decides, now or soon."""
    if kind == NOT_CONFIRMED and OPEN_RECORDS_OF in session.info:
        session.info[OPEN_RECORDS_OF].add(withdrawal.id)
    exception_records.open_record(
        session,
        kind=kind,
        subject=str(withdrawal.id),
        source=channel,
        withdrawal_id=withdrawal.id,
        ours={"status": withdrawal.status, "utr": withdrawal.utr, "paid_by": WEBHOOK},
        theirs={key: value for key, value in evidence.items() if value is not None},
    )


def seconds_to_next_poll(attempt: PayoutAttempt) -> float:
    """Return the wait before the next poll: it doubles with each query, up to a limit."""
    doublings = min(attempt.queries, 20)
    return float(min(settings().poll_seconds * 2**doublings, settings().poll_max_seconds))


def remember_open_records(session: Session, rows: Iterable[Sequence[UUID]]) -> None:
    """Keep the rows of OPEN_RECORDS for this transaction, which holds the locks of these withdrawals."""
    session.info[OPEN_RECORDS_OF] = {row[0] for row in rows}


def _close_exceptions(session: Session, withdrawal: Withdrawal, resolution: str) -> None:
    if withdrawal.id not in session.info.get(OPEN_RECORDS_OF, (withdrawal.id,)):
        return  # nearly always: our own call came in time
    exception_records.close_all(
        session,
        kind=NOT_CONFIRMED,
        withdrawal_id=withdrawal.id,
        resolution=resolution,
        actor="system",
    )


def _update_from_report(attempt: PayoutAttempt, report: PayoutReport) -> None:
    attempt.payout_id = report.payout_id
    attempt.payout_created_at = report.created_at or attempt.payout_created_at
    attempt.provider_status = report.status
    attempt.status_details = report.details or None
    attempt.utr = report.utr or attempt.utr
    attempt.fees_paise = report.fees_paise if report.fees_paise is not None else attempt.fees_paise
    attempt.tax_paise = report.tax_paise if report.tax_paise is not None else attempt.tax_paise
    attempt.answered_at = now_for(attempt)
