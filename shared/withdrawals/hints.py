"""A webhook is a hint: it makes us query the provider. Anyone with the secret can sign one, so it moves no
coins.

We query the payout by its id if one of our calls named it, otherwise all payouts of the reference. Only the
answer, through `apply_report.py`, moves coins. The query is independent of what the withdrawal waits for: a
hint never delays a poll, sends anything, or changes what we know.

The one exception: a webhook may complete a payout at once if our own call reported that it exists and is on
its way. That sends and refunds nothing, and our own call confirms it soon (`rechecks.py`).
"""

from functools import partial
from uuid import UUID

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.orm import Session

from shared.db.transactions import on_commit
from shared.ids import parse_id
from shared.models import Hint, PayoutAttempt, Withdrawal
from shared.providers import rate_limit
from shared.providers.answers import PayoutReport
from shared.providers.registry import provider
from shared.providers.steps import LookUp, Poll
from shared.queues import messages
from shared.settings import settings
from shared.states import AttemptState
from shared.withdrawals import circuit_breakers, effects, transitions
from shared.withdrawals.apply_report import Assessment, apply_to_attempt, assess, find_attempt

QUERIES_PER_HINT = 3  # more than one, because the provider's lists may lag behind its webhooks
# The wait between two such queries for one attempt doubles until one of them changes something, so a hint
# that arrives a thousand times costs a few calls.
FIRST_WAIT_SECONDS = 5
MAX_WAIT_SECONDS = 3600
MAX_UNANSWERED_QUERIES = 20  # then give up: polls, rechecks and reconciliation continue anyway

UPSERT_HINT = text("""
    INSERT INTO hints (attempt_id, withdrawal_id, said, by_reference, due_at)
    VALUES (:attempt_id, :withdrawal_id, :said, :by_reference, now() + make_interval(secs => :seconds))
    ON CONFLICT (attempt_id) DO UPDATE SET
        said = excluded.said, last_at = now(), came = hints.came + 1, by_reference = excluded.by_reference,
        due_at = coalesce(hints.due_at, greatest(excluded.due_at, hints.asked_at + make_interval(
            secs => least(:first_wait * 2 ^ least(greatest(hints.asked - 1, 0), 20), :max_wait))))
    RETURNING due_at <= now()
""")
IS_PENDING = select(Hint.due_at.is_not(None)).where(Hint.attempt_id == bindparam("attempt_id"))
DUE_HINT = (
    select(Hint)
    .where(
        Hint.withdrawal_id == bindparam("withdrawal_id"),
        Hint.due_at <= func.now(),
        ~rate_limit.is_backed_up(provider().code),
    )
    .order_by(Hint.due_at)
    .limit(1)
)


def handle_hint(session: Session, report: PayoutReport) -> str:
    """Process the report in a webhook and return the outcome.

    `hinted`: a query is scheduled. `crowded`: too many hints are pending, so the next poll must do. `pay`:
    the withdrawal is completed. `late`, `repeat`: nothing new. `unmatched`: no attempt has this reference or
    id.
    """
    withdrawal, attempt = find_attempt(session, report)
    if withdrawal is None or attempt is None:
        return "unmatched"
    assessment = assess(session, withdrawal, attempt, report)
    if not _would_change_anything(attempt, report, assessment):
        return {"follow": "late", "confirm": "repeat"}.get(assessment.effect, assessment.effect)
    if assessment.effect == "pay" and _may_complete(session, withdrawal, attempt, report):
        return apply_to_attempt(session, withdrawal, attempt, report, effects.WEBHOOK)
    return _schedule_query(session, withdrawal, attempt, report)


def claim(session: Session, withdrawal_id: UUID) -> LookUp | Poll | None:
    """Claim a hint's due query, if there is one, under a lease: if the worker dies, the query is repeated."""
    withdrawal = session.scalar(
        select(Withdrawal)
        .where(Withdrawal.id == withdrawal_id, Hint.withdrawal_id == Withdrawal.id, Hint.due_at <= func.now())
        .with_for_update(skip_locked=True, of=Withdrawal)
    )
    if withdrawal is None:
        return None
    hint = session.scalar(DUE_HINT, {"withdrawal_id": withdrawal_id, **rate_limit.backlog_bounds()})
    if hint is None:
        return None
    attempt = session.get_one(PayoutAttempt, hint.attempt_id, populate_existing=True)
    # Alternate between id and reference, beginning with the one that the hint named.
    by_reference = hint.by_reference == (hint.asked % 2 == 0)
    hint.asked += 1
    hint.asked_at = func.now()
    # A query that always ends in an error of ours is repeated, but rarely.
    seconds = settings().lease_seconds if hint.asked <= MAX_UNANSWERED_QUERIES else MAX_WAIT_SECONDS
    hint.due_at = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    if by_reference or attempt.payout_id is None:
        account_number = provider().account_of(attempt.request_body)
        return LookUp(withdrawal.id, attempt.id, account_number, attempt.queries, hint.came)
    return Poll(
        withdrawal.id, attempt.id, attempt.payout_id, withdrawal.amount_paise, attempt.queries, hint.came
    )


def record_query(
    session: Session, step: LookUp | Poll, reported_status: str | None, *, changed: bool
) -> None:
    """Record a query for a hint: close the hint, or schedule another query.

    `reported_status` is the status in the answer, None without an answer; `changed` if the answer changed
    anything.
    """
    hint = session.get_one(Hint, step.attempt_id, with_for_update=True, populate_existing=True)
    if changed:
        hint.asked = 0
    if hint.came == step.hint_count and (changed or reported_status == hint.said):
        hint.due_at = None
        return
    # More hints arrived since, or there was no answer, or it differs from the hint.
    max_queries = MAX_UNANSWERED_QUERIES if reported_status is None else QUERIES_PER_HINT
    query_again = hint.came != step.hint_count or hint.asked < max_queries
    seconds = min(FIRST_WAIT_SECONDS * 2 ** max(hint.asked - 1, 0), MAX_WAIT_SECONDS)
    hint.due_at = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds) if query_again else None


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


def _schedule_query(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport
) -> str:
    is_pending = session.scalar(IS_PENDING, {"attempt_id": attempt.id})
    seconds = 0.0 if is_pending else rate_limit.take_hint_slot(session)
    if seconds is None:
        return "crowded"
    is_due = session.scalar(
        UPSERT_HINT,
        {
            "attempt_id": attempt.id,
            "withdrawal_id": withdrawal.id,
            "said": report.status,
            "by_reference": attempt.payout_id != report.payout_id,
            "seconds": seconds,
            "first_wait": FIRST_WAIT_SECONDS,
            "max_wait": MAX_WAIT_SECONDS,
        },
    )
    if not is_pending:
        hint = {"payout_id": report.payout_id, "provider_status": report.status}
        transitions.record(
            session, withdrawal, "hinted", actor=effects.WEBHOOK, attempt_id=str(attempt.id), **hint
        )
    if is_due:
        on_commit(session, partial(_nudge, withdrawal.id))
    return "hinted"


def _nudge(withdrawal_id: UUID) -> None:
    messages.nudge(messages.POLL, withdrawal_id)
