"""Flower's configuration, read by `payouts flower`: a task's page leads back to its withdrawal in the panel.

A webhook's task knows the event only: the panel's search finds the withdrawal that it was about.

Flower shows what it is told as text, so the link is put into its page, at a place that a test looks for.
Should Flower's page change, it has no link and is otherwise as it was.
"""

from typing import Any
from urllib.parse import quote

from flower.urls import handlers
from flower.views.monitor import Healthcheck, Metrics
from flower.views.tasks import TaskView
from tornado.routing import URLSpec
from tornado.web import authenticated

from shared import queues
from shared.ids import parse_id
from shared.settings import settings

PLACE = b'<div class="detail-actions">'


class TaskOfWithdrawal(TaskView):  # type: ignore[misc]
    """The page of one task."""

    def render_string(self, template_name: str, **values: Any) -> bytes:
        """The page, with the link if the task has a withdrawal."""
        page: bytes = super().render_string(template_name, **values)
        link = _link(values.get("task"))
        return page.replace(PLACE, PLACE + link.encode(), 1) if link else page


def _link(task: Any) -> str | None:
    panel = settings().admin_url
    address = _address(getattr(task, "name", None), str(getattr(task, "args", "")).strip("[]()',"))
    if panel is None or address is None:
        return None
    return f'<a class="btn btn-primary" href="{panel}/{address}">Withdrawal in the panel</a>'


def _address(name: str | None, argument: str) -> str | None:
    """Below the panel's, for a task of this name and argument; None for those without a withdrawal."""
    if name == queues.APPLY:
        return f"withdrawals/?q={quote(argument, safe='')}"
    withdrawal_id = parse_id(argument) if name in (queues.SUBMIT, queues.POLL) else None
    return f"withdrawal/{withdrawal_id}/" if withdrawal_id else None


class MetricsBehindThePassword(Metrics):  # type: ignore[misc]
    """Names of tasks and workers: as much as its pages tell."""

    @authenticated
    async def get(self) -> None:
        """What Prometheus reads, with the password."""
        await super().get()


class HealthBehindThePassword(Healthcheck):  # type: ignore[misc]
    """Nobody is told that this is Flower who may not see it."""

    @authenticated
    async def get(self) -> None:
        """OK, with the password."""
        await super().get()


OURS = {Metrics: MetricsBehindThePassword, Healthcheck: HealthBehindThePassword}


def _instead_of(handler: Any) -> Any:
    if isinstance(handler, URLSpec) and handler.name == "task":
        return URLSpec(handler.regex.pattern, TaskOfWithdrawal, name="task")
    if isinstance(handler, tuple) and handler[1] in OURS:
        return (handler[0], OURS[handler[1]], *handler[2:])
    return handler


handlers[:] = map(_instead_of, handlers)
