"""The admin panel at `/admin/`: an application of its own beside the API, with sessions, forms and HTML.

    making.py       puts it together: pages, headers, errors
    door.py         who is signed in, for how long; what a role may open
    devices.py      browsers in which an operator came in before
    page.py         what every page is made of
    records.py      the audit log, written before and after

Each further module is a page. To add one: write a class of `page.Page` and name it in `making.PAGES`.

Nothing of it is imported before somebody opens it: the API starts as fast without it.
"""

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

import structlog

from shared import audit
from shared.settings import Settings

log = structlog.get_logger()

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Beside:
    """Sends what begins with `/admin/` to the panel, which is made at the first such request."""

    def __init__(self, api: Wsgi, settings: Settings) -> None:
        self._api, self._settings = api, settings
        self._panel: Wsgi | None = None
        self._making = Lock()
        if settings.admin_secret_key is None:
            log.warning("[ADMIN] there is no panel", why="ADMIN_SECRET_KEY is not set")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if self._settings.admin_secret_key and (path == "/admin" or path.startswith("/admin/")):
            audit.come_from(audit.PANEL)
            return self._made()(environ, start_response)
        audit.come_from(audit.API)
        return self._api(environ, start_response)

    def _made(self) -> Wsgi:
        with self._making:
            if self._panel is None:
                from api.admin.making import create_panel  # noqa: PLC0415  see above

                self._panel = create_panel(self._settings)
            return self._panel
