"""Freezing wallets and blocking payees: the changes that user_actions.py confirms."""

from typing import Any

from api.admin import sessions
from api.admin.confirm import AuditDetails, Change, Preview
from api.admin.forms import APPROVE, BLOCK, FREEZE, UNBLOCK, UNFREEZE, BlockForm, FreezeForm, UnblockForm
from api.admin.page import row_id
from shared.db.transactions import transaction
from shared.errors import NotFound
from shared.models import Block, BlockRemoval
from shared.text.fields import parse_whole_number
from shared.text.upi import mask, mask_all
from shared.withdrawals import blocks

PROPOSED = "Proposed. A second person must approve it."
TITLES = {
    FREEZE: "Freeze wallet",
    UNFREEZE: "Propose to unfreeze wallet",
    BLOCK: "Block payee",
    UNBLOCK: "Propose to unblock payee",
}
MESSAGES = {
    FREEZE: "The wallet of {} is frozen.",
    UNFREEZE: PROPOSED,
    BLOCK: "{} is blocked.",
    UNBLOCK: PROPOSED,
}
SECOND_PERSON = "Nothing changes until a second person approves. Then:"
UNSENT = "Withdrawals that are not sent yet need approval first. Sent payments are still followed up."
STILL_NEED_APPROVAL = "Withdrawals that need approval because of this still need it."

AnyForm = FreezeForm | BlockForm | UnblockForm


def shown_payee(payee: str) -> str:
    """A handle or a user id as it is, a UPI id masked."""
    return payee if payee.startswith("@") or "@" not in payee else mask(payee)


def find_block(block_id: str) -> Block:
    """The open block of a payee with this id. Raises NotFound."""
    with transaction() as session:
        block = session.get(Block, row_id(parse_whole_number(block_id) or 0))
    if block is None or block.kind != blocks.UPI_ID or block.removed_at is not None:
        raise NotFound("Not blocked", "This block does not exist, or has ended", code="block_not_found")
    return block


def block_change(
    form: AnyForm,
    subject: str,
    *,
    shown: str,
    back: str,
    hidden: dict[str, str],
    block: Block | None = None,
) -> Change:
    """Freeze or block `subject`, or propose the end of it. Pages and the audit log name it as `shown`.

    `block` is the row that the operator chose: masked, two payees may look the same.
    """
    action = form.action.data

    def preview() -> Preview:
        _require_possible(action, subject)
        effects = _effects(action, subject)
        if block is not None:
            effects.append(f"{block.added_by} blocked it: {mask_all(block.reason)}")
        title = TITLES[action]
        return Preview(title=title, effects=effects, hidden={"word": action, **hidden})

    def run(reason: str, _: AuditDetails) -> str:
        change: Any = {
            FREEZE: blocks.freeze,
            UNFREEZE: blocks.propose_unfreeze,
            BLOCK: blocks.add,
            UNBLOCK: blocks.propose_unblock,
        }[action]
        with transaction() as session:
            change(session, subject, reason=reason, actor=sessions.actor())
        return MESSAGES[action].format(shown)

    return Change(
        action=action,
        subject=shown,
        reason=form.reason.data,
        back=back,
        run=run,
        preview=preview,
        audit_details={"block": form["block"].data if "block" in form else None},
    )


def _require_possible(action: str, subject: str) -> None:
    """Raises BadRequest, NotFound before the operator confirms what cannot be done."""
    if action == BLOCK:
        blocks.parse_payee(subject)
    if action == UNBLOCK:
        with transaction() as session:
            blocks.find(session, subject)


def _effects(action: str, subject: str) -> list[str]:
    shown = shown_payee(subject)
    return {
        FREEZE: [
            f"{subject} cannot request withdrawals.",
            UNSENT,
            "The coins stay in the wallet; credits and refunds still arrive.",
        ],
        UNFREEZE: [SECOND_PERSON, f"{subject} can request withdrawals again.", STILL_NEED_APPROVAL],
        BLOCK: [f"No user can request a payment to {shown}.", UNSENT],
        UNBLOCK: [SECOND_PERSON, f"Users can request payments to {shown} again.", STILL_NEED_APPROVAL],
    }[action]


def removal_decision(removal: BlockRemoval, block: Block, action: str, back: str) -> Change:
    """Approve or reject the proposed end of a freeze or a block."""
    is_wallet = block.kind == blocks.WALLET
    title = f"{action.capitalize()} to {'unfreeze wallet' if is_wallet else 'unblock payee'}"
    shown = shown_payee(block.subject)

    def preview() -> Preview:
        effects = [f"{removal.proposed_by} proposed this: {mask_all(removal.reason)}"]
        if action == APPROVE:
            verb = "froze" if is_wallet else "blocked"
            effects.append(f"{block.added_by} {verb} it: {mask_all(block.reason)}")
            effects += _effects(UNFREEZE if is_wallet else UNBLOCK, block.subject)[1:]
        else:
            effects.append(f"{shown} stays {'frozen' if is_wallet else 'blocked'}.")
        return Preview(title=title, button=action.capitalize(), effects=effects, hidden={"word": action})

    def run(_: str, __: AuditDetails) -> str:
        decide = blocks.approve if action == APPROVE else blocks.reject
        with transaction() as session:
            decide(session, removal.id, actor=sessions.actor())
        if action != APPROVE:
            return "Rejected. Nothing has changed."
        return f"{shown} can request withdrawals again." if is_wallet else f"{shown} is no longer blocked."

    return Change(
        action=f"unblock_{action}",
        subject=removal.id,
        back=back,
        run=run,
        preview=preview,
        audit_details={"block": block.id},
    )
