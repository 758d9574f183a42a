"""The only entry for provider reports on a payout: from a reply, a poll, a look-up or reconciliation.

Reports arrive early, twice, late and out of order. A table maps each to its effect (`report_meaning.py`).
A report that would move money against an end that we already acted on moves nothing and holds the
withdrawal for operators. A webhook is only a hint (`hints.py`): of all effects, it may only complete a
payout that our own call named.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Text, Uuid, or_, select
from sqlalchemy.orm import Session

from shared.db import batches
from shared.db.batches import Query, any_of, columns, require_alone
from shared.ids import parse_id
from shared.models import PayoutAttempt, Withdrawal
from shared.providers.answers import ALIVE, PayoutReport
from shared.states import AttemptState, Status
from shared.withdrawals import circuit_breakers, corrections, effects, paid_outside, transitions
from shared.withdrawals.report_meaning import Effect, contradiction, meaning

# Channels of our own calls, whose answers are evidence. A webhook is not (`hints.py`).
OWN_CALLS = frozenset({"reply", "poll", "lookup", "reconciliation"})

MATCHES_REPORT = or_(
    PayoutAttempt.id == any_of("references", Uuid),
    PayoutAttempt.payout_id == any_of("payout_ids", Text),
)
_reported = (
    select(*columns(Withdrawal))
    .where(Withdrawal.id.in_(select(PayoutAttempt.withdrawal_id).where(MATCHES_REPORT)))
    .order_by(Withdrawal.id)
)
LOCK = Query(_reported.with_for_update())
LOCK_FREE = Query(_reported.with_for_update(skip_locked=True))
ATTEMPTS = Query(select(*columns(PayoutAttempt)).where(MATCHES_REPORT))
ATTEMPTS_OF = Query(
    select(PayoutAttempt.payout_id, PayoutAttempt.id).where(
        PayoutAttempt.payout_id == any_of("payout_ids", Text)
    )
)
KNOWN = "payouts"
Found = tuple[Withdrawal | None, PayoutAttempt | None]


@dataclass(frozen=True, slots=True)
class Assessment:
    """A report's effect, and the contradiction that shows it cannot be about the payout that we know."""

    effect: Effect
    contradiction: str | None = None


def queries(reports: Iterable[PayoutReport]) -> list[tuple[str, dict[str, Any]]]:
    """Return the queries for what `assess` compares these reports with; `remember` keeps their rows."""
    reports = list(reports)
    utrs = sorted({report.utr for report in reports if report.utr})
    payout_ids = sorted({report.payout_id for report in reports})
    return [ATTEMPTS_OF(payout_ids=payout_ids), paid_outside.WITHDRAWALS_OF(utrs=utrs)]


def remember(
    session: Session,
    reports: Iterable[PayoutReport],
    attempts: Iterable[Sequence[Any]],
    withdrawals: Iterable[Sequence[Any]],
) -> None:
    """Keep the rows of `queries` for this transaction."""
    reports = list(reports)
    session.info[KNOWN] = {
        **{report.payout_id: None for report in reports},
        **{row[0]: row[1] for row in attempts},
    }
    utrs = sorted({report.utr for report in reports if report.utr})
    paid_outside.remember(session, utrs, withdrawals)


def apply_report(session: Session, report: PayoutReport, channel: str) -> str:
    """Apply a report from one of our own calls, all or nothing, in the caller's transaction.

    Returns its Effect, or `unmatched` if no attempt has this reference or payout id.
    """
    assert channel in OWN_CALLS, "webhooks enter through hints.py"
    require_alone(session)  # it may be about another withdrawal, whose lock comes too late
    ((withdrawal, attempt),), _ = find_attempts(session, [report])
    if withdrawal is None or attempt is None:
        return "unmatched"
    return apply_to_attempt(session, withdrawal, attempt, report, channel)


def assess(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport
) -> Assessment:
    """Return the effect that a report has as evidence. Reads only; the caller holds the withdrawal's lock."""
    fault = _mismatch(session, withdrawal, attempt, report)
    if fault:
        return Assessment("conflict", fault)
    effect = meaning(
        attempt.state,
        report.outcome,
        completed_by_people=_is_completed_by_people(session, withdrawal, attempt),
        unconfirmed=attempt.unconfirmed,
        reported_status=attempt.provider_status,
    )
    if effect in ("reverse", "undo") and transitions.is_on_hold(withdrawal):
        effect = "conflict"  # another payout of it may have been paid: operators decide about the coins
    if effect in ("repeat", "reverse") and _is_another_payment(withdrawal, attempt, report):
        effect = "conflict"
    already_reported = contradiction(attempt.state, attempt.provider_status) == report.outcome == "paid"
    if effect == "conflict" and already_reported and corrections.is_taken_back(session, withdrawal):
        effect = "repeat"  # two operators have already taken the coins back for this payout
    return Assessment(effect)


