"""Webhooks: a hint with a signature. Whoever holds the secret can write one, so it moves nothing by itself.

It makes us ask: the payout by its id where a call of ours named one, else all payouts of the reference. The
answer enters by the one door (`reporting.py`), and that alone moves coins. The question stands beside what
the withdrawal waits for: no hint puts off a poll, sends anything, or changes what is known.

One thing a webhook may do at once: complete a payout of which our own call said that it exists and is on its
way. Nothing is given back then, and nothing sent; a call of ours confirms it soon (`rechecking.py`).
"""

import json
from functools import partial
from uuid import UUID

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.orm import Session

from shared import pace, queues, switches
from shared.db import on_commit
from shared.ids import parse_id
from shared.models import Hint, PayoutAttempt, Withdrawal
from shared.razorpayx.answers import PROGRESS, PayoutReport
from shared.settings import settings
from shared.states import AttemptState
from shared.steps import LookUp, Poll
from shared.withdrawals import effects, journey, reporting

# So often it is asked because of one hint: the provider's lists may be a moment behind its webhooks.
ASKED_FOR_ONE = 3
# The first wait between two such questions for one attempt. Each wait doubles, up to an hour, until one of
# them brings news: a hint that comes a thousand times costs a few calls.
HINT_SECONDS, MOST_SECONDS = 5, 3600
# Unanswered, it is asked again, but not for ever: polls, rechecks and reconciliation go on all the while.
GIVE_UP_AFTER = 20

TAKE = text("""
    INSERT INTO hints (attempt_id, withdrawal_id, said, by_reference, due_at)
    VALUES (:attempt_id, :withdrawal_id, :said, :by_reference, now() + make_interval(secs => :seconds))
    ON CONFLICT (attempt_id) DO UPDATE SET
        said = excluded.said, last_at = now(), came = hints.came + 1, by_reference = excluded.by_reference,
        due_at = coalesce(hints.due_at, greatest(excluded.due_at, hints.asked_at + make_interval(
            secs => least(:first * 2 ^ least(greatest(hints.asked - 1, 0), 20), :most))))
    RETURNING due_at <= now()
""")
WAITING = select(Hint.due_at.is_not(None)).where(Hint.attempt_id == bindparam("attempt_id"))
DUE = (
    select(Hint)
    .where(Hint.withdrawal_id == bindparam("withdrawal_id"), Hint.due_at <= func.now(), ~pace.is_long())
    .order_by(Hint.due_at)
    .limit(1)
)


def take_hint(session: Session, report: PayoutReport) -> str:
    """Take what a webhook says. Returns what came of it:

    `hinted` (we ask), `crowded` (so many hints wait that this one is left to the next poll), `pay`
    (completed), `late` or `repeat` (known, or older than what is known), `unmatched`.
    """
    withdrawal, attempt = reporting.find(session, report)
    if withdrawal is None or attempt is None:
        return "unmatched"
    judged = reporting.judge(session, withdrawal, attempt, report)
    if not _would_change_something(attempt, report, judged):
        return {"follow": "late", "confirm": "repeat"}.get(judged.effect, judged.effect)
    if judged.effect == "pay" and _is_believed(session, withdrawal, attempt, report):
        return reporting.act(session, withdrawal, attempt, report, effects.WEBHOOK)
    return _ask(session, withdrawal, attempt, report)


def claim(session: Session, withdrawal_id: UUID) -> LookUp | Poll | None:
    """The question that a hint is due for, if any; under a lease, so that one who dies asks nothing away."""
    withdrawal = session.scalar(
        select(Withdrawal)
        .where(Withdrawal.id == withdrawal_id, Hint.withdrawal_id == Withdrawal.id, Hint.due_at <= func.now())
        .with_for_update(skip_locked=True, of=Withdrawal)
    )
    if withdrawal is None:
        return None
    hint = session.scalar(DUE, {"withdrawal_id": withdrawal_id, **pace.bounds()})
    if hint is None:
        return None
    attempt = session.get_one(PayoutAttempt, hint.attempt_id, populate_existing=True)
    # By id and by reference in turn, beginning with what the hint was about.
    by_reference = hint.by_reference == (hint.asked % 2 == 0)
    hint.asked, hint.asked_at = hint.asked + 1, func.now()
    # A question that ends in an error of ours each time is asked on, but seldom.
    seconds = settings().lease_seconds if hint.asked <= GIVE_UP_AFTER else MOST_SECONDS
    hint.due_at = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    if by_reference or attempt.payout_id is None:
        account_number = json.loads(attempt.request_body)["account_number"]
        return LookUp(withdrawal.id, attempt.id, account_number, attempt.checks, hint.came)
    return Poll(
        withdrawal.id, attempt.id, attempt.payout_id, withdrawal.amount_paise, attempt.checks, hint.came
    )


def settle(session: Session, step: LookUp | Poll, told: str | None, *, is_news: bool) -> None:
    """The question was asked. `told`: the status that the answer named, None when it named none."""
    hint = session.get_one(Hint, step.attempt_id, with_for_update=True, populate_existing=True)
    if is_news:
        hint.asked = 0
    if hint.came == step.hints and (is_news or told == hint.said):
        hint.due_at = None
        return
    # More hints came meanwhile, or the answer was none, or not what the hint said.
    most = GIVE_UP_AFTER if told is None else ASKED_FOR_ONE
    more = hint.came != step.hints or hint.asked < most
    seconds = min(HINT_SECONDS * 2 ** max(hint.asked - 1, 0), MOST_SECONDS)
    hint.due_at = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds) if more else None


def _would_change_something(attempt: PayoutAttempt, report: PayoutReport, judged: reporting.Judged) -> bool:
    """Whether the report would do anything if it were the provider's own word."""
    if judged.effect == "follow":
        known = PROGRESS.get(attempt.provider_status or "", 0)
        return attempt.state != AttemptState.ACCEPTED or PROGRESS[report.status] > known
    if judged.effect == "repeat":
        return effects.tells_more(attempt, report)
    return judged.effect not in ("late", "confirm")  # a second webhook confirms nothing


def _is_believed(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport
) -> bool:
    """Whether "processed" counts at once: a call of ours named this very payout for this very attempt.

    Not while its bank's switch is off or counts bad answers: what ends a pause must be the provider's word.
    """
    return (
        attempt.state == AttemptState.ACCEPTED
        and attempt.payout_id == report.payout_id
        and parse_id(report.reference_id or "") == attempt.id
        and not journey.is_blocked(withdrawal)
        and not switches.troubled(session, switches.of_payouts_to(withdrawal.upi_id))
    )


def _ask(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport) -> str:
    is_waiting = session.scalar(WAITING, {"attempt_id": attempt.id})
    seconds = 0.0 if is_waiting else pace.take_hint_turn(session)
    if seconds is None:
        return "crowded"
    is_due = session.scalar(
        TAKE,
        {
            "attempt_id": attempt.id,
            "withdrawal_id": withdrawal.id,
            "said": report.status,
            "by_reference": attempt.payout_id != report.payout_id,
            "seconds": seconds,
            "first": HINT_SECONDS,
            "most": MOST_SECONDS,
        },
    )
    if not is_waiting:
        told = {"payout_id": report.payout_id, "provider_status": report.status}
        journey.note(session, withdrawal, "hinted", actor=effects.WEBHOOK, attempt_id=str(attempt.id), **told)
    if is_due:
        on_commit(session, partial(_nudge, withdrawal.id))
    return "hinted"


def _nudge(withdrawal_id: UUID) -> None:
    queues.nudge(queues.POLL, withdrawal_id)
