"""Notices to admins about changes of access: operators, roles, keys and endpoints; and invitations.

The change's own transaction writes them, so each change is mailed once, and none that was rolled back.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.ids import new_id
from shared.models import Email, Invitation, Operator
from shared.notifications.mail.recipients import one_line, parse_address
from shared.roles import Role
from shared.settings import settings

INSERT_EMAILS = insert(Email.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]


def notify_admins(
    session: Session,
    subject: str,
    lines: Sequence[str],
    *,
    about: Operator | None = None,
    invitation: Invitation | None = None,
) -> bool:
    """Mail all enabled admins, OPERATOR_EMAILS, and the operator it is `about`.

    An `invitation` goes to that operator alone, and only if mail is enabled, they have an address and
    ADMIN_URL is set. Returns True if it was mailed.
    """
    if settings().smtp_host is None:
        return False
    facts = {"notice": {"subject": one_line(subject), "lines": [one_line(line, 500) for line in lines]}}
    recipients = {*_admin_addresses(session), *map(parse_address, settings().operator_emails)}
    if about is not None and about.email:
        recipients.add(parse_address(about.email))
    _insert(session, recipients, facts)
    if invitation is None or about is None or not about.email or settings().admin_url is None:
        return False
    invitation_facts = {"invitation": {"id": str(invitation.id), "name": about.name}}
    _insert(session, {parse_address(about.email)}, invitation_facts)
    return True


def _admin_addresses(session: Session) -> list[str]:
    query = select(Operator.email).where(
        Operator.role == Role.ADMIN, Operator.disabled_at.is_(None), Operator.email.is_not(None)
    )
    return [parse_address(email) for email in session.scalars(query) if email]


def _insert(session: Session, recipients: set[str], facts: dict[str, Any]) -> None:
    group_id: UUID = new_id()
    rows = [
        {"id": new_id(), "group_id": group_id, "recipient": recipient, "facts": facts}
        for recipient in sorted(recipients)
    ]
    if rows:
        session.connection().execute(INSERT_EMAILS, rows)
