"""The provider's webhooks: verify, store, respond. A worker applies them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from apiflask import APIBlueprint
from flask import Response, current_app, request
from werkzeug.exceptions import RequestEntityTooLarge

from api import bodies
from api.error_responses import problem
from api.openapi import error_examples, response_bodies
from api.openapi.descriptions import Parameter, documented
from api.process_limits import ProcessRateLimit
from api.slots import Slots
from shared.errors import Unavailable
from shared.providers.registry import provider
from shared.settings import Settings
from shared.telemetry import metrics
from shared.withdrawals import inbox

log = structlog.get_logger()
blueprint = APIBlueprint("provider", __name__, url_prefix="/api/razorpay")


@blueprint.post("/webhook/")
@blueprint.doc(
    "Receive a webhook from RazorpayX",
    "RazorpayX calls this when a payout changes. Apps do not need it.",
    operation_id="webhook",
)
@blueprint.output(response_bodies.Received, 200, "Stored; a worker applies it")
@documented(
    Parameter(
        "X-Razorpay-Signature",
        {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "HMAC-SHA256 of the body with the webhook secret, in hex",
        "0f" * 32,
        location="header",
        required=True,
    ),
    Parameter(
        "X-Razorpay-Event-Id", {"type": "string"}, "Each event is stored once", "evt_Q3bVZ", location="header"
    ),
    errors=error_examples.webhook_errors,
    raw_body={
        "schema": {"type": "object"},
        "example": {"entity": "event", "event": "payout.processed"},
    },
)
def webhook() -> dict[str, Any] | Response:
    """Store a signed event; the provider waits at most five seconds (provider reference §5.4)."""
    settings: Settings = current_app.config["SETTINGS"]
    http = request._get_current_object()  # type: ignore[attr-defined]  # each use of a proxy looks it up
    http.max_content_length = settings.max_webhook_bytes
    with _reader_slot():
        body = bodies.read(http)
    if len(body) >= settings.max_webhook_bytes:
        raise RequestEntityTooLarge  # a chunked body was cut at the limit
    if not provider().is_signed(settings, body, http.headers):
        metrics.WEBHOOKS_RECEIVED.labels("bad_signature").inc()
        rate: ProcessRateLimit = current_app.config["BAD_WEBHOOK_RATE"]
        # Only unsigned requests count: others must not keep out the provider's webhooks.
        if too_many := rate.refusal():
            return too_many
        log.warning("[WEBHOOK] bad signature", address=request.remote_addr, size=len(body))
        return problem(
            400, "Invalid signature", "The body is not signed with our webhook secret", "invalid_signature"
        )
    is_new = inbox.receive(provider().event_id(http.headers), body)
    return {"success": True, "message": "Received" if is_new else "Received before"}


@contextmanager
def _reader_slot() -> Iterator[None]:
    """Limit the number of bodies read at once: anyone can send here slowly and must not occupy all threads.

    The provider sends refused webhooks again, and polls find their news too. Raises Unavailable.
    """
    readers: Slots = current_app.config["WEBHOOK_READERS"]
    if not readers.acquire(blocking=False):
        metrics.WEBHOOKS_RECEIVED.labels("too_many").inc()
        raise Unavailable(
            "Service unavailable", "Too many webhooks at once. Retry later", code="too_many_webhooks"
        )
    try:
        yield
    finally:
        readers.release()
