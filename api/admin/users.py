"""Users: the wallet, its journal and the latest withdrawals of one user."""

from typing import Any

from api import query_parameters
from api.admin import sessions
from api.admin.forms import FREEZE, UNFREEZE, CoinsForm, FreezeForm
from api.admin.list_filters import UserSearch, existing_user_id
from api.admin.page import Page, cursor_id, route
from api.admin.user_actions import with_refusals
from shared.coins import adjustments, wallet
from shared.db.transactions import transaction
from shared.errors import NotFound
from shared.roles import Role
from shared.withdrawals import blocks, history

PAGE_ROWS = 50
LATEST_WITHDRAWALS = 10


class Users(Page):
    """`/admin/users/?user=`: an id can have any character, so it is in the query."""

    title = "Users"
    endpoint_name = "users"

    @route("/", Role.VIEWER)
    def index(self) -> Any:
        """The search form, and the user with this id."""
        form = UserSearch.submitted()
        if not form.user.data.strip() or not form.validate():
            return self.render("users.html", title=self.title, form=UserSearch())
        with transaction() as session:
            user_id = existing_user_id(session, form.user.data)
            try:
                account = wallet.find(session, user_id)
            except NotFound as error:
                page = self.render("users.html", title=self.title, form=form, fault=error.details)
                return page, 404
            rows = wallet.transactions(session, user_id, limit=PAGE_ROWS + 1, before_id=cursor_id())
            proposals = [
                (proposal, adjustments.why_not_approve(session, proposal, sessions.actor()))
                for proposal in adjustments.open_proposals(session, user_id=user_id)
            ]
            freeze = blocks.wallet_block(session, user_id)
            removals = blocks.open_removals(session, kind=blocks.WALLET, subject=user_id)
            removals_with_refusals = with_refusals(session, removals)
            latest = history(session, user_id, limit=LATEST_WITHDRAWALS).withdrawals
        shown = rows[:PAGE_ROWS]
        return self.render(
            "users.html",
            title=user_id,
            form=UserSearch(user=user_id),
            user_id=user_id,
            freeze_form=FreezeForm(action=UNFREEZE if account.is_frozen else FREEZE, subject=user_id),
            coins_form=CoinsForm(subject=user_id),
            wallet=account,
            entries=shown,
            next=query_parameters.encode_cursor(shown[-1].id) if len(rows) > PAGE_ROWS else None,
            latest=latest,
            adjustments=proposals,
            freeze=freeze,
            removals=removals_with_refusals,
        )
