"""Mail as operators see it: list it, retry it, give up after a day, and delete old mail."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from shared.db.transactions import autocommit, map_db_errors, transaction
from shared.errors import Conflict, NotFound
from shared.models import Email
from shared.notifications.mail.operator_mails import MAIL_FAILING
from shared.notifications.mail.send import EMAILS, OUTBOX, SERVER_SUBJECT
from shared.notifications.outbox import BEHIND_SECONDS, ROWS_AT_ONCE
from shared.people import exception_records
from shared.settings import settings
from shared.text.upi import mask

# A delivery is given up by its last attempt. A mail may never get one, because all mail waits while the
# server is down, so a sweep gives it up. It skips leased mail: that attempt may still succeed.
GIVE_UP = text("""
    WITH old AS (SELECT id FROM emails
                 WHERE state = 'waiting' AND began_at <= now() - make_interval(secs => :give_up)
                   AND (leased_until IS NULL OR leased_until <= now())
                 LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE emails e SET state = 'failed', due_at = NULL, leased_until = NULL, server_failed_at = NULL,
                        last_error = coalesce(last_error, 'no attempt could be made in time')
    FROM old WHERE e.id = old.id RETURNING e.last_error
""")
# Above `followed_to` these rows say which records were mailed; below it the cursor itself does.
DELETE_MAILED_RECORDS = text("""
    DELETE FROM told_records USING mail_listeners l
    WHERE l.name = 'operators' AND record_id <= l.followed_to
""")
MAIL_HEALTH = text("""
    SELECT (SELECT count(*) FROM emails WHERE state = 'waiting') AS waiting,
           (SELECT min(created_at) FROM emails WHERE state = 'waiting') AS oldest,
           (SELECT count(*) FROM emails WHERE state = 'failed') AS failed,
           (SELECT min(server_failed_at) FROM emails WHERE server_failed_at IS NOT NULL) AS failing_since,
           (SELECT last_error FROM emails WHERE state = 'waiting' AND last_error IS NOT NULL
            ORDER BY server_failed_at DESC NULLS LAST, due_at DESC LIMIT 1) AS last_error,
           EXISTS (SELECT FROM mail_listeners l JOIN withdrawal_events v ON v.id > l.followed_to
                   WHERE l.name = 'users' AND v.created_at < now() - make_interval(secs => :behind)
                  ) AS is_behind
""")


@dataclass(frozen=True, slots=True)
class MailHealth:
    """All mail in numbers, and whether it works."""

    waiting: int
    oldest: datetime | None  # of the waiting ones
    failed: int
    failing_since: datetime | None  # the earliest server failure among the waiting mails
    last_error: str | None
    is_behind: bool  # a change of BEHIND_SECONDS ago has no mail yet: no notifier runs


def mail_health(session: Session) -> MailHealth:
    """The health of mail."""
    return MailHealth(*session.execute(MAIL_HEALTH, {"behind": BEHIND_SECONDS}).one())


def list_mails(session: Session, *, state: str | None = None, limit: int = 100) -> list[Email]:
    """Mail, newest first."""
    query = select(Email) if state is None else select(Email).where(Email.state == state)
    return list(session.scalars(query.order_by(Email.created_at.desc(), Email.id).limit(limit)))


def list_for_withdrawal(session: Session, withdrawal_id: UUID) -> list[Email]:
    """The mail about one withdrawal, oldest first."""
    query = select(Email).where(Email.withdrawal_id == withdrawal_id)
    return list(session.scalars(query.order_by(Email.event_id)))


def retry(session: Session, email_ids: Sequence[UUID]) -> int:
    """Make these due as if they were new, except those being sent now; returns how many.

    Raises NotFound, Conflict (one was sent or skipped); then none is retried.
    """
    rows = session.execute(select(Email.id, Email.state).where(Email.id.in_(email_ids)))
    states = {row.id: row.state for row in rows}
    for email_id in email_ids:
        if email_id not in states:
            raise NotFound("No such mail", f"There is no mail {email_id}", code="mail_not_found")
        if (state := states[email_id]) in ("sent", "skipped"):
            raise Conflict(
                "Mail cannot be retried",
                f"Mail {email_id} was {state}; only waiting and failed mail can be retried",
                code="mail_final",
            )
    is_free = EMAILS.leased_until.is_(None) | (EMAILS.leased_until <= func.now())
    return OUTBOX.replay(session, EMAILS.id.in_(email_ids), EMAILS.state.in_(("waiting", "failed")), is_free)


def retry_failed(session: Session) -> int:
    """Make failed mail due as if it were new. Returns how many; call it until that is 0."""
    return OUTBOX.replay_failed(session)


def give_up_expired() -> int:
    """Fail mail that has waited for NOTIFY_GIVE_UP_SECONDS. Returns how many. Raises Unavailable."""
    with transaction() as session:
        values = {"give_up": settings().notify_give_up_seconds, "limit": ROWS_AT_ONCE}
        errors = session.execute(GIVE_UP, values).scalars().all()
        if errors:
            exception_records.open_record(
                session,
                kind=MAIL_FAILING,
                subject=SERVER_SUBJECT,
                source="notifier",
                ours={"given_up": len(errors), "smtp_host": settings().smtp_host},
                theirs={"error": errors[0]},
            )
        return len(errors)


def delete_old() -> int:
    """Delete old mail, see Outbox.delete_old. Returns how many. Raises Unavailable."""
    with map_db_errors(), autocommit() as connection:
        connection.execute(DELETE_MAILED_RECORDS)
    return OUTBOX.delete_old()


def describe(email: Email) -> str:
    """A mail in one line: its subject, recipient, state and last error. Addresses are masked."""
    if email.withdrawal_id:
        subject = f"withdrawal {email.withdrawal_id}: {email.facts.get('status', 'ended')}"
    elif "kinds" in email.facts:
        subject = f"{sum(email.facts['kinds'].values())} exception records"
    else:
        subject = "a notice to admins" if "notice" in email.facts else "an invitation"
    recipient = mask(email.recipient) if email.recipient and "@" in email.recipient else "no address"
    return f"{subject}, to {recipient}: {OUTBOX.describe_state(email)}"
