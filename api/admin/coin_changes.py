"""Coin adjustments and the decisions on them: the changes that user_actions.py confirms."""

from api.admin import sessions
from api.admin.confirm import AuditDetails, Change, Preview
from api.admin.fields import incomplete_form
from api.admin.forms import APPROVE, CoinsForm
from api.admin.page import is_last_step
from api.admin.template_filters import signed
from shared.coins import adjustments, wallet
from shared.db.transactions import transaction
from shared.ids import new_id, parse_id
from shared.models import Adjustment
from shared.money import coins_to_paise, grouped, rupees_text
from shared.settings import settings

AT_ONCE = "It happens at once."


def coins_change(form: CoinsForm, back: str) -> Change:
    """Give coins to a user or take some; above a limit, propose it. Raises BadRequest without the key."""
    user_id = form.subject.data
    coins = form.number
    reference = form.reference.data or None
    key = parse_id(form.key.data)
    assert coins is not None, "the form is valid"
    if is_last_step() and key is None:
        raise incomplete_form()

    def preview() -> Preview:
        return Preview(
            title="Give coins" if coins > 0 else "Take coins",
            effects=[*_effects(user_id, coins, reference), _approval_effect(user_id, coins, reference)],
            hidden={"subject": user_id, "coins": coins, "reference": reference, "key": new_id()},
        )

    def run(reason: str, details: AuditDetails) -> str:
        assert key is not None, "checked above"
        adjustment = adjustments.propose(
            user_id, coins, reason=reason, actor=sessions.actor(), reference=reference, key=key
        )
        details["adjustment"] = str(adjustment.id)
        return _message(adjustment) if adjustment.decided_at else "Proposed. A second person must approve it."

    return Change(
        action="coins",
        subject=user_id,
        reason=form.reason.data,
        back=back,
        run=run,
        preview=preview,
        audit_details={"coins": coins},
    )


def _effects(user_id: str, coins: int, reference: str | None) -> list[str]:
    """The effects on the balance. Raises BadRequest if it would fall below zero."""
    with transaction() as session:
        owner = wallet.find(session, user_id)
        wallet.require_balance(owner, coins)
        balance = owner.balance_coins
    value = rupees_text(coins_to_paise(abs(coins), settings().coin_value_paise))
    return [
        f"{user_id} {'receives' if coins > 0 else 'loses'} {grouped(abs(coins))} coins, worth {value}.",
        f"The balance changes from {grouped(balance)} to {grouped(balance + coins)} coins.",
        "It is recorded as a credit." if reference else "It is recorded as an adjustment, not as a credit.",
    ]


def _approval_effect(user_id: str, coins: int, reference: str | None) -> str:
    with transaction() as session:
        if not adjustments.needs_two(session, user_id, coins, actor=sessions.actor(), reference=reference):
            return AT_ONCE
    max_alone = settings().adjust_alone_max_coins
    if max_alone == 0:
        return "A second person must approve it."
    return (
        f"A second person must approve it. Alone you can change {grouped(max_alone)} coins a day, never your "
        f"own; all operators together {grouped(settings().adjust_alone_sum_coins)}."
    )


def adjustment_decision(adjustment: Adjustment, action: str, back: str) -> Change:
    """Approve or reject a proposed adjustment."""
    is_approval = action == APPROVE

    def preview() -> Preview:
        effects = [
            f"{adjustment.proposed_by} proposed {signed(adjustment.coins)} coins for {adjustment.user_id}: "
            f"{adjustment.reason}"
        ]
        if is_approval:
            effects += [*_effects(adjustment.user_id, adjustment.coins, adjustment.reference), AT_ONCE]
        else:
            effects.append("The proposal is closed, and no coins move.")
        title = f"{action.capitalize()} coin adjustment"
        return Preview(title=title, button=action.capitalize(), effects=effects, hidden={"word": action})

    def run(_: str, __: AuditDetails) -> str:
        if is_approval:
            return _message(adjustments.approve(adjustment.id, actor=sessions.actor()))
        adjustments.reject(adjustment.id, actor=sessions.actor())
        return "Rejected. No coins moved."

    return Change(
        action=f"coins_{action}",
        subject=adjustment.id,
        back=back,
        run=run,
        preview=preview,
        audit_details={"coins": adjustment.coins, "user": adjustment.user_id},
    )


def _message(adjustment: Adjustment) -> str:
    verb = "were given to" if adjustment.coins > 0 else "were taken from"
    return f"{grouped(abs(adjustment.coins))} coins {verb} {adjustment.user_id}."
