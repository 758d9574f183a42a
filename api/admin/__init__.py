"""The admin panel at `/admin/`: an application of its own beside the API, with sessions, forms and HTML.

    app.py            puts it together: pages, response headers, errors
    sessions.py       who is signed in, and for how long
    devices.py        browsers in which an operator signed in before
    page.py           the base of every page: routes, permissions, messages
    fields.py         kinds of form fields, with their limits
    forms.py          the forms; list_filters.py has the filters of lists
    confirm.py        a change in two steps: say what will happen, then do it
    audit_writer.py   the audit log, written before and after a change
    actions/          what operators can do to a withdrawal

Each further module is a page. To add one, write a class of `page.Page` and add it to `app.PAGES`.

The panel is imported at its first request, so that the API starts as fast without it.
"""

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

import structlog

from shared.people import audit
from shared.settings import Settings

log = structlog.get_logger()

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class PanelMiddleware:
    """Sends requests for `/admin/` to the panel, which the first one creates, and all others to the API."""

    def __init__(self, api: Wsgi, settings: Settings) -> None:
        self._api = api
        self._settings = settings
        self._panel: Wsgi | None = None
        self._creating = Lock()
        if settings.admin_secret_key is None:
            log.warning("[ADMIN] there is no panel", why="ADMIN_SECRET_KEY is not set")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if self._settings.admin_secret_key and (path == "/admin" or path.startswith("/admin/")):
            audit.set_origin(audit.PANEL)
            return self._get_panel()(environ, start_response)
        audit.set_origin(audit.API)
        return self._api(environ, start_response)

    def _get_panel(self) -> Wsgi:
        with self._creating:
            if self._panel is None:
                from api.admin.app import create_panel  # noqa: PLC0415  see above

                self._panel = create_panel(self._settings)
            return self._panel
