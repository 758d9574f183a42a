"""Users: a wallet, its journal, and the way to the user's withdrawals."""

from typing import Any

from flask import request

from api import parameters
from api.admin import asking, door
from api.admin.page import Page, before_id, opens
from api.admin.ruling import with_refusals
from shared import adjusting, blocks, wallet
from shared.db import transaction
from shared.errors import NotFound
from shared.fields import MAX_USER_ID
from shared.roles import Role
from shared.withdrawals import history

PAGE_ROWS, LATEST = 50, 10


class Users(Page):
    """`/admin/users/?user=`: an id may have any character, so it stands behind the question mark."""

    title, endpoint_name = "Users", "users"

    @opens("/", Role.VIEWER)
    def index(self) -> Any:
        """A form for the id, and the user who has it."""
        typed = request.args.get("user", "")
        if not typed.strip() or "\x00" in typed or len(typed) > MAX_USER_ID:
            return self.render("users.html", title=self.title, user_id="")
        with transaction() as session:
            user_id = asking.user_meant(session, typed)
            try:
                found = wallet.find(session, user_id)
            except NotFound as error:
                page = self.render("users.html", title=self.title, user_id=user_id, fault=error.details)
                return page, 404
            rows = wallet.transactions(session, user_id, limit=PAGE_ROWS + 1, before_id=before_id())
            waiting = adjusting.waiting(session, user_id=user_id)
            makers = {made.proposed_by for made in waiting}
            why_not = {who: adjusting.why_not(session, user_id, who, door.actor()) for who in makers}
            frozen = blocks.of_wallet(session, user_id)
            removals = blocks.waiting(session, kind=blocks.WALLET, subject=user_id)
            lifts = with_refusals(session, removals)
            latest = history(session, user_id, limit=LATEST).withdrawals
        shown = rows[:PAGE_ROWS]
        return self.render(
            "users.html",
            title=user_id,
            user_id=user_id,
            wallet=found,
            lines=shown,
            next=parameters.cursor(shown[-1].id) if len(rows) > PAGE_ROWS else None,
            latest=latest,
            adjustments=[(made, why_not[made.proposed_by]) for made in waiting],
            frozen=frozen,
            removals=lifts,
        )
