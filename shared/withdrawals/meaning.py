"""What a report means for an attempt, as a table. Pure: nothing is read, nothing is written."""

from typing import Literal

from shared.razorpayx.answers import ALIVE, REVERSED, Outcome, outcome_of
from shared.states import LIVE, UNSETTLED, AttemptState

Effect = Literal["follow", "pay", "fail", "reverse", "confirm", "undo", "repeat", "late", "conflict"]

# (how the attempt stands, what the report says) -> what the report does
MEANING: dict[tuple[str, Outcome], Effect] = {
    **{(state, "waiting"): "follow" for state in UNSETTLED},
    **{(state, "paid"): "pay" for state in UNSETTLED},
    **{(state, "not_paid"): "fail" for state in UNSETTLED},
    **{(state, "reversed"): "fail" for state in UNSETTLED},
    (AttemptState.PAID, "waiting"): "late",
    (AttemptState.PAID, "paid"): "repeat",
    (AttemptState.PAID, "not_paid"): "conflict",
    (AttemptState.PAID, "reversed"): "reverse",
    # Refused means that there never was a payout: one that lives is news of the worst kind.
    (AttemptState.REFUSED, "waiting"): "conflict",
    (AttemptState.REFUSED, "paid"): "conflict",
    (AttemptState.REFUSED, "not_paid"): "late",
    (AttemptState.REFUSED, "reversed"): "late",
    (AttemptState.FAILED, "waiting"): "late",
    (AttemptState.FAILED, "paid"): "conflict",
    (AttemptState.FAILED, "not_paid"): "repeat",
    # A debit may be credited back after the failure (razorpayx.md §2): not paid either way.
    (AttemptState.FAILED, "reversed"): "late",
    (AttemptState.REVERSED, "waiting"): "late",
    (AttemptState.REVERSED, "paid"): "late",
    (AttemptState.REVERSED, "not_paid"): "late",
    (AttemptState.REVERSED, "reversed"): "repeat",
}
# What our own call says of a payment that only a webhook told of: it is confirmed, or was never true.
UNCONFIRMED: dict[Outcome, Effect] = {
    "waiting": "late",
    "paid": "confirm",
    "not_paid": "undo",
    "reversed": "reverse",  # paid, and back already: nothing in that speaks against the webhook
}


def meaning(
    state: str,
    outcome: Outcome,
    *,
    on_peoples_word: bool,
    unconfirmed: bool = False,
    told: str | None = None,
) -> Effect:
    """What a report does to an attempt.

    `on_peoples_word`: its withdrawal is completed, and no attempt of it was paid. Then two people said what
    was, and news that it ended otherwise may be about just that. `unconfirmed`: only a webhook said that it
    was paid. `told`: the status that RazorpayX named last. Where that spoke against how it ended, people have
    acted on it, so each further word about its end is theirs to hear. So is a payout that lives where people,
    and not RazorpayX, said that the money came back.
    """
    if unconfirmed and state == AttemptState.PAID:
        return UNCONFIRMED[outcome]
    effect = MEANING[AttemptState(state), outcome]
    if state == AttemptState.REVERSED and outcome in ALIVE and told != REVERSED:
        return "conflict"
    contradicted_by = contradiction(state, told)
    if effect in ("late", "repeat") and outcome not in ("waiting", contradicted_by):
        return "conflict" if contradicted_by or (on_peoples_word and effect == "late") else effect
    return effect


def contradiction(state: str, told: str | None) -> Outcome | None:
    """What was last told of an attempt that has ended, where it speaks against that end; else None."""
    if told is None or AttemptState(state) in LIVE:
        return None
    outcome = outcome_of(told)
    is_over = state == AttemptState.REVERSED and outcome in ALIVE
    return outcome if is_over or MEANING[AttemptState(state), outcome] == "conflict" else None
