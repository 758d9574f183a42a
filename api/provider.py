"""RazorpayX's webhooks: check, keep, answer. Thinking is a worker's business."""

from typing import Any

import structlog
from apiflask import APIBlueprint
from flask import Response, current_app, request

from api.problems import problem
from shared import inbox
from shared.razorpayx.signature import is_signed
from shared.settings import Settings

log = structlog.get_logger()
blueprint = APIBlueprint("provider", __name__, url_prefix="/api/razorpay")


@blueprint.post("/webhook/")
def webhook() -> dict[str, Any] | Response:
    """Keep a signed event; the provider waits five seconds at most (razorpayx.md §5.4)."""
    settings: Settings = current_app.config["SETTINGS"]
    request.max_content_length = settings.max_webhook_bytes
    body = request.get_data(cache=False)
    if not is_signed(body, request.headers.get("X-Razorpay-Signature"), _secrets(settings)):
        log.warning("[WEBHOOK] bad signature", address=request.remote_addr, size=len(body))
        return problem(
            400, "Invalid signature", "The body is not signed by a secret of ours", "invalid_signature"
        )
    is_new = inbox.receive(request.headers.get("X-Razorpay-Event-Id"), body)
    return {"success": True, "message": "Received" if is_new else "Received before"}


def _secrets(settings: Settings) -> list[str]:
    secrets = [settings.razorpayx_webhook_secret]
    if settings.razorpayx_webhook_secret_previous is not None:
        secrets.append(settings.razorpayx_webhook_secret_previous)
    return [secret.get_secret_value() for secret in secrets]
