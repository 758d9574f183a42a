"""The base of every page of the panel: routes, permissions, codes, messages and addresses."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar
from urllib.parse import urlsplit

from flask import abort, flash, redirect, render_template, request, url_for
from flask_admin import BaseView, expose
from werkzeug.wrappers import Response

from api import query_parameters
from api.admin import sessions
from api.admin.forms import CodeForm
from shared.errors import PayoutsError
from shared.roles import REQUIRED_ROLE, Permission, Role
from shared.text.fields import parse_whole_number

ANYONE = "anyone"  # in place of a role: the view needs no sign-in
MAX_ID = 2**63 - 1
LAST_STEP = "do"  # the value of `step` in the form that carries out a change

View = Callable[..., Any]


def route(
    url: str,
    needs: Role | Permission | str,
    methods: Iterable[str] = ("GET",),
    *,
    needs_code: Callable[[], bool] | None = None,
    enrolling: bool = False,
) -> Callable[[View], View]:
    """Declare a view: its address below its page's, and the role or permission that it needs.

    A view without this declaration is closed to everyone. `needs_code` returns True if the submitted form
    needs a fresh code of the second factor. `enrolling` opens the view to operators who must enrol one first.
    """

    def declare(view: View) -> View:
        view.needs = REQUIRED_ROLE[needs] if isinstance(needs, Permission) else needs  # type: ignore[attr-defined]
        view.needs_code = needs_code  # type: ignore[attr-defined]
        view.enrolling = enrolling  # type: ignore[attr-defined]
        exposed: View = expose(url, tuple(methods))(view)
        return exposed

    return declare


class Page(BaseView):
    """A part of the panel at `/admin/<endpoint>/`, in the menu under `title` for `needs` and above."""

    title: ClassVar[str]
    endpoint_name: ClassVar[str]
    in_menu: ClassVar[bool] = True
    needs: ClassVar[Role] = Role.VIEWER

    def __init__(self) -> None:
        name = self.endpoint_name
        self._default_view = "index"  # also if it needs an id and is not in the menu
        super().__init__(name=self.title, endpoint=name, url=f"/admin/{name.replace('_', '-')}")

    def is_accessible(self) -> bool:
        """True if the menu shows it. `check_access` decides about each view."""
        operator = sessions.current_operator()
        return operator is not None and operator.role.may(self.needs)

    def is_visible(self) -> bool:
        return self.in_menu

    def _handle_view(self, name: str, **_: Any) -> Any:
        """Flask-Admin calls this before each view: a response instead of the view, or None."""
        return check_access(getattr(self, name))


def is_last_step() -> bool:
    """True if the form carries out a change that was confirmed."""
    return request.form.get("step") == LAST_STEP


def always() -> bool:
    """For the `needs_code` of a form with one step."""
    return True


def check_access(view: View) -> Any:
    """The response to a caller who may not open this view or must enter a code first; None if they may."""
    needs: Role | str | None = getattr(view, "needs", None)
    if needs == ANYONE:
        return None
    operator = sessions.current_operator()
    if operator is None:
        next_url = request.full_path.rstrip("?") if request.method == "GET" else None
        return redirect(url_for(f"{sessions.SIGN_IN}.index", next=next_url))
    if not isinstance(needs, Role) or not operator.role.may(needs):
        abort(403)
    if operator.must_enrol and not getattr(view, "enrolling", False):
        message = "Your role needs a second factor. Enrol one now."
        return redirect_to(url_for("account.second_factor"), message, "refused")
    needs_code: Callable[[], bool] | None = getattr(view, "needs_code", None)
    if request.method == "POST" and needs_code is not None and needs_code():
        return _ask_for_code()
    return None


def _ask_for_code() -> Any:
    """The form that asks for a fresh code and sends the whole form again; None if the code is fresh."""
    if sessions.has_fresh_code() or sessions.accept_code():
        return None
    fields = [(name, value) for name, values in request.form.lists() for value in values]
    hidden = [(name, value) for name, value in fields if name not in ("csrf_token", sessions.CODE)]
    is_wrong = sessions.CODE in request.form
    page = render_template(
        "code.html", title="Enter a code", form=CodeForm(), hidden=hidden, is_wrong=is_wrong
    )
    return page, 401 if is_wrong else 403


def refusal(error: PayoutsError) -> str:
    """The message about a change that was refused."""
    reason = error.error if error.details == error.error else f"{error.error}: {error.details}"
    return f"{reason}. Nothing was done."


def redirect_to(address: str, message: str, category: str = "done") -> Response:
    """Go to another page of the panel with a message."""
    flash(message, category)
    return redirect(address, code=303)


def panel_url(address: str | None) -> str:
    """The address if it is in the panel; the dashboard's for any other."""
    try:
        parts = urlsplit(address or "")
    except ValueError:
        return "/admin/"
    is_ours = not parts.scheme and not parts.netloc and parts.path.startswith("/admin/")
    return address if address and is_ours and address.isprintable() and "\\" not in address else "/admin/"


def row_id(number: int) -> int:
    """The id of a row; 0, which no row has, if the number cannot be one."""
    return number if 0 <= number <= MAX_ID else 0


def cursor_id() -> int | None:
    """`?cursor=` of a list with descending ids: the last id of the previous page. Raises BadRequest."""
    decoded = query_parameters.decoded_cursor()
    if decoded is None:
        return None
    last_id = parse_whole_number(decoded)
    if last_id is None or not 0 <= last_id <= MAX_ID:
        raise query_parameters.invalid_cursor()
    return last_id
