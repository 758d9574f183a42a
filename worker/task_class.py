"""The class of all tasks: what Flower shows, and which errors are expected."""

from typing import Any

from celery import Task
from celery.worker.request import Request

from shared.errors import Unavailable


class ObservedRequest(Request):  # type: ignore[misc]
    """A message that a worker handles. It reports its queue to Flower when it starts: an event for each sent
    message would triple the cost of a nudge.
    """

    def send_event(self, type: str, **fields: Any) -> None:
        """Send an event to Flower, with the queue of the message."""
        if type == "task-started":
            fields["routing_key"] = self.delivery_info.get("routing_key")
        super().send_event(type, **fields)


class ObservedTask(Task):  # type: ignore[misc]
    """The base of our tasks."""

    Request = ObservedRequest
    # An unavailable database is expected: a task logs it as one line, without a traceback.
    throws = (Unavailable,)
