"""Flower's configuration, read by `payouts flower`: a task's page links to its withdrawal in the panel.

A webhook's task has only the event id: the link opens the panel's search, which finds the withdrawal.

Flower escapes what it shows, so the link is inserted into the finished page, at a position that a test
checks. If a new version of Flower changes the page, the link is missing and nothing else breaks.
"""

from typing import Any
from urllib.parse import quote

from flower.urls import handlers
from flower.views.monitor import Healthcheck, Metrics
from flower.views.tasks import TaskView
from tornado.routing import URLSpec
from tornado.web import authenticated

from shared.ids import parse_id
from shared.queues import messages
from shared.settings import settings

LINK_POSITION = b'<div class="detail-actions">'


class TaskPage(TaskView):  # type: ignore[misc]
    """The page of a task."""

    def render_string(self, template_name: str, **values: Any) -> bytes:
        """Render the page, with the link if the task has a withdrawal."""
        page: bytes = super().render_string(template_name, **values)
        link = _link(values.get("task"))
        return page.replace(LINK_POSITION, LINK_POSITION + link.encode(), 1) if link else page


def _link(task: Any) -> str | None:
    panel = settings().admin_url
    address = _address(getattr(task, "name", None), str(getattr(task, "args", "")).strip("[]()',"))
    if panel is None or address is None:
        return None
    return f'<a class="btn btn-primary" href="{panel}/{address}">Withdrawal in the panel</a>'


def _address(name: str | None, argument: str) -> str | None:
    """Return the path in the panel for a task of this name and argument; None without a withdrawal."""
    if name == messages.APPLY:
        return f"withdrawals/?q={quote(argument, safe='')}"
    withdrawal_id = parse_id(argument) if name in (messages.SUBMIT, messages.POLL) else None
    return f"withdrawal/{withdrawal_id}/" if withdrawal_id else None


class AuthenticatedMetrics(Metrics):  # type: ignore[misc]
    """Flower's metrics, behind the password: they name tasks and workers."""

    @authenticated
    async def get(self) -> None:
        """Return the metrics."""
        await super().get()


class AuthenticatedHealthcheck(Healthcheck):  # type: ignore[misc]
    """Flower's health check, behind the password: it would reveal that this is Flower."""

    @authenticated
    async def get(self) -> None:
        """Return OK."""
        await super().get()


HANDLERS = {Metrics: AuthenticatedMetrics, Healthcheck: AuthenticatedHealthcheck}


def _replace(handler: Any) -> Any:
    if isinstance(handler, URLSpec) and handler.name == "task":
        return URLSpec(handler.regex.pattern, TaskPage, name="task")
    if isinstance(handler, tuple) and handler[1] in HANDLERS:
        return (handler[0], HANDLERS[handler[1]], *handler[2:])
    return handler


handlers[:] = map(_replace, handlers)
