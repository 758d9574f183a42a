"""One action for several withdrawals: each succeeds or is refused on its own, and has its own result."""

from typing import Any

from flask import abort, url_for
from sqlalchemy.orm import Session

from api.admin import sessions
from api.admin.actions import ACTIONS, Action, ActionContext, ActionInput, load_context
from api.admin.confirm import Change, perform
from api.admin.fields import incomplete_form
from api.admin.forms import BulkForm, ReasonForm, Selection
from api.admin.page import Page, is_last_step, panel_url, redirect_to, route
from api.admin.template_filters import counted
from shared.db.transactions import transaction
from shared.errors import BadRequest, PayoutsError
from shared.roles import Role

MAX_SELECTED = 50
BULK_ACTIONS: tuple[Action, ...] = tuple(action for action in ACTIONS.values() if action.bulk_title)


class Bulk(Page):
    """`/admin/bulk/`: the target of the checkboxes in the list."""

    title = "Several withdrawals"
    endpoint_name = "bulk"
    in_menu = False

    @route("/", Role.OPERATOR, methods=("POST",), needs_code=is_last_step)
    def index(self) -> Any:
        """Say what will happen to each and ask for a reason, then carry it out."""
        form = BulkForm.submitted()
        form.require_valid()
        action = ACTIONS.get(form.action.data)
        if action is None or not action.bulk_title:
            raise incomplete_form()
        if not sessions.signed_in().role.may(action.role):
            abort(403)
        back = panel_url(form.back.data) if form.back.data else url_for("withdrawals.index")
        selections: list[Selection] = form.selections.data
        if len(selections) > MAX_SELECTED:
            raise BadRequest("Too many", f"Select at most {MAX_SELECTED} withdrawals", code="too_many")
        if not selections:
            message = f"Nothing was done. Select withdrawals, then choose {action.bulk_title}."
            return redirect_to(back, message, "refused")
        reason_form = ReasonForm.submitted()
        if is_last_step() and reason_form.validate():
            results = [(row, *_run(action, row, reason_form.reason.data)) for row in selections]
            title = f"{action.title}: results"
            return self.render("bulk_done.html", title=title, action=action, results=results, back=back)
        return self._preview(action, selections, back, reason_form), 400 if is_last_step() else 200

    def _preview(
        self, action: Action, selections: list[Selection], back: str, reason_form: ReasonForm
    ) -> Any:
        possible: list[tuple[Selection, ActionContext]] = []
        refused: list[tuple[Selection, str]] = []
        with transaction() as session:
            for row in selections:
                context = _load(session, row)
                why_not = context if isinstance(context, str) else action.why_not(context)
                if isinstance(context, str) or why_not is not None:
                    refused.append((row, str(why_not)))
                else:
                    possible.append((row, context))
            return self.render(
                "bulk.html",
                title=f"{action.title}: {counted(len(possible), 'withdrawal')}",
                action=action,
                possible=possible,
                refused=refused,
                paise=sum(context.withdrawal.amount_paise for _, context in possible),
                back=back,
                form=reason_form,
            )


def _load(session: Session, row: Selection) -> ActionContext | str:
    """The withdrawal in the selected version, or the reason why nothing can be done to it."""
    try:
        return load_context(session, row.withdrawal_id, version=row.version)
    except PayoutsError as error:
        return f"{error.error}: {error.details}"


def _run(action: Action, row: Selection, reason: str) -> tuple[bool, str]:
    """True if it succeeded, and the message."""
    entered = ActionInput(reason, row.version, sessions.actor())
    change = Change(
        action=action.code,
        subject=row.withdrawal_id,
        back="",
        run=lambda *_: action.run(row.withdrawal_id, entered),
        audit_details={"version": row.version, "bulk": True},
    )
    try:
        return True, perform(change, reason)
    except PayoutsError as error:
        return False, f"{error.error}: {error.details}"
