"""Write actions in the panel to the audit log."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from flask import g, request

from api.admin import sessions
from shared.db.transactions import transaction
from shared.errors import PayoutsError
from shared.people import audit

log = structlog.get_logger()


def write(
    action: str,
    outcome: str = audit.DONE,
    *,
    subject: object = None,
    reason: str | None = None,
    operator: str | None = None,
    **data: Any,
) -> None:
    """Write one entry and commit it. Raises Unavailable; then the action must not be performed or shown."""
    name = operator or sessions.signed_in().name
    address = request.remote_addr or "nowhere"
    with transaction() as session:
        audit.write(
            session,
            operator=name,
            address=address,
            action=action,
            outcome=outcome,
            subject=subject,
            reason=reason,
            request_id=g.request_id,
            **data,
        )
    log.info("[ADMIN] " + action, operator=name, outcome=outcome, subject=str(subject), address=address)


@contextmanager
def audited(
    action: str, *, subject: object, reason: str | None = None, **before: Any
) -> Iterator[dict[str, Any]]:
    """Audit a change: write `asked` before it, then `done` with the contents of the yielded dictionary, or
    `refused` with the error code.
    """
    write(action, audit.ASKED, subject=subject, reason=reason, **before)
    after: dict[str, Any] = {}
    try:
        yield after
    except PayoutsError as error:
        write(action, audit.REFUSED, subject=subject, reason=reason, code=error.code)
        raise
    write(action, audit.DONE, subject=subject, reason=reason, **after)
