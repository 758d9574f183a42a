"""The list of withdrawals: search, filters, order, export, and the selection for bulk actions."""

from typing import Any

from flask import redirect, request, url_for

from api import query_parameters
from api.admin import audit_writer, csv_export, list_filters
from api.admin.bulk import BULK_ACTIONS, MAX_SELECTED
from api.admin.list_filters import WithdrawalFilters
from api.admin.page import Page, route
from shared.db.transactions import transaction
from shared.errors import BadRequest
from shared.providers.failures import POLICIES
from shared.roles import Role
from shared.states import Reason
from shared.withdrawals import search

PAGE_ROWS = MAX_SELECTED  # a whole page can be selected
ALL = "all"  # the value of `pick` that selects a whole page: the panel has no scripts to do so


class Withdrawals(Page):
    """`/admin/withdrawals/`."""

    title = "Withdrawals"
    endpoint_name = "withdrawals"

    @route("/", Role.VIEWER)
    def index(self) -> Any:
        """One page of the list."""
        form = WithdrawalFilters.submitted()
        if form.q.data and form.q.validate(form):
            with transaction() as session:
                withdrawal_id = search.find_by_id(session, form.q.data)
            if withdrawal_id is not None:
                return redirect(url_for("withdrawal.index", withdrawal_id=withdrawal_id))
        try:
            filters = form.filters()
            page = search.search(filters, limit=PAGE_ROWS, after=list_filters.position(filters))
        except BadRequest as error:
            return self._show(form, search.SearchPage(), fault=f"{error.error}: {error.details}."), 400
        return self._show(form, page, filters=filters)

    @route("/export.csv", Role.OPERATOR)
    def export(self) -> Any:
        """The whole filtered list as CSV."""
        filters = WithdrawalFilters.submitted().filters()
        audit_writer.write("export", **list_filters.audit_details(filters))
        return csv_export.withdrawals_response(filters)

    def _show(self, form: WithdrawalFilters, page: search.SearchPage, **about: Any) -> Any:
        typed = form.query()
        cursor = request.args.get("cursor")
        form.reason.suggestions = [*Reason, *POLICIES]
        form.hold.suggestions = [search.ANY_HOLD]
        return self.render(
            "withdrawals.html",
            title=self.title,
            form=form,
            typed=typed,
            page=page,
            here=_address(typed, cursor),
            all_here=_address(typed, cursor, pick=ALL),
            all_selected=request.args.get("pick") == ALL,
            next=query_parameters.encode_cursor(*page.next) if page.next else None,
            bulk=BULK_ACTIONS,
            **about,
        )


def _address(typed: dict[str, str], cursor: str | None, **more: str) -> str:
    """The address of this page of this list."""
    query: dict[str, Any] = {**typed, "cursor": cursor, **more}
    return url_for("withdrawals.index", **query)
