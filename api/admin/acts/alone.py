"""What one operator does alone: note, cancel, try now, ask now."""

from uuid import UUID

from api.admin.acts.base import WHY, Act, Given, Seen
from shared import wallet, withdrawals
from shared.money import rupees_text
from shared.states import Status, for_operators
from shared.withdrawals import operating


def _only_pending(seen: Seen) -> str | None:
    return None if seen.withdrawal.status == Status.PENDING else f"It is {seen.withdrawal.status}"


def _tells_cancel(seen: Seen) -> list[str]:
    coins = seen.withdrawal.coins_amount
    balance = wallet.find(seen.session, seen.withdrawal.user_id).balance_coins
    return [
        f"{seen.rupees} to {seen.payee} will not be paid.",
        f"{coins} coins go back to {seen.withdrawal.user_id} at once: from {balance} to {balance + coins}.",
        "The user can read the reason.",
    ]


def _cancel(withdrawal_id: UUID, given: Given) -> str:
    withdrawal, balance = withdrawals.cancel(
        withdrawal_id, reason=given.reason, actor=given.actor, version=given.version
    )
    back = f"{withdrawal.coins_amount} coins are back, the balance is {balance}"
    return f"Cancelled: {rupees_text(withdrawal.amount_paise)} will not be paid; {back}."


def _tells_note(_: Seen) -> list[str]:
    return ["It stands in the story for operators. Nothing moves; the user does not see it."]


def _note(withdrawal_id: UUID, given: Given) -> str:
    withdrawals.add_note(withdrawal_id, given.reason, actor=given.actor, version=given.version)
    return "Noted."


def _tells_retry(seen: Seen) -> list[str]:
    return [
        f"{seen.rupees} to {seen.payee} is tried as soon as a worker is free, {_under_which_key(seen)}.",
        f"Until now it waits: {for_operators(seen.withdrawal.status_reason)}",
        "While payouts are paused it goes on waiting.",
    ]


def _under_which_key(seen: Seen) -> str:
    if seen.attempt is not None:
        return "with the same key, so it cannot be paid twice"
    before = operating.number_of_attempts(seen.session, seen.withdrawal)
    if before:
        return f"as attempt {before + 1} with a new key: the one before it ended without a payment"
    return "for the first time"


def _retry(withdrawal_id: UUID, given: Given) -> str:
    withdrawals.retry_now(withdrawal_id, reason=given.reason, actor=given.actor, version=given.version)
    return "It is due now."


def _tells_ask(seen: Seen) -> list[str]:
    return [
        f"RazorpayX is asked now what became of {seen.rupees} to {seen.payee}: by a look-up, "
        "or with the same key and bytes once more, which cannot pay twice.",
        "Its answer is recorded as always: a payment completes it, a definite failure gives the coins back.",
    ]


def _ask(withdrawal_id: UUID, given: Given) -> str:
    withdrawals.ask_now(withdrawal_id, reason=given.reason, actor=given.actor, version=given.version)
    return "RazorpayX is asked now."


ACTS = (
    Act("note", "Add a note", "Note", lambda _: None, _tells_note, _note),
    Act("cancel", "Cancel", WHY, _only_pending, _tells_cancel, _cancel, in_bulk=True),
    Act(
        "retry",
        "Try now",
        WHY,
        lambda seen: operating.cannot_retry(seen.session, seen.withdrawal),
        _tells_retry,
        _retry,
    ),
    Act(
        "ask",
        "Ask RazorpayX now",
        WHY,
        lambda seen: operating.cannot_ask(seen.session, seen.withdrawal),
        _tells_ask,
        _ask,
    ),
)
