"""Puts the panel together: its pages, the headers of every response, and its error pages."""

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

from api.admin import invisible_text, sessions, template_filters
from api.admin.analytics import Analytics
from api.admin.app_keys import Apps
from api.admin.audit_log import AuditLog
from api.admin.awaiting_approval import AwaitingApproval
from api.admin.bulk import Bulk
from api.admin.dashboard import Home
from api.admin.exceptions import Exceptions
from api.admin.operators import Operators
from api.admin.page import Page
from api.admin.pauses import Pauses
from api.admin.proposals import Proposals
from api.admin.reconciliation import Reconciliation
from api.admin.sign_in import Account, InvitationPage, SignIn
from api.admin.user_actions import Blocks, UserActions
from api.admin.users import Users
from api.admin.withdrawal_list import Withdrawals
from api.admin.withdrawal_page import WithdrawalPage
from shared.db.transactions import as_unavailable
from shared.errors import PayoutsError, Unavailable
from shared.ids import new_id
from shared.settings import Settings

# The menu in its order; an operator sees the pages that they may open.
PAGES: tuple[type[Page], ...] = (
    Analytics,
    Withdrawals,
    Users,
    Blocks,
    Pauses,
    Exceptions,
    Reconciliation,
    AuditLog,
    Proposals,
    Operators,
    Apps,
    # Not in the menu: the pages that these lead to.
    WithdrawalPage,
    Bulk,
    UserActions,
    AwaitingApproval,
    Account,
    SignIn,
    InvitationPage,
)

MAX_FORM_BYTES = 256 * 1024
# No other addresses and no scripts: every page works without.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
# Title and text of the page for each HTTP error.
ERRORS = {
    400: ("Bad request", "We could not understand this request."),
    403: ("Not allowed", "Your role does not allow this."),
    404: ("Not found", "This page does not exist."),
    405: ("Not possible", "This address does not accept this method."),
    413: ("Too large", "The form is too large for this address."),
    429: ("Too many attempts", "Wait a minute, then try again."),
}

log = structlog.get_logger()


class PostFormRequest(Request):
    """A request whose form counts only with POST: Flask handles HEAD like GET, and checks no token for it."""

    @property
    def form(self) -> ImmutableMultiDict[str, str]:
        """The form of a POST, else an empty one."""
        return super().form if self.method == "POST" else ImmutableMultiDict()


def create_panel(settings: Settings) -> Flask:
    """Create the panel as an application. `settings` must have an `admin_secret_key`."""
    assert settings.admin_secret_key, "api/admin/__init__.py creates no panel without a key"
    panel = Flask(__name__, static_folder="assets", static_url_path="/admin/assets")
    panel.request_class = PostFormRequest
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
        # Each export holds a thread, and apps need threads as well.
        EXPORTS=BoundedSemaphore(max(1, settings.api_threads // 4)),
        MAX_CONTENT_LENGTH=MAX_FORM_BYTES,
        MAX_FORM_MEMORY_SIZE=MAX_FORM_BYTES,
        SEND_FILE_MAX_AGE_DEFAULT=3600,
    )
    panel.url_map.strict_slashes = False
    panel.before_request(_begin)
    sessions.prepare(panel, settings)
    CSRFProtect(panel)
    panel.after_request(_end)
    invisible_text.prepare(panel)
    template_filters.prepare(panel)
    _handle_errors(panel)
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


def _handle_errors(panel: Flask) -> None:
    panel.register_error_handler(CSRFError, _refuse_form)
    panel.register_error_handler(HTTPException, _http_error)
    panel.register_error_handler(PayoutsError, _payouts_error)
    panel.register_error_handler(DBAPIError, _database_error)
    panel.register_error_handler(PoolTimeout, _database_error)
    panel.register_error_handler(Exception, _unexpected_error)


def _error_page(status: int, title: str, text: str) -> Response:
    # The menu needs the operator, and so the database, which may be the cause of the error.
    page = render_template("error.html", title=title, text=text, has_menu=status < 500)
    response = Response(page, status)
    if status == 503:
        response.headers["Retry-After"] = str(math.ceil(Unavailable.retry_after))
    return response


def _refuse_form(error: Any) -> Response:
    log.warning("[ADMIN] form refused", path=request.path, why=error.description, address=request.remote_addr)
    text = "It has expired or was sent from another site. Go back and reload the page."
    return _error_page(400, "Form not accepted", text)


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:  # a redirect
        return error.get_response()  # type: ignore[return-value]
    return _error_page(status, *ERRORS.get(status, (error.name, error.description or error.name)))


def _payouts_error(error: PayoutsError) -> Response:
    return _error_page(error.http_status, error.error, error.details.rstrip(".") + ".")


def _database_error(error: DBAPIError | PoolTimeout) -> Response:
    unavailable = as_unavailable(error)
    return _payouts_error(unavailable) if unavailable else _unexpected_error(error)


def _unexpected_error(error: Exception) -> Response:
    # The text of a database error quotes the row, and with it the UPI id.
    shown = {"error": type(error).__name__} if isinstance(error, DBAPIError) else {"exc_info": error}
    log.error("[ADMIN] unforeseen", path=request.path, **shown)
    text = "This is our fault and has been recorded. Nothing was left half done."
    return _error_page(500, "Internal error", text)
