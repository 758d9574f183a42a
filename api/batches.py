"""Many withdrawals in one request: each is accepted or refused separately, and a repeat changes nothing."""

from typing import Any

import structlog
from apiflask import APIBlueprint
from flask import current_app, g, request

from api import auth, json_schemas, schemas
from api.idempotency import KEY_HEADER, request_key
from api.openapi import error_examples, response_bodies
from api.openapi.descriptions import Parameter, documented
from api.withdrawals import create, describe
from shared.access import idempotency
from shared.errors import BadRequest, PayoutsError, Unavailable
from shared.text import fields

MAX_BODY_FACTOR = 8  # a batch's body may have this many times MAX_BODY_BYTES

NOT_TRIED = Unavailable(
    "Service unavailable",
    "Not tried, because the database was unavailable for an earlier item. Send the whole batch again",
    code="not_tried",
)

log = structlog.get_logger()
blueprint = APIBlueprint("batches", __name__, url_prefix="/api/razorpay/withdraw/batch")
blueprint.before_request(auth.require_access)


@blueprint.post("/")
@blueprint.doc("Request many withdrawals", operation_id="batch")
@blueprint.output(response_bodies.Batch, 200, "Each item is accepted or refused separately")
@documented(
    Parameter(
        KEY_HEADER,
        json_schemas.IDEMPOTENCY_KEY,
        "The key of the whole batch; an item's key also has its position",
        "payday-2026-11",
        location="header",
        required=True,
    ),
    errors=error_examples.batch_errors,
    body=schemas.BatchIn,  # parsed below, after the key is checked and the size limit raised
)
@auth.needs("withdraw")
def batch() -> dict[str, Any]:
    """Request up to 500 withdrawals with one `Idempotency-Key`. The response has a result for each item.

    An invalid item does not stop the others; an unavailable database does. If you send the batch again with
    the same key, accepted items return their result again and the others are retried. The position of an item
    is part of its key, so send the same users in the same order.
    """
    key = request_key()
    if key is None:
        raise BadRequest(
            "Idempotency-Key is required",
            "Send an Idempotency-Key. Without one, a retried batch would pay everyone twice",
            code="missing",
        )
    request.max_content_length = MAX_BODY_FACTOR * current_app.config["SETTINGS"].max_body_bytes
    body = schemas.parse_body(schemas.BatchIn)
    idempotency.reserve(actor=g.actor, key=key, operation="batch", fingerprint=_fingerprint(body.items))
    results: list[dict[str, Any]] = []
    for index, item in enumerate(body.items):
        should_try = _should_continue(results)
        results.append(_result(index, item, key) if should_try else _error_result(index, NOT_TRIED))
    accepted = sum(result["success"] for result in results)
    log.info("[WITHDRAW] batch", count=len(results), accepted=accepted, actor=g.actor)
    counts = {"count": len(results), "accepted": accepted, "refused": len(results) - accepted}
    return {"success": True, **counts, "results": results}


def _fingerprint(items: list[Any]) -> str:
    """Hash the users in order: at another position an item would get another key, and be paid again."""
    users = [item.get("user_id") if isinstance(item, dict) else None for item in items]
    return idempotency.fingerprint(
        "batch", {"users": [user if isinstance(user, str) else None for user in users]}
    )


def _should_continue(results: list[dict[str, Any]]) -> bool:
    # Without the database, each further item would wait for its timeout.
    return not results or results[-1]["http_status"] != Unavailable.http_status


def _error_result(index: int, error: PayoutsError) -> dict[str, Any]:
    reason = {"error": error.error, "details": error.details, "code": error.code, **error.extra}
    return {"index": index, "success": False, "http_status": error.http_status, **reason}


def _result(index: int, item: Any, key: str) -> dict[str, Any]:
    """Process one item; returns the response to a single request, with its index and HTTP status."""
    try:
        body = fields.parse(
            schemas.WithdrawIn, item, min_withdrawal_coins=current_app.config["SETTINGS"].min_withdrawal_coins
        )
        fingerprint = idempotency.fingerprint("withdraw", body.model_dump())
        # Keys of single requests cannot contain a space, so they never collide with an item's key.
        withdrawal = create(body, f"{key} {index}", fingerprint)
    except PayoutsError as error:
        return _error_result(index, error)
    return {"index": index, "success": True, "http_status": 201, **describe(withdrawal)}
