"""The forms about a user: freeze the wallet, block a UPI id, adjust coins; and the list of blocks.

Unfreezing, unblocking, and adjustments above a limit need a second person.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask import abort, request, url_for
from sqlalchemy.orm import Session

from api.admin import sessions
from api.admin.block_changes import TITLES, block_change, find_block, removal_decision, shown_payee
from api.admin.coin_changes import adjustment_decision, coins_change
from api.admin.confirm import confirm, refused
from api.admin.fields import Form
from api.admin.forms import (
    FREEZE,
    UNBLOCK,
    UNFREEZE,
    BlockForm,
    CoinsForm,
    DecisionForm,
    FreezeForm,
    UnblockForm,
)
from api.admin.page import Page, is_last_step, refusal, route
from shared.db.transactions import transaction
from shared.errors import PayoutsError
from shared.models import Adjustment, Block, BlockRemoval
from shared.roles import Permission, Role
from shared.text.upi import mask
from shared.withdrawals import blocks


class UserActions(Page):
    """`/admin/ruling/`: the targets of the forms on a user's page and on the list of blocks."""

    title = "User actions"
    endpoint_name = "ruling"
    in_menu = False

    @route("/turn/", Permission.FREEZE, methods=("POST",), needs_code=is_last_step)
    def turn(self) -> Any:
        """Freeze a wallet or block a payee, or propose the end of either."""
        if request.form.get("word") in (FREEZE, UNFREEZE):
            return self._freeze(FreezeForm.submitted())
        if request.form.get("block"):
            return self._unblock(UnblockForm.submitted())
        return self._block(BlockForm.submitted())

    def _freeze(self, form: FreezeForm) -> Any:
        user_id = form.subject.data
        back = _user_url(user_id)
        try:
            form.require_valid()
            hidden = {"subject": user_id}
            return confirm(self, block_change(form, user_id, shown=user_id, back=back, hidden=hidden))
        except PayoutsError as error:
            return self._form_again("freeze", TITLES[form.action.data], form, error, back)

    def _block(self, form: BlockForm) -> Any:
        payee = form.subject.data
        back = url_for("blocks.index")
        try:
            form.require_valid()
            shown = payee if payee.startswith("@") else mask(payee)
            return confirm(self, block_change(form, payee, shown=shown, back=back, hidden={"subject": payee}))
        except PayoutsError as error:
            return self._form_again("block", "Block or unblock payee", form, error, back)

    def _unblock(self, form: UnblockForm) -> Any:
        back = url_for("blocks.index")
        try:
            block = find_block(form.block.data)
        except PayoutsError as error:
            return refused(error, back)
        try:
            form.require_valid()
            shown = shown_payee(block.subject)
            hidden = {"block": form.block.data}
            change = block_change(form, block.subject, shown=shown, back=back, hidden=hidden, block=block)
            return confirm(self, change)
        except PayoutsError as error:
            return self._unblock_form(form, block, error)

    @route("/unblock/<int:block_id>/", Permission.FREEZE)
    def unblock(self, block_id: int) -> Any:
        """The form that proposes to unblock a payee whose UPI id is masked on the list."""
        block = find_block(str(block_id))
        return self._unblock_form(UnblockForm(action=UNBLOCK, block=str(block.id)), block)

    def _unblock_form(self, form: UnblockForm, block: Block, error: PayoutsError | None = None) -> Any:
        title = f"Unblock {shown_payee(block.subject)}"
        fault = refusal(error) if error else None
        page = self.render("unblock.html", title=title, form=form, block=block, fault=fault)
        return page, error.http_status if error else 200

    @route("/lift/<uuid:removal_id>/", Permission.FREEZE, methods=("POST",), needs_code=is_last_step)
    def lift(self, removal_id: UUID) -> Any:
        """Approve or reject the proposed end of a freeze or a block."""
        with transaction() as session:
            removal = session.get(BlockRemoval, removal_id)
            block = session.get_one(Block, removal.block_id) if removal else None
        if removal is None or block is None:
            abort(404)
        back = _user_url(block.subject) if block.kind == blocks.WALLET else url_for("blocks.index")
        form = DecisionForm.submitted()
        try:
            form.require_valid()
            return confirm(self, removal_decision(removal, block, form.action.data, back))
        except PayoutsError as error:
            return refused(error, back)

    @route("/coins/", Permission.COINS, methods=("POST",), needs_code=is_last_step)
    def coins(self) -> Any:
        """Give coins to a user, or take some."""
        form = CoinsForm.submitted()
        back = _user_url(form.subject.data)
        try:
            form.require_valid()
            return confirm(self, coins_change(form, back))
        except PayoutsError as error:
            return self._form_again("coins", "Adjust coins", form, error, back)

    @route("/coins/<uuid:adjustment_id>/", Permission.COINS, methods=("POST",), needs_code=is_last_step)
    def decide(self, adjustment_id: UUID) -> Any:
        """Approve or reject a proposed adjustment."""
        with transaction() as session:
            adjustment = session.get(Adjustment, adjustment_id)
        if adjustment is None:
            abort(404)
        back = _user_url(adjustment.user_id)
        form = DecisionForm.submitted()
        try:
            form.require_valid()
            return confirm(self, adjustment_decision(adjustment, form.action.data, back))
        except PayoutsError as error:
            return refused(error, back)

    def _form_again(self, macro: str, title: str, form: Form, error: PayoutsError, back: str) -> Any:
        """The form with what was typed and the error. `macro` renders it, in user_forms.html."""
        fault = refusal(error)
        page = self.render("user_form.html", macro=macro, title=title, form=form, fault=fault, back=back)
        return page, error.http_status


class Blocks(Page):
    """`/admin/blocks/`: blocked UPI ids and handles, and frozen wallets."""

    title = "Blocks"
    endpoint_name = "blocks"

    @route("/", Role.VIEWER)
    def index(self) -> Any:
        """Each block with its time, its operator and its reason."""
        with transaction() as session:
            return self.render(
                "blocks.html",
                title=self.title,
                payees=blocks.listing(session),
                wallets=blocks.listing(session, kind=blocks.WALLET),
                removals=with_refusals(session, blocks.open_removals(session)),
                form=BlockForm(),
            )


def with_refusals(
    session: Session, removals: Sequence[tuple[BlockRemoval, Block]]
) -> list[tuple[BlockRemoval, Block, str | None]]:
    """Each removal with the reason why the operator may not approve it; None if they may."""
    return [
        (removal, block, blocks.why_not_approve(session, removal, block, sessions.actor()))
        for removal, block in removals
    ]


def _user_url(user_id: str) -> str:
    return url_for("users.index", user=user_id)
