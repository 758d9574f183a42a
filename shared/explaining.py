"""The whole story of one withdrawal, in order of time: what `payouts explain` prints.

Everything that was written down about it: its events, what was asked of the provider and what came of it,
the webhooks as they arrived, the lines of the journal, exception records, what people decided, and what apps
and the user were told. No UPI id in full.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, cast, select
from sqlalchemy.orm import Session

from shared.models import (
    Adjustment,
    CoinTransaction,
    Delivery,
    Endpoint,
    ExceptionRecord,
    PayoutAttempt,
    Resolution,
    Review,
    WebhookEvent,
    Withdrawal,
    WithdrawalEvent,
)
from shared.notifications import keeping
from shared.notifications.mail import keeping as mail
from shared.razorpayx.answers import parse_event
from shared.states import PaidVia, Status, for_operators
from shared.upi import mask, mask_within
from shared.withdrawals import find


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened: when, which kind of record says so, in a few words, and its details."""

    at: datetime
    kind: str
    words: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Story:
    """How a withdrawal stands, and everything that led there. Coins, paise, UTC."""

    facts: dict[str, Any]
    lines: list[Line]


def explain(session: Session, withdrawal_id: UUID) -> Story:
    """The story of a withdrawal. Raises NotFound."""
    withdrawal = find(session, withdrawal_id)
    told = [
        *_events(session, withdrawal_id),
        *_attempts(session, withdrawal_id),
        *_webhooks(session, withdrawal_id),
        *_journal(session, withdrawal_id),
        *_records(session, withdrawal_id),
        *_resolutions(session, withdrawal_id),
        *_deliveries(session, withdrawal_id),
        *_reviews(session, withdrawal_id),
        *_emails(session, withdrawal_id),
    ]
    return Story(_facts(withdrawal), sorted(map(_without_upi_ids, told), key=lambda line: line.at))


def _without_upi_ids(line: Line) -> Line:
    """Users, operators and the provider write what they like."""
    return replace(line, words=mask_within(line.words), details=_masked(line.details))


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_masked(one) for one in value]
    return mask_within(value) if isinstance(value, str) else value


def _facts(withdrawal: Withdrawal) -> dict[str, Any]:
    return {
        "withdrawal": str(withdrawal.id),
        "user": withdrawal.user_id,
        "coins": withdrawal.coins_amount,
        "amount_paise": withdrawal.amount_paise,
        "upi_id": mask(withdrawal.upi_id),
        "status": withdrawal.status,
        "why": withdrawal.failure_reason or for_operators(withdrawal.status_reason),
        "status_reason": withdrawal.status_reason,
        "expected_by": withdrawal.expected_by,
        "looked_at_again": withdrawal.due_at,
        "needs_a_person": withdrawal.review,
        # Once it is over nobody waits for anybody; why somebody had to look at it stays in the row.
        "awaits_approval": withdrawal.awaits_approval if withdrawal.status == Status.PENDING else None,
        "not_before": withdrawal.not_before,
        "utr": withdrawal.utr,
        # By people's word; what RazorpayX paid, its attempt tells.
        "paid_via": withdrawal.paid_via if withdrawal.paid_via != PaidVia.RAZORPAYX else None,
        "arrived_at": withdrawal.completed_at if withdrawal.paid_via != PaidVia.RAZORPAYX else None,
        "notes": mask_within(withdrawal.admin_notes or "") or None,
    }


def _events(session: Session, withdrawal_id: UUID) -> list[Line]:
    query = select(WithdrawalEvent).where(WithdrawalEvent.withdrawal_id == withdrawal_id)
    lines = []
    for event in session.scalars(query.order_by(WithdrawalEvent.id)):
        moved = event.from_status != event.to_status
        words = f"{event.from_status or 'new'} → {event.to_status}: {event.reason}" if moved else event.reason
        lines.append(Line(event.created_at, "event", f"{words} (by {event.actor})", event.data))
    return lines


