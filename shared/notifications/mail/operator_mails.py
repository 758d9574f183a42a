"""Mail to operators about new exception records: the first at once, then one mail a minute for all of them.

Everything that a person must see opens such a record: a pause, a low balance, an overdue withdrawal. Records
about mail itself are left out: each could cause the next.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Row, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.clock import iso
from shared.models import Email, ExceptionRecord, MailedRecord, MailSubscriber
from shared.notifications import event_cursor
from shared.notifications.mail.recipients import one_line, parse_address
from shared.people import severities
from shared.settings import settings
from shared.text import upi

OPERATORS = "operators"
MAIL_FAILING = "mail"  # the kind of exception record that is about mail itself
MAIL_INTERVAL_SECONDS = 60
MAX_RECORDS_SHOWN = 25
NAMESPACE = UUID("9b8b1c7e-6a53-4a8e-8f55-2f0c7f2f2c41")  # random, and must never change

NEW_RECORDS = text("""
    SELECT r.id, r.kind, r.subject, r.source, r.withdrawal_id, r.ours, r.theirs, r.opened_at, r.resolved_at
    FROM exception_records r
    WHERE r.id > :followed_to AND r.kind <> :mail_failing
      AND NOT EXISTS (SELECT FROM told_records t WHERE t.record_id = r.id)
    ORDER BY r.id LIMIT :limit
""")
INSERT_EMAILS = insert(Email.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]
INSERT_MAILED_RECORDS = insert(MailedRecord.__table__)  # type: ignore[arg-type]


def _create_emails(session: Session, followed_to: int, limit: int) -> Sequence[int]:
    values = {"followed_to": followed_to, "limit": limit, "mail_failing": MAIL_FAILING}
    records = session.execute(NEW_RECORDS, values).all()
    record_ids = [record.id for record in records]
    if records:
        group_id = uuid5(NAMESPACE, ",".join(map(str, record_ids)))
        emails = [
            _email_row(group_id, recipient, _facts(records))
            for recipient in map(parse_address, settings().operator_emails)
        ]
        session.connection().execute(INSERT_EMAILS, emails)
        session.connection().execute(
            INSERT_MAILED_RECORDS,
            [{"record_id": record_id, "group_id": group_id} for record_id in record_ids],
        )
        session.get_one(MailSubscriber, OPERATORS).told_at = func.now()
    return record_ids


# Until the minute is over the query finds no cursor, so nothing is mailed and the cursor stays.
SUBSCRIBER = event_cursor.Subscriber(
    ExceptionRecord,
    select(MailSubscriber).where(
        MailSubscriber.name == OPERATORS,
        MailSubscriber.told_at.is_(None)
        | (MailSubscriber.told_at <= func.now() - timedelta(seconds=MAIL_INTERVAL_SECONDS)),
    ),
    _create_emails,
)


def _email_row(group_id: UUID, recipient: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {"id": uuid5(group_id, recipient), "group_id": group_id, "recipient": recipient, "facts": facts}


def _facts(records: Sequence[Row[Any]]) -> dict[str, Any]:
    # Only the most severe are shown.
    records = sorted(records, key=lambda record: severities.severity_of(record.kind).rank)
    return {
        "kinds": dict(Counter(record.kind for record in records).most_common()),
        "records": [_record_facts(record) for record in records[:MAX_RECORDS_SHOWN]],
        "more": max(0, len(records) - MAX_RECORDS_SHOWN),
    }


def _record_facts(record: Row[Any]) -> dict[str, Any]:
    return {
        "id": record.id,
        "kind": record.kind,
        "subject": _masked_line(record.subject),
        "source": record.source,
        "withdrawal_id": str(record.withdrawal_id) if record.withdrawal_id else None,
        "opened_at": iso(record.opened_at),
        "is_over": record.resolved_at is not None,
        "ours": _lines(record.ours),
        "theirs": _lines(record.theirs),
    }


def _lines(side: dict[str, Any]) -> list[str]:
    lines = (f"{name}: {_masked_line(value)}" for name, value in side.items() if value is not None)
    return [one_line(line) for line in lines]


def _masked_line(value: Any) -> str:
    """The value on one line, with its UPI ids masked."""
    words = one_line(str(value)).split(" ")
    return " ".join(upi.mask(word) if upi.normalize(word) else word for word in words)
