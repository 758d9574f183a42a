"""Exception records: what does not add up, with both sides of the story, an owner and an age.

Finding one changes no book. It stays open until a person writes how it was resolved, or until what was only
late has come (`close_all`). The same finding again touches the open record instead of making a second.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, func, literal, literal_column, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared import audit, severities
from shared.errors import Conflict, NotFound, Stale
from shared.models import ExceptionRecord
from shared.razorpayx.answers import Outcome, outcome_of
from shared.severities import Severity

Position = tuple[int, datetime, int]  # in the listing: how bad, since when, and the record's id
RANK = literal_column(severities.RANK, Integer)
NEWER = "There is newer word of it"
MOST_BEFORE = 20  # words that a record keeps of those that it follows


def open_record(
    session: Session,
    *,
    kind: str,
    subject: str,
    source: str,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    withdrawal_id: UUID | None = None,
    is_news: bool = False,
    after: ExceptionRecord | None = None,
) -> int:
    """Write down a finding; returns the record's id. An open one of this kind and subject is seen again.

    Its sides stay as they were first seen: people decide by them. `is_news`: they become these, for of a
    number that changes, such as a missing sum, only the latest helps. `after`: where that record is open, it
    is closed, and this one takes its place: with its owner, and with what was said before.
    """
    if after is not None and after.resolved_at is None:
        return _succeed(
            session,
            after,
            kind=kind,
            subject=subject,
            source=source,
            ours=ours,
            theirs=theirs,
            withdrawal_id=withdrawal_id,
        )
    statement = upsert(ExceptionRecord).values(
        kind=kind, subject=subject, source=source, ours=ours, theirs=theirs, withdrawal_id=withdrawal_id
    )
    statement = statement.on_conflict_do_update(
        index_elements=["kind", "subject"],
        index_where=ExceptionRecord.resolved_at.is_(None),
        set_={"seen_at": func.now(), **({"ours": ours, "theirs": theirs} if is_news else {})},
    )
    return int(session.execute(statement.returning(ExceptionRecord.id)).scalar_one())


def _succeed(session: Session, before: ExceptionRecord, **facts: Any) -> int:
    """Close a record, and open the one that takes its place."""
    session.refresh(before, with_for_update=True)
    before.resolution, before.resolved_by, before.resolved_at = NEWER, "system", func.now()
    session.flush()  # of one kind and subject only one is open
    record_id = open_record(session, **facts, is_news=True)
    newer = session.get_one(ExceptionRecord, record_id, populate_existing=True)
    said = {name: value for name, value in before.theirs.items() if name != "before"}
    earlier = [*_before(before), {"record": before.id, "kind": before.kind, **said}]
    newer.theirs = {**newer.theirs, "before": earlier[-MOST_BEFORE:]}
    newer.owner, newer.owned_at = before.owner, before.owned_at
    before.resolution = f"{NEWER}: it goes on as #{record_id}"
    session.flush()
    return record_id


def take(session: Session, record_id: int, *, owner: str, seen: str | None = None) -> ExceptionRecord:
    """Make `owner` the one who looks after it. Raises NotFound, Conflict when it is closed.

    `seen`: Stale when it is not as it was seen (`as_seen`).
    """
    record = _open_one(session, record_id)
    _must_be_as_seen(record, seen)
    before = record.owner
    record.owner, record.owned_at = owner, func.now()
    session.flush()
    if before not in (None, owner):
        audit.changed(
            session,
            "exception_taken_over",
            subject=f"#{record_id}",
            actor=owner,
            reason=None,
            before={"owner": before},
            after={"owner": owner},
        )
    return record


def as_seen(record: ExceptionRecord) -> str:
    """How a record stands, in a few characters: who decides by what they see names it, and is held to it."""
    return f"{record.owner} {record.owned_at.isoformat() if record.owned_at else ''} {record.resolved_by}"


def close(
    session: Session, record_id: int, *, resolution: str, actor: str, seen: str | None = None
) -> ExceptionRecord:
    """Write how it was resolved. It moves no money: that is what `withdrawals.propose` is for.

    Raises NotFound, Conflict when it is closed already, Stale when not as `seen`.
    """
    record = _open_one(session, record_id)
    _must_be_as_seen(record, seen)
    record.resolution, record.resolved_by, record.resolved_at = resolution, actor, func.now()
    session.flush()
    return record


def close_all(
    session: Session,
    *,
    resolution: str,
    actor: str,
    kind: str | None = None,
    subject: str | None = None,
    withdrawal_id: UUID | None = None,
) -> int:
    """Close every open record that fits; how many there were. Something to fit must be given."""
    assert kind or subject or withdrawal_id, "closing everything is never meant"
    statement = update(ExceptionRecord).where(ExceptionRecord.resolved_at.is_(None))
    for column, value in (
        (ExceptionRecord.kind, kind),
        (ExceptionRecord.subject, subject),
        (ExceptionRecord.withdrawal_id, withdrawal_id),
    ):
        if value is not None:
            statement = statement.where(column == value)
    closed = session.execute(
        statement.values(resolution=resolution, resolved_by=actor, resolved_at=func.now()).returning(
            ExceptionRecord.id
        )
    )
    return len(closed.all())


def last_of(session: Session, *, kind: str, subject: str) -> ExceptionRecord | None:
    """The newest record of this kind and subject, open or closed."""
    query = select(ExceptionRecord).where(ExceptionRecord.kind == kind, ExceptionRecord.subject == subject)
    return session.scalar(query.order_by(ExceptionRecord.id.desc()).limit(1))


def tells(record: ExceptionRecord | None, theirs: dict[str, Any]) -> bool:
    """Whether everything that RazorpayX says here of its payouts stands in the record already."""
    return record is None or _words(theirs) <= _words(record.theirs).union(*map(_words, _before(record)))


def _words(theirs: dict[str, Any]) -> set[tuple[str, Outcome]]:
    """Which payouts are named, each with how it stands, as far as that matters to us."""
    named = [(one["payout_id"], one["status"]) for one in theirs.get("payouts", ())]
    if "payout_id" in theirs:
        named.append((theirs["payout_id"], theirs.get("provider_status") or theirs.get("status") or ""))
    return {(payout_id, outcome_of(status)) for payout_id, status in named}


def _before(record: ExceptionRecord) -> list[dict[str, Any]]:
    return list(record.theirs.get("before", ()))


def listing(
    session: Session,
    *,
    with_closed: bool = False,
    kind: str | None = None,
    severity: Severity | None = None,
    after: Position | None = None,
    limit: int = 200,
) -> list[ExceptionRecord]:
    """The records, the worst first, and of these what has waited longest. `after` continues behind one."""
    position = (RANK, ExceptionRecord.opened_at, ExceptionRecord.id)
    query = select(ExceptionRecord).order_by(*position).limit(limit)
    if not with_closed:
        query = query.where(ExceptionRecord.resolved_at.is_(None))
    if kind is not None:
        query = query.where(ExceptionRecord.kind == kind)
    if severity is not None:
        query = query.where(RANK.in_([severity.rank]))
    if after is not None:
        query = query.where(tuple_(*position) > tuple_(*map(literal, after)))
    return list(session.scalars(query))


def position_of(record: ExceptionRecord) -> Position:
    """Where a record stands in the listing."""
    return severities.of_kind(record.kind).rank, record.opened_at, record.id


def kinds(session: Session, *, with_closed: bool = False) -> list[str]:
    """The kinds that there are."""
    query = select(ExceptionRecord.kind).distinct().order_by(ExceptionRecord.kind)
    return list(session.scalars(query if with_closed else query.where(ExceptionRecord.resolved_at.is_(None))))


def _must_be_as_seen(record: ExceptionRecord, seen: str | None) -> None:
    if seen not in (None, as_seen(record)):
        raise Stale(f"{record.owner or 'Nobody'} has it now; look again")


def _open_one(session: Session, record_id: int) -> ExceptionRecord:
    record = session.get(ExceptionRecord, record_id, with_for_update=True)
    if record is None:
        raise NotFound(
            "No such exception record", f"There is no record {record_id}", code="exception_not_found"
        )
    if record.resolved_at is not None:
        raise Conflict(
            "Closed already",
            f"{record.resolved_by} resolved it: {record.resolution}",
            code="exception_closed",
        )
    return record
