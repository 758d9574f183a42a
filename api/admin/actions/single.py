"""What one operator can do alone: add a note, cancel, retry, query."""

from uuid import UUID

from api.admin.actions.base import REASON, Action, ActionContext, ActionInput
from shared import withdrawals
from shared.coins import wallet
from shared.money import grouped, rupees_text
from shared.states import Status, operator_message
from shared.withdrawals import operate


def _why_not_cancel(context: ActionContext) -> str | None:
    status = context.withdrawal.status
    return None if status == Status.PENDING else f"It is {status}"


def _describe_cancel(context: ActionContext) -> list[str]:
    coins = context.withdrawal.coins_amount
    user_id = context.withdrawal.user_id
    balance = wallet.find(context.session, user_id).balance_coins
    return [
        f"{context.rupees} is not paid to {context.payee}.",
        f"{context.coins} coins return to {user_id} at once.",
        f"The balance changes from {grouped(balance)} to {grouped(balance + coins)} coins.",
        "The user can read the reason.",
    ]


def _cancel(withdrawal_id: UUID, entered: ActionInput) -> str:
    withdrawal, balance = withdrawals.cancel(
        withdrawal_id, reason=entered.reason, actor=entered.actor, version=entered.version
    )
    coins = grouped(withdrawal.coins_amount)
    return (
        f"Cancelled. {rupees_text(withdrawal.amount_paise)} is not paid; {coins} coins are back in the "
        f"wallet, and the balance is {grouped(balance)} coins."
    )


def _describe_note(_: ActionContext) -> list[str]:
    return ["Operators see the note in the timeline. The user does not see it, and nothing else changes."]


def _add_note(withdrawal_id: UUID, entered: ActionInput) -> str:
    withdrawals.add_note(withdrawal_id, entered.reason, actor=entered.actor, version=entered.version)
    return "Note added."


def _why_not_retry(context: ActionContext) -> str | None:
    return operate.why_not_retry(context.session, context.withdrawal)


def _describe_retry(context: ActionContext) -> list[str]:
    return [
        f"{context.rupees} is sent to {context.payee} as soon as a worker is free, {_key(context)}.",
        f"Current reason: {operator_message(context.withdrawal.status_reason)}",
        "While payouts are paused, it keeps waiting.",
    ]


def _key(context: ActionContext) -> str:
    if context.attempt is not None:
        return "with the same key, so it cannot be paid twice"
    attempts = operate.count_attempts(context.session, context.withdrawal)
    if attempts:
        return (
            f"as attempt {attempts + 1} with a new key, because the previous attempt ended without a payment"
        )
    return "for the first time"


def _retry(withdrawal_id: UUID, entered: ActionInput) -> str:
    withdrawals.retry_now(withdrawal_id, reason=entered.reason, actor=entered.actor, version=entered.version)
    return "The withdrawal is due now."


def _why_not_query(context: ActionContext) -> str | None:
    return operate.why_not_query(context.session, context.withdrawal)


def _describe_query(context: ActionContext) -> list[str]:
    return [
        f"The system queries RazorpayX for the result of {context.rupees} to {context.payee}, or sends the "
        "same request with the same key again, which cannot pay twice.",
        "The result is applied as usual: a payment completes the withdrawal, and a definite failure returns "
        "the coins.",
    ]


def _query(withdrawal_id: UUID, entered: ActionInput) -> str:
    withdrawals.query_now(withdrawal_id, reason=entered.reason, actor=entered.actor, version=entered.version)
    return "RazorpayX is queried now."


ACTIONS = (
    Action(
        "note",
        title="Add note",
        prompt="Note",
        why_not=lambda _: None,
        describe=_describe_note,
        run=_add_note,
    ),
    Action(
        "cancel",
        title="Cancel withdrawal",
        bulk_title="Cancel selected",
        prompt=REASON,
        why_not=_why_not_cancel,
        describe=_describe_cancel,
        run=_cancel,
    ),
    Action(
        "retry",
        title="Retry now",
        prompt=REASON,
        why_not=_why_not_retry,
        describe=_describe_retry,
        run=_retry,
    ),
    Action(
        "ask",
        title="Query RazorpayX now",
        prompt=REASON,
        why_not=_why_not_query,
        describe=_describe_query,
        run=_query,
    ),
)
