"""Is it alive, can it serve: for load balancers and the like."""

from apiflask import APIBlueprint
from flask import Response, jsonify

from api.openapi import operations
from api.openapi.described import described
from shared import db, queues

blueprint = APIBlueprint("health", __name__)


@blueprint.get("/healthz")
@described(operations.ALIVE)
def alive() -> dict[str, object]:
    """The process answers."""
    return {"success": True, "status": "alive"}


@blueprint.get("/readyz")
@described(operations.READY)
def ready() -> Response:
    """200 when withdrawals can be taken. Without the broker they can: the sweep finds them later."""
    database, broker = db.answers(), queues.answers()
    status = "ready" if database and broker else "degraded" if database else "unavailable"
    response = jsonify(
        success=database,
        status=status,
        database="ok" if database else "unavailable",
        broker="ok" if broker else "unavailable",
    )
    if not database:
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    return response
