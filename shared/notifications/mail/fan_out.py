"""Fan-out: mail for users since mail was first enabled, and for operators since they were first named."""

import structlog
from sqlalchemy.dialects.postgresql import insert

from shared.db.transactions import transaction
from shared.models import MailSubscriber
from shared.notifications import event_cursor
from shared.notifications.mail import operator_mails, user_mails
from shared.settings import settings

log = structlog.get_logger()


def create_mails() -> int:
    """Create the mail for all new events; returns for how many. Safe to run twice at once.

    What happens while mail is disabled is mailed when it is enabled again, unless it is too old by then.
    Raises Unavailable.
    """
    if settings().smtp_host is None:
        return 0
    subscribers = {user_mails.USERS: user_mails.SUBSCRIBER}
    if settings().operator_emails:
        subscribers[operator_mails.OPERATORS] = operator_mails.SUBSCRIBER
    events = sum(_advance(name, subscriber) for name, subscriber in subscribers.items())
    if events:
        log.info("[MAIL] mails created", number=events)
    return events


def _advance(name: str, subscriber: event_cursor.Subscriber) -> int:
    _subscribe(name, subscriber)
    return event_cursor.advance(subscriber)


def _subscribe(name: str, subscriber: event_cursor.Subscriber) -> None:
    """Place the cursor at the end the first time: what happened before is not news."""
    with transaction() as session:
        if session.get(MailSubscriber, name) is None:
            last = event_cursor.last_id(session, subscriber.table)
            new = insert(MailSubscriber).values(name=name, followed_to=last).on_conflict_do_nothing()
            session.execute(new)
