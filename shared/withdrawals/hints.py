"""A webhook is a hint: it makes us query the provider. Anyone with the secret can sign one, so it moves no
coins.

We query the payout by its id if one of our calls named it, otherwise all payouts of the reference. Only the
answer, through `apply_report.py`, moves coins. The query is independent of what the withdrawal waits for: a
hint never delays a poll, sends anything, or changes what we know.

The one exception: a webhook may complete a payout at once if our own call reported that it exists and is on
its way. That sends and refunds nothing, and our own call confirms it soon (`rechecks.py`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from shared.db import batches
from shared.db.batches import Query, columns
from shared.db.transactions import now, on_commit
from shared.ids import parse_id
from shared.models import Hint, PayoutAttempt, Withdrawal
from shared.providers import rate_limit
from shared.providers.answers import PayoutReport
from shared.providers.registry import provider
from shared.providers.steps import LookUp, Poll, Step
from shared.queues import messages
from shared.settings import settings
from shared.states import AttemptState
from shared.withdrawals import attempts, circuit_breakers, effects, rechecks, transitions
from shared.withdrawals.apply_report import (
    MATCHES_REPORT,
    Assessment,
    apply_to_attempt,
    assess,
    find_attempts,
    ids_in,
)
from shared.withdrawals.cases import IDS

HINTED = "hinted"
# Our own call is under way. For so long its answer is awaited, which says more than the webhook.
UNDER_WAY = "under_way"
ANSWER_SECONDS = 2.0
QUERIES_PER_HINT = 3  # more than one, because the provider's lists may lag behind its webhooks
# The wait between two such queries for one attempt doubles until one of them changes something, so a hint
# that arrives a thousand times costs a few calls.
FIRST_WAIT_SECONDS = 5
MAX_WAIT_SECONDS = 3600
WAITS = {"first_wait": FIRST_WAIT_SECONDS, "max_wait": MAX_WAIT_SECONDS}
MAX_UNANSWERED_QUERIES = 20  # then give up: polls, rechecks and reconciliation continue anyway

UPSERT_HINTS = text("""
    INSERT INTO hints (attempt_id, withdrawal_id, said, by_reference, came, due_at)
    SELECT attempt_id, withdrawal_id, said, by_reference, came, now() + make_interval(secs => seconds)
    FROM json_to_recordset(CAST(:rows AS json)) AS new (attempt_id uuid, withdrawal_id uuid, said text,
                                                        by_reference boolean, came integer, seconds float8)
    ON CONFLICT (attempt_id) DO UPDATE SET
        said = excluded.said, last_at = now(), came = hints.came + excluded.came,
        by_reference = excluded.by_reference,
        due_at = coalesce(hints.due_at, greatest(excluded.due_at, hints.asked_at + make_interval(
            secs => least(:first_wait * 2 ^ least(greatest(hints.asked - 1, 0), 20), :max_wait))))
    RETURNING withdrawal_id, due_at <= now() AS is_due
