"""The effect of a report on an attempt, as a table. Pure: it reads and writes nothing."""

from typing import Literal

from shared.providers.answers import ALIVE, Outcome
from shared.providers.registry import provider
from shared.states import LIVE, UNSETTLED, AttemptState

Effect = Literal["follow", "pay", "fail", "reverse", "confirm", "undo", "repeat", "late", "conflict"]

# (attempt's state, report's outcome) -> the report's effect
MEANING: dict[tuple[str, Outcome], Effect] = {
    **{(state, "waiting"): "follow" for state in UNSETTLED},
    **{(state, "paid"): "pay" for state in UNSETTLED},
    **{(state, "not_paid"): "fail" for state in UNSETTLED},
    **{(state, "reversed"): "fail" for state in UNSETTLED},
    (AttemptState.PAID, "waiting"): "late",
    (AttemptState.PAID, "paid"): "repeat",
    (AttemptState.PAID, "not_paid"): "conflict",
    (AttemptState.PAID, "reversed"): "reverse",
    # Refused means that there never was a payout, so a live one is the worst contradiction.
    (AttemptState.REFUSED, "waiting"): "conflict",
    (AttemptState.REFUSED, "paid"): "conflict",
    (AttemptState.REFUSED, "not_paid"): "late",
    (AttemptState.REFUSED, "reversed"): "late",
    (AttemptState.FAILED, "waiting"): "late",
    (AttemptState.FAILED, "paid"): "conflict",
    (AttemptState.FAILED, "not_paid"): "repeat",
    # A debit may be credited back after the failure (provider reference §2): not paid either way.
    (AttemptState.FAILED, "reversed"): "late",
    (AttemptState.REVERSED, "waiting"): "late",
    (AttemptState.REVERSED, "paid"): "late",
    (AttemptState.REVERSED, "not_paid"): "late",
    (AttemptState.REVERSED, "reversed"): "repeat",
}
# The effect of our own call's answer on a payment that only a webhook reported: it is confirmed, or was
# untrue.
UNCONFIRMED: dict[Outcome, Effect] = {
    "waiting": "late",
    "paid": "confirm",
    "not_paid": "undo",
    "reversed": "reverse",  # paid and already returned, which does not contradict the webhook
}


def meaning(
    state: str,
    outcome: Outcome,
    *,
    completed_by_people: bool,
    unconfirmed: bool = False,
    reported_status: str | None = None,
) -> Effect:
    """Return the effect of a report on an attempt.

    `completed_by_people`: the withdrawal is completed and none of its attempts was paid, so two operators
    decided it; a late report of another end may contradict them. `unconfirmed`: only a webhook reported the
    payment. `reported_status`: the status that the provider reported last. If it contradicted the attempt's
    end, operators have acted on it, so every further report of an end is a conflict. A live payout is also a
    conflict where operators, and not the provider, decided that the money came back.
    """
    if unconfirmed and state == AttemptState.PAID:
        return UNCONFIRMED[outcome]
    effect = MEANING[AttemptState(state), outcome]
    reported_reversed = reported_status is not None and provider().outcome_of(reported_status) == "reversed"
    if state == AttemptState.REVERSED and outcome in ALIVE and not reported_reversed:
        return "conflict"
    contradicted_by = contradiction(state, reported_status)
    if effect in ("late", "repeat") and outcome not in ("waiting", contradicted_by):
        return "conflict" if contradicted_by or (completed_by_people and effect == "late") else effect
    return effect


def contradiction(state: str, reported_status: str | None) -> Outcome | None:
    """Return the outcome last reported of an ended attempt if it contradicts that end; otherwise None."""
    if reported_status is None or AttemptState(state) in LIVE:
        return None
    outcome = provider().outcome_of(reported_status)
    lives_after_reversal = state == AttemptState.REVERSED and outcome in ALIVE
    is_conflict = lives_after_reversal or MEANING[AttemptState(state), outcome] == "conflict"
    return outcome if is_conflict else None
