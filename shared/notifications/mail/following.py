"""Whom mail follows now, and from where on: since mail was first on, and operators were first named."""

import structlog
from sqlalchemy.dialects.postgresql import insert

from shared.db import transaction
from shared.models import MailListener
from shared.notifications import positions
from shared.notifications.mail import operators, users
from shared.settings import settings

log = structlog.get_logger()


def follow() -> int:
    """Write down the mail for all that is new; for how much. Two at once do no harm. Raises Unavailable.

    What happens while mail is off is told when it is on again, unless it is too old by then.
    """
    if settings().smtp_host is None:
        return 0
    listening = {users.USERS: users.LISTENER}
    if settings().operator_emails:
        listening[operators.OPERATORS] = operators.LISTENER
    told = sum(_follow(name, listener) for name, listener in listening.items())
    if told:
        log.info("[MAIL] to be told", number=told)
    return told


def _follow(name: str, listener: positions.Listener) -> int:
    _begin(name, listener)
    return positions.follow(listener)


def _begin(name: str, listener: positions.Listener) -> None:
    """What was there before the first time is no news."""
    with transaction() as session:
        if session.get(MailListener, name) is None:
            last = positions.last_id(session, listener.table)
            begun = insert(MailListener).values(name=name, followed_to=last).on_conflict_do_nothing()
            session.execute(begun)
