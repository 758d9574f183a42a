"""Findings become exception records, once; what is no longer so is closed; what people explained stays so."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import exception_records
from shared.db import transaction
from shared.ids import parse_id
from shared.models import ExceptionRecord, PayoutAttempt
from shared.razorpayx.answers import ALIVE
from shared.reconciliation import comparing
from shared.reconciliation.comparing import Finding, Pair
from shared.withdrawals import effects, journey, reading

SOURCE = "reconciliation"
SYSTEM = "system"

# What each kind of record needs to be judged anew: any look at its pair will do, or its line must be there.
OF_A_PAIR = frozenset(
    {
        comparing.AMOUNT,
        comparing.STATUS,
        comparing.UTR,
        comparing.FEES,
        comparing.REFERENCE,
        comparing.NOT_REFUNDED,
        comparing.UNKNOWN_TO_US,
    }
)
OF_ITS_DEBIT = frozenset({comparing.NO_DEBIT, comparing.DEBIT})
OF_ITS_CREDIT = frozenset({comparing.NO_CREDIT, comparing.CREDIT})
OF_A_LINE = frozenset({comparing.DEBIT_ALONE, comparing.CREDIT_ALONE})


def settle(finding: Finding) -> int | None:
    """The open record of a finding, made if need be; None when people have closed one of the same facts."""
    with transaction() as session:
        last = _last(session, finding)
        if last is not None and last.resolved_at is not None and _is_explained(session, last, finding):
            return None
        if finding.stops and finding.withdrawal_id and not _is_told(last, finding):
            _stop(session, finding, finding.withdrawal_id)
        return exception_records.open_record(
            session,
            kind=finding.kind,
            subject=finding.subject,
            source=SOURCE,
            ours=finding.ours,
            theirs=finding.theirs,
            withdrawal_id=finding.withdrawal_id,
        )


def close_what_is_over(pairs: Iterable[Pair], utrs: Iterable[str], found: set[tuple[str, str]]) -> int:
    """Close the records of earlier runs that this one looked at and did not find; how many there were."""
    with transaction() as session:
        # Few: only what is open.
        waiting = session.scalars(
            select(ExceptionRecord).where(
                ExceptionRecord.resolved_at.is_(None), ExceptionRecord.source == SOURCE
            )
        ).all()
        over = [record for record in waiting if (record.kind, record.subject) not in found]
        if not over:
            return 0
        looked_at = _looked_at(pairs, utrs, {record.subject for record in over})
        return sum(
            exception_records.close_all(
                session,
                kind=record.kind,
                subject=record.subject,
                resolution="A later comparison found both sides in agreement",
                actor=SOURCE,
            )
            for record in over
            if (record.kind, record.subject) in looked_at
        )


def _is_told(last: ExceptionRecord | None, finding: Finding) -> bool:
    """Whether an open record says all of it already."""
    is_open = last is not None and last.resolved_at is None
    return is_open and exception_records.tells(last, finding.theirs)


def _stop(session: Session, finding: Finding, withdrawal_id: UUID) -> None:
    """Do as the one door does: nothing is sent and no coin moves until people have decided."""
    withdrawal = reading.find(session, withdrawal_id, lock=True)
    told = {key: value for key, value in finding.theirs.items() if key != "statement"}
    attempt_id = finding.ours.get("attempt_id")
    journey.flag(session, withdrawal, finding.kind, actor=SOURCE, attempt_id=attempt_id, **told)
    _hold_against(session, finding)
    if finding.report is not None and finding.report.outcome in ALIVE:
        effects.freeze_if_refunded(session, withdrawal)


def _hold_against(session: Session, finding: Finding) -> None:
    """What people now act on is what the door holds the next word against."""
    attempt_id = parse_id(finding.ours.get("attempt_id") or "")
    attempt = session.get(PayoutAttempt, attempt_id) if attempt_id else None
    if attempt is not None and finding.report is not None and not finding.theirs.get("beside"):
        effects.hold_against(attempt, finding.report)


def _is_explained(session: Session, record: ExceptionRecord, finding: Finding) -> bool:
    """Whether a person, and not the system, closed this record, and it is about the same facts."""
    if record.resolved_by in (SOURCE, SYSTEM):
        return False
    later = select(ExceptionRecord.id).where(
        ExceptionRecord.withdrawal_id == record.withdrawal_id, ExceptionRecord.id > record.id
    )
    if finding.stops and record.withdrawal_id and session.scalar(later.limit(1)):
        return False  # something else was told since, and now this again
    if not finding.stops:
        return record.ours == finding.ours and record.theirs == finding.theirs
    # A flag's record may be the door's, which tells less and in its own words.
    status = record.theirs.get("provider_status") or record.theirs.get("status")
    payouts, known = _payouts(finding.theirs), _payouts(record.theirs)
    return payouts == known and (len(known) > 1 or status == finding.theirs["status"])


def _payouts(theirs: dict[str, Any]) -> set[str]:
    return {theirs.get("payout_id", ""), *theirs.get("beside", ())}


def _last(session: Session, finding: Finding) -> ExceptionRecord | None:
    query = select(ExceptionRecord).where(
        ExceptionRecord.kind == finding.kind, ExceptionRecord.subject == finding.subject
    )
    return session.scalar(query.order_by(ExceptionRecord.id.desc()).limit(1))


def _looked_at(pairs: Iterable[Pair], utrs: Iterable[str], subjects: set[str]) -> set[tuple[str, str]]:
    """Which kinds of records about these subjects this run could have found again."""
    known = {(comparing.UTR_TWICE, utr) for utr in utrs if utr in subjects}
    for pair in pairs:
        if pair.theirs and pair.theirs.id in subjects:
            known |= {(kind, pair.theirs.id) for kind in OF_A_PAIR}
            if pair.whole or pair.debit_paise:
                known |= {(kind, pair.theirs.id) for kind in OF_ITS_DEBIT}
            if pair.whole or pair.credit_paise:
                known |= {(kind, pair.theirs.id) for kind in OF_ITS_CREDIT}
        if pair.ours and str(pair.ours.attempt_id) in subjects:
            known.add((comparing.UNKNOWN_TO_THEM, str(pair.ours.attempt_id)))
        known |= {(kind, line.id) for line in pair.lines if line.id in subjects for kind in OF_A_LINE}
    return known
