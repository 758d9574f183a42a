"""The list of withdrawals: search, filters, sorting, and the way to the export and to decisions in bulk."""

from typing import Any

from flask import redirect, request, url_for

from api import parameters
from api.admin import asking, exporting, records
from api.admin.bulk import BULK, MOST
from api.admin.page import Page, opens
from shared.db import transaction
from shared.errors import BadRequest
from shared.razorpayx.reasons import POLICIES
from shared.roles import Role
from shared.states import Reason, Status
from shared.withdrawals import searching

PAGE_ROWS = MOST  # all of a page can be picked
ALL = "all"  # picked already, for those whose browser runs no script that could
ORDERS = {
    searching.NEWEST: "newest first",
    searching.OLDEST: "oldest first",
    searching.LARGEST: "largest first",
    searching.SMALLEST: "smallest first",
}


class Withdrawals(Page):
    """`/admin/withdrawals/`."""

    title, endpoint_name = "Withdrawals", "withdrawals"

    @opens("/", Role.VIEWER)
    def index(self) -> Any:
        """A page of them."""
        typed = asking.typed()
        if "q" in typed:
            with transaction() as session:
                named = searching.one(session, typed["q"])
            if named is not None:
                return redirect(url_for("withdrawal.index", withdrawal_id=named))
        try:
            wanted = asking.wanted()
            found = searching.search(wanted, limit=PAGE_ROWS, after=asking.after(wanted))
        except BadRequest as error:
            return self._shown(typed, searching.Found(), fault=f"{error.error}: {error.details}."), 400
        return self._shown(typed, found, wanted=wanted)

    @opens("/export.csv", Role.OPERATOR)
    def export(self) -> Any:
        """The whole list as a file, however long it is."""
        wanted = asking.wanted()
        records.write("export", **asking.in_words(wanted))
        return exporting.streamed(wanted)

    def _shown(self, typed: dict[str, str], found: searching.Found, **about: Any) -> Any:
        cursor = request.args.get("cursor")
        return self.render(
            "withdrawals.html",
            title=self.title,
            typed=typed,
            found=found,
            here=_address(typed, cursor),
            all_here=_address(typed, cursor, pick=ALL),
            all_picked=request.args.get("pick") == ALL,
            next=parameters.cursor(*found.next) if found.next else None,
            statuses=[(status, status) for status in Status],
            reasons=[*Reason, *POLICIES],
            orders=ORDERS.items(),
            bulk=BULK,
            **about,
        )


def _address(typed: dict[str, str], cursor: str | None, **more: str) -> str:
    """This page of this list."""
    query: dict[str, Any] = {**typed, "cursor": cursor, **more}
    return url_for("withdrawals.index", **query)
