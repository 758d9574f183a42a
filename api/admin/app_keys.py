"""Apps: their API keys, and the endpoints that receive webhooks. For admins."""

from typing import Any

from flask import request, url_for

from api.admin import sessions
from api.admin.confirm import Change, Preview, confirm
from api.admin.forms import (
    ADD_ENDPOINT,
    CREATE_KEY,
    REMOVE,
    REVOKE,
    ROTATE_KEY,
    ROTATE_SECRET,
    AppForm,
    EndpointForm,
    KeyForm,
)
from api.admin.page import Page, is_last_step, refusal, route
from api.admin.proposals import proposal_change
from shared import proposals
from shared.access import app_keys
from shared.db.transactions import transaction
from shared.errors import PayoutsError
from shared.notifications.webhooks import endpoints
from shared.proposals import kinds
from shared.roles import Role

PROPOSES = {
    CREATE_KEY: kinds.KEY,
    ROTATE_KEY: kinds.ROTATE,
    ADD_ENDPOINT: kinds.ENDPOINT,
    ROTATE_SECRET: kinds.SECRET,
}
FORMS: dict[str, type[KeyForm | EndpointForm]] = {CREATE_KEY: KeyForm, ADD_ENDPOINT: EndpointForm}
GRACE_HOURS = 24.0  # both the old and the new key or secret work so long

TITLES = {
    CREATE_KEY: "Propose key",
    ROTATE_KEY: "Propose new key",
    REVOKE: "Revoke key",
    ADD_ENDPOINT: "Propose endpoint",
    ROTATE_SECRET: "Propose new secret",
    REMOVE: "Remove endpoint",
}

AnyForm = AppForm | KeyForm | EndpointForm


class Apps(Page):
    """`/admin/apps/`."""

    title = "Apps"
    endpoint_name = "apps"
    needs = Role.ADMIN

    @route("/", Role.ADMIN)
    def index(self) -> Any:
        """Every key by its prefix, every endpoint, and the forms for new ones."""
        return self._show()

    @route("/change/", Role.ADMIN, methods=("POST",), needs_code=is_last_step)
    def change(self) -> Any:
        """Propose a new key, endpoint or secret; or revoke or remove one at once."""
        form = FORMS.get(request.form.get("word", ""), AppForm).submitted()
        try:
            form.require_valid()
            return confirm(self, _change(self, form))
        except PayoutsError as error:
            return self._show(form, error)

    def _show(self, form: AnyForm | None = None, error: PayoutsError | None = None) -> Any:
        with transaction() as session:
            page = self.render(
                "apps.html",
                title=self.title,
                keys=app_keys.list_keys(session),
                endpoints=endpoints.list_endpoints(session),
                key_form=form if isinstance(form, KeyForm) else KeyForm(),
                endpoint_form=form if isinstance(form, EndpointForm) else EndpointForm(),
                fault=refusal(error) if error else None,
            )
        return page, error.http_status if error else 200


def _change(page: Page, form: AnyForm) -> Change:
    action = form.action.data
    subject = form.subject.data
    wanted = _wanted(form)
    back = url_for("apps.index")
    title = TITLES[action]
    hidden = {"word": action, "subject": subject}
    hidden |= {f"scope_{scope}": "on" for scope in wanted.get("scopes", ())}
    if action in PROPOSES:
        kind = proposals.KINDS[PROPOSES[action]]
        return proposal_change(page, kind, subject, wanted, title=title, hidden=hidden, back=back)
    effect = "stops working at once" if action == REVOKE else "receives no more webhooks"
    return Change(
        action=f"app_{action}",
        subject=subject,
        back=back,
        run=lambda *_: _revoke(subject) if action == REVOKE else _remove(subject),
        preview=lambda: Preview(title=title, effects=[f"{subject} {effect}."], hidden=hidden),
    )


def _wanted(form: AnyForm) -> dict[str, Any]:
    """The details of the proposal."""
    if isinstance(form, KeyForm):
        return {"scopes": form.scopes, "days": None}
    if isinstance(form, EndpointForm):
        return {"allow_private": False}
    return {"grace_hours": GRACE_HOURS}


def _revoke(prefix: str) -> str:
    key = proposals.revoke_key(prefix, actor=sessions.actor())
    return f"The key {key.prefix} of {key.app} is revoked."


def _remove(endpoint_id: str) -> str:
    endpoint = proposals.remove_endpoint(endpoint_id, actor=sessions.actor())
    return f"The endpoint {endpoint.url} is removed."
