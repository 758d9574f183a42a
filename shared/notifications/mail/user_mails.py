"""Mail to users: one for each withdrawal that completes, fails or is cancelled."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Row, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.clock import iso
from shared.models import Email, MailSubscriber, WithdrawalEvent
from shared.notifications import event_cursor
from shared.notifications.mail.recipients import greeting_name, one_line, parse_address
from shared.settings import settings
from shared.states import Status
from shared.text.upi import mask

USERS = "users"
NAMESPACE = UUID("5d0a4a3c-33d5-4f0c-9d5f-6f1d3b7f6a10")  # random, and must never change
CANCELLED_PREFIX = "Cancelled: "  # begins the notes of a cancelled withdrawal (CONTRACT.md)

# Requesting and cancelling costs a user nothing, and no one has verified that the address is theirs, so these
# mails are limited. Mail about payments, and about what operators cancel, has no limit.
MAX_CANCELLATION_MAILS_PER_HOUR = 5

NEW_ENDINGS = text("""
    SELECT e.id, e.withdrawal_id, e.from_status, e.to_status, e.created_at AS changed_at, w.coins_amount,
           w.amount_paise, w.upi_id, w.failure_reason, w.admin_notes, w.utr, w.completed_at, u.name, u.email,
           e.created_at < now() - make_interval(secs => :too_old) AS is_old,
           e.to_status = 'cancelled' AND e.actor NOT LIKE 'operator:%' AND :max_cancellations <=
               (SELECT count(*) FROM
                   (SELECT FROM withdrawals o JOIN withdrawal_events c ON c.withdrawal_id = o.id
                    WHERE o.user_id = w.user_id AND o.created_at > e.created_at - interval '1 day'
                      AND c.to_status = 'cancelled' AND c.from_status <> c.to_status AND c.id < e.id
                      AND c.actor NOT LIKE 'operator:%' AND c.created_at > e.created_at - interval '1 hour'
                    ORDER BY o.created_at DESC LIMIT :max_cancellations) recent) AS is_flood
    FROM withdrawal_events e JOIN withdrawals w ON w.id = e.withdrawal_id JOIN wallets u USING (user_id)
    WHERE e.id > :followed_to AND e.from_status IS DISTINCT FROM e.to_status
      AND e.to_status IN ('completed', 'failed', 'cancelled')
      AND NOT EXISTS (SELECT FROM emails m WHERE m.event_id = e.id)
    ORDER BY e.id LIMIT :limit
""")
INSERT_EMAILS = insert(Email.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]


def _create_emails(session: Session, followed_to: int, limit: int) -> Sequence[int]:
    values = {
        "followed_to": followed_to,
        "limit": limit,
        "too_old": settings().notify_give_up_seconds,
        "max_cancellations": MAX_CANCELLATION_MAILS_PER_HOUR,
    }
    changes = session.execute(NEW_ENDINGS, values).all()
    if changes:
        session.connection().execute(INSERT_EMAILS, [_email_row(change) for change in changes])
    return [change.id for change in changes]


SUBSCRIBER = event_cursor.Subscriber(
    WithdrawalEvent, select(MailSubscriber).where(MailSubscriber.name == USERS), _create_emails
)


def _email_row(change: Row[Any]) -> dict[str, Any]:
    """The mail's row. A user without a usable address gets one too, as skipped, with the reason.

    The id depends on the change alone: if a restored backup lost the row, it is sent under the same id.
    """
    recipient, skip_reason = _recipient(change)
    return {
        "id": uuid5(NAMESPACE, f"{change.withdrawal_id}/{change.to_status}"),
        "event_id": change.id,
        "withdrawal_id": change.withdrawal_id,
        "group_id": None,
        "recipient": recipient,
        "facts": {} if skip_reason else _facts(change),
        "state": "skipped" if skip_reason else "waiting",
        "due_at": None if skip_reason else change.changed_at,
        "last_error": skip_reason,
    }


def _recipient(change: Row[Any]) -> tuple[str | None, str | None]:
    """The address, and the reason to skip the mail if there is one."""
    if not change.email:
        return None, "the user has no email address"
    try:
        recipient = parse_address(change.email)
    except ValueError as error:
        return one_line(change.email), str(error)
    if change.is_flood:
        return recipient, f"more than {MAX_CANCELLATION_MAILS_PER_HOUR} cancellations within an hour"
    return recipient, "happened too long ago" if change.is_old else None


def _facts(change: Row[Any]) -> dict[str, Any]:
    """What the mail says, as of that change: the withdrawal may have changed since."""
    status = Status(change.to_status)
    reasons = {
        Status.FAILED: change.failure_reason,
        Status.CANCELLED: (change.admin_notes or "").removeprefix(CANCELLED_PREFIX),
    }
    return {
        "status": status,
        "was": change.from_status,
        "coins": change.coins_amount,
        "amount_paise": change.amount_paise,
        "upi_id": mask(change.upi_id),
        "utr": change.utr if status is Status.COMPLETED else None,
        "reason": one_line(reasons.get(status)) or None,
        "name": greeting_name(change.name),
        # When it arrived; two people may confirm that later.
        "at": iso(
            change.completed_at if status is Status.COMPLETED and change.completed_at else change.changed_at
        ),
        "withdrawal_id": str(change.withdrawal_id),
    }
