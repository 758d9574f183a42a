"""Apps: the keys that let them in, and the endpoints that are told of changes. For admins."""

from typing import Any

from flask import request

from api.admin import door, records
from api.admin.page import DO, Page, back_to, does, given, opens
from api.admin.proposing import proposed
from shared import app_keys, proposals
from shared.db import transaction
from shared.errors import BadRequest, PayoutsError
from shared.notifications import endpoints
from shared.proposals import kinds
from shared.roles import Role

REVOKE, REMOVE = "revoke", "remove"
PROPOSES = {
    "create": kinds.KEY,
    "rotate": kinds.ROTATE,
    "add_endpoint": kinds.ENDPOINT,
    "rotate_endpoint": kinds.SECRET,
}
GRACE_HOURS = 24.0  # how long an old key or secret works beside the new one


class Apps(Page):
    """`/admin/apps/`."""

    title, endpoint_name, needs = "Apps", "apps", Role.ADMIN

    @opens("/", Role.ADMIN)
    def index(self) -> Any:
        """Every key by its beginning, every endpoint, and the forms for new ones."""
        with transaction() as session:
            return self.render(
                "apps.html",
                title=self.title,
                keys=app_keys.listing(session),
                endpoints=endpoints.listing(session),
                scopes=app_keys.SCOPES,
            )

    @opens("/change/", Role.ADMIN, methods=("POST",), asks_code=does)
    def change(self) -> Any:
        """Propose a key or an endpoint, or take one away at once."""
        try:
            word, subject = request.form.get("word", ""), given("subject", longest=2000, required="Name it")
            if word not in (REVOKE, REMOVE, *PROPOSES):
                raise BadRequest("Incomplete form", "Load the page anew", code="bad_word")
            wanted = _wanted(word)
            if request.form.get("step") != DO:
                return self._ask(word, subject, wanted)
            reason = given("reason", required="A reason is required")
            if word in PROPOSES:
                kind = proposals.KINDS[PROPOSES[word]]
                return proposed(self, kind, subject, wanted, reason, back="apps.index")
            with records.kept(f"app_{word}", subject=subject, reason=reason):
                told = _at_once(word, subject)
        except PayoutsError as error:
            return back_to("apps.index", f"{error.error}: {error.details}. Nothing was done.", "refused")
        return back_to("apps.index", told)

    def _ask(self, word: str, subject: str, wanted: dict[str, Any]) -> Any:
        fields = {"word": word, "subject": subject}
        fields |= {f"scope_{scope}": "on" for scope in wanted.get("scopes", ())}
        if word in PROPOSES:
            kind = proposals.KINDS[PROPOSES[word]]
            with transaction() as session:
                kind.stands(session, subject, wanted)
                needs_two = proposals.needs_second(session, kind, subject, wanted)
            who = "It is a proposal: another admin confirms it." if needs_two else "It is done at once."
            tells = [*kind.tells(subject, wanted), who]
        else:
            tells = [f"{subject} is {'revoked' if word == REVOKE else 'removed'} at once."]
        back = self.get_url(".index")
        return self.render("ruling.html", title="Go on?", tells=tells, fields=fields, back=back)


def _wanted(word: str) -> dict[str, Any]:
    """What the form asks for."""
    if word == "create":
        return {"scopes": [one for one in app_keys.SCOPES if request.form.get(f"scope_{one}")], "days": None}
    if word == "add_endpoint":
        return {"allow_private": False}
    return {"grace_hours": GRACE_HOURS} if word in PROPOSES else {}


def _at_once(word: str, subject: str) -> str:
    if word == REVOKE:
        key = proposals.revoke_key(subject, actor=door.actor())
        return f"{key.prefix} of {key.app} is revoked."
    one = proposals.remove_endpoint(subject, actor=door.actor())
    return f"{one.url} is removed."
