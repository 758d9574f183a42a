"""The timeline of one withdrawal, as `payouts explain` and the panel show it.

It contains everything that was recorded: events, attempts at the provider and their results, webhooks as they
arrived, journal entries, exception records, people's decisions, and the notifications to apps and the user.
UPI ids are masked.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, cast, select, text, union_all
from sqlalchemy.orm import Session, aliased

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
from shared.notifications.mail import mails as mail
from shared.notifications.webhooks import deliveries
from shared.providers.registry import provider
from shared.states import PaidVia, Status, operator_message
from shared.text.upi import mask, mask_all
from shared.withdrawals import find


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One entry: its time, the kind of its record, a summary, and details."""

    at: datetime
    kind: str
    summary: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timeline:
    """A withdrawal's current facts and its entries, oldest first. Coins, paise, UTC."""

    facts: dict[str, Any]
    entries: list[TimelineEntry]


def explain(session: Session, withdrawal_id: UUID) -> Timeline:
    """The timeline of a withdrawal. Raises NotFound."""
    withdrawal = find(session, withdrawal_id)
    entries = [
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
    return Timeline(_facts(withdrawal), sorted(map(_without_upi_ids, entries), key=lambda entry: entry.at))


def _without_upi_ids(entry: TimelineEntry) -> TimelineEntry:
    """The entry with all UPI ids masked: texts by users, operators and the provider may contain some."""
    return replace(entry, summary=mask_all(entry.summary), details=_masked(entry.details))


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return mask_all(value) if isinstance(value, str) else value


def _facts(withdrawal: Withdrawal) -> dict[str, Any]:
    return {
        "withdrawal": str(withdrawal.id),
        "user": withdrawal.user_id,
        "coins": withdrawal.coins_amount,
        "amount_paise": withdrawal.amount_paise,
        "upi_id": mask(withdrawal.upi_id),
        "status": withdrawal.status,
        "why": withdrawal.failure_reason or operator_message(withdrawal.status_reason),
        "status_reason": withdrawal.status_reason,
        "expected_by": withdrawal.expected_by,
        "next_check": withdrawal.due_at,
        "on_hold": withdrawal.hold,
        # The row keeps the reason for approval; it matters only while the withdrawal is pending.
        "awaits_approval": withdrawal.awaits_approval if withdrawal.status == Status.PENDING else None,
        "not_before": withdrawal.not_before,
        "utr": withdrawal.utr,
        # Only for payments outside the provider: the attempt shows the provider's own.
        "paid_via": withdrawal.paid_via if withdrawal.paid_via != PaidVia.PROVIDER else None,
        "arrived_at": withdrawal.completed_at if withdrawal.paid_via != PaidVia.PROVIDER else None,
        "notes": mask_all(withdrawal.admin_notes or "") or None,
    }


def _events(session: Session, withdrawal_id: UUID) -> list[TimelineEntry]:
    query = select(WithdrawalEvent).where(WithdrawalEvent.withdrawal_id == withdrawal_id)
    entries = []
    for event in session.scalars(query.order_by(WithdrawalEvent.id)):
        change = f"{event.from_status or 'new'} → {event.to_status}: {event.reason}"
        summary = change if event.from_status != event.to_status else event.reason
        entries.append(TimelineEntry(event.created_at, "event", f"{summary} (by {event.actor})", event.data))
    return entries


def _attempts(session: Session, withdrawal_id: UUID) -> list[TimelineEntry]:
    query = select(PayoutAttempt).where(PayoutAttempt.withdrawal_id == withdrawal_id)
    entries = []
    for attempt in session.scalars(query.order_by(PayoutAttempt.number)):
        details = {
            "key": str(attempt.id),
            "state": attempt.state,
            "in_doubt": attempt.in_doubt,
            "sends": attempt.sends,
            "lookups": attempt.queries,
            "last_answer_at": attempt.answered_at,
            "lookups_without_payout": attempt.absent_replies,
            "sent_as": attempt.sent_as,
            "payout_id": attempt.payout_id,
            "provider_status": attempt.provider_status,
            "provider_details": attempt.status_details,
            "utr": attempt.utr,
            "fees_paise": attempt.fees_paise,
            "tax_paise": attempt.tax_paise,
            "reported_by_webhook_only": attempt.unconfirmed or None,
        }
        name = f"attempt {attempt.number}"
        entries.append(TimelineEntry(attempt.created_at, "attempt", f"{name}, current state", details))
        if attempt.ended_at:
            entries.append(TimelineEntry(attempt.ended_at, "attempt", f"{name} ended: {attempt.state}"))
    return entries


def _webhooks(session: Session, withdrawal_id: UUID) -> list[TimelineEntry]:
    query = select(WebhookEvent).where(WebhookEvent.withdrawal_id == withdrawal_id)
    entries = []
    for stored in session.scalars(query.order_by(WebhookEvent.received_at)):
        event = provider().parse_event(stored.body)
        name = event.name if event else "unreadable"
        details = {
            "event_id": stored.event_id,
            "happened_at": stored.occurred_at,
            "applied_at": stored.applied_at,
            "status": event.report.status if event and event.report else None,
        }
        summary = f"{name} received: {stored.outcome or 'not applied yet'}"
        entries.append(TimelineEntry(stored.received_at, "webhook", summary, details))
    return entries


def _journal(session: Session, withdrawal_id: UUID) -> list[TimelineEntry]:
    # Each part has the condition of one index, word for word: the journal has no index on withdrawals alone.
    of_it = CoinTransaction.withdrawal_id == withdrawal_id
    corrections = select(cast(Adjustment.id, Text)).where(Adjustment.withdrawal_id == withdrawal_id)
    is_correction = CoinTransaction.reference.in_(corrections)
    lines = union_all(
        select(CoinTransaction).where(text("kind = 'withdrawal'"), of_it),
        select(CoinTransaction).where(text("kind = 'refund'"), of_it),
        select(CoinTransaction).where(text("kind = 'adjustment'"), is_correction),
    ).subquery()
    query = select(aliased(CoinTransaction, lines)).order_by(lines.c.id)
    return [
        TimelineEntry(
            line.created_at,
            "coins",
            f"{line.kind} {line.coins:+,d} coins",
            {"balance_after": line.balance_after},
        )
        for line in session.scalars(query)
    ]


def _records(session: Session, withdrawal_id: UUID) -> list[TimelineEntry]:
    query = select(ExceptionRecord).where(ExceptionRecord.withdrawal_id == withdrawal_id)
    entries = []
    for record in session.scalars(query.order_by(ExceptionRecord.id)):
        sides = {"ours": record.ours, "theirs": record.theirs, "owner": record.owner}
        opened = f"#{record.id} opened: {record.kind}"
        entries.append(TimelineEntry(record.opened_at, "exception", opened, sides))
        if record.resolved_at:
            closed = f"#{record.id} closed by {record.resolved_by}: {record.resolution}"
            entries.append(TimelineEntry(record.resolved_at, "exception", closed))
    return entries


def _resolutions(session: Session, withdrawal_id: UUID) -> list[TimelineEntry]:
    query = select(Resolution).where(Resolution.withdrawal_id == withdrawal_id)
    entries = []
    for proposal in session.scalars(query.order_by(Resolution.proposed_at)):
        details: dict[str, Any] = {
            "evidence": proposal.evidence,
            "utr": proposal.utr,
            "proposal": str(proposal.id),
            "paid_via": proposal.paid_via,
            "paid_at": proposal.paid_at,
        }
        proposed = f"{proposal.proposed_by} proposed: {proposal.decision}"
        entries.append(TimelineEntry(proposal.proposed_at, "decision", proposed, details))
        if proposal.decided_at:
            decided = f"{proposal.decided_by} {proposal.outcome} it"
            entries.append(TimelineEntry(proposal.decided_at, "decision", decided))
    return entries


def _deliveries(session: Session, withdrawal_id: UUID) -> list[TimelineEntry]:
    query = select(Delivery, Endpoint.url).join(Endpoint, Endpoint.id == Delivery.endpoint_id)
    query = query.where(Delivery.withdrawal_id == withdrawal_id).order_by(Delivery.event_id)
    return [
        TimelineEntry(
            delivery.created_at,
            "notified",
            deliveries.describe(delivery),
            {"webhook_id": str(delivery.id), "to": url},
        )
        for delivery, url in session.execute(query)
    ]


def _reviews(session: Session, withdrawal_id: UUID) -> list[TimelineEntry]:
    query = select(Review).where(Review.withdrawal_id == withdrawal_id)
    return [
        TimelineEntry(
            review.decided_at,
            "decision",
            f"{review.decided_by} {review.outcome} it",
            {"approval_needed_for": review.why, "reason": review.reason, "facts": review.facts},
        )
        for review in session.scalars(query.order_by(Review.id))
    ]


def _emails(session: Session, withdrawal_id: UUID) -> list[TimelineEntry]:
    return [
        TimelineEntry(
            email.created_at, "notified", f"mail about {mail.describe(email)}", {"email_id": str(email.id)}
        )
        for email in mail.list_for_withdrawal(session, withdrawal_id)
    ]
