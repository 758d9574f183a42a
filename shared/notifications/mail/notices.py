"""Mail to admins about what gives or takes power: operators, roles, keys, endpoints; and invitations.

Written in the transaction of the change itself, so each change is told once, and none that did not happen.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.ids import new_id
from shared.models import Email, Invitation, Operator
from shared.notifications.mail.recipients import address_of, one_line
from shared.roles import Role
from shared.settings import settings

EMAILS = insert(Email.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]


def tell(
    session: Session,
    subject: str,
    lines: Sequence[str],
    *,
    about: Operator | None = None,
    invitation: Invitation | None = None,
) -> bool:
    """Mail all enabled admins, OPERATOR_EMAILS, and the operator whom it is `about`.

    An `invitation` goes to that operator alone. Returns whether it did: without mail, without their address
    or without ADMIN_URL there is no mail that holds a link.
    """
    if settings().smtp_host is None:
        return False
    facts = {"notice": {"subject": one_line(subject), "lines": [one_line(line, 500) for line in lines]}}
    recipients = {*_admins(session), *map(address_of, settings().operator_emails)}
    if about is not None and about.email:
        recipients.add(address_of(about.email))
    _write(session, recipients, facts)
    if invitation is None or about is None or not about.email or settings().admin_url is None:
        return False
    letter = {"invitation": {"id": str(invitation.id), "name": about.name}}
    _write(session, {address_of(about.email)}, letter)
    return True


def _admins(session: Session) -> list[str]:
    query = select(Operator.email).where(
        Operator.role == Role.ADMIN, Operator.disabled_at.is_(None), Operator.email.is_not(None)
    )
    return [address_of(email) for email in session.scalars(query) if email]


def _write(session: Session, recipients: set[str], facts: dict[str, Any]) -> None:
    group_id: UUID = new_id()
    rows = [
        {"id": new_id(), "group_id": group_id, "recipient": one, "facts": facts} for one in sorted(recipients)
    ]
    if rows:
        session.connection().execute(EMAILS, rows)
