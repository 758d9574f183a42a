"""Signing in and out, the invitation, and one's own password and second factor."""

from io import BytesIO
from typing import Any

import structlog
from flask import flash, g, redirect, render_template, request, session
from markupsafe import Markup

from api.admin import devices, door, records
from api.admin.page import EVERYBODY, Page, always, back_to, inside, opens
from shared import audit, invitations, operators, second_factor
from shared.db import transaction
from shared.errors import BadRequest, NotFound, PayoutsError
from shared.notifications.mail import notices
from shared.roles import Role

WRONG = "Name, password or code is wrong."
OFFERED = "offered"  # in the session: the mark of the second factor that it was offered

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
        recovery = second_factor.is_recovery(request.form.get("code", "")) or None
        records.write("sign_in", operator=operator.name, recovery_code=recovery)
        door.let_in(operator)
        answer = redirect(goes_on_to, code=303)
        devices.remember(answer, operator.name)
        return answer


class InvitationPage(Page):
    """`/admin/invitation/?token=`: whoever was invited chooses a password. Open to who has the link."""

    title, endpoint_name, in_menu = "Choose your password", "invitation", False

    @opens("/", EVERYBODY, methods=("GET", "POST"))
    def index(self) -> Any:
        """The form; filled in rightly, the link is used up."""
        # In the query, not in the path: paths are logged.
        token = request.values.get("token", "")
        try:
            with transaction() as books:
                name = invitations.find(books, token).operator
        except NotFound as error:
            g.has_failed = True
            return render_template(
                "error.html", title=error.error, words=error.details, has_menu=False
            ), error.http_status
        if request.method != "POST":
            return render_template("invitation.html", title=self.title, token=token, name=name)
        try:
            new = _secret("new")
            if new != _secret("again"):
                raise BadRequest("Not the same", "Type the new password twice", code="not_the_same")
            operators.accept_invitation(token, new)
        except PayoutsError as error:
            flash(f"{error.error}: {error.details}.", "refused")
            page = render_template("invitation.html", title=self.title, token=token, name=name)
            return page, error.http_status
        records.write("invitation_accepted", operator=name, subject=name)
        session.clear()
        return back_to("sign_in.index", "You have a password. Sign in with it.")


class Account(Page):
    """`/admin/account/`: one's own password and second factor, and the way out."""

    title, endpoint_name, in_menu = "Your account", "account", False

    @opens("/", Role.VIEWER, enrolling=True)
    def index(self) -> str:
        """The forms."""
        with transaction() as books:
            left = second_factor.codes_left(books, door.me().name)
        return self.render("account.html", title=self.title, codes_left=left)

    @opens("/second-factor/", Role.VIEWER, enrolling=True)
    def second_factor(self) -> Any:
        """The QR code for a new authenticator app; who has one shows first that they are still themselves."""
        if not door.has_fresh_code():
            return self.render(
                "code.html", title="Code needed", fields=[], is_wrong=False, goes_to="account.offer"
            )
        return self._offer()

    @opens("/second-factor/offer/", Role.VIEWER, methods=("POST",), asks_code=always, enrolling=True)
    def offer(self) -> Any:
        """The same, once the code of the app before was typed."""
        return self._offer()

    def _offer(self) -> Any:
        name = door.me().name
        with transaction() as books:
            offer = second_factor.offer(books, operators.locked(books, name), session.get(OFFERED, ""))
        if offer.is_new:
            records.write("totp_offered", subject=name)
        session[OFFERED] = offer.mark
        address = second_factor.address(name, offer.secret)
        return self.render(
            "second_factor.html", title="Second factor", secret=offer.secret, picture=_qr_code(address)
        )

    @opens("/second-factor/enrol/", Role.VIEWER, methods=("POST",), asks_code=always, enrolling=True)
    def enrol(self) -> Any:
        """The first code from the new app turns it on; recovery codes are shown once."""
        name = door.me().name
        try:
            with records.kept("totp_enrolled", subject=name), transaction() as books:
                operator = operators.locked(books, name)
                code, mark = request.form.get("first_code", ""), session.get(OFFERED, "")
                codes = second_factor.enrol(books, operator, code, mark)
                notices.tell(books, f"{name} enrolled a second factor", ["By themselves."], about=operator)
        except PayoutsError as error:
            return back_to("account.second_factor", f"{error.error}: {error.details}.", "refused")
        door.stay(operator)
        return self.render("recovery_codes.html", title="Recovery codes", codes=codes)

    @opens("/recovery-codes/", Role.VIEWER, methods=("POST",), asks_code=always)
    def recovery_codes(self) -> Any:
        """Ten new ones, shown once; those before are worth nothing."""
        name = door.me().name
        if not door.me().has_second_factor:
            return back_to("account.index", "Enrol a second factor first.", "refused")
        with records.kept("recovery_codes", subject=name), transaction() as books:
            codes = second_factor.renew_codes(books, operators.locked(books, name))
        return self.render("recovery_codes.html", title="Recovery codes", codes=codes)

    @opens("/password/", Role.VIEWER, methods=("POST",), enrolling=True)
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

    @opens("/sign-out/", Role.VIEWER, methods=("POST",), enrolling=True)
    def sign_out(self) -> Any:
        """Out, in every browser."""
        name = door.me().name
        records.write("sign_out")
        with transaction() as books:
            operators.end_sessions(books, name)
        session.clear()
        return redirect(inside(None), code=303)


def _qr_code(address: str) -> Markup:
    """A QR code as a picture of its own, made here: the secret goes to nobody else."""
    import segno  # noqa: PLC0415  only who enrols needs it

    picture = BytesIO()
    segno.make(address, micro=False).save(
        picture, kind="svg", scale=5, border=4, xmldecl=False, svgns=False, dark="#000", light="#fff"
    )
    return Markup(picture.getvalue().decode())  # noqa: S704  drawn by the library from our own secret


def _secret(name: str) -> str:
    """A password as it was typed: a blank at its end is a part of it."""
    return request.form.get(name, "")


def _exists(name: str) -> bool:
    with transaction() as books:
        return operators.exists(books, name)
