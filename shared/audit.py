"""The panel's log of everything done in it: who, when, from where, what, to what, why, and how it ended.

Append-only. What changes something is written down twice: `asked` before it is tried, so that nothing can be
done unseen, then `done` or `refused`. What shows or sends something is written down before it is shown.
"""

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
            action=action,
            outcome=outcome,
            subject=None if subject is None else str(subject),
            reason=reason,
            data=known,
        )
    )
    session.flush()


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
