"""The log of everything done in the panel and about its operators."""

from typing import Any

from flask import request

from api import parameters
from api.admin.asking import day, in_order
from api.admin.page import Page, before_id, opens
from shared import audit
from shared.db import transaction
from shared.errors import BadRequest
from shared.roles import Role

PAGE_ROWS = 50
FILTERS = ("operator", "action", "subject", "from", "to")


class AuditLog(Page):
    """`/admin/audit-log/`."""

    title, endpoint_name, needs = "Audit log", "audit_log", Role.FINANCE

    @opens("/", Role.FINANCE)
    def index(self) -> Any:
        """The lines that fit, newest first."""
        typed = {name: text for name in FILTERS if (text := request.args.get(name, "").strip())}
        if any("\x00" in text for text in typed.values()):
            raise BadRequest("Invalid filter", "It is not valid text", code="bad_filter")
        since, until = day("from", typed.get("from")), day("to", typed.get("to"), is_end=True)
        in_order(since, until)
        with transaction() as session:
            rows = audit.listing(
                session,
                operator=typed.get("operator"),
                action=typed.get("action"),
                subject=typed.get("subject"),
                since=since,
                until=until,
                before_id=before_id(),
                limit=PAGE_ROWS + 1,
            )
            actions = audit.actions(session)
        shown = rows[:PAGE_ROWS]
        return self.render(
            "audit_log.html",
            title=self.title,
            typed=typed,
            found=shown,
            actions=actions,
            next=parameters.cursor(shown[-1].id) if len(rows) > PAGE_ROWS else None,
        )
