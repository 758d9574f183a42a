"""All that waits for a second person: the front page shows the oldest of it and leads here."""

from typing import Any

from api import parameters
from api.admin.page import Page, opens
from shared import adjusting
from shared.db import transaction
from shared.roles import Role
from shared.withdrawals import resolving

PAGE_ROWS = 50


class SecondPerson(Page):
    """`/admin/second-person/`: decisions about withdrawals, and coins. Each leads to where it is decided."""

    title, endpoint_name, in_menu = "For a second person", "second_person", False

    @opens("/", Role.VIEWER)
    def index(self) -> Any:
        """Every decision about a withdrawal that was proposed, oldest first."""
        with transaction() as session:
            rows = resolving.all_waiting(session, after=parameters.position(), limit=PAGE_ROWS + 1)
        shown = rows[:PAGE_ROWS]
        last = shown[-1][0] if len(rows) > PAGE_ROWS else None
        return self.render(
            "proposals.html",
            title="Decisions that wait for a second person",
            proposals=shown,
            next=parameters.cursor(last.proposed_at, last.id) if last else None,
        )

    @opens("/coins/", Role.VIEWER)
    def coins(self) -> Any:
        """All coins that were proposed, oldest first."""
        with transaction() as session:
            rows = adjusting.waiting(session, after=parameters.position(), limit=PAGE_ROWS + 1)
        shown = rows[:PAGE_ROWS]
        return self.render(
            "proposals.html",
            title="Coins that wait for a second person",
            adjustments=shown,
            next=parameters.cursor(shown[-1].proposed_at, shown[-1].id) if len(rows) > PAGE_ROWS else None,
        )
