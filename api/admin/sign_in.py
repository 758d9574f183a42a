"""Sign-in and sign-out, invitations, and an operator's own password and second factor."""

from io import BytesIO
from typing import Any

import structlog
from flask import flash, g, redirect, render_template, request, session, url_for
from markupsafe import Markup

from api.admin import audit_writer, devices, sessions
from api.admin.forms import CodeForm, EnrolForm, InvitationForm, PasswordForm, SignInForm
from api.admin.page import ANYONE, Page, always, panel_url, redirect_to, refusal, route
from shared.db.transactions import transaction
from shared.errors import BadRequest, NotFound, PayoutsError
from shared.notifications.mail import notices
from shared.people import audit, invitations, operators, second_factor
from shared.roles import Role

WRONG_CREDENTIALS = "Name, password or code is wrong."
OFFER_MARK = "offered"  # in the session: the mark of the second factor that was offered to it

log = structlog.get_logger()


class SignIn(Page):
    """`/admin/sign-in/`: the only page for those who are not signed in."""

    title = "Sign in"
    endpoint_name = "sign_in"
    in_menu = False

    @route("/", ANYONE, methods=("GET", "POST"))
    def index(self) -> Any:
        """The form; with the right name, password and code it starts a session."""
        next_url = panel_url(request.values.get("next"))
        if request.method != "POST":
            if sessions.current_operator():
                return redirect(next_url)
            return render_template("sign_in.html", title=self.title, form=SignInForm(next=next_url))
        form = SignInForm.submitted()
        name = sessions.typed_name()
        operator = operators.sign_in(name, form.password.data, form.code.data)
        if operator is None:
            g.has_failed = True
            # The name may be a password in the wrong field, so only names that exist are recorded.
            recorded_name = name if _exists(name) else audit.UNKNOWN_OPERATOR
            audit_writer.write("sign_in", audit.REFUSED, operator=recorded_name)
            flash(WRONG_CREDENTIALS, "refused")
            form = SignInForm(next=next_url, username=name)
            return render_template("sign_in.html", title=self.title, form=form), 401
        recovery = second_factor.is_recovery_code(form.code.data) or None
        audit_writer.write("sign_in", operator=operator.name, recovery_code=recovery)
        sessions.start_session(operator)
        response = redirect(next_url, code=303)
        devices.remember(response, operator.name)
        return response


class InvitationPage(Page):
    """`/admin/invitation/?token=`: an invited operator chooses a password. Open to anyone with the link."""

    title = "Choose your password"
    endpoint_name = "invitation"
    in_menu = False

    @route("/", ANYONE, methods=("GET", "POST"))
    def index(self) -> Any:
        """The form; a good password uses the link up."""
        # In the query, not in the path, because paths are logged.
        token = request.values.get("token", "")
        try:
            with transaction() as db:
                name = invitations.find(db, token).operator
        except NotFound as error:
            g.has_failed = True
            page = render_template("error.html", title=error.error, text=f"{error.details}.", has_menu=False)
            return page, error.http_status
        form = InvitationForm.submitted()
        form.username.data = name
        form.token.data = token
        if request.method != "POST":
            return render_template("invitation.html", title=self.title, form=form, name=name)
        try:
            form.require_valid()
            operators.accept_invitation(token, form.new.data)
        except PayoutsError as error:
            flash(refusal(error), "refused")
            page = render_template("invitation.html", title=self.title, form=form, name=name)
            return page, error.http_status
        audit_writer.write("invitation_accepted", operator=name, subject=name)
        session.clear()
        return redirect_to(url_for("sign_in.index"), "Your password is set. Sign in with it.")


