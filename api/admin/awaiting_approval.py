"""Every proposal that awaits a second person. The dashboard shows the oldest and links here."""

from typing import Any

from api import query_parameters
from api.admin.page import Page, route
from shared.coins import adjustments
from shared.db.transactions import transaction
from shared.roles import Role
from shared.withdrawals import resolve

PAGE_ROWS = 50


class AwaitingApproval(Page):
    """`/admin/second-person/`: decisions about withdrawals, and coins. Each links to its own page."""

    title = "Awaiting a second person"
    endpoint_name = "second_person"
    in_menu = False

    @route("/", Role.VIEWER)
    def index(self) -> Any:
        """Every proposed decision about a withdrawal, oldest first."""
        with transaction() as session:
            rows = resolve.open_proposals(session, after=query_parameters.position(), limit=PAGE_ROWS + 1)
        shown = rows[:PAGE_ROWS]
        last = shown[-1][0] if len(rows) > PAGE_ROWS else None
        return self.render(
            "awaiting_approval.html",
            title="Decisions awaiting a second person",
            proposals=shown,
            next=query_parameters.encode_cursor(last.proposed_at, last.id) if last else None,
        )

    @route("/coins/", Role.VIEWER)
    def coins(self) -> Any:
        """Every proposed coin adjustment, oldest first."""
        with transaction() as session:
            rows = adjustments.open_proposals(session, after=query_parameters.position(), limit=PAGE_ROWS + 1)
        shown = rows[:PAGE_ROWS]
        return self.render(
            "awaiting_approval.html",
            title="Coin adjustments awaiting a second person",
            adjustments=shown,
            next=query_parameters.encode_cursor(shown[-1].proposed_at, shown[-1].id)
            if len(rows) > PAGE_ROWS
            else None,
        )
