"""Liveness and readiness, for load balancers and orchestrators."""

from apiflask import APIBlueprint
from flask import Response, current_app, jsonify
from redis.exceptions import RedisError

from api.openapi import response_bodies
from api.openapi.descriptions import documented, success
from api.process_limits import ProcessRateLimit
from shared.db.health import state
from shared.queues import redis_broker, workers
from shared.queues.names import QUEUES

blueprint = APIBlueprint("health", __name__)


@blueprint.before_request
def limit_rate() -> Response | None:
    """Limit the rate in this process: /readyz queries the database."""
    rate: ProcessRateLimit = current_app.config["HEALTH_RATE"]
    return rate.refusal()


@blueprint.get("/healthz")
@blueprint.doc("Liveness", operation_id="alive")
@blueprint.output(response_bodies.Alive, 200, "The process responds")
@documented()
def alive() -> dict[str, object]:
    """The process responds."""
    return {"success": True, "status": "alive"}


def _workers(can_be_known: bool) -> str:
    """Return "ok" if each queue that payouts need has a worker, "none" if not, or "unknown"."""
    try:
        has_worker = workers.queues_with_workers() if can_be_known else {}
    except RedisError:
        has_worker = {}
    if not has_worker:
        return "unknown"
    return "ok" if all(has_worker[name] for name in QUEUES) else "none"


@blueprint.get("/readyz")
@blueprint.doc("Readiness", operation_id="ready")
@blueprint.output(response_bodies.Readiness, 200, "Withdrawals can be requested")
@documented(
    also=(
        success(
            503,
            response_bodies.Readiness,
            "The database is unavailable",
            success=False,
            status="unavailable",
            database="unavailable",
        ),
    )
)
def ready() -> Response:
    """200 if withdrawals can be requested. Without the broker or workers they can: they are paid later."""
    database = state()
    broker = redis_broker.state()
    can_serve = database == "ok"
    status = "unavailable" if not can_serve else "ready" if broker == "ok" else "degraded"
    response = jsonify(
        success=can_serve, status=status, database=database, broker=broker, workers=_workers(broker == "ok")
    )
    if not can_serve:
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    return response
