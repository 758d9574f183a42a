"""One attempt to send a mail: claim, send, record (`outbox.py` explains the three steps).

If a worker dies after the server accepted a mail, it is sent a second time under the same Message-ID (see
`mail/__init__.py`). A server that is down is no mail's fault: all mail waits, and one attempt every
SERVER_RETRY_SECONDS finds out whether it is back.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Row, false, func, select, text
from sqlalchemy.orm import Session

from shared.db.transactions import transaction
from shared.models import Base
from shared.notifications import outbox
from shared.notifications.mail.operator_mails import MAIL_FAILING
from shared.notifications.mail.smtp import Fault, SendResult, SmtpClient
from shared.notifications.mail.texts import compose
from shared.notifications.mail.user_mails import USERS
from shared.people import exception_records
from shared.settings import settings
from shared.text.upi import mask

MAX_UNDER_WAY = 2  # webhooks share the notifier's threads
MAX_UNCONFIRMED = 2  # a server that accepts each mail and never confirms it must not get it twenty times
SERVER_RETRY_SECONDS = 30
SERVER_SUBJECT = "smtp"  # the subject of the exception record about mail that was given up

log = structlog.get_logger()

EMAILS = Base.metadata.tables["emails"].c
SUBSCRIBERS = Base.metadata.tables["mail_listeners"].c
USERS_FOLLOWED_TO = select(SUBSCRIBERS.followed_to).where(SUBSCRIBERS.name == USERS).scalar_subquery()
OUTBOX = outbox.Outbox(
    table=Base.metadata.tables["emails"],
    sent_state="sent",
    tie_break="created_at",
    is_passed=EMAILS.event_id.is_(None) | (EMAILS.event_id <= USERS_FOLLOWED_TO),
    reset={"server_failed_at": None, "unsure": 0},
)
# One worker at a time counts and claims, for two statements: two must not both see a free place.
LOCK_CLAIMS = text("SELECT pg_advisory_xact_lock(hashtext('emails: who may begin'))")
RETRY_SERVER_SINCE = func.now() - timedelta(seconds=SERVER_RETRY_SECONDS)
SERVER_STATE = select(
    OUTBOX.under_way().scalar_subquery().label("under_way"),
    (func.count() > 0).label("is_failing"),
    func.coalesce(func.max(EMAILS.server_failed_at) > RETRY_SERVER_SINCE, false()).label("is_resting"),
).where(EMAILS.server_failed_at.is_not(None))
# The server is back: mail that it could not take is due at once.
MAKE_ALL_DUE = text("""
    UPDATE emails SET server_failed_at = NULL, due_at = least(due_at, now()) WHERE id IN
        (SELECT id FROM emails WHERE server_failed_at IS NOT NULL AND leased_until IS NULL
         FOR UPDATE SKIP LOCKED)
""")


@dataclass(frozen=True, slots=True)
class LeasedMail(outbox.Leased):
    """A mail that this worker may send now."""

    recipient: str
    facts: dict[str, Any]
    created_at: datetime
    unsure: int
    is_for_operators: bool


def claim() -> LeasedMail | None:
    """Lease the mail that has been due longest; None if there is none, or enough are under way.

    Raises Unavailable.
    """
    with transaction() as session:
        session.execute(LOCK_CLAIMS)
        server = session.execute(SERVER_STATE).one()
        if server.is_resting or server.under_way >= (1 if server.is_failing else MAX_UNDER_WAY):
            return None
        row = OUTBOX.lease(session, settings().mail_seconds + outbox.LEASE_SPARE_SECONDS)
        return _to_leased(row) if row else None


def send(mail: LeasedMail, client: SmtpClient) -> SendResult:
    """Compose and send it. Network errors and faults in a template become a result, not an exception."""
    try:
        message = compose(mail.id, mail.recipient, mail.facts, mail.created_at)
    except Exception as error:  # a fault in a template is ours to fix: the mail waits for that
        log.exception("[MAIL] not composed", email_id=str(mail.id))
        return SendResult(f"could not be composed: {type(error).__name__}", Fault.TEMPORARY)
    result = client.send(message, mail.recipient)
    # Servers tend to repeat the address; logs and lists show it masked only.
    return replace(result, error=result.error and result.error.replace(mail.recipient, mask(mail.recipient)))


def record(mail: LeasedMail, result: SendResult) -> None:
    """Record the result: sent, to be retried, or refused. Raises Unavailable."""
    with transaction() as session:
        if result.error is None:
            OUTBOX.mark_sent(session, mail, server_failed_at=None)
        elif _is_final(mail, result):
            _record_refusal(session, mail, result)
        else:
            _record_failure(session, mail, result)
    fields = {"email_id": str(mail.id), "tries": mail.tries}
    if result.error is None:
        log.info("[MAIL] sent", **fields)
    else:
        log.warning("[MAIL] not sent", error=result.error, fault=result.fault, **fields)


def resume_after_outage() -> None:
    """The server accepted a mail: make due what waited for it. Raises Unavailable."""
    with transaction() as session:
        session.execute(MAKE_ALL_DUE)
        exception_records.close_all(
            session,
            kind=MAIL_FAILING,
            subject=SERVER_SUBJECT,
            resolution="the mail server accepts mail again",
            actor="system",
        )


def _to_leased(row: Row[Any]) -> LeasedMail:
    return LeasedMail(
        id=row.id,
        tries=row.tries,
        recipient=row.recipient,
        facts=row.facts,
        created_at=row.created_at,
        unsure=row.unsure,
        is_for_operators=row.group_id is not None,
    )


def _record_refusal(session: Session, mail: LeasedMail, result: SendResult) -> None:
    """A user's wrong address is the user's to correct; an operator's is ours, so it opens a record."""
    is_recorded = OUTBOX.fail(session, mail, server_failed_at=None, last_error=result.error)
    if is_recorded and mail.is_for_operators:
        exception_records.open_record(
            session,
            kind=MAIL_FAILING,
            subject=mail.recipient,
            source="notifier",
            ours={"refused": "mail to an operator"},
            theirs={"error": result.error},
        )


def _record_failure(session: Session, mail: LeasedMail, result: SendResult) -> None:
    is_server_down = result.fault is Fault.SERVER
    wait_seconds = SERVER_RETRY_SECONDS if is_server_down else outbox.backoff_seconds(mail.tries)
    OUTBOX.retry(
        session,
        mail,
        func.now() + timedelta(seconds=wait_seconds),
        last_error=result.error,
        server_failed_at=func.now() if is_server_down else None,
        unsure=EMAILS.unsure + (1 if result.fault is Fault.UNCONFIRMED else 0),
    )


def _is_final(mail: LeasedMail, result: SendResult) -> bool:
    if result.fault is Fault.UNCONFIRMED:
        return mail.unsure + 1 >= MAX_UNCONFIRMED
    return result.fault is Fault.PERMANENT
