"""Many withdrawals in one request: each is taken or refused for itself, and sent again is done once."""

from typing import Any

import structlog
from apiflask import APIBlueprint
from flask import current_app, g, request

from api import auth, schemas
from api.once import given_key
from api.openapi import operations
from api.openapi.described import described
from api.withdrawals import taken, told
from shared import fields, idempotency
from shared.errors import BadRequest, PayoutsError, Unavailable

BODY_TIMES = 8  # as many times the size of another body

NOT_TRIED = Unavailable(
    "Service unavailable", "Not tried: an item before it met no database; send it all again", code="not_tried"
)

log = structlog.get_logger()
blueprint = APIBlueprint("batches", __name__, url_prefix="/api/razorpay/withdraw/batch")
blueprint.before_request(auth.require_app)


@blueprint.post("/")
@described(operations.BATCH)
@auth.needs("withdraw")
def batch() -> dict[str, Any]:
    """Up to 500 wishes under one `Idempotency-Key`, with a result for each, in their order.

    A bad item does not stop the others; a database that is away does. Sent again under the same key, what was
    taken is told again and the rest is tried again. An item's place in the list is part of its key: the same
    users have to stand at the same places.
    """
    key = given_key()
    if key is None:
        raise BadRequest(
            "Idempotency-Key is required",
            "A batch that was not answered is sent again; without a key that would pay everybody twice",
            code="missing",
        )
    request.max_content_length = BODY_TIMES * current_app.config["SETTINGS"].max_body_bytes
    given = schemas.body(schemas.BatchIn)
    idempotency.hold(actor=g.actor, key=key, operation="batch", fingerprint=_places(given.items))
    results: list[dict[str, Any]] = []
    for place, item in enumerate(given.items):
        results.append(_result(place, item, key) if _goes_on(results) else _told(place, NOT_TRIED))
    accepted = sum(result["success"] for result in results)
    log.info("[WITHDRAW] batch", count=len(results), accepted=accepted, actor=g.actor)
    counts = {"count": len(results), "accepted": accepted, "refused": len(results) - accepted}
    return {"success": True, **counts, "results": results}


def _places(items: list[Any]) -> str:
    """Who stands where. At another place the same wish would have another key, and be paid again."""
    users = [item.get("user_id") if isinstance(item, dict) else None for item in items]
    return idempotency.fingerprint(
        "batch", {"users": [one if isinstance(one, str) else None for one in users]}
    )


def _goes_on(results: list[dict[str, Any]]) -> bool:
    # Each would wait for the database anew, and the app for all of them.
    return not results or results[-1]["http_status"] != Unavailable.http_status


def _told(place: int, error: PayoutsError) -> dict[str, Any]:
    told = {"error": error.error, "details": error.details, "code": error.code, **error.extra}
    return {"index": place, "success": False, "http_status": error.http_status, **told}


def _result(place: int, item: Any, key: str) -> dict[str, Any]:
    """What became of one item: as its own request would be answered, with its place and its HTTP status."""
    try:
        given = fields.parsed(
            schemas.WithdrawIn, item, min_withdrawal_coins=current_app.config["SETTINGS"].min_withdrawal_coins
        )
        fingerprint = idempotency.fingerprint("withdraw", given.model_dump())
        # No key that an app can send has a blank in it: an item's never meets a single request's.
        made = taken(given, f"{key} {place}", fingerprint)
    except PayoutsError as error:
        return _told(place, error)
    return {"index": place, "success": True, "http_status": 201, **told(made)}