def apply_to_attempt(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport, channel: str
) -> Effect:
    """Apply the report's effect to its attempt and withdrawal."""
    assessment = assess(session, withdrawal, attempt, report)
    evidence: dict[str, Any] = {
        "attempt_id": str(attempt.id),
        "payout_id": report.payout_id,
        "provider_status": report.status,
        "details": report.details or None,
    }
    if assessment.effect == "conflict":
        _hold_conflict(session, withdrawal, attempt, report, assessment.contradiction, channel, evidence)
    elif assessment.effect == "follow":
        effects.follow(session, withdrawal, attempt, report, channel, evidence)
    elif assessment.effect in ("pay", "fail", "reverse", "undo"):
        effects.end_attempt(session, withdrawal, attempt, report, channel, evidence)
    elif assessment.effect == "confirm":
        effects.confirm(session, withdrawal, attempt, report, channel, evidence)
    elif assessment.effect == "late" and attempt.unconfirmed:
        effects.open_exception(session, withdrawal, effects.NOT_CONFIRMED, channel, evidence)
    elif assessment.effect == "repeat" and effects.adds_information(attempt, report):
        effects.add_information(session, withdrawal, attempt, report, channel, evidence)
    return assessment.effect


def _hold_conflict(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    fault: str | None,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    """Hold the withdrawal for operators; if its coins were refunded and a payout lives, freeze the wallet."""
    if fault:
        evidence |= {"amount_paise": report.amount_paise, "reference_id": report.reference_id}
    else:
        fault = f"{report.status}_after_{attempt.state}"
        evidence |= {"utr": report.utr}
        effects.keep_contradiction(attempt, report)
    transitions.hold(session, withdrawal, fault, actor=channel, **evidence)
    if report.outcome in ALIVE:
        effects.freeze_if_refunded(session, withdrawal)


def ids_in(reports: Iterable[PayoutReport]) -> dict[str, Any]:
    """Return the values for MATCHES_REPORT: our references and the payout ids in these reports."""
    reports = list(reports)
    references = {parse_id(report.reference_id or "") for report in reports}
    return {
        "references": [reference for reference in references if reference],
        "payout_ids": sorted({report.payout_id for report in reports}),
    }


def find_attempts(
    session: Session,
    reports: Sequence[PayoutReport],
    *more: tuple[str, dict[str, Any]],
    skip_locked: bool = False,
) -> tuple[list[Found], list[list[tuple[Any, ...]]]]:
    """Return the attempt that each report is about, by our reference first, under its withdrawal's lock.

    With `skip_locked`, an attempt whose withdrawal another transaction holds comes without it. Also runs
    `more` queries and returns their rows.
    """
    ids = ids_in(reports)
    withdrawals, rows, breakers, known_payouts, known_utrs, *others = batches.read(
        session,
        (LOCK_FREE if skip_locked else LOCK)(**ids),
        ATTEMPTS(**ids),
        circuit_breakers.READ_NOT_CLOSED(),
        *queries(reports),
        *more,
    )
    circuit_breakers.remember(session, breakers)
    remember(session, reports, known_payouts, known_utrs)
    locked = {row.id: row for row in batches.attach(session, Withdrawal, withdrawals)}
    attempts = batches.attach(session, PayoutAttempt, rows)
    by_id = {attempt.id: attempt for attempt in attempts}
    by_payout_id = {attempt.payout_id: attempt for attempt in attempts}
    found: list[Found] = []
    for report in reports:
        reference = parse_id(report.reference_id or "")
        attempt = (by_id.get(reference) if reference else None) or by_payout_id.get(report.payout_id)
        found.append((locked.get(attempt.withdrawal_id) if attempt else None, attempt))
    return found, others


def _mismatch(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport
) -> str | None:
    """Return why a report cannot be about the payout that we know; None if it can."""
    if attempt.payout_id is not None and attempt.payout_id != report.payout_id:
        return "two_payouts"
    if report.reference_id and parse_id(report.reference_id) != attempt.id:
        return "reference_differs"  # it has our payout's id under another reference
    if report.amount_paise != withdrawal.amount_paise:
        return "wrong_amount"
    utr = report.utr or attempt.utr
    if utr and utr != withdrawal.utr and paid_outside.is_utr_of_another(session, withdrawal, utr):
        return paid_outside.UTR_OF_ANOTHER  # a UTR names one payment: operators find out which one
    # If the attempt has a payout id, it is this one, and the database keeps it unique.
    if attempt.payout_id is None and _attempt_of(session, report.payout_id) is not None:
        return "payout_of_another"
    return None


def _attempt_of(session: Session, payout_id: str) -> UUID | None:
    known: dict[str, UUID | None] = session.info.get(KNOWN, {})
    if payout_id in known:
        return known[payout_id]
    return session.scalar(select(PayoutAttempt.id).where(PayoutAttempt.payout_id == payout_id))


def _is_completed_by_people(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> bool:
    if withdrawal.status != Status.COMPLETED or attempt.state == AttemptState.PAID:
        return False
    paid_attempt = select(PayoutAttempt.id).where(
        PayoutAttempt.withdrawal_id == withdrawal.id, PayoutAttempt.state == AttemptState.PAID
    )
    return session.scalar(paid_attempt) is None


def _is_another_payment(withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport) -> bool:
    """True if operators completed it under one UTR and this report is about a payment under another.

    That payment is then a second one, and its reversal refunds nothing.
    """
    if attempt.state != AttemptState.PAID or withdrawal.utr is None:
        return False
    if report.outcome == "reversed":
        return withdrawal.utr != (attempt.utr or report.utr)
    return attempt.utr is None and report.utr not in (None, withdrawal.utr)
