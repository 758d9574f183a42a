"""Operators: who may sign in, and with which permissions. For admins.

A change that removes permissions happens at once. One that adds permissions is a proposal, which a second
admin confirms.
"""

from typing import Any

from flask import request, url_for

from api.admin import sessions
from api.admin.confirm import AuditDetails, Change, Preview, confirm
from api.admin.forms import (
    ADD,
    DISABLE,
    EMAIL,
    ENABLE,
    INVITE,
    RESET,
    ROLE,
    SIGN_OUT,
    EmailForm,
    InviteForm,
    OperatorForm,
    RoleForm,
)
from api.admin.page import Page, is_last_step, refusal, route
from api.admin.proposals import proposal_change
from shared import proposals
from shared.db.transactions import transaction
from shared.errors import Conflict, PayoutsError
from shared.people import invitations, operators
from shared.proposals import kinds
from shared.roles import REQUIRED_ROLE, Permission, Role

PROPOSES = {
    ADD: kinds.ADD,
    ENABLE: kinds.ENABLE,
    INVITE: kinds.PASSWORD,
    RESET: kinds.TOTP,
    EMAIL: kinds.EMAIL,
}
ACTIONS = (DISABLE, ROLE, SIGN_OUT, *PROPOSES)
FORMS: dict[str, type[InviteForm | EmailForm | RoleForm]] = {
    ADD: InviteForm,
    EMAIL: EmailForm,
    ROLE: RoleForm,
}

TITLES = {
    ADD: "Invite {}",
    ENABLE: "Enable {}",
    DISABLE: "Disable {}",
    ROLE: "Change role of {}",
    INVITE: "Invite {} again",
    RESET: "Reset second factor of {}",
    EMAIL: "Change e-mail of {}",
    SIGN_OUT: "Sign {} out",
}

AnyForm = OperatorForm | InviteForm | EmailForm


class Operators(Page):
    """`/admin/operators/`."""

    title = "Operators"
    endpoint_name = "operators"
    needs = REQUIRED_ROLE[Permission.OPERATORS]

    @route("/", Permission.OPERATORS)
    def index(self) -> Any:
        """All operators, and the form that invites one."""
        return self._show()

    @route("/change/", Permission.OPERATORS, methods=("POST",), needs_code=is_last_step)
    def change(self) -> Any:
        """Change another operator: disable, enable, invite, give another role or e-mail address, sign out."""
        form = FORMS.get(request.form.get("word", ""), OperatorForm).submitted()
        try:
            form.require_valid()
            if form.name.data == sessions.signed_in().name:
                raise Conflict("You cannot change yourself", "Ask another admin", code="yourself")
            return confirm(self, _change(self, form))
        except PayoutsError as error:
            return self._show(form, error)

    def _show(self, form: AnyForm | None = None, error: PayoutsError | None = None) -> Any:
        with transaction() as session:
            rows = [
                (operator, OperatorForm(name=operator.name, role=operator.role))
                for operator in operators.listing(session)
            ]
            invited = invitations.open_invitations(session)
            number_open = proposals.count_open(session)
        page = self.render(
            "operators.html",
            title=self.title,
            rows=rows,
            invited=invited,
            number_open=number_open,
            invite_form=form if isinstance(form, InviteForm) else InviteForm(),
            email_form=form if isinstance(form, EmailForm) else EmailForm(),
            fault=refusal(error) if error else None,
        )
        return page, error.http_status if error else 200


def _change(page: Page, form: AnyForm) -> Change:
    action = form.action.data
    name = form.name.data
    wanted = {field: form[field].data for field in ("role", "email") if field in form}
    if action not in (ADD, EMAIL, ROLE):
        wanted = {}
    hidden = {"name": name, "word": action, **wanted}
    back = url_for("operators.index")
    title = TITLES[action].format(name)
    kind = _kind(action, name, wanted)
    if kind is not None:
        return proposal_change(page, kind, name, wanted, title=title, hidden=hidden, back=back)

    def run(_: str, details: AuditDetails) -> str:
        details |= wanted
        return _change_at_once(action, name, wanted)

    return Change(
        action=f"operator_{action}",
        subject=name,
        back=back,
        run=run,
        preview=lambda: Preview(title=title, effects=_effects(action, name, wanted), hidden=hidden),
    )


def _kind(action: str, name: str, wanted: dict[str, Any]) -> proposals.Kind | None:
    """The kind of proposal; None for a change that one admin makes at once. Raises NotFound."""
    if action == ROLE:
        with transaction() as session:
            is_higher = not Role(operators.lock(session, name).role).may(Role(wanted["role"]))
        return proposals.KINDS[kinds.ROLE] if is_higher else None
    return proposals.KINDS[PROPOSES[action]] if action in PROPOSES else None


def _effects(action: str, name: str, wanted: dict[str, Any]) -> list[str]:
    if action == ROLE:
        return [f"From their next click, {name} has the role {wanted['role']} and fewer permissions."]
    if action == DISABLE:
        return [
            f"{name} is signed out of every browser at their next click, and cannot sign in.",
            "Their past actions keep their name.",
        ]
    return [f"{name} is signed out of every browser, and can sign in again."]


def _change_at_once(action: str, name: str, wanted: dict[str, Any]) -> str:
    if action == DISABLE:
        proposals.disable(name, actor=sessions.actor())
        return f"{name} is disabled."
    if action == ROLE:
        proposals.lower_role(name, Role(wanted["role"]), actor=sessions.actor())
        return f"{name} has the role {wanted['role']} now."
    proposals.end_sessions(name, actor=sessions.actor())
    return f"{name} is signed out of every browser."
