"""One mail's next try: claim, send, record. No transaction is held across the wire.

A claim is a lease: whoever dies with it leaves the mail due again. If he died after the server had taken it,
it goes out a second time, under the same Message-ID (see `mail/__init__.py`). What the server takes from
nobody is no mail's fault: then all of them rest for a moment, and one tries for all.
"""

import random
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from shared import exception_records
from shared.db import transaction
from shared.notifications.mail.letters import letter
from shared.notifications.mail.operators import BROKEN
from shared.notifications.mail.smtp import Fault, Server, Told
from shared.settings import settings
from shared.upi import mask

AT_ONCE = 2  # mails under way: webhooks share the notifier's threads
MOST_UNSURE = 2  # a server that takes each mail and never says so must not get it twenty times
REST_SECONDS = 30  # after the server took nothing
LEASE_SPARE_SECONDS = 20  # beyond a try: for a slow machine, and for writing down what came of it
JITTER = 0.2  # so that what failed together does not come back together
SERVER = "smtp"  # the subject of the exception record about what was given up

log = structlog.get_logger()

# One at a time counts and claims; it lasts for two statements.
MY_TURN = text("SELECT pg_advisory_xact_lock(hashtext('emails: who may begin'))")
STANDING = text("""
    SELECT (SELECT count(*) FROM emails WHERE leased_until IS NOT NULL AND leased_until > now()) AS under_way,
           count(*) > 0 AS is_failing,
           coalesce(max(server_failed_at) > now() - make_interval(secs => :rest), false) AS is_resting
    FROM emails WHERE server_failed_at IS NOT NULL
""")
CLAIM = text("""
    UPDATE emails SET tries = tries + 1, due_at = now() + make_interval(secs => :lease),
                      leased_until = now() + make_interval(secs => :lease)
    WHERE id = (SELECT id FROM emails WHERE state = 'waiting' AND due_at <= now()
                ORDER BY due_at, created_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, recipient, facts, tries, unsure, created_at, group_id
""")
SENT = text("""
    UPDATE emails SET state = 'sent', sent_at = now(), due_at = NULL, leased_until = NULL,
                      server_failed_at = NULL, last_error = NULL
    WHERE id = :id AND state = 'waiting'
""")
# The server works: what it did not take goes at once.
WORKS_AGAIN = text("""
    UPDATE emails SET server_failed_at = NULL, due_at = least(due_at, now()) WHERE id IN
        (SELECT id FROM emails WHERE server_failed_at IS NOT NULL AND leased_until IS NULL
         FOR UPDATE SKIP LOCKED)
""")
# Only who has the lease still may say that it failed.
NOT_SENT = text("""
    UPDATE emails SET due_at = now() + make_interval(secs => :wait), leased_until = NULL, last_error = :error,
                      server_failed_at = CASE WHEN :is_servers THEN now() END,
                      unsure = unsure + CASE WHEN :is_unsure THEN 1 ELSE 0 END
    WHERE id = :id AND state = 'waiting' AND tries = :tries
""")
REFUSED = text("""
    UPDATE emails SET state = 'failed', due_at = NULL, leased_until = NULL, server_failed_at = NULL,
                      last_error = :error
    WHERE id = :id AND state = 'waiting' AND tries = :tries
""")


@dataclass(frozen=True, slots=True)
class Try:
    """A mail that may be sent now."""

    id: UUID
    recipient: str
    facts: dict[str, Any]
    created_at: datetime
    tries: int
    unsure: int
    is_for_operators: bool


def claim() -> Try | None:
    """Take the mail that is due longest; None when there is none, or enough are under way already.

    Raises Unavailable.
    """
    with transaction() as session:
        session.execute(MY_TURN)
        now = session.execute(STANDING, {"rest": REST_SECONDS}).one()
        if now.is_resting or now.under_way >= (1 if now.is_failing else AT_ONCE):
            return None
        lease = settings().mail_seconds + LEASE_SPARE_SECONDS
        taken = session.execute(CLAIM, {"lease": lease}).one_or_none()
        return _try_of(taken) if taken else None


def send(now: Try, server: Server) -> Told:
    """Make the try. Raises nothing for the wire, nor for words that cannot be made."""
    try:
        mail = letter(now.id, now.recipient, now.facts, now.created_at)
    except Exception as error:  # a fault in a template is ours to mend: the mail waits for that
        log.exception("[MAIL] not written", email_id=str(now.id))
        return Told(f"could not be written: {type(error).__name__}", Fault.LATER)
    told = server.send(mail, now.recipient)
    # Servers like to repeat the address; logs and lists hold none in full.
    return replace(told, error=told.error and told.error.replace(now.recipient, mask(now.recipient)))


def record(now: Try, told: Told) -> None:
    """Write down what came of it: sent, to be tried again, or refused. Raises Unavailable."""
    about = {"email_id": str(now.id), "tries": now.tries}
    with transaction() as session:
        if told.error is None:
            session.execute(SENT, {"id": now.id})
        elif _is_over(now, told):
            _refused(session, now, told)
        else:
            _not_sent(session, now, told)
    if told.error is None:
        log.info("[MAIL] sent", **about)
    else:
        log.warning("[MAIL] not sent", error=told.error, fault=told.fault, **about)


def works_again() -> None:
    """The server took a mail: what it did not take before need not wait. Raises Unavailable."""
    with transaction() as session:
        session.execute(WORKS_AGAIN)
        exception_records.close_all(
            session, kind=BROKEN, subject=SERVER, resolution="mail goes out again", actor="system"
        )


def _try_of(taken: Row[Any]) -> Try:
    return Try(
        id=taken.id,
        recipient=taken.recipient,
        facts=taken.facts,
        created_at=taken.created_at,
        tries=taken.tries,
        unsure=taken.unsure,
        is_for_operators=taken.group_id is not None,
    )


def _refused(session: Session, now: Try, told: Told) -> None:
    """A user's address that is refused is the user's affair; an operator who is not told is ours."""
    refused = session.execute(REFUSED, {"id": now.id, "tries": now.tries, "error": told.error})
    if now.is_for_operators and refused.rowcount:  # type: ignore[attr-defined]
        exception_records.open_record(
            session,
            kind=BROKEN,
            subject=now.recipient,
            source="notifier",
            ours={"refused": "mail to an operator"},
            theirs={"error": told.error},
        )


def _not_sent(session: Session, now: Try, told: Told) -> None:
    is_servers = told.fault is Fault.SERVER
    is_unsure = told.fault is Fault.UNSURE
    values = {"id": now.id, "tries": now.tries, "error": told.error}
    values |= {"is_servers": is_servers, "is_unsure": is_unsure}
    session.execute(NOT_SENT, values | {"wait": REST_SECONDS if is_servers else _wait(now.tries)})


def _is_over(now: Try, told: Told) -> bool:
    return told.fault is Fault.NEVER or (told.fault is Fault.UNSURE and now.unsure + 1 >= MOST_UNSURE)


def _wait(tries: int) -> float:
    waits = settings().notify_retry_seconds
    return waits[min(tries, len(waits)) - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  no secret
