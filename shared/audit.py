"""The log of what is done beside withdrawals: who, when, from where, what, to what, why, and how it ended.

Append-only. What somebody changes in the panel or at a shell is written down twice: `asked` before it is
tried, so that nothing can be done unseen, then `done` or `refused`. What shows or sends something is written
down before it is shown. And what overwrites a row that keeps no story of its own (a switch, who looks after
an exception record, how a user is reached) is written down with it (`changed`). Each line says through which
door it came: the panel, a shell, the API, or the system itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from shared.models import AuditEntry

# Each from the one before along the index, however many lines there are of it.
ACTIONS = text("""
    WITH RECURSIVE each AS (
        (SELECT action FROM audit_log ORDER BY action LIMIT 1)
        UNION ALL
        SELECT (SELECT later.action FROM audit_log later WHERE later.action > each.action
                ORDER BY later.action LIMIT 1)
        FROM each WHERE each.action IS NOT NULL
    )
    SELECT action FROM each WHERE action IS NOT NULL
""")

ASKED, DONE, REFUSED = "asked", "done", "refused"
NOBODY, SHELL = "unknown", "shell"
BOOKS = "books"  # from where: written by the change itself
PANEL, CLI, API, SYSTEM = "panel", "cli", "api", "system"

# Through which door the act came that is under way: each door says so once, and every line of it has it.
_origin: ContextVar[str] = ContextVar("origin", default=SYSTEM)


def come_from(origin: str) -> None:
    """From now on, in this thread: what is written down came through this door."""
    _origin.set(origin)


@contextmanager
def coming_from(origin: str) -> Iterator[None]:
    """The same for what is done inside."""
    token = _origin.set(origin)
    try:
        yield
    finally:
        _origin.reset(token)


def write(
    session: Session,
    *,
    operator: str,
    address: str,
    action: str,
    outcome: str,
    subject: object = None,
    reason: str | None = None,
    **data: Any,
) -> None:
    """Add one line. `data` says what was before and after: versions, ids, amounts; never a whole UPI id."""
    known = {name: value for name, value in data.items() if value is not None}
    session.add(
        AuditEntry(
            operator=operator,
            address=address,
            origin=_origin.get(),
            action=action,
            outcome=outcome,
            subject=None if subject is None else str(subject),
            reason=reason,
            data=known,
        )
    )
    session.flush()


def changed(
    session: Session,
    action: str,
    *,
    subject: object,
    actor: str,
    reason: str | None,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    """Write down a change with both its sides, in its own transaction. Values are as JSON has them."""
    write(
        session,
        operator=actor.removeprefix("operator:"),
        address=BOOKS,
        action=action,
        outcome=DONE,
        subject=subject,
        reason=reason,
        before=before,
        after=after,
    )


def actions(session: Session) -> list[str]:
    """The words of everything that was ever done."""
    return list(session.scalars(ACTIONS))


def listing(
    session: Session,
    *,
    operator: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before_id: int | None = None,
    limit: int = 50,
) -> list[AuditEntry]:
    """The lines that fit, newest first; `before_id` continues behind one."""
    query = select(AuditEntry)
    for column, wanted in (
        (AuditEntry.operator, operator),
        (AuditEntry.action, action),
        (AuditEntry.subject, subject),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if since is not None:
        query = query.where(AuditEntry.at >= since)
    if until is not None:
        query = query.where(AuditEntry.at < until)
    if before_id is not None:
        query = query.where(AuditEntry.id < before_id)
    return list(session.scalars(query.order_by(AuditEntry.id.desc()).limit(limit)))
