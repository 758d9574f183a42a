"""What every page of the panel is made of."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar
from urllib.parse import urlsplit

from flask import abort, flash, redirect, render_template, request, url_for
from flask_admin import BaseView, expose
from werkzeug.wrappers import Response

from api import parameters
from api.admin import door
from shared.errors import BadRequest
from shared.fields import whole_number
from shared.roles import NEEDS, Permission, Role

EVERYBODY = "everybody"  # marks what one opens without having signed in
MAX_REASON = 500
MAX_ID = 2**63 - 1
DO = "do"  # what the last of several steps is called

View = Callable[..., Any]


def opens(
    url: str,
    needs: Role | Permission | str,
    methods: Iterable[str] = ("GET",),
    *,
    asks_code: Callable[[], bool] | None = None,
    enrolling: bool = False,
) -> Callable[[View], View]:
    """Marks a view: its address below the page's, and the role, or the permission, that it needs.

    Without a mark it is shut.

    `asks_code` says whether what this form would do needs a fresh code of the second factor; `enrolling`
    that it is open to who must enrol one first.
    """

    def mark(view: View) -> View:
        view.needs = NEEDS[needs] if isinstance(needs, Permission) else needs  # type: ignore[attr-defined]
        view.asks_code, view.enrolling = asks_code, enrolling  # type: ignore[attr-defined]
        exposed: View = expose(url, tuple(methods))(view)
        return exposed

    return mark


class Page(BaseView):
    """A part of the panel: `/admin/<endpoint>/`; in the menu under `title`, for `needs` and above."""

    title: ClassVar[str]
    endpoint_name: ClassVar[str]
    in_menu: ClassVar[bool] = True
    needs: ClassVar[Role] = Role.VIEWER

    def __init__(self) -> None:
        name = self.endpoint_name
        self._default_view = "index"  # also where it needs an id, and stands in no menu
        super().__init__(name=self.title, endpoint=name, url=f"/admin/{name.replace('_', '-')}")

    def is_accessible(self) -> bool:
        """Whether the menu shows it; each view is asked for itself, below."""
        operator = door.who()
        return operator is not None and operator.role.may(self.needs)

    def is_visible(self) -> bool:
        return self.in_menu

    def _handle_view(self, name: str, **_: Any) -> Any:
        """Called by Flask-Admin before each view: an answer instead of it, or None."""
        return shut(getattr(self, name))


def does() -> bool:
    """For `asks_code`: the last step of a form."""
    return request.form.get("step") == DO


def always() -> bool:
    """For `asks_code`: a form of one step."""
    return True


def shut(view: View) -> Any:
    """What somebody gets who may not open it, or must prove something first; None for who may."""
    needs: Role | str | None = getattr(view, "needs", None)
    if needs == EVERYBODY:
        return None
    operator = door.who()
    if operator is None:
        back = request.full_path.rstrip("?") if request.method == "GET" else None
        return redirect(url_for(f"{door.SIGN_IN}.index", next=back))
    if not isinstance(needs, Role) or not operator.role.may(needs):
        abort(403)
    if operator.must_enrol and not getattr(view, "enrolling", False):
        return back_to("account.second_factor", "Your role needs a second factor: enrol now.", "refused")
    asks_code: Callable[[], bool] | None = getattr(view, "asks_code", None)
    if request.method == "POST" and asks_code is not None and asks_code():
        return _code_first()
    return None


def _code_first() -> Any:
    """Money acts need a code that is not old. The form is sent again with it: nothing typed is lost."""
    if door.has_fresh_code() or door.gives_code():
        return None
    fields = [(name, value) for name, values in request.form.lists() for value in values]
    hidden = [(name, value) for name, value in fields if name not in ("csrf_token", door.CODE)]
    is_wrong = door.CODE in request.form
    page = render_template("code.html", title="Code needed", fields=hidden, is_wrong=is_wrong)
    return page, 401 if is_wrong else 403


def given(
    name: str, *, longest: int = MAX_REASON, required: str | None = None, as_it_stands: bool = False
) -> str:
    """A field of the form, trimmed but for ids of the app's, in which a blank counts. Raises BadRequest;
    `required` says what is missing when it is empty.
    """
    text = request.form.get(name, "")
    text = text if as_it_stands else text.strip()
    if len(text) > longest or "\x00" in text:
        raise BadRequest("Too long", f"At most {longest} characters", code="too_long")
    if required and not text:
        raise BadRequest(required, required, code="missing")
    return text


def back_to(endpoint: str, words: str, category: str = "done", **values: Any) -> Response:
    """After something was done: show another page, with a message."""
    return gone_back(url_for(endpoint, **values), words, category)


def gone_back(address: str, words: str, category: str = "done") -> Response:
    """The same, to an address of the panel."""
    flash(words, category)
    return redirect(address, code=303)


def inside(address: str | None) -> str:
    """An address of the panel to go on to; its front page for anything else."""
    try:
        parts = urlsplit(address or "")
    except ValueError:
        return "/admin/"
    is_ours = not parts.scheme and not parts.netloc and parts.path.startswith("/admin/")
    return address if address and is_ours and address.isprintable() and "\\" not in address else "/admin/"


def number(row_id: int) -> int:
    """The id of a row; one that no row can have becomes one that none has."""
    return row_id if 0 <= row_id <= MAX_ID else 0


def before_id() -> int | None:
    """`?cursor=` of a list that goes down by id. Raises BadRequest."""
    decoded = parameters.given_cursor()
    if decoded is None:
        return None
    found = whole_number(decoded)
    if found is None or not 0 <= found <= MAX_ID:
        raise parameters.bad_cursor()
    return found
