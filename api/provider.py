"""RazorpayX's webhooks: check, keep, answer. Thinking is a worker's business."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

import structlog
from apiflask import APIBlueprint
from flask import Response, current_app, request
from werkzeug.exceptions import RequestEntityTooLarge

from api.here import Here
from api.openapi import operations
from api.openapi.described import described
from api.problems import problem
from shared import inbox, metrics
from shared.errors import Unavailable
from shared.razorpayx.signature import is_signed
from shared.settings import Settings

log = structlog.get_logger()
blueprint = APIBlueprint("provider", __name__, url_prefix="/api/razorpay")


@blueprint.post("/webhook/")
@described(operations.WEBHOOK)
def webhook() -> dict[str, Any] | Response:
    """Keep a signed event; the provider waits five seconds at most (razorpayx.md §5.4)."""
    settings: Settings = current_app.config["SETTINGS"]
    request.max_content_length = settings.max_webhook_bytes
    with _one_of_the_readers():
        body = request.get_data(cache=False)
    if len(body) >= settings.max_webhook_bytes:
        raise RequestEntityTooLarge  # a chunked body is cut there, and a part of it says nothing
    if not is_signed(body, request.headers.get("X-Razorpay-Signature"), _secrets(settings)):
        metrics.WEBHOOKS_RECEIVED.labels("bad_signature").inc()
        rate: Here = current_app.config["BAD_WEBHOOK_RATE"]
        # Only what nobody signed: RazorpayX is heard, however much others send from wherever.
        if refused := rate.refusal():
            return refused
        log.warning("[WEBHOOK] bad signature", address=request.remote_addr, size=len(body))
        return problem(
            400, "Invalid signature", "The body is not signed by a secret of ours", "invalid_signature"
        )
    is_new = inbox.receive(request.headers.get("X-Razorpay-Event-Id"), body)
    return {"success": True, "message": "Received" if is_new else "Received before"}


@contextmanager
def _one_of_the_readers() -> Iterator[None]:
    """Anybody may send here, as slowly as they like: they must not hold every thread of the process.

    RazorpayX sends again what was refused, and polling knows it anyway. Raises Unavailable.
    """
    readers: BoundedSemaphore = current_app.config["WEBHOOK_READERS"]
    if not readers.acquire(blocking=False):
        metrics.WEBHOOKS_RECEIVED.labels("too_many").inc()
        raise Unavailable("Service unavailable", "Too many webhooks at once", code="too_many_webhooks")
    try:
        yield
    finally:
        readers.release()


def _secrets(settings: Settings) -> list[str]:
    secrets = [settings.razorpayx_webhook_secret]
    if settings.razorpayx_webhook_secret_previous is not None:
        secrets.append(settings.razorpayx_webhook_secret_previous)
    return [secret.get_secret_value() for secret in secrets]
