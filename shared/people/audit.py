"""The audit log of everything outside withdrawals: who, when, where, what, to what, why, and with which
outcome.

Append-only. An action in the panel or at a shell has two entries: `asked` before it is tried, so that no
action goes unrecorded, then `done` or `refused`. Showing or sending data has an entry before it happens. A
change to a row without a history of its own (a circuit breaker, the owner of an exception record, a user's
contact) is recorded with it (`record_change`). Each entry has its origin: the panel, a shell, the API, or the
system.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from shared.models import AuditEntry

# Each action is found from the previous one along the index, however many entries it has.
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

# Outcomes.
ASKED = "asked"
DONE = "done"
REFUSED = "refused"
UNKNOWN_OPERATOR = "unknown"
# Addresses that are not an IP address.
SHELL = "shell"
WITHIN_CHANGE = "books"  # written by the change itself
# Origins.
PANEL = "panel"
CLI = "cli"
API = "api"
SYSTEM = "system"

# The origin of the current action, set once at its entry point and written to each of its entries.
_origin: ContextVar[str] = ContextVar("origin", default=SYSTEM)


def set_origin(origin: str) -> None:
    """Set the origin of all later entries in this thread."""
    _origin.set(origin)


@contextmanager
def from_origin(origin: str) -> Iterator[None]:
    """Set the origin of the entries written inside the block."""
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
    """Add one entry. `data` holds values before and after: versions, ids, amounts; never a whole UPI id."""
    values = {name: value for name, value in data.items() if value is not None}
    session.add(
        AuditEntry(
            operator=operator,
            address=address,
            origin=_origin.get(),
            action=action,
            outcome=outcome,
            subject=None if subject is None else str(subject),
            reason=reason,
            data=values,
        )
    )
    session.flush()


def record_change(
    session: Session,
    action: str,
    *,
    subject: object,
    actor: str,
    reason: str | None,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    """Record a change with its JSON values before and after, in the transaction of the change."""
    write(
        session,
        operator=actor.removeprefix("operator:"),
        address=WITHIN_CHANGE,
        action=action,
        outcome=DONE,
        subject=subject,
        reason=reason,
        before=before,
        after=after,
    )


def actions(session: Session) -> list[str]:
    """Return every action in the log."""
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
    """Return the matching entries, newest first; `before_id` continues after one."""
    query = select(AuditEntry)
    for column, value in (
        (AuditEntry.operator, operator),
        (AuditEntry.action, action),
        (AuditEntry.subject, subject),
    ):
        if value is not None:
            query = query.where(column == value)
    if since is not None:
        query = query.where(AuditEntry.at >= since)
    if until is not None:
        query = query.where(AuditEntry.at < until)
    if before_id is not None:
        query = query.where(AuditEntry.id < before_id)
    return list(session.scalars(query.order_by(AuditEntry.id.desc()).limit(limit)))
