"""Puts the panel together: its pages, what every answer carries, how errors look."""

import math
from threading import BoundedSemaphore
from typing import Any

import structlog
from flask import Flask, Request, Response, g, render_template, request
from flask_admin import Admin
from flask_admin.theme import BootstrapTheme
from flask_wtf import CSRFProtect
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.exceptions import HTTPException

from api.admin import door, seeing, showing
from api.admin.analytics import Analytics
from api.admin.apps import Apps
from api.admin.audit_log import AuditLog
from api.admin.bulk import Bulk
from api.admin.exceptions import Exceptions
from api.admin.home import Home
from api.admin.operators import Operators
from api.admin.page import Page
from api.admin.proposing import Proposals
from api.admin.reconciliation import Reconciliation
from api.admin.ruling import Blocks, Ruling
from api.admin.second_person import SecondPerson
from api.admin.signing_in import Account, InvitationPage, SignIn
from api.admin.switches import Switches
from api.admin.users import Users
from api.admin.withdrawal import OneWithdrawal
from api.admin.withdrawals import Withdrawals
from shared.db import unavailable
from shared.errors import PayoutsError, Unavailable
from shared.ids import new_id
from shared.settings import Settings

# What the menu shows, in its order; each is shown to those who may open it.
PAGES: tuple[type[Page], ...] = (
    Analytics,
    Withdrawals,
    Users,
    Blocks,
    Switches,
    Exceptions,
    Reconciliation,
    AuditLog,
    Proposals,
    Operators,
    Apps,
    # Not in the menu: what these lead to.
    OneWithdrawal,
    Bulk,
    Ruling,
    SecondPerson,
    Account,
    SignIn,
    InvitationPage,
)

MAX_FORM_BYTES = 256 * 1024
# No address but ours, and no script at all: every page works without.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
WORDS = {
    400: ("Bad request", "The request could not be understood."),
    403: ("Not allowed", "Your role may not do that."),
    404: ("Not found", "There is nothing at this address."),
    405: ("Not possible", "This address does not take that."),
    413: ("Too large", "The form is larger than this address takes."),
    429: ("Too many tries", "Wait a little, then try again."),
}

log = structlog.get_logger()


class OnlyPosted(Request):
    """A form comes with POST. Flask answers HEAD like GET, and asks it for no token: one that brings a form
    brings nothing.
    """

    @property
    def form(self) -> ImmutableMultiDict[str, str]:
        """What was filled in."""
        return super().form if self.method == "POST" else ImmutableMultiDict()


def create_panel(settings: Settings) -> Flask:
    """The panel as an application. `settings` have an `admin_secret_key`."""
    assert settings.admin_secret_key, "without a key there is no panel (api/admin/__init__.py)"
    panel = Flask(__name__, static_folder="assets", static_url_path="/admin/assets")
    panel.request_class = OnlyPosted
    is_secure = settings.admin_cookie_secure == "on"
    panel.config.update(
        SETTINGS=settings,
        SECRET_KEY=settings.admin_secret_key.get_secret_value(),
        SESSION_COOKIE_NAME="__Host-payouts" if is_secure else "payouts-panel",
        SESSION_COOKIE_PATH="/",
        SESSION_COOKIE_SECURE=is_secure,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_REFRESH_EACH_REQUEST=False,
        WTF_CSRF_TIME_LIMIT=None,  # it ends with the session
        # Each export keeps a thread that apps need as well.
        EXPORTS=BoundedSemaphore(max(1, settings.api_threads // 4)),
        MAX_CONTENT_LENGTH=MAX_FORM_BYTES,
        MAX_FORM_MEMORY_SIZE=MAX_FORM_BYTES,
        SEND_FILE_MAX_AGE_DEFAULT=3600,
    )
    panel.url_map.strict_slashes = False
    panel.before_request(_begin)
    door.prepare(panel, settings)
    CSRFProtect(panel)
    panel.after_request(_end)
    seeing.prepare(panel)
    showing.prepare(panel)
    _answer_errors(panel)
    theme = BootstrapTheme(folder="bootstrap4", base_template="panel.html")
    admin = Admin(panel, name="Coin Payouts", index_view=Home(), theme=theme)
    for page in PAGES:
        admin.add_view(page())
    panel.jinja_env.globals.update(menu=admin.menu)
    return panel


def _begin() -> None:
    g.request_id = str(new_id())
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _end(response: Response) -> Response:
    headers = response.headers
    headers["X-Request-Id"] = g.get("request_id", "")
    headers["Content-Security-Policy"] = POLICY
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    headers["Referrer-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    if request.endpoint != "static":
        headers["Cache-Control"] = "no-store"
    return response


def _answer_errors(panel: Flask) -> None:
    panel.register_error_handler(CSRFError, _forged)
    panel.register_error_handler(HTTPException, _of_http)
    panel.register_error_handler(PayoutsError, _ours)
    panel.register_error_handler(DBAPIError, _of_database)
    panel.register_error_handler(PoolTimeout, _of_database)
    panel.register_error_handler(Exception, _unforeseen)


def _page(status: int, title: str, words: str) -> Response:
    # The menu asks who looks, and so the database: not where that may be what is away.
    page = render_template("error.html", title=title, words=words, has_menu=status < 500)
    response = Response(page, status)
    if status == 503:
        response.headers["Retry-After"] = str(math.ceil(Unavailable.retry_after))
    return response


def _forged(error: Any) -> Response:
    log.warning("[ADMIN] form refused", path=request.path, why=error.description, address=request.remote_addr)
    return _page(400, "Form not accepted", "It is too old or came from elsewhere. Go back and load it anew.")


def _of_http(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:  # a redirect is no error
        return error.get_response()  # type: ignore[return-value]
    return _page(status, *WORDS.get(status, (error.name, error.description or error.name)))


def _ours(error: PayoutsError) -> Response:
    return _page(error.http_status, error.error, error.details)


def _of_database(error: DBAPIError | PoolTimeout) -> Response:
    told = unavailable(error)
    return _ours(told) if told else _unforeseen(error)


def _unforeseen(error: Exception) -> Response:
    # The database's own words quote the row, and with it the UPI id.
    shown = {"error": type(error).__name__} if isinstance(error, DBAPIError) else {"exc_info": error}
    log.error("[ADMIN] unforeseen", path=request.path, **shown)
    return _page(500, "Internal error", "The fault is ours and has been recorded; nothing was half done.")
