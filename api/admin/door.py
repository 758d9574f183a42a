"""The panel's door: who is signed in, for how long, and how often one may try.

A session is a signed cookie with the operator's name and generation, and two times. Each request asks the
database whether that generation still holds, so who is disabled or signs out is out at the next one.
"""

import time
from dataclasses import dataclass
from threading import BoundedSemaphore

from flask import Flask, current_app, g, redirect, request, session, url_for
from flask_login import LoginManager, UserMixin, current_user, login_user
from werkzeug.wrappers import Response

from api import rates
from api.admin import devices
from shared import operators, second_factor
from shared.errors import Unavailable
from shared.models import Operator
from shared.roles import Role
from shared.settings import Settings

SIGN_IN = "sign_in"  # the endpoint's name
INVITATION = "invitation.index"  # a stranger's form is read there too: who has a link chooses a password
HOME, ITSELF = "admin.index", "itself"
ACCOUNT = "account.password"  # there a password is tried as well
CODE = "second_factor"  # the field of a form that is asked for a code again


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
    """Give the panel its door."""
    # Pages ask `who`; a page about an absent database must not ask the database.
    manager = LoginManager(panel, add_context_processor=False)
    manager.session_protection = (
        None  # the cookie is Strict and no script sees it; addresses of phones change
    )
    manager.user_loader(_of_session)
    panel.config["READERS"] = BoundedSemaphore(max(1, settings.api_bodies // 8))
    panel.config["PLACES"] = BoundedSemaphore(max(1, settings.api_threads // 4))
    panel.before_request(_admit)
    panel.teardown_request(_leave)
    panel.before_request(_stay_awake)
    rate = settings.rate_limit_sign_in
    limits = [
        rates.limit(rate, "address", rates.address, _counts, _has_failed),
        rates.limit(rate, "name", _tried_name, _counts, _has_failed),
    ]
    rates.count(panel, settings, limits, prefix="panel")


def let_in(operator: Operator) -> None:
    """Begin a session. Whatever the cookie held before is gone: nobody could plant it."""
    session.clear()
    session["since"] = session["seen"] = int(time.time())
    if operator.totp_secret is not None:  # whoever has one came in with a code
        session["code_at"] = session["since"]
    login_user(_known(operator))


def stay(operator: Operator) -> None:
    """Go on in this session after one's own generation was raised."""
    since, code_at = session["since"], session.get("code_at")
    let_in(operator)
    session["since"] = since
    if code_at is not None:
        session["code_at"] = code_at


def has_fresh_code() -> bool:
    """Whether a code was typed lately; who has no second factor, and needs none, is asked for none."""
    settings: Settings = current_app.config["SETTINGS"]
    return not me().has_second_factor or time.time() - session.get("code_at", 0) < settings.admin_code_seconds


def gives_code() -> bool:
    """Whether the form holds a good code; it is used up by that, and counts as fresh. Raises Unavailable."""
    code = request.form.get(CODE, "")
    if not code.strip():
        return False
    if not operators.prove(me().name, code):
        g.has_failed = True
        return False
    session["code_at"] = int(time.time())
    return True


def who() -> SignedIn | None:
    """Who is signed in, if anybody."""
    return current_user if current_user.is_authenticated else None


def me() -> SignedIn:
    """Who is signed in; only where somebody must be."""
    operator = who()
    assert operator is not None, "the door lets nobody else through to here"
    return operator


def actor() -> str:
    """How they stand in the books: as at the shell."""
    return f"operator:{me().name}"


def given_name() -> str:
    """The name that somebody tries to sign in with."""
    return request.form.get("username", "").replace("\x00", "").strip().lower()[:50]


def _of_session(identity: str) -> SignedIn | None:
    name, _, generation = identity.rpartition(":")
    if not _is_in_time() or not generation.isdecimal():
        return None
    operator = operators.signed_in(name, int(generation))
    return _known(operator) if operator else None


def _known(operator: Operator) -> SignedIn:
    return SignedIn(
        operator.name,
        Role(operator.role),
        operator.generation,
        has_second_factor=operator.totp_secret is not None,
        must_enrol=second_factor.is_missing(operator),
    )


def _is_in_time() -> bool:
    settings: Settings = current_app.config["SETTINGS"]
    now = time.time()
    return bool(
        now - session.get("seen", 0) < settings.admin_idle_seconds
        and now - session.get("since", 0) < settings.admin_session_seconds
    )


def _admit() -> Response | None:
    """Asked before a form is read, which takes as long as its sender likes, and a password longer still.

    A stranger's is read where they sign in, and nowhere else. Raises Unavailable when too many are.
    """
    if request.method == "POST" and not _is_try() and who() is None:
        return redirect(url_for(f"{SIGN_IN}.index"))
    if _is_try():
        _read_the_form()
        places: BoundedSemaphore = current_app.config["PLACES"]
        if not places.acquire(blocking=False):
            raise _busy()
        g.place = places
    return None


def _read_the_form() -> None:
    """Before a place is taken to compare the password: who is slow keeps nobody from signing in.

    Strangers may send here: they must not hold every place for bodies. Raises Unavailable.
    """
    readers: BoundedSemaphore = current_app.config["READERS"]
    if not readers.acquire(blocking=False):
        raise _busy()
    try:
        request.form.get("username")
    finally:
        readers.release()


def _busy() -> Unavailable:
    return Unavailable("Busy", "Others are signing in; try again in a moment", code="sign_in_busy")


def _leave(_: BaseException | None) -> None:
    if (place := g.pop("place", None)) is not None:
        place.release()


def loads_itself() -> bool:
    """Whether this is the dashboard that a browser loads anew by itself."""
    return request.endpoint == HOME and ITSELF in request.args


def _stay_awake() -> None:
    # What a browser asks for by itself is nobody's click: who has gone home is signed out all the same.
    if request.endpoint != "static" and current_user.is_authenticated and not loads_itself():
        session["seen"] = int(time.time())


def _is_try() -> bool:
    return request.endpoint in (f"{SIGN_IN}.index", INVITATION, ACCOUNT) and request.method == "POST"


def _counts() -> bool:
    """Where a password is tried, or a code by who is in."""
    return _is_try() or (request.method == "POST" and who() is not None and CODE in request.form)


def _tried_name() -> str:
    """Whose password or code is tried: who is in tries their own, whatever else the form names."""
    operator = who() if request.endpoint != f"{SIGN_IN}.index" else None
    name = operator.name if operator else given_name()
    return f"{name}:{devices.of(name) or 'elsewhere'}"


def _has_failed() -> bool:
    return bool(g.get("has_failed"))
