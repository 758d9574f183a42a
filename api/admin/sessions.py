"""Sessions of the panel: who is signed in, for how long, and how many passwords may be tried.

A session is a signed cookie with the operator's name and generation, and two times. Each request checks in
the database that the generation is current, so disabling an operator or signing out takes effect at once.
"""

import time
from dataclasses import dataclass
from threading import BoundedSemaphore

from flask import Flask, current_app, g, redirect, request, session, url_for
from flask_login import LoginManager, UserMixin, current_user, login_user
from werkzeug.wrappers import Response

from api.admin import devices
from api.rate_limits import RequestLimits, client_address
from shared.errors import Unavailable
from shared.models import Operator
from shared.people import operators, second_factor
from shared.roles import Role
from shared.settings import Settings

SIGN_IN = "sign_in"  # an endpoint
INVITATION = "invitation.index"  # strangers send a form here too: with the link they choose a password
HOME = "admin.index"
AUTO_REFRESH = "itself"  # in the query of the dashboard
ACCOUNT = "account.password"  # a password is tried here as well
CODE = "second_factor"  # the field of the form that asks for a fresh code
MAX_NAME_CHARACTERS = 50


@dataclass(frozen=True)
class SignedIn(UserMixin):
    """The operator of this request."""

    name: str
    role: Role
    generation: int
    has_second_factor: bool = False
    must_enrol: bool = False

    def get_id(self) -> str:
        return f"{self.name}:{self.generation}"


def prepare(panel: Flask, settings: Settings) -> None:
    """Add sign-in, sessions and their limits to the panel."""
    # Templates call `current_operator`; the page about an unreachable database must not query the database.
    manager = LoginManager(panel, add_context_processor=False)
    # Addresses of phones change; the cookie is Strict, and no script can read it.
    manager.session_protection = None
    manager.user_loader(_load_operator)
    panel.config["FORM_READERS"] = BoundedSemaphore(max(1, settings.api_bodies // 8))
    panel.config["PASSWORD_SLOTS"] = BoundedSemaphore(max(1, settings.api_threads // 4))
    panel.before_request(_admit)
    panel.teardown_request(_release_slot)
    panel.before_request(_extend_idle_time)
    rates = dict.fromkeys(("address", "name"), settings.rate_limit_sign_in)
    RequestLimits(panel, settings, rates, _attempt_keys, on_failure=rates, prefix="panel")


def start_session(operator: Operator) -> None:
    """Start a session. The cookie's earlier contents are dropped, so no one can plant any."""
    session.clear()
    session["since"] = session["seen"] = int(time.time())
    if operator.totp_secret is not None:  # they signed in with a code
        session["code_at"] = session["since"]
    login_user(_as_signed_in(operator))


def renew_session(operator: Operator) -> None:
    """Keep this session after the operator's own generation was raised."""
    since = session["since"]
    code_at = session.get("code_at")
    start_session(operator)
    session["since"] = since
    if code_at is not None:
        session["code_at"] = code_at


def has_fresh_code() -> bool:
    """True if a code was entered recently, or the operator has no second factor and needs none."""
    settings: Settings = current_app.config["SETTINGS"]
    last_code = session.get("code_at", 0)
    return not signed_in().has_second_factor or time.time() - last_code < settings.admin_code_seconds


def accept_code() -> bool:
    """True if the form has a valid code, which is used up and counts as fresh. Raises Unavailable."""
    code = request.form.get(CODE, "")
    if not code.strip():
        return False
    if not operators.verify_code(signed_in().name, code):
        g.has_failed = True
        return False
    session["code_at"] = int(time.time())
    return True


def current_operator() -> SignedIn | None:
    """The operator who is signed in, if any."""
    return current_user if current_user.is_authenticated else None


def signed_in() -> SignedIn:
    """The operator, in a view that needs one."""
    operator = current_operator()
    assert operator is not None, "check_access lets no one else open the view"
    return operator


def actor() -> str:
    """The actor under which the operator's changes are recorded, as at the shell."""
    return f"operator:{signed_in().name}"


def typed_name() -> str:
    """The name in a sign-in form."""
    return request.form.get("username", "").replace("\x00", "").strip().lower()[:MAX_NAME_CHARACTERS]


def _load_operator(identity: str) -> SignedIn | None:
    name, _, generation = identity.rpartition(":")
    if not _is_session_current() or not generation.isdecimal():
        return None
    operator = operators.session_operator(name, int(generation))
    return _as_signed_in(operator) if operator else None


def _as_signed_in(operator: Operator) -> SignedIn:
    return SignedIn(
        operator.name,
        Role(operator.role),
        operator.generation,
        has_second_factor=operator.totp_secret is not None,
        must_enrol=second_factor.is_missing(operator),
    )


def _is_session_current() -> bool:
    settings: Settings = current_app.config["SETTINGS"]
    now = time.time()
    return bool(
        now - session.get("seen", 0) < settings.admin_idle_seconds
        and now - session.get("since", 0) < settings.admin_session_seconds
    )


def _admit() -> Response | None:
    """Before a form is read, which takes as long as its sender wants, and before a slow password comparison.

    A stranger's form is read only where strangers sign in. Raises Unavailable if too many are being read.
    """
    if request.method == "POST" and not _is_password_attempt() and current_operator() is None:
        return redirect(url_for(f"{SIGN_IN}.index"))
    if _is_password_attempt():
        _read_form()
        slots: BoundedSemaphore = current_app.config["PASSWORD_SLOTS"]
        if not slots.acquire(blocking=False):
            raise _busy()
        g.password_slot = slots
    return None


def _read_form() -> None:
    """Read the form before taking a password slot, so a slow sender keeps no one from signing in.

    Strangers can send here, and must not hold all slots for request bodies. Raises Unavailable.
    """
    readers: BoundedSemaphore = current_app.config["FORM_READERS"]
    if not readers.acquire(blocking=False):
        raise _busy()
    try:
        request.form.get("username")
    finally:
        readers.release()


def _busy() -> Unavailable:
    return Unavailable("Busy", "Too many sign-ins are in progress. Please retry", code="sign_in_busy")


def _release_slot(_: BaseException | None) -> None:
    if (slots := g.pop("password_slot", None)) is not None:
        slots.release()


def is_auto_refresh() -> bool:
    """True for the dashboard if the browser refreshes it by itself."""
    return request.endpoint == HOME and AUTO_REFRESH in request.args


def _extend_idle_time() -> None:
    # An automatic refresh is not a click: an operator who went home is still signed out.
    if request.endpoint != "static" and current_user.is_authenticated and not is_auto_refresh():
        session["seen"] = int(time.time())


def _is_password_attempt() -> bool:
    return request.endpoint in (f"{SIGN_IN}.index", INVITATION, ACCOUNT) and request.method == "POST"


def _attempt_keys() -> dict[str, str]:
    """Return what an attempt counts for: a password is tried, or a code by an operator who is signed in."""
    is_attempt = _is_password_attempt() or (
        request.method == "POST" and current_operator() is not None and CODE in request.form
    )
    return {"address": client_address(), "name": _attempted_name()} if is_attempt else {}


def _attempted_name() -> str:
    """The account whose password or code is tried: a signed-in operator's own, whatever the form says."""
    operator = current_operator() if request.endpoint != f"{SIGN_IN}.index" else None
    name = operator.name if operator else typed_name()
    return f"{name}:{devices.known_device(name) or 'elsewhere'}"
