"""From the events to mail for users: one for each withdrawal that completes, fails or is cancelled."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Row, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.clock import iso
from shared.models import Email, MailListener, WithdrawalEvent
from shared.notifications import positions
from shared.notifications.mail.recipients import address_of, name_of, one_line
from shared.settings import settings
from shared.states import Status
from shared.upi import mask

USERS = "users"
NAMESPACE = UUID("5d0a4a3c-33d5-4f0c-9d5f-6f1d3b7f6a10")  # ours, drawn once
CANCELLED = "Cancelled: "  # before the reason in a cancelled withdrawal's notes (CONTRACT.md)

# To ask and to cancel in turns costs nothing, and nobody has shown that the address is theirs: so many mails
# an hour about what a user cancels are news. Those about payments have no limit, nor what operators cancel.
MOST_CANCELLED_AN_HOUR = 5

NEWS = text("""
    SELECT e.id, e.withdrawal_id, e.from_status, e.to_status, e.created_at AS changed_at, w.coins_amount,
           w.amount_paise, w.upi_id, w.failure_reason, w.admin_notes, w.utr, w.completed_at, u.name, u.email,
           e.created_at < now() - make_interval(secs => :too_old) AS is_old,
           e.to_status = 'cancelled' AND e.actor NOT LIKE 'operator:%' AND :most_told <=
               (SELECT count(*) FROM
                   (SELECT FROM withdrawals o JOIN withdrawal_events c ON c.withdrawal_id = o.id
                    WHERE o.user_id = w.user_id AND o.created_at > e.created_at - interval '1 day'
                      AND c.to_status = 'cancelled' AND c.from_status <> c.to_status AND c.id < e.id
                      AND c.actor NOT LIKE 'operator:%' AND c.created_at > e.created_at - interval '1 hour'
                    ORDER BY o.created_at DESC LIMIT :most_told) told) AS is_flood
    FROM withdrawal_events e JOIN withdrawals w ON w.id = e.withdrawal_id JOIN wallets u USING (user_id)
    WHERE e.id > :followed_to AND e.from_status IS DISTINCT FROM e.to_status
      AND e.to_status IN ('completed', 'failed', 'cancelled')
      AND NOT EXISTS (SELECT FROM emails m WHERE m.event_id = e.id)
    ORDER BY e.id LIMIT :most
""")
EMAILS = insert(Email.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]


def _tell(session: Session, followed_to: int, most: int) -> Sequence[int]:
    values = {
        "followed_to": followed_to,
        "most": most,
        "too_old": settings().notify_give_up_seconds,
        "most_told": MOST_CANCELLED_AN_HOUR,
    }
    changes = session.execute(NEWS, values).all()
    if changes:
        session.connection().execute(EMAILS, [_email(change) for change in changes])
    return [change.id for change in changes]


LISTENER = positions.Listener(WithdrawalEvent, select(MailListener).where(MailListener.name == USERS), _tell)


def _email(change: Row[Any]) -> dict[str, Any]:
    """The row of it; who cannot be written to has one too, which says why.

    Its id is always the same: a database that lost it (a restored backup) sends it under that id again.
    """
    recipient, why_not = _recipient(change)
    return {
        "id": uuid5(NAMESPACE, f"{change.withdrawal_id}/{change.to_status}"),
        "event_id": change.id,
        "withdrawal_id": change.withdrawal_id,
        "group_id": None,
        "recipient": recipient,
        "facts": {} if why_not else _facts(change),
        "state": "skipped" if why_not else "waiting",
        "due_at": None if why_not else change.changed_at,
        "last_error": why_not,
    }


def _recipient(change: Row[Any]) -> tuple[str | None, str | None]:
    """The address, or why there is none to write to."""
    if not change.email:
        return None, "the user has no address"
    try:
        recipient = address_of(change.email)
    except ValueError as error:
        return one_line(change.email), str(error)
    if change.is_flood:
        return recipient, f"the user cancelled more than {MOST_CANCELLED_AN_HOUR} within an hour"
    return recipient, "too long ago to be news" if change.is_old else None


def _facts(change: Row[Any]) -> dict[str, Any]:
    """What the mail says, as it was at that change. The withdrawal may have gone on since."""
    status = Status(change.to_status)
    reasons = {
        Status.FAILED: change.failure_reason,
        Status.CANCELLED: (change.admin_notes or "").removeprefix(CANCELLED),
    }
    return {
        "status": status,
        "was": change.from_status,
        "coins": change.coins_amount,
        "amount_paise": change.amount_paise,
        "upi_id": mask(change.upi_id),
        "utr": change.utr if status is Status.COMPLETED else None,
        "reason": one_line(reasons.get(status)) or None,
        "name": name_of(change.name),
        # Two people may say when it arrived, and they say it later.
        "at": iso(
            change.completed_at if status is Status.COMPLETED and change.completed_at else change.changed_at
        ),
        "withdrawal_id": str(change.withdrawal_id),
    }
