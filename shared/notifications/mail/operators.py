"""From exception records to mail for operators: at once when it is quiet, then one mail a minute for all.

Pauses, too little money, what is overdue and everything else that a person must see opens such a record. A
storm of them makes one mail a minute. Records about mail itself are left out, or each could make the next.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Row, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared import severities, upi
from shared.clock import iso
from shared.models import Email, ExceptionRecord, MailListener, ToldRecord
from shared.notifications import positions
from shared.notifications.mail.recipients import address_of, one_line
from shared.settings import settings

OPERATORS = "operators"
BROKEN = "mail"  # the kind of the exception records that are about mail itself
BETWEEN_SECONDS = 60
MOST_SHOWN = 25
NAMESPACE = UUID("9b8b1c7e-6a53-4a8e-8f55-2f0c7f2f2c41")  # ours, drawn once

NEWS = text("""
    SELECT r.id, r.kind, r.subject, r.source, r.withdrawal_id, r.ours, r.theirs, r.opened_at, r.resolved_at
    FROM exception_records r
    WHERE r.id > :followed_to AND r.kind <> :broken
      AND NOT EXISTS (SELECT FROM told_records t WHERE t.record_id = r.id)
    ORDER BY r.id LIMIT :most
""")
EMAILS = insert(Email.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]
TOLD = insert(ToldRecord.__table__)  # type: ignore[arg-type]


def _tell(session: Session, followed_to: int, most: int) -> Sequence[int]:
    records = session.execute(NEWS, {"followed_to": followed_to, "most": most, "broken": BROKEN}).all()
    ids = [record.id for record in records]
    if records:
        group_id = uuid5(NAMESPACE, ",".join(map(str, ids)))
        emails = [
            _email(group_id, recipient, _facts(records))
            for recipient in map(address_of, settings().operator_emails)
        ]
        session.connection().execute(EMAILS, emails)
        session.connection().execute(TOLD, [{"record_id": one, "group_id": group_id} for one in ids])
        session.get_one(MailListener, OPERATORS).told_at = func.now()
    return ids


# While the minute is not over nobody listens, and nothing moves.
LISTENER = positions.Listener(
    ExceptionRecord,
    select(MailListener).where(
        MailListener.name == OPERATORS,
        MailListener.told_at.is_(None)
        | (MailListener.told_at <= func.now() - timedelta(seconds=BETWEEN_SECONDS)),
    ),
    _tell,
)


def _email(group_id: UUID, recipient: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {"id": uuid5(group_id, recipient), "group_id": group_id, "recipient": recipient, "facts": facts}


def _facts(records: Sequence[Row[Any]]) -> dict[str, Any]:
    # Of many only some are shown: the worst.
    records = sorted(records, key=lambda record: severities.of_kind(record.kind).rank)
    return {
        "kinds": dict(Counter(record.kind for record in records).most_common()),
        "records": [_record(record) for record in records[:MOST_SHOWN]],
        "more": max(0, len(records) - MOST_SHOWN),
    }


def _record(record: Row[Any]) -> dict[str, Any]:
    return {
        "id": record.id,
        "kind": record.kind,
        "subject": _plain(record.subject),
        "source": record.source,
        "withdrawal_id": str(record.withdrawal_id) if record.withdrawal_id else None,
        "opened_at": iso(record.opened_at),
        "is_over": record.resolved_at is not None,
        "ours": _lines(record.ours),
        "theirs": _lines(record.theirs),
    }


def _lines(side: dict[str, Any]) -> list[str]:
    told = (f"{name}: {_plain(value)}" for name, value in side.items() if value is not None)
    return [one_line(line) for line in told]


def _plain(value: Any) -> str:
    """One line of it, without a whole UPI id."""
    words = one_line(str(value)).split(" ")
    return " ".join(upi.mask(word) if upi.clean(word) else word for word in words)
