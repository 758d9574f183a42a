"""Reconciliation runs and their results."""

from typing import Any

from flask import abort
from sqlalchemy import select

from api import query_parameters
from api.admin.page import Page, cursor_id, route, row_id
from shared.db.transactions import transaction
from shared.models import ReconciliationRun
from shared.roles import Role

PAGE_ROWS = 50


class Reconciliation(Page):
    """`/admin/reconciliation/`."""

    title = "Reconciliation"
    endpoint_name = "reconciliation"

    @route("/", Role.VIEWER)
    def index(self) -> Any:
        """The runs, newest first."""
        query = select(ReconciliationRun).order_by(ReconciliationRun.id.desc()).limit(PAGE_ROWS + 1)
        last = cursor_id()
        with transaction() as session:
            rows = list(session.scalars(query if last is None else query.where(ReconciliationRun.id < last)))
        has_more = len(rows) > PAGE_ROWS
        runs = rows[:PAGE_ROWS]
        return self.render(
            "runs.html",
            title="Reconciliation runs",
            runs=runs,
            next=query_parameters.encode_cursor(runs[-1].id) if has_more else None,
        )

    @route("/<int:run_id>/", Role.VIEWER)
    def run(self, run_id: int) -> Any:
        """One run with its totals."""
        with transaction() as session:
            run = session.get(ReconciliationRun, row_id(run_id))
        if run is None:
            abort(404)
        return self.render("run.html", title=f"Reconciliation run {run.id}", run=run)
