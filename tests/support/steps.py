"""The worker's verbs one by one: for one withdrawal, which is a batch of one, or for several."""

from collections.abc import Sequence
from uuid import UUID

from shared import withdrawals
from shared.providers.answers import Answer
from shared.providers.steps import Step
from shared.withdrawals import expectations, inbox
from shared.withdrawals.bring_on import Work


def claim(withdrawal_id: UUID) -> Step | None:
    """Claim the next step of one withdrawal."""
    return next(iter(withdrawals.claim([withdrawal_id])), None)


def record_answer(step: Step, answer: Answer) -> Step | None:
    """Record the answer to one step; returns the step that follows at once."""
    return next(iter(withdrawals.record_answers([(step, answer)])), None)


def claim_all(withdrawal_ids: Sequence[UUID]) -> list[Step]:
    """Claim the next steps of these withdrawals together, as a worker does."""
    work = Work()
    claimed = work.each(withdrawal_ids, withdrawals.claim, of=lambda key: key)
    work.raise_first_error()
    return claimed


def record_all(answers: Sequence[tuple[Step, Answer]]) -> list[Step]:
    """Record these answers together, as a worker does; returns the steps that follow at once."""
    work = Work()
    following = work.each(answers, withdrawals.record_answers, of=lambda pair: pair[0].withdrawal_id)
    work.raise_first_error()
    return following


def apply(event_id: str) -> str | None:
    """Apply one stored webhook; None if there was nothing to do."""
    return inbox.apply([event_id]).get(event_id)


def sweep() -> None:
    """The work that beat starts every few seconds, as if the last time was long ago."""
    withdrawals.sweep()
    expectations._rest_until = 0.0
    withdrawals.mark_as_paced()
