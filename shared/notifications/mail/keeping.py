"""Mail as people see it: listed, tried again, given up after a day, and after a while forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from shared import exception_records
from shared.clock import iso
from shared.db import locked_once, one_statement, told_plainly, transaction
from shared.errors import Conflict, NotFound
from shared.models import Email
from shared.notifications.mail.operators import BROKEN
from shared.notifications.mail.sending import SERVER
from shared.settings import settings
from shared.upi import mask

SENT_KEPT_DAYS, FAILED_KEPT_DAYS = 7, 90
AT_ONCE = 10_000
UNSEEN_SECONDS = 60

ANEW = {
    "state": "waiting",
    "due_at": func.now(),
    "began_at": func.now(),
    "leased_until": None,
    "server_failed_at": None,
    "tries": 0,
    "unsure": 0,
}
# Not what somebody sends at this moment: that is his last try.
GIVE_UP = text("""
    WITH old AS (SELECT id FROM emails
                 WHERE state = 'waiting' AND began_at <= now() - make_interval(secs => :give_up)
                   AND (leased_until IS NULL OR leased_until <= now())
                 LIMIT :most FOR UPDATE SKIP LOCKED)
    UPDATE emails e SET state = 'failed', due_at = NULL, leased_until = NULL, server_failed_at = NULL,
                        last_error = coalesce(last_error, 'it was never its turn')
    FROM old WHERE e.id = old.id RETURNING e.last_error
""")
# A row is what says that an event was told: none is forgotten that the follower may still look for.
FORGET = text("""
    WITH old AS MATERIALIZED (
        SELECT m.id FROM emails m
        WHERE (m.event_id IS NULL
               OR m.event_id <= (SELECT l.followed_to FROM mail_listeners l WHERE l.name = 'users'))
          AND (m.state IN ('sent', 'skipped') AND m.created_at < now() - make_interval(days => :sent_days)
               AND coalesce(m.sent_at, m.created_at) < now() - make_interval(days => :sent_days)
            OR m.state = 'failed' AND m.created_at < now() - make_interval(days => :failed_days)
               AND m.began_at < now() - make_interval(days => :failed_days))
        LIMIT :most)
    DELETE FROM emails WHERE id IN (SELECT id FROM old)
""")
# Above `followed_to` the rows say which records were told; below, `followed_to` itself does.
FORGET_RECORDS = text("""
    DELETE FROM told_records USING mail_listeners l
    WHERE l.name = 'operators' AND record_id <= l.followed_to
""")
STANDING = text("""
    SELECT (SELECT count(*) FROM emails WHERE state = 'waiting') AS waiting,
           (SELECT min(created_at) FROM emails WHERE state = 'waiting') AS oldest,
           (SELECT count(*) FROM emails WHERE state = 'failed') AS failed,
           (SELECT min(server_failed_at) FROM emails WHERE server_failed_at IS NOT NULL) AS failing_since,
           (SELECT last_error FROM emails WHERE state = 'waiting' AND last_error IS NOT NULL
            ORDER BY server_failed_at DESC NULLS LAST, due_at DESC LIMIT 1) AS last_error,
           EXISTS (SELECT FROM mail_listeners l JOIN withdrawal_events v ON v.id > l.followed_to
                   WHERE l.name = 'users' AND v.created_at < now() - make_interval(secs => :unseen)
                  ) AS is_behind
""")


@dataclass(frozen=True, slots=True)
class Standing:
    """How mail stands: what waits, what was given up, whether news is looked at."""

    waiting: int
    oldest: datetime | None  # of those that wait
    failed: int
    failing_since: datetime | None  # the server took nothing since, as far as mail still tells
    last_error: str | None
    is_behind: bool  # no notifier has looked at changes of UNSEEN_SECONDS ago


def standing(session: Session) -> Standing:
    """How mail stands."""
    return Standing(*session.execute(STANDING, {"unseen": UNSEEN_SECONDS}).one())


def emails(session: Session, *, state: str | None = None, limit: int = 100) -> list[Email]:
    """Mail, newest first."""
    query = select(Email) if state is None else select(Email).where(Email.state == state)
    return list(session.scalars(query.order_by(Email.created_at.desc(), Email.id).limit(limit)))


def of_withdrawal(session: Session, withdrawal_id: UUID) -> list[Email]:
    """The mail about one withdrawal, oldest first."""
    query = select(Email).where(Email.withdrawal_id == withdrawal_id)
    return list(session.scalars(query.order_by(Email.event_id)))


def retry(session: Session, email_ids: Sequence[UUID]) -> int:
    """Send these as if they were new; all or none, but for what is sent right now. How many.

    Raises NotFound, Conflict for what was sent or skipped.
    """
    found = session.execute(select(Email.id, Email.state).where(Email.id.in_(email_ids)))
    states = {row.id: row.state for row in found}
    for email_id in email_ids:
        if email_id not in states:
            raise NotFound("No such mail", f"There is no mail {email_id}", code="mail_not_found")
        if (state := states[email_id]) in ("sent", "skipped"):
            raise Conflict("Not sent again", f"Mail {email_id} was {state}", code="mail_final")
    anew = update(Email).where(Email.id.in_(email_ids), Email.state.in_(("waiting", "failed")))
    anew = anew.where(Email.leased_until.is_(None) | (Email.leased_until <= func.now())).values(ANEW)
    return len(session.execute(anew.returning(Email.id)).all())


def retry_failed(session: Session) -> int:
    """Send what failed as if it were new; how many. Call it until that is 0."""
    chosen = select(Email.id).where(Email.state == "failed").limit(AT_ONCE).with_for_update()
    anew = update(Email).where(Email.id.in_(locked_once(chosen))).values(ANEW).returning(Email.id)
    return len(session.execute(anew).all())


def give_up() -> int:
    """What was tried for a day, and what had to wait so long, has failed; how many. Raises Unavailable."""
    with transaction() as session:
        values = {"give_up": settings().notify_give_up_seconds, "most": AT_ONCE}
        over = session.execute(GIVE_UP, values).scalars().all()
        if over:
            exception_records.open_record(
                session,
                kind=BROKEN,
                subject=SERVER,
                source="notifier",
                ours={"given_up": len(over), "smtp_host": settings().smtp_host},
                theirs={"error": over[0]},
            )
        return len(over)


def forget_old() -> int:
    """Forget what was sent a week ago and what failed three months ago; how many. Raises Unavailable."""
    with told_plainly(), one_statement() as connection:
        values = {"sent_days": SENT_KEPT_DAYS, "failed_days": FAILED_KEPT_DAYS, "most": AT_ONCE}
        connection.execute(FORGET_RECORDS)
        return connection.execute(FORGET, values).rowcount


def words(email: Email) -> str:
    """A mail in one line: of what, to whom, how it stands, and why. No address in full."""
    if email.withdrawal_id:
        about = f"withdrawal {email.withdrawal_id}: {email.facts.get('status', 'ended')}"
    elif "kinds" in email.facts:
        about = f"{sum(email.facts['kinds'].values())} exception records"
    else:
        about = "a notice to admins" if "notice" in email.facts else "an invitation"
    state = {
        "waiting": f"waiting, due {iso(email.due_at)}",
        "sent": f"sent {iso(email.sent_at)}",
        "failed": "failed",
        "skipped": "skipped",
    }[email.state]
    to = mask(email.recipient) if email.recipient and "@" in email.recipient else "nobody"
    why = f" ({email.last_error})" if email.last_error else ""
    return f"{about}, to {to}: {state}, {email.tries} tries{why}"
