"""The audit log: everything that operators did, and every change of operators."""

from typing import Any

from api import query_parameters
from api.admin.list_filters import AuditLogFilters
from api.admin.page import Page, cursor_id, route
from shared.db.transactions import transaction
from shared.people import audit
from shared.roles import Role

PAGE_ROWS = 50


class AuditLog(Page):
    """`/admin/audit-log/`."""

    title = "Audit log"
    endpoint_name = "audit_log"
    needs = Role.FINANCE

    @route("/", Role.FINANCE)
    def index(self) -> Any:
        """The entries that match the filters, newest first."""
        form = AuditLogFilters.submitted()
        form.require_valid()
        with transaction() as session:
            rows = audit.listing(
                session,
                operator=form.operator.data or None,
                action=form.action.data or None,
                subject=form.subject.data or None,
                since=form.since.midnight,
                until=form.until.midnight,
                before_id=cursor_id(),
                limit=PAGE_ROWS + 1,
            )
            form.action.suggestions = audit.actions(session)
        entries = rows[:PAGE_ROWS]
        return self.render(
            "audit_log.html",
            title=self.title,
            form=form,
            typed=form.query(),
            entries=entries,
            next=query_parameters.encode_cursor(entries[-1].id) if len(rows) > PAGE_ROWS else None,
        )
