"""The operators themselves: who may sign in and do what. For admins."""

from typing import Any

from flask import request

from api.admin import door, records
from api.admin.page import DO, Page, back_to, given, opens
from shared import operators
from shared.db import transaction
from shared.errors import BadRequest, Conflict, PayoutsError
from shared.roles import NEEDS, Permission, Role

DISABLE, ENABLE, ROLE, SIGN_OUT, ADD = "disable", "enable", "role", "sign_out", "add"


class Operators(Page):
    """`/admin/operators/`."""

    title, endpoint_name, needs = "Operators", "operators", NEEDS[Permission.OPERATORS]

    @opens("/", Permission.OPERATORS)
    def index(self) -> Any:
        """Everybody, and the form for somebody new."""
        with transaction() as session:
            found = operators.listing(session)
        return self.render("operators.html", title=self.title, found=found, roles=[(r, r) for r in Role])

    @opens("/change/", Permission.OPERATORS, methods=("POST",))
    def change(self) -> Any:
        """Let somebody in or keep them out, change what they may do. Never oneself."""
        try:
            name, word = given("name", longest=50), request.form.get("word", "")
            if word not in (DISABLE, ENABLE, ROLE, SIGN_OUT, ADD):
                raise BadRequest("Incomplete form", "Load the page anew", code="bad_word")
            if name == door.me().name:
                raise Conflict("Not yourself", "Another admin does that for you", code="yourself")
            if word != ADD and request.form.get("step") != DO:
                fields = {"name": name, "word": word, "role": request.form.get("role")}
                return self.render("ruling.html", title=f"{name}?", tells=_tells(name, word), fields=fields)
            # To let somebody in, a whole form was filled in; its password stands on no page once more.
            reason = given("reason", required=None if word == ADD else "A reason is required")
            with records.kept(f"operator_{word}", subject=name, reason=reason or None) as after:
                after["role"] = request.form.get("role") if word in (ROLE, ADD) else None
                told = _change(name, word)
        except PayoutsError as error:
            return back_to("operators.index", f"{error.error}: {error.details}. Nothing was done.", "refused")
        return back_to("operators.index", told)


def _tells(name: str, word: str) -> list[str]:
    """What will happen. Raises BadRequest (no such role)."""
    if word == ROLE:
        return [f"{name} is {_role()} from their next click on, and may do what that role may."]
    return {
        DISABLE: [f"{name} is out at their next click, in every browser, and cannot sign in.",
                  "What they did keeps their name."],
        ENABLE: [f"{name} may sign in again, with their old password and role."],
        SIGN_OUT: [f"{name} is signed out in every browser, and may sign in again."],
    }[word]  # fmt: skip


def _change(name: str, word: str) -> str:
    with transaction() as session:
        if word == DISABLE:
            operators.disable(session, name, actor=door.actor())
            return f"{name} is out."
        if word == ENABLE:
            operators.enable(session, name)
            return f"{name} may sign in again."
        if word == ROLE:
            operators.set_role(session, name, _role())
            return f"{name} is {_role()} now."
        if word == SIGN_OUT:
            operators.end_sessions(session, name)
            return f"{name} is signed out everywhere."
        password = request.form.get("password", "")
        operators.add(session, name, role=_role(), password=password, actor=door.actor())
        return f"{name} may sign in as {_role()}. Ask them to change the password at once."


def _role() -> Role:
    word = request.form.get("role", "")
    if word not in tuple(Role):
        raise BadRequest("No such role", f"A role is one of {', '.join(Role)}", code="bad_role")
    return Role(word)
