"""The panel's log of everything done in it: who, when, from where, what, to what, why, and how it ended.

Append-only. What changes something is written down twice: `asked` before it is tried, so that nothing can be
done unseen, then `done` or `refused`. What shows or sends something is written down before it is shown.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.models import AuditEntry

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
    for condition, value in (
        (AuditEntry.operator == operator, operator),
        (AuditEntry.action == action, action),
        (AuditEntry.subject == subject, subject),
        (AuditEntry.at >= since, since),
        (AuditEntry.at < until, until),
        (AuditEntry.id < before_id, before_id),
    ):
        if value is not None:
            query = query.where(condition)
    return list(session.scalars(query.order_by(AuditEntry.id.desc()).limit(limit)))
