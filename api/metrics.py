"""What each request adds to the metrics, and `/metrics` itself: who may read it is decided here."""

import hmac
from time import perf_counter

from apiflask import APIBlueprint
from flask import Flask, Response, current_app, g, request
from werkzeug.exceptions import Unauthorized

from shared import exposition, metrics
from shared.settings import Settings, is_loopback

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CREATE = "/api/razorpay/withdraw/"
UNKNOWN = "unknown"
# Who sends one of these is a proxy, and then the whole world may seem to be this machine.
PASSED_ON = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")

blueprint = APIBlueprint("metrics", __name__, enable_openapi=False)


def prepare(app: Flask) -> None:
    """Measure this application's requests. To be called before all else that looks at them."""
    exposition.begin()
    app.before_request(_begin)
    app.after_request(_end)


@blueprint.get("/metrics")
def tell() -> Response:
    """The metrics of all processes of this API, and of the books, in Prometheus's format."""
    _only_who_may()
    body, content_type = exposition.of_api(request.headers.get("Accept", ""))
    return Response(body, content_type=content_type)


def _begin() -> None:
    g.began = perf_counter()


def _end(response: Response) -> Response:
    seconds = perf_counter() - g.began
    route = request.url_rule.rule if request.url_rule else UNKNOWN
    method = metrics.known(request.method, METHODS)
    metrics.HTTP_REQUESTS.labels(route, method, response.status_code).inc()
    metrics.HTTP_SECONDS.labels(route, method).observe(seconds)
    if route == CREATE and response.status_code == 201:
        metrics.ACCEPT_SECONDS.observe(seconds)
    return response


def _only_who_may() -> None:
    """Whoever has METRICS_TOKEN. While there is none: this machine, unless something stands in between.

    Raises Unauthorized.
    """
    settings: Settings = current_app.config["SETTINGS"]
    if settings.metrics_token is not None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        wanted = settings.metrics_token.get_secret_value()
        may = hmac.compare_digest(given.encode(), wanted.encode())
    else:
        may = _is_from_here() and not settings.trusted_proxies
    if not may:
        metrics.AUTH_FAILURES.labels("metrics").inc()
        raise Unauthorized(www_authenticate=None)


def _is_from_here() -> bool:
    host = request.host if request.host.endswith("]") else request.host.rsplit(":", 1)[0]
    passed_on = any(name in request.headers for name in PASSED_ON)
    return is_loopback(request.remote_addr or "") and is_loopback(host) and not passed_on
