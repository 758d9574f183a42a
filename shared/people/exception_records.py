"""Exception records: what does not add up, with both sides of the evidence, an owner and an age.

Opening one moves no money. It stays open until an operator records the resolution, or until the system closes
it because the cause is gone (`close_all`). The same finding again updates the open record; there is never a
second.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, func, literal, literal_column, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.errors import Conflict, NotFound, Stale
from shared.models import ExceptionRecord
from shared.people import audit, severities
from shared.people.severities import Severity
from shared.providers.answers import Outcome
from shared.providers.registry import provider

Position = tuple[int, datetime, int]  # in the listing: severity rank, opened at, record id
RANK = literal_column(severities.RANK, Integer)
SUPERSEDED = "A newer report replaces it"
MAX_EARLIER_REPORTS = 20  # how many reports of replaced records a record keeps


def open_record(
    session: Session,
    *,
    kind: str,
    subject: str,
    source: str,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    withdrawal_id: UUID | None = None,
    update_sides: bool = False,
    replaces: ExceptionRecord | None = None,
) -> int:
    """Open a record and return its id; if one of this kind and subject is open, mark it as seen again.

    Its sides stay as they were first seen, because operators decide by them. `update_sides` replaces them: of
    a changing number, such as a missing sum, only the latest helps. If `replaces` is open, it is closed and
    the new record takes over its owner and its earlier reports.
    """
    if replaces is not None and replaces.resolved_at is None:
        return _replace(
            session,
            replaces,
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
        set_={"seen_at": func.now(), **({"ours": ours, "theirs": theirs} if update_sides else {})},
    )
    return int(session.execute(statement.returning(ExceptionRecord.id)).scalar_one())


def _replace(session: Session, old: ExceptionRecord, **values: Any) -> int:
    """Close a record and open the one that replaces it."""
    session.refresh(old, with_for_update=True)
    old.resolution = SUPERSEDED
    old.resolved_by = "system"
    old.resolved_at = func.now()
    session.flush()  # only one record of a kind and subject may be open
    record_id = open_record(session, **values, update_sides=True)
    new = session.get_one(ExceptionRecord, record_id, populate_existing=True)
    report = {name: value for name, value in old.theirs.items() if name != "before"}
    earlier = [*_earlier_reports(old), {"record": old.id, "kind": old.kind, **report}]
    new.theirs = {**new.theirs, "before": earlier[-MAX_EARLIER_REPORTS:]}
    new.owner = old.owner
    new.owned_at = old.owned_at
    old.resolution = f"{SUPERSEDED}: #{record_id}"
    session.flush()
    return record_id


def assign(session: Session, record_id: int, *, owner: str, version: str | None = None) -> ExceptionRecord:
    """Assign the record to `owner`.

    Raises NotFound, Conflict (closed), Stale (no longer this `version`, see `version_of`).
    """
    record = _lock_open(session, record_id)
    _require_version(record, version)
    previous_owner = record.owner
    record.owner = owner
    record.owned_at = func.now()
    session.flush()
    if previous_owner not in (None, owner):
        audit.record_change(
            session,
            "exception_taken_over",
            subject=f"#{record_id}",
            actor=owner,
            reason=None,
            before={"owner": previous_owner},
            after={"owner": owner},
        )
    return record


def version_of(record: ExceptionRecord) -> str:
    """Return a short text that changes with the record, so that an operator acts on what they saw."""
    return f"{record.owner} {record.owned_at.isoformat() if record.owned_at else ''} {record.resolved_by}"


def close(
    session: Session, record_id: int, *, resolution: str, actor: str, version: str | None = None
) -> ExceptionRecord:
    """Record the resolution. This moves no money: use `withdrawals.propose` for that.

    Raises NotFound, Conflict (already closed), Stale (no longer this `version`).
    """
    record = _lock_open(session, record_id)
    _require_version(record, version)
    record.resolution = resolution
    record.resolved_by = actor
    record.resolved_at = func.now()
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
    """Close every open record that matches; returns how many. At least one condition is required."""
    assert kind or subject or withdrawal_id, "name the records to close"
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


def latest(session: Session, *, kind: str, subject: str) -> ExceptionRecord | None:
    """Return the newest record of this kind and subject, open or closed."""
    query = select(ExceptionRecord).where(ExceptionRecord.kind == kind, ExceptionRecord.subject == subject)
    return session.scalar(query.order_by(ExceptionRecord.id.desc()).limit(1))


def is_reported(record: ExceptionRecord | None, theirs: dict[str, Any]) -> bool:
    """True if the record, or one that it replaced, already holds every payout and outcome reported here."""
    if record is None:
        return True
    return _payouts(theirs) <= _payouts(record.theirs).union(*map(_payouts, _earlier_reports(record)))


def _payouts(theirs: dict[str, Any]) -> set[tuple[str, Outcome]]:
    """Return the payouts in a report, each with its outcome."""
    statuses = [(payout["payout_id"], payout["status"]) for payout in theirs.get("payouts", ())]
    if "payout_id" in theirs:
        statuses.append((theirs["payout_id"], theirs.get("provider_status") or theirs.get("status") or ""))
    return {(payout_id, provider().outcome_of(status)) for payout_id, status in statuses}


def _earlier_reports(record: ExceptionRecord) -> list[dict[str, Any]]:
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
    """Return the records, by severity, then by age. `after` continues after one."""
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
    """Return a record's position in the listing."""
    return severities.severity_of(record.kind).rank, record.opened_at, record.id


def kinds(session: Session, *, with_closed: bool = False) -> list[str]:
    """Return the kinds of the records."""
    query = select(ExceptionRecord.kind).distinct().order_by(ExceptionRecord.kind)
    return list(session.scalars(query if with_closed else query.where(ExceptionRecord.resolved_at.is_(None))))


def _require_version(record: ExceptionRecord, version: str | None) -> None:
    if version not in (None, version_of(record)):
        raise Stale(f"{record.owner or 'No one'} owns it now. Reload it, then decide again")


def _lock_open(session: Session, record_id: int) -> ExceptionRecord:
    record = session.get(ExceptionRecord, record_id, with_for_update=True)
    if record is None:
        raise NotFound(
            "No such exception record", f"There is no record {record_id}", code="exception_not_found"
        )
    if record.resolved_at is not None:
        raise Conflict(
            "Already closed",
            f"{record.resolved_by} resolved it: {record.resolution}",
            code="exception_closed",
        )
    return record
