"""Reconciliation runs: what each comparison with RazorpayX's books came to."""

from typing import Any

from flask import abort
from sqlalchemy import select

from api import parameters
from api.admin.page import Page, before_id, number, opens
from shared.db import transaction
from shared.models import ReconciliationRun
from shared.roles import Role

PAGE_ROWS = 50


class Reconciliation(Page):
    """`/admin/reconciliation/`."""

    title, endpoint_name = "Reconciliation", "reconciliation"

    @opens("/", Role.VIEWER)
    def index(self) -> Any:
        """The runs, newest first."""
        query = select(ReconciliationRun).order_by(ReconciliationRun.id.desc()).limit(PAGE_ROWS + 1)
        last = before_id()
        with transaction() as session:
            rows = list(session.scalars(query if last is None else query.where(ReconciliationRun.id < last)))
        more = len(rows) > PAGE_ROWS
        shown = rows[:PAGE_ROWS]
        return self.render(
            "runs.html",
            title="Reconciliation runs",
            found=shown,
            next=parameters.cursor(shown[-1].id) if more else None,
        )

    @opens("/<int:run_id>/", Role.VIEWER)
    def run(self, run_id: int) -> Any:
        """One, with its totals."""
        with transaction() as session:
            found = session.get(ReconciliationRun, number(run_id))
        if found is None:
            abort(404)
        return self.render("run.html", title=f"Reconciliation run {found.id}", run=found)