""")
PENDING = Query(
    select(Hint.attempt_id)
    .join(PayoutAttempt, PayoutAttempt.id == Hint.attempt_id)
    .where(Hint.due_at.is_not(None), MATCHES_REPORT)
)
_is_due = (Hint.withdrawal_id == IDS) & (Hint.due_at <= func.now())
LOCK_HINTED = Query(
    select(*columns(Withdrawal))
    .where(Withdrawal.id.in_(select(Hint.withdrawal_id).where(_is_due)))
    .order_by(Withdrawal.id)
    .with_for_update(skip_locked=True)
)
DUE = Query(
    select(*columns(Hint))
    .where(_is_due, ~rate_limit.is_backed_up(provider().code))
    .ext(distinct_on(Hint.withdrawal_id))
    .order_by(Hint.withdrawal_id, Hint.due_at)
)
OF_ATTEMPTS = Query(select(*columns(Hint)).where(Hint.attempt_id == IDS))
ATTEMPTS = Query(
    select(*columns(PayoutAttempt)).where(PayoutAttempt.id.in_(select(Hint.attempt_id).where(_is_due)))
)


def handle_hints(
    session: Session, reports: Sequence[PayoutReport], *, skip_locked: bool = False, patient: bool = False
) -> list[tuple[str | None, UUID | None]]:
    """Process the reports in webhooks; returns the outcome of each, and the id of its withdrawal.

    `hinted`: a query is scheduled. `crowded`: too many hints are pending, so the next poll must do. `pay`:
    the withdrawal is completed. `late`, `repeat`: nothing new. `unmatched`: no attempt has this reference or
    id. None, with `skip_locked`: another transaction holds the withdrawal. `under_way`, if `patient`: nothing
    was done, because a worker has just sent the payout and will soon record the answer.
    """
    if not reports:
        return []
    found, (pending,) = find_attempts(session, reports, PENDING(**ids_in(reports)), skip_locked=skip_locked)
    is_pending = {attempt_id for (attempt_id,) in pending}
    questions: dict[UUID, _Question] = {}
    outcomes: list[tuple[str | None, UUID | None]] = []
    for report, (withdrawal, attempt) in zip(reports, found, strict=True):
        if attempt is None:
            outcomes.append(("unmatched", None))
        elif withdrawal is None:
            outcomes.append((None, attempt.withdrawal_id))
        elif patient and _is_under_way(session, attempt):
            outcomes.append((UNDER_WAY, withdrawal.id))
        else:
            outcome = _handle(session, withdrawal, attempt, report)
            if outcome == HINTED:
                question = questions.setdefault(attempt.id, _Question(withdrawal, attempt))
                question.reports.append(report)
            outcomes.append((outcome, withdrawal.id))
    crowded = _schedule_queries(session, questions, is_pending)
    return [
        ("crowded" if outcome == HINTED and key in crowded else outcome, key) for outcome, key in outcomes
    ]


@dataclass(slots=True)
class _Question:
    """What webhooks say about an attempt, which a query of our own is to confirm."""

    withdrawal: Withdrawal
    attempt: PayoutAttempt
    reports: list[PayoutReport] = field(default_factory=list)


def _handle(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport) -> str:
    assessment = assess(session, withdrawal, attempt, report)
    if not _would_change_anything(attempt, report, assessment):
        return {"follow": "late", "confirm": "repeat"}.get(assessment.effect, assessment.effect)
    if assessment.effect == "pay" and _may_complete(session, withdrawal, attempt, report):
        return apply_to_attempt(session, withdrawal, attempt, report, effects.WEBHOOK)
    return HINTED


def claim(session: Session, ids: Sequence[UUID]) -> list[Step]:
    """Claim a due query for each of these withdrawals, under a lease: if the worker dies, it is repeated."""
    if not ids:
        return []
    hinted, due, of_hints = batches.read(
        session, LOCK_HINTED(ids=ids), DUE(ids=ids, **rate_limit.backlog_bounds()), ATTEMPTS(ids=ids)
    )
    withdrawals = {row.id: row for row in batches.attach(session, Withdrawal, hinted)}
    attempt_of = {row.id: row for row in batches.attach(session, PayoutAttempt, of_hints)}
    return [
        _query(session, withdrawals[hint.withdrawal_id], attempt_of[hint.attempt_id], hint)
        for hint in batches.attach(session, Hint, due)
        if hint.withdrawal_id in withdrawals
    ]


def _query(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, hint: Hint) -> LookUp | Poll:
    # Alternate between id and reference, beginning with the one that the hint named.
    by_reference = hint.by_reference == (hint.asked % 2 == 0)
    hint.asked += 1
    hint.asked_at = now(session)
    # A query that always ends in an error of ours is repeated, but rarely.
    seconds = settings().lease_seconds if hint.asked <= MAX_UNANSWERED_QUERIES else MAX_WAIT_SECONDS
    hint.due_at = now(session) + timedelta(seconds=seconds)
    if by_reference or attempt.payout_id is None:
        account_number = provider().account_of(attempt.request_body)
        return LookUp(withdrawal.id, attempt.id, account_number, attempt.queries, hint.came)
    return rechecks.poll_step(withdrawal, attempt, hint_count=hint.came)


def record_query(
    session: Session, step: LookUp | Poll, reported_status: str | None, *, changed: bool
) -> None:
    """Record a query for a hint: close the hint, or schedule another query.

    `reported_status` is the status in the answer, None without an answer; `changed` if the answer changed
    anything.
    """
    hint = session.get_one(Hint, step.attempt_id)  # it changes under its withdrawal's lock
    if changed:
        hint.asked = 0
    if hint.came == step.hint_count and (changed or reported_status == hint.said):
        hint.due_at = None
        return
    # More hints arrived since, or there was no answer, or it differs from the hint.
    max_queries = MAX_UNANSWERED_QUERIES if reported_status is None else QUERIES_PER_HINT
    query_again = hint.came != step.hint_count or hint.asked < max_queries
    seconds = min(FIRST_WAIT_SECONDS * 2 ** max(hint.asked - 1, 0), MAX_WAIT_SECONDS)
    hint.due_at = now(session) + timedelta(seconds=seconds) if query_again else None


def _is_under_way(session: Session, attempt: PayoutAttempt) -> bool:
    is_old = attempts.is_older(session, attempt.last_sent_at, ANSWER_SECONDS)
    return attempt.state == AttemptState.SENDING and not is_old


def _would_change_anything(attempt: PayoutAttempt, report: PayoutReport, assessment: Assessment) -> bool:
    """True if the report would change anything if one of our own calls returned it."""
    if assessment.effect == "follow":
        known = provider().progress_of(attempt.provider_status)
        return attempt.state != AttemptState.ACCEPTED or report.progress > known
    if assessment.effect == "repeat":
        return effects.adds_information(attempt, report)
    return assessment.effect not in ("late", "confirm")  # a second webhook confirms nothing


def _may_complete(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport
) -> bool:
    """True if "processed" counts at once: our own call named this payout for this attempt.

    Not while a breaker for this UPI id is open or counts failures: only our own calls may close a breaker.
    """
    return (
        attempt.state == AttemptState.ACCEPTED
        and attempt.payout_id == report.payout_id
        and parse_id(report.reference_id or "") == attempt.id
        and not transitions.is_on_hold(withdrawal)
        and not circuit_breakers.unhealthy_breakers(session, circuit_breakers.breakers_for(withdrawal.upi_id))
    )


def _schedule_queries(
    session: Session, questions: Mapping[UUID, _Question], is_pending: set[UUID]
) -> set[UUID]:
    """Schedule these queries in one statement; returns the withdrawals for which too many are pending."""
    new = [question for key, question in questions.items() if key not in is_pending]
    with session.no_autoflush:  # `save` writes what changed, all rows at once
        slots = rate_limit.take_hint_slots(session, len(new))
    seconds = {question.attempt.id: slot for question, slot in zip(new, slots, strict=False)}
    rows = [
        _hint_row(question, seconds.get(key, 0.0))
        for key, question in questions.items()
        if key in seconds or key in is_pending
    ]
    if rows:
        with session.no_autoflush:
            stored = session.execute(UPSERT_HINTS, {"rows": json.dumps(rows), **WAITS})
        if due := [str(row.withdrawal_id) for row in stored if row.is_due]:
            on_commit(session, partial(_nudge, due))
    for question in new[: len(slots)]:
        first = question.reports[0]
        hint = {"payout_id": first.payout_id, "provider_status": first.status}
        attempt_id = str(question.attempt.id)
        transitions.record(
            session, question.withdrawal, "hinted", actor=effects.WEBHOOK, attempt_id=attempt_id, **hint
        )
    return {question.withdrawal.id for question in new[len(slots) :]}


def _hint_row(question: _Question, seconds: float) -> dict[str, object]:
    last = question.reports[-1]
    return {
        "attempt_id": str(question.attempt.id),
        "withdrawal_id": str(question.withdrawal.id),
        "said": last.status,
        "by_reference": question.attempt.payout_id != last.payout_id,
        "came": len(question.reports),
        "seconds": seconds,
    }


def _nudge(withdrawal_ids: Sequence[str]) -> None:
    # As few as payouts: a list answers no hints, so each is a call.
    messages.nudge_batches(messages.POLL, withdrawal_ids, size=messages.batch_size(messages.SUBMIT))
