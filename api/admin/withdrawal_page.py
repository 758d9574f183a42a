"""One withdrawal: its timeline, why it waits, and the actions that are possible."""

from typing import Any
from uuid import UUID

from flask import abort, request, url_for

from api.admin import audit_writer, sessions
from api.admin.actions import ACTIONS, Action, ActionInput, load_context
from api.admin.confirm import AuditDetails, Change, Preview, confirm
from api.admin.flower_links import tasks_url
from api.admin.forms import ActionForm
from api.admin.page import Page, is_last_step, refusal, route
from shared.db.transactions import transaction
from shared.errors import Conflict, NotFound, PayoutsError
from shared.ids import parse_id
from shared.monitoring.explain import explain
from shared.roles import Permission, Role
from shared.settings import settings
from shared.states import PaidVia, operator_message


class WithdrawalPage(Page):
    """`/admin/withdrawal/<id>/`."""

    title = "Withdrawal"
    endpoint_name = "withdrawal"
    in_menu = False

    @route("/<uuid:withdrawal_id>/", Role.VIEWER)
    def index(self, withdrawal_id: UUID) -> Any:
        """The withdrawal and its timeline, with a masked UPI id."""
        return self._show(withdrawal_id)

    @route("/<uuid:withdrawal_id>/upi-id/", Permission.WITHDRAWALS, methods=("POST",))
    def unmasked(self, withdrawal_id: UUID) -> Any:
        """The same with the full UPI id. The audit log first records who looks."""
        audit_writer.write("unmask", subject=withdrawal_id)
        return self._show(withdrawal_id, unmasked=True)

    @route("/<uuid:withdrawal_id>/<word>/", Role.OPERATOR, methods=("GET", "POST"), needs_code=is_last_step)
    def act(self, withdrawal_id: UUID, word: str) -> Any:
        """The form of an action, its confirmation page, and the action itself, at one address."""
        action = ACTIONS.get(word)
        if action is None:
            raise NotFound("Not found", "There is no such action", code="no_such_action")
        if not sessions.signed_in().role.may(action.role):
            abort(403)
        if request.method != "POST":
            return self._form(withdrawal_id, action, action.form())
        form = action.form.submitted()
        form.reason.label.text = action.prompt
        try:
            form.require_valid()
            return confirm(self, _change(withdrawal_id, action, form))
        except PayoutsError as error:
            return self._form(withdrawal_id, action, form, error)

    def _form(
        self, withdrawal_id: UUID, action: Action, form: ActionForm, error: PayoutsError | None = None
    ) -> Any:
        """The form, after an error with what was typed. It is about the withdrawal as it is now."""
        form.reason.label.text = action.prompt
        with transaction() as session:
            context = load_context(session, withdrawal_id)
            form.version.data = str(context.withdrawal.version)
            form.proposal.data = str(context.proposal.id) if context.proposal else ""
            why_not = action.why_not(context)
            page = self.render(
                "action.html",
                title=action.title,
                form=form,
                context=context,
                why_not=why_not,
                effects=[] if why_not else action.describe(context),
                fault=refusal(error) if error else None,
            )
        if error is not None:
            return page, error.http_status
        return (page, 409) if why_not else page

    def _show(self, withdrawal_id: UUID, *, unmasked: bool = False) -> Any:
        with transaction() as session:
            context = load_context(session, withdrawal_id)
            timeline = explain(session, withdrawal_id)
            role = sessions.signed_in().role
            flower_url = settings().flower_url
            actions = [
                action
                for action in ACTIONS.values()
                if role.may(action.role) and action.why_not(context) is None
            ]
            withdrawal = context.withdrawal
            return self.render(
                "withdrawal.html",
                title="Withdrawal",
                context=context,
                withdrawal=withdrawal,
                why=withdrawal.failure_reason or operator_message(withdrawal.status_reason),
                timeline=timeline,
                tasks=tasks_url(flower_url, withdrawal_id, timeline) if flower_url else None,
                actions=actions,
                unmasked=unmasked,
                may_act=role.may(Role.OPERATOR),
            )


def _change(withdrawal_id: UUID, action: Action, form: ActionForm) -> Change:
    payment = {name: form[name].data for name in ("utr", "paid_via", "paid_at") if name in form}
    proposal = parse_id(form.proposal.data)
    version = int(form.version.data)
    entered = ActionInput(form.reason.data, version, sessions.actor(), proposal, **payment)

    def preview() -> Preview:
        with transaction() as session:
            context = load_context(session, withdrawal_id, version=version)
            if (why_not := action.why_not(context)) is not None:
                raise Conflict("Not possible now", why_not, code="not_possible")
            return Preview(
                title=f"{action.title}: {context.rupees}",
                effects=action.describe(context),
                hidden={"version": version, "proposal": proposal, **payment},
                button=action.title,
                facts=_facts(withdrawal_id, action, entered),
            )

    def run(_: str, details: AuditDetails) -> str:
        details["result"] = action.run(withdrawal_id, entered)
        return str(details["result"])

    audit_details = {"version": version, "utr": entered.utr, "proposal": proposal}
    audit_details |= {"paid_via": entered.paid_via, "paid_at": entered.paid_at}
    return Change(
        action=action.code,
        subject=withdrawal_id,
        reason=entered.reason,
        back=url_for("withdrawal.index", withdrawal_id=withdrawal_id),
        run=run,
        preview=preview,
        audit_details={name: str(value) for name, value in audit_details.items() if value not in (None, "")},
    )


def _facts(withdrawal_id: UUID, action: Action, entered: ActionInput) -> dict[str, object]:
    facts: dict[str, object] = {"Withdrawal": withdrawal_id}
    if entered.utr:
        facts |= {"UTR": entered.utr, "Paid by": PaidVia(entered.paid_via).label}
        facts["Paid at (IST)"] = f"{entered.paid_at.replace('T', ' ')}"
    return facts | {action.prompt.partition(":")[0]: entered.reason, "Recorded as": entered.actor}
