"""Signing in and out, and one's own password."""

from typing import Any

import structlog
from flask import flash, g, redirect, render_template, request, session

from api.admin import devices, door, records
from api.admin.page import EVERYBODY, Page, back_to, inside, opens
from shared import audit, operators
from shared.db import transaction
from shared.errors import BadRequest, PayoutsError
from shared.roles import Role

WRONG = "Name, password or code is wrong."

log = structlog.get_logger()


class SignIn(Page):
    """`/admin/sign-in/`: the only page for those who are not in."""

    title, endpoint_name, in_menu = "Sign in", "sign_in", False

    @opens("/", EVERYBODY, methods=("GET", "POST"))
    def index(self) -> Any:
        """The form; and whoever fills it in rightly is in."""
        goes_on_to = inside(request.values.get("next"))
        if request.method != "POST":
            if door.who():
                return redirect(goes_on_to)
            return render_template("sign_in.html", title="Sign in", goes_on_to=goes_on_to)
        name = door.given_name()
        operator = operators.sign_in(name, _secret("password"), request.form.get("code", ""))
        if operator is None:
            g.has_failed = True
            # Who mistook the fields typed a password there: only names that exist are written down.
            records.write("sign_in", audit.REFUSED, operator=name if _exists(name) else audit.NOBODY)
            flash(WRONG, "refused")
            page = render_template("sign_in.html", title="Sign in", goes_on_to=goes_on_to, name=name)
            return page, 401
        records.write("sign_in", operator=operator.name)
        door.let_in(operator)
        answer = redirect(goes_on_to, code=303)
        devices.remember(answer, operator.name)
        return answer


class Account(Page):
    """`/admin/account/`: one's own password, and the way out."""

    title, endpoint_name, in_menu = "Your account", "account", False

    @opens("/", Role.VIEWER)
    def index(self) -> str:
        """The forms."""
        return self.render("account.html", title=self.title)

    @opens("/password/", Role.VIEWER, methods=("POST",))
    def password(self) -> Any:
        """A new password; every other session is over."""
        try:
            self._change(_secret("old"), _secret("new"), _secret("again"))
        except PayoutsError as error:
            return back_to("account.index", f"{error.error}: {error.details}.", "refused")
        return back_to("account.index", "You have a new password. Your other sessions are over.")

    def _change(self, old: str, new: str, again: str) -> None:
        name = door.me().name
        if new != again:
            raise BadRequest("Not the same", "Type the new password twice", code="not_the_same")
        if operators.sign_in_again(name, old) is None:
            g.has_failed = True
            raise BadRequest("Not your password", "Type the one that you have now", code="wrong_password")
        with records.kept("password", subject=name):
            with transaction() as books:
                operator = operators.set_password(books, name, new)
            door.stay(operator)

    @opens("/sign-out/", Role.VIEWER, methods=("POST",))
    def sign_out(self) -> Any:
        """Out, in every browser."""
        name = door.me().name
        records.write("sign_out")
        with transaction() as books:
            operators.end_sessions(books, name)
        session.clear()
        return redirect(inside(None), code=303)


def _secret(name: str) -> str:
    """A password as it was typed: a blank at its end is a part of it."""
    return request.form.get(name, "")


def _exists(name: str) -> bool:
    with transaction() as books:
        return operators.exists(books, name)
