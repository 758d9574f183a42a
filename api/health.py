"""Is it alive, can it serve: for load balancers and the like."""

from apiflask import APIBlueprint
from flask import Response, current_app, jsonify
from redis.exceptions import RedisError

from api.here import Here
from api.openapi import operations
from api.openapi.described import described
from shared import db, queues, working

blueprint = APIBlueprint("health", __name__)


@blueprint.before_request
def not_too_often() -> Response | None:
    """/readyz asks the database: whoever asks without end gets 429, and nobody is asked for that."""
    rate: Here = current_app.config["HEALTH_RATE"]
    return rate.refusal()


@blueprint.get("/healthz")
@described(operations.ALIVE)
def alive() -> dict[str, object]:
    """The process answers."""
    return {"success": True, "status": "alive"}


def _workers(can_be_known: bool) -> str:
    """Whether each queue that payouts need has somebody who takes messages from it."""
    try:
        worked = working.worked() if can_be_known else {}
    except RedisError:
        worked = {}
    if not worked:
        return "unknown"
    return "ok" if all(worked[name] for name in queues.QUEUES) else "none"


@blueprint.get("/readyz")
@described(operations.READY)
def ready() -> Response:
    """200 when withdrawals can be taken. Without the broker, or workers, they can: they are paid later."""
    database, broker = db.state(), queues.state()
    can_serve = database == "ok"
    status = "unavailable" if not can_serve else "ready" if broker == "ok" else "degraded"
    response = jsonify(
        success=can_serve, status=status, database=database, broker=broker, workers=_workers(broker == "ok")
    )
    if not can_serve:
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    return response