def _attempts(session: Session, withdrawal_id: UUID) -> list[Line]:
    query = select(PayoutAttempt).where(PayoutAttempt.withdrawal_id == withdrawal_id)
    lines = []
    for attempt in session.scalars(query.order_by(PayoutAttempt.number)):
        details = {
            "key": str(attempt.id),
            "state": attempt.state,
            "in_doubt": attempt.in_doubt,
            "sends": attempt.sends,
            "looks": attempt.checks,
            "last_answer_at": attempt.answered_at,
            "answered_with_none": attempt.absent_looks,
            "sent_as": attempt.sent_as,
            "payout_id": attempt.payout_id,
            "provider_status": attempt.provider_status,
            "provider_details": attempt.status_details,
            "utr": attempt.utr,
            "fees_paise": attempt.fees_paise,
            "tax_paise": attempt.tax_paise,
            "only_a_webhook_told": attempt.unconfirmed or None,
        }
        lines.append(
            Line(attempt.created_at, "attempt", f"attempt {attempt.number}, as it stands now", details)
        )
        if attempt.ended_at:
            lines.append(
                Line(attempt.ended_at, "attempt", f"attempt {attempt.number} ended: {attempt.state}")
            )
    return lines


def _webhooks(session: Session, withdrawal_id: UUID) -> list[Line]:
    query = select(WebhookEvent).where(WebhookEvent.withdrawal_id == withdrawal_id)
    lines = []
    for kept in session.scalars(query.order_by(WebhookEvent.received_at)):
        event = parse_event(kept.body)
        name = event.name if event else "unreadable"
        details = {
            "event_id": kept.event_id,
            "happened_at": kept.occurred_at,
            "applied_at": kept.applied_at,
            "status": event.report.status if event and event.report else None,
        }
        lines.append(
            Line(kept.received_at, "webhook", f"{name} came: {kept.outcome or 'not applied yet'}", details)
        )
    return lines


def _journal(session: Session, withdrawal_id: UUID) -> list[Line]:
    corrections = select(cast(Adjustment.id, Text)).where(Adjustment.withdrawal_id == withdrawal_id)
    corrects = (CoinTransaction.kind == "adjustment") & CoinTransaction.reference.in_(corrections)
    query = select(CoinTransaction).where((CoinTransaction.withdrawal_id == withdrawal_id) | corrects)
    return [
        Line(
            line.created_at,
            "coins",
            f"{line.kind} {line.coins:+d} coins",
            {"balance_after": line.balance_after},
        )
        for line in session.scalars(query.order_by(CoinTransaction.id))
    ]


def _records(session: Session, withdrawal_id: UUID) -> list[Line]:
    query = select(ExceptionRecord).where(ExceptionRecord.withdrawal_id == withdrawal_id)
    lines = []
    for record in session.scalars(query.order_by(ExceptionRecord.id)):
        sides = {"ours": record.ours, "theirs": record.theirs, "owner": record.owner}
        lines.append(Line(record.opened_at, "exception", f"#{record.id} opened: {record.kind}", sides))
        if record.resolved_at:
            words = f"#{record.id} closed by {record.resolved_by}: {record.resolution}"
            lines.append(Line(record.resolved_at, "exception", words))
    return lines


def _resolutions(session: Session, withdrawal_id: UUID) -> list[Line]:
    query = select(Resolution).where(Resolution.withdrawal_id == withdrawal_id)
    lines = []
    for made in session.scalars(query.order_by(Resolution.proposed_at)):
        details: dict[str, Any] = {"evidence": made.evidence, "utr": made.utr, "proposal": str(made.id)}
        details |= {"paid_via": made.paid_via, "paid_at": made.paid_at}
        words = f"{made.proposed_by} proposed: {made.decision}"
        lines.append(Line(made.proposed_at, "decision", words, details))
        if made.decided_at:
            lines.append(Line(made.decided_at, "decision", f"{made.decided_by} {made.outcome} it"))
    return lines


def _deliveries(session: Session, withdrawal_id: UUID) -> list[Line]:
    query = select(Delivery, Endpoint.url).join(Endpoint, Endpoint.id == Delivery.endpoint_id)
    query = query.where(Delivery.withdrawal_id == withdrawal_id).order_by(Delivery.event_id)
    return [
        Line(
            delivery.created_at, "told", keeping.words(delivery), {"webhook_id": str(delivery.id), "to": url}
        )
        for delivery, url in session.execute(query)
    ]


def _reviews(session: Session, withdrawal_id: UUID) -> list[Line]:
    query = select(Review).where(Review.withdrawal_id == withdrawal_id)
    return [
        Line(
            made.decided_at,
            "decision",
            f"{made.decided_by} {made.outcome} it",
            {"asked_for": made.why, "reason": made.reason, "facts": made.facts},
        )
        for made in session.scalars(query.order_by(Review.id))
    ]


def _emails(session: Session, withdrawal_id: UUID) -> list[Line]:
    return [
        Line(email.created_at, "told", f"mail about {mail.words(email)}", {"email_id": str(email.id)})
        for email in mail.of_withdrawal(session, withdrawal_id)
    ]
