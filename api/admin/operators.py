"""The operators themselves: who may sign in and do what. For admins.

What takes something away is done at once. What gives more is a proposal, which another admin confirms.
"""

from typing import Any

from flask import request

from api.admin import door, records
from api.admin.page import DO, Page, back_to, does, given, opens
from api.admin.proposing import proposed
from shared import invitations, names, operators, proposals
from shared.db import transaction
from shared.errors import BadRequest, Conflict, PayoutsError
from shared.proposals import kinds
from shared.roles import NEEDS, Permission, Role

DISABLE, ENABLE, ROLE, SIGN_OUT, ADD = "disable", "enable", "role", "sign_out", "add"
INVITE, RESET, EMAIL = "invite", "reset_second_factor", "email"
PROPOSES = {
    ADD: kinds.ADD,
    ENABLE: kinds.ENABLE,
    INVITE: kinds.PASSWORD,
    RESET: kinds.TOTP,
    EMAIL: kinds.EMAIL,
}
WORDS = (DISABLE, ROLE, SIGN_OUT, *PROPOSES)


class Operators(Page):
    """`/admin/operators/`."""

    title, endpoint_name, needs = "Operators", "operators", NEEDS[Permission.OPERATORS]

    @opens("/", Permission.OPERATORS)
    def index(self) -> Any:
        """Everybody, and the form for somebody new."""
        with transaction() as session:
            found, invited = operators.listing(session), invitations.waiting(session)
            waiting = proposals.number_waiting(session)
        return self.render(
            "operators.html",
            title=self.title,
            found=found,
            invited=invited,
            waiting=waiting,
            roles=[(r, r) for r in Role],
        )

    @opens("/change/", Permission.OPERATORS, methods=("POST",), asks_code=does)
    def change(self) -> Any:
        """Let somebody in or keep them out, change what they may do. Never oneself."""
        try:
            name, word = given("name", longest=50), request.form.get("word", "")
            if word not in WORDS:
                raise BadRequest("Incomplete form", "Load the page anew", code="bad_word")
            if name == door.me().name:
                raise Conflict("Not yourself", "Another admin does that for you", code="yourself")
            fields = {"name": name, "word": word} | _wanted(word)
            if request.form.get("step") != DO:
                return self.render(
                    "ruling.html",
                    title=f"{name}?",
                    tells=_tells(name, word),
                    fields=fields,
                    back=self.get_url(".index"),
                )
            reason = given("reason", required="A reason is required")
            kind = _kind(name, word)
            if kind is not None:
                return proposed(self, kind, name, _wanted(word), reason, back="operators.index")
            with records.kept(f"operator_{word}", subject=name, reason=reason) as after:
                after.update(_wanted(word))
                told = _at_once(name, word)
        except PayoutsError as error:
            return back_to("operators.index", f"{error.error}: {error.details}. Nothing was done.", "refused")
        return back_to("operators.index", told)


def _wanted(word: str) -> dict[str, Any]:
    """What the form asks for. Raises BadRequest."""
    wanted: dict[str, Any] = {"role": _role()} if word in (ROLE, ADD) else {}
    if word in (ADD, EMAIL):
        wanted["email"] = names.clean_email(given("email", longest=254))
    return wanted


def _kind(name: str, word: str) -> proposals.Kind | None:
    """What is proposed; None for what one admin does at once. Raises NotFound."""
    if word == ROLE:
        with transaction() as session:
            is_higher = not Role(operators.locked(session, name).role).may(_role())
        return proposals.KINDS[kinds.ROLE] if is_higher else None
    return proposals.KINDS[PROPOSES[word]] if word in PROPOSES else None


def _tells(name: str, word: str) -> list[str]:
    """What will happen. Raises BadRequest (no such role), NotFound."""
    kind = _kind(name, word)
    if kind is None:
        return {
            ROLE: [f"{name} is {request.form.get('role')} from their next click on, and may do less."],
            DISABLE: [f"{name} is out at their next click, in every browser, and cannot sign in.",
                      "What they did keeps their name."],
            SIGN_OUT: [f"{name} is signed out in every browser, and may sign in again."],
        }[word]  # fmt: skip
    with transaction() as session:
        wanted = _wanted(word)
        kind.stands(session, name, wanted)
        needs_two = proposals.needs_second(session, kind, name, wanted)
    who = "It is a proposal: another admin confirms it." if needs_two else "It is done at once."
    return [*kind.tells(name, wanted), who]


def _at_once(name: str, word: str) -> str:
    if word == DISABLE:
        proposals.disable(name, actor=door.actor())
        return f"{name} is out."
    if word == ROLE:
        proposals.lower_role(name, _role(), actor=door.actor())
        return f"{name} is {_role()} now."
    proposals.end_sessions(name, actor=door.actor())
    return f"{name} is signed out everywhere."


def _role() -> Role:
    word = request.form.get("role", "")
    if word not in tuple(Role):
        raise BadRequest("No such role", f"A role is one of {', '.join(Role)}", code="bad_role")
    return Role(word)
