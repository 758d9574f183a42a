"""The class of every task: what Flower is shown of it, and what it may raise."""

from typing import Any

from celery import Task
from celery.worker.request import Request

from shared.errors import Unavailable


class ShownRequest(Request):  # type: ignore[misc]
    """A message in a worker's hands. It tells its queue when it starts: nobody else tells it, for an event at
    each sending would triple the cost of a nudge.
    """

    def send_event(self, type: str, **fields: Any) -> None:
        """Tell Flower of it, with the queue it came from."""
        if type == "task-started":
            fields["routing_key"] = self.delivery_info.get("routing_key")
        super().send_event(type, **fields)


class ShownTask(Task):  # type: ignore[misc]
    """A task of ours."""

    Request = "worker.shown:ShownRequest"
    # A database that is away is nobody's fault in here: each task logs it as a sentence, without a traceback.
    throws = (Unavailable,)
