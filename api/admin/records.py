"""Writes what is done in the panel into the audit log."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from flask import g, request

from api.admin import door
from shared import audit
from shared.db import transaction
from shared.errors import PayoutsError

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
    """One line, committed before this returns. Raises Unavailable: then nothing may be shown or done."""
    name = operator or door.me().name
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
def kept(
    action: str, *, subject: object, reason: str | None = None, **before: Any
) -> Iterator[dict[str, Any]]:
    """Around something that changes: `asked` before it, then `done` with what was put into the dictionary,
    or `refused` with the code.
    """
    write(action, audit.ASKED, subject=subject, reason=reason, **before)
    after: dict[str, Any] = {}
    try:
        yield after
    except PayoutsError as error:
        write(action, audit.REFUSED, subject=subject, reason=reason, code=error.code)
        raise
    write(action, audit.DONE, subject=subject, reason=reason, **after)
