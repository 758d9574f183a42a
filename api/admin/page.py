"""What every page of the panel is made of."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar
from urllib.parse import urlsplit

from flask import abort, flash, redirect, request, url_for
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
    url: str, needs: Role | Permission | str, methods: Iterable[str] = ("GET",)
) -> Callable[[View], View]:
    """Marks a view: its address below the page's, and the role, or the permission, that it needs.

    Without a mark it is shut.
    """

    def mark(view: View) -> View:
        view.needs = NEEDS[needs] if isinstance(needs, Permission) else needs  # type: ignore[attr-defined]
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
        return shut(getattr(getattr(self, name), "needs", None))


def shut(needs: Role | str | None) -> Any:
    """What is answered to somebody who may not open it; None to who may."""
    if needs == EVERYBODY:
        return None
    operator = door.who()
    if operator is None:
        back = request.full_path.rstrip("?") if request.method == "GET" else None
        return redirect(url_for(f"{door.SIGN_IN}.index", next=back))
    if not isinstance(needs, Role) or not operator.role.may(needs):
        abort(403)
    return None


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
