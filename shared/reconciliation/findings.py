"""Record each finding once, close records that no longer apply, and respect people's explanations."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.transactions import transaction
from shared.ids import parse_id
from shared.models import ExceptionRecord, PayoutAttempt
from shared.people import exception_records
from shared.providers.answers import ALIVE
from shared.reconciliation import diff
from shared.reconciliation.diff import Finding, Pair
from shared.withdrawals import effects, queries, transitions

SOURCE = "reconciliation"
SYSTEM = "system"

# What a run must have seen to close a record of each kind: its pair, a debit or credit line of it, or its
# line.
PAIR_KINDS = frozenset(
    {
        diff.AMOUNT_DIFFERS,
        diff.STATUS_DIFFERS,
        diff.UTR_DIFFERS,
        diff.FEES_DIFFER,
        diff.REFERENCE_DIFFERS,
        diff.REVERSED_NOT_REFUNDED,
        diff.UNKNOWN_TO_US,
    }
)
DEBIT_KINDS = frozenset({diff.PAYOUT_WITHOUT_DEBIT, diff.DEBIT_DIFFERS})
CREDIT_KINDS = frozenset({diff.CREDIT_MISSING, diff.CREDIT_DIFFERS})
LINE_KINDS = frozenset({diff.DEBIT_WITHOUT_PAYOUT, diff.CREDIT_UNEXPLAINED})


def record_finding(finding: Finding) -> int | None:
    """Open a record for a finding, or find its open one, and return its id. None if a person has closed a
    record with the same facts.
    """
    with transaction() as session:
        last = _last_record(session, finding)
        if last is not None and last.resolved_at is not None and _is_explained(session, last, finding):
            return None
        if finding.needs_hold and finding.withdrawal_id and not _is_recorded(last, finding):
            _hold_withdrawal(session, finding, finding.withdrawal_id)
        return exception_records.open_record(
            session,
            kind=finding.kind,
            subject=finding.subject,
            source=SOURCE,
            ours=finding.ours,
            theirs=finding.theirs,
            withdrawal_id=finding.withdrawal_id,
        )


def close_resolved(pairs: Iterable[Pair], utrs: Iterable[str], found: set[tuple[str, str]]) -> int:
    """Close open records of earlier runs that this run checked and did not find. Returns their number."""
    with transaction() as session:
        open_records = session.scalars(
            select(ExceptionRecord).where(
                ExceptionRecord.resolved_at.is_(None), ExceptionRecord.source == SOURCE
            )
        ).all()
        not_found = [record for record in open_records if (record.kind, record.subject) not in found]
        if not not_found:
            return 0
        rechecked = _rechecked(pairs, utrs, {record.subject for record in not_found})
        return sum(
            exception_records.close_all(
                session,
                kind=record.kind,
                subject=record.subject,
                resolution="A later comparison found both sides in agreement",
                actor=SOURCE,
            )
            for record in not_found
            if (record.kind, record.subject) in rechecked
        )


def _is_recorded(last: ExceptionRecord | None, finding: Finding) -> bool:
    """True if an open record already contains all of the finding."""
    is_open = last is not None and last.resolved_at is None
    return is_open and exception_records.is_reported(last, finding.theirs)


def _hold_withdrawal(session: Session, finding: Finding, withdrawal_id: UUID) -> None:
    """Hold the withdrawal, as `apply_report` would: nothing is sent and no coins move until people decide."""
    withdrawal = queries.find(session, withdrawal_id, lock=True)
    theirs = {key: value for key, value in finding.theirs.items() if key != "statement"}
    attempt_id = finding.ours.get("attempt_id")
    transitions.hold(session, withdrawal, finding.kind, actor=SOURCE, attempt_id=attempt_id, **theirs)
    _update_attempt(session, finding)
    if finding.report is not None and finding.report.outcome in ALIVE:
        effects.freeze_if_refunded(session, withdrawal)


def _update_attempt(session: Session, finding: Finding) -> None:
    """Store the report on its attempt: people now act on it, so the next report is compared with it."""
    attempt_id = parse_id(finding.ours.get("attempt_id") or "")
    attempt = session.get(PayoutAttempt, attempt_id) if attempt_id else None
    if attempt is not None and finding.report is not None and not finding.theirs.get("beside"):
        effects.keep_contradiction(attempt, finding.report)


def _is_explained(session: Session, record: ExceptionRecord, finding: Finding) -> bool:
    """True if a person, not the system, closed this record and its facts are still the same."""
    if record.resolved_by in (SOURCE, SYSTEM):
        return False
    later = select(ExceptionRecord.id).where(
        ExceptionRecord.withdrawal_id == record.withdrawal_id, ExceptionRecord.id > record.id
    )
    if finding.needs_hold and record.withdrawal_id and session.scalar(later.limit(1)):
        return False  # there was another record since, so this finding is a new one
    if not finding.needs_hold:
        return record.ours == finding.ours and record.theirs == finding.theirs
    # `apply_report` may have written the record, with fewer fields and other names.
    status = record.theirs.get("provider_status") or record.theirs.get("status")
    recorded_ids = _payout_ids(record.theirs)
    is_same_status = len(recorded_ids) > 1 or status == finding.theirs["status"]
    return _payout_ids(finding.theirs) == recorded_ids and is_same_status


def _payout_ids(theirs: dict[str, Any]) -> set[str]:
    return {theirs.get("payout_id", ""), *theirs.get("beside", ())}


def _last_record(session: Session, finding: Finding) -> ExceptionRecord | None:
    query = select(ExceptionRecord).where(
        ExceptionRecord.kind == finding.kind, ExceptionRecord.subject == finding.subject
    )
    return session.scalar(query.order_by(ExceptionRecord.id.desc()).limit(1))


def _rechecked(pairs: Iterable[Pair], utrs: Iterable[str], subjects: set[str]) -> set[tuple[str, str]]:
    """The records about these subjects that this run would have found again, as kind and subject."""
    rechecked = {(diff.UTR_TWICE, utr) for utr in utrs if utr in subjects}
    for pair in pairs:
        if pair.theirs and pair.theirs.id in subjects:
            rechecked |= {(kind, pair.theirs.id) for kind in PAIR_KINDS}
            if pair.is_complete or pair.debit_paise:
                rechecked |= {(kind, pair.theirs.id) for kind in DEBIT_KINDS}
            if pair.is_complete or pair.credit_paise:
                rechecked |= {(kind, pair.theirs.id) for kind in CREDIT_KINDS}
        if pair.ours and str(pair.ours.attempt_id) in subjects:
            rechecked.add((diff.UNKNOWN_TO_THEM, str(pair.ours.attempt_id)))
        rechecked |= {(kind, line.id) for line in pair.lines if line.id in subjects for kind in LINE_KINDS}
    return rechecked
