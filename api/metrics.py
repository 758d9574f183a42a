"""Metrics of each request, and `/metrics` with its access rule."""

import hmac
from functools import cache
from time import perf_counter

from apiflask import APIBlueprint
from flask import Flask, Response, current_app, g, request
from prometheus_client import Counter, Histogram
from werkzeug.exceptions import Unauthorized

from shared.monitoring import exposition
from shared.settings import Settings, is_loopback
from shared.telemetry import metrics

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CREATE_ROUTE = "/api/razorpay/withdraw/"
UNKNOWN_ROUTE = "unknown"
# A request with one of these came through a proxy, and may seem to be local although it is not.
PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")

blueprint = APIBlueprint("metrics", __name__, enable_openapi=False)


def register(app: Flask) -> None:
    """Measure this application's requests. Call it before anything else that hooks into them."""
    exposition.initialize()
    app.before_request(_start_timer)
    app.after_request(_observe)


@blueprint.get("/metrics")
def read_metrics() -> Response:
    """Return the metrics of all processes of this API and of the database, in Prometheus's format."""
    _require_access()
    body, content_type = exposition.api_metrics(request.headers.get("Accept", ""))
    return Response(body, content_type=content_type)


def _start_timer() -> None:
    g.started_at = perf_counter()


def _observe(response: Response) -> Response:
    seconds = perf_counter() - g.started_at
    http = request._get_current_object()  # type: ignore[attr-defined]  # each use of a proxy looks it up
    route = http.url_rule.rule if http.url_rule else UNKNOWN_ROUTE
    method = metrics.known_or_other(http.method, METHODS)
    count, duration = _series(route, method, response.status_code)
    count.inc()
    duration.observe(seconds)
    if route == CREATE_ROUTE and response.status_code == 201:
        metrics.ACCEPT_SECONDS.observe(seconds)
    return response


@cache
def _series(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    """Return the count and the durations with these labels: as few as there are routes and statuses."""
    return metrics.HTTP_REQUESTS.labels(route, method, status), metrics.HTTP_SECONDS.labels(route, method)


def _require_access() -> None:
    """Require METRICS_TOKEN; if it is not set, require a direct local request. Raises Unauthorized."""
    settings: Settings = current_app.config["SETTINGS"]
    if settings.metrics_token is not None:
        sent_token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        token = settings.metrics_token.get_secret_value()
        is_allowed = hmac.compare_digest(sent_token.encode(), token.encode())
    else:
        is_allowed = _is_local() and not settings.trusted_proxies
    if not is_allowed:
        metrics.AUTH_FAILURES.labels("metrics").inc()
        raise Unauthorized(www_authenticate=None)


def _is_local() -> bool:
    host = request.host if request.host.endswith("]") else request.host.rsplit(":", 1)[0]
    is_proxied = any(name in request.headers for name in PROXY_HEADERS)
    return is_loopback(request.remote_addr or "") and is_loopback(host) and not is_proxied