class Account(Page):
    """`/admin/account/`: an operator's own password and second factor, and sign-out."""

    title = "Your account"
    endpoint_name = "account"
    in_menu = False

    @route("/", Role.VIEWER, enrolling=True)
    def index(self) -> Any:
        """The forms."""
        return self._show(PasswordForm())

    def _show(self, form: PasswordForm, error: PayoutsError | None = None) -> Any:
        name = sessions.signed_in().name
        form.username.data = name
        with transaction() as db:
            codes_left = second_factor.recovery_codes_left(db, name)
        fault = refusal(error) if error else None
        page = self.render("account.html", title=self.title, codes_left=codes_left, form=form, fault=fault)
        return page, error.http_status if error else 200

    @route("/second-factor/", Role.VIEWER, enrolling=True)
    def second_factor(self) -> Any:
        """The QR code for a new authenticator app; an operator who has one enters a code of it first."""
        if not sessions.has_fresh_code():
            address = url_for("account.offer")
            return self.render("code.html", title="Enter a code", form=CodeForm(), hidden=[], address=address)
        return self._offer()

    @route("/second-factor/offer/", Role.VIEWER, methods=("POST",), needs_code=always, enrolling=True)
    def offer(self) -> Any:
        """The same, after a code of the previous app."""
        return self._offer()

    def _offer(self) -> Any:
        name = sessions.signed_in().name
        with transaction() as db:
            offer = second_factor.offer(db, operators.lock(db, name), session.get(OFFER_MARK, ""))
        if offer.is_new:
            audit_writer.write("totp_offered", subject=name)
        session[OFFER_MARK] = offer.mark
        return self.render(
            "second_factor.html",
            title="Second factor",
            form=EnrolForm(),
            secret=offer.secret,
            picture=_qr_code(second_factor.provisioning_uri(name, offer.secret)),
        )

    @route("/second-factor/enrol/", Role.VIEWER, methods=("POST",), needs_code=always, enrolling=True)
    def enrol(self) -> Any:
        """Enable the new app with its first code, and show recovery codes once."""
        name = sessions.signed_in().name
        form = EnrolForm.submitted()
        try:
            with audit_writer.audited("totp_enrolled", subject=name), transaction() as db:
                operator = operators.lock(db, name)
                codes = second_factor.enrol(db, operator, form.first_code.data, session.get(OFFER_MARK, ""))
                notices.notify_admins(
                    db, f"{name} enrolled a second factor", ["By themselves."], about=operator
                )
        except PayoutsError as error:
            return redirect_to(url_for("account.second_factor"), refusal(error), "refused")
        sessions.renew_session(operator)
        return self.render("recovery_codes.html", title="Recovery codes", codes=codes)

    @route("/recovery-codes/", Role.VIEWER, methods=("POST",), needs_code=always)
    def recovery_codes(self) -> Any:
        """Replace the recovery codes, and show the new ones once."""
        operator = sessions.signed_in()
        if not operator.has_second_factor:
            return redirect_to(url_for("account.index"), "Enrol a second factor first.", "refused")
        with audit_writer.audited("recovery_codes", subject=operator.name), transaction() as db:
            codes = second_factor.renew_recovery_codes(db, operators.lock(db, operator.name))
        return self.render("recovery_codes.html", title="Recovery codes", codes=codes)

    @route("/password/", Role.VIEWER, methods=("POST",), enrolling=True)
    def password(self) -> Any:
        """Change the password, which ends every other session."""
        form = PasswordForm.submitted()
        try:
            form.require_valid()
            self._change_password(form.old.data, form.new.data)
        except PayoutsError as error:
            return self._show(form, error)
        return redirect_to(
            url_for("account.index"), "Your password has changed. Your other sessions have ended."
        )

    def _change_password(self, old: str, new: str) -> None:
        name = sessions.signed_in().name
        if operators.verify_password(name, old) is None:
            g.has_failed = True
            raise BadRequest("Wrong password", "Enter your current password", code="wrong_password")
        with audit_writer.audited("password", subject=name):
            with transaction() as db:
                operator = operators.set_password(db, name, new)
            sessions.renew_session(operator)

    @route("/sign-out/", Role.VIEWER, methods=("POST",), enrolling=True)
    def sign_out(self) -> Any:
        """Sign out of every browser."""
        name = sessions.signed_in().name
        audit_writer.write("sign_out")
        with transaction() as db:
            operators.end_sessions(db, name)
        session.clear()
        return redirect(panel_url(None), code=303)


def _qr_code(address: str) -> Markup:
    """A QR code as an inline picture. It is drawn here, so the secret goes to no one else."""
    import segno  # noqa: PLC0415  only enrolling needs it

    picture = BytesIO()
    segno.make(address, micro=False).save(
        picture, kind="svg", scale=5, border=4, xmldecl=False, svgns=False, dark="#000", light="#fff"
    )
    return Markup(picture.getvalue().decode())  # noqa: S704  drawn by the library from our own secret


def _exists(name: str) -> bool:
    with transaction() as db:
        return operators.exists(db, name)
