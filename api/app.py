"""Makes the web application. `served.py` is what granian runs."""

from threading import BoundedSemaphore

import structlog
from apiflask import APIFlask
from flask import Response, g, request
from flask_cors import CORS
from werkzeug.middleware.proxy_fix import ProxyFix

from api import admin, auth, batches, health, metrics, problems, provider, rates, wallets, withdrawals
from api.here import Here
from api.openapi import page
from shared import log, sentry, tracing
from shared.ids import new_id
from shared.settings import Settings, relaxed
from shared.settings import settings as of_this_process

MAX_REQUEST_ID = 100
PREFLIGHT_SECONDS = 600  # how long a browser may remember what it was allowed


def create_app(settings: Settings | None = None) -> APIFlask:
    """The API. Raises SettingsError when the settings are not usable."""
    settings = settings or of_this_process()
    log.configure()
    tracing.start("payouts-api", settings)
    sentry.start("api", settings)
    for words in relaxed(settings.second_admin_required, settings.admin_totp_required_roles):
        structlog.get_logger().warning("[ADMIN] relaxed: only to try things out", what=words)
    app = APIFlask(
        "coin-payouts",
        title="Coin Payouts",
        static_folder=None,  # type: ignore[arg-type]  # no file of this directory is anybody's business
        docs_path=None,
        spec_path=None,
        json_errors=False,
    )
    app.config["SETTINGS"] = settings
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["WEBHOOK_READERS"] = BoundedSemaphore(max(1, settings.api_bodies // 2))
    app.config["HEALTH_RATE"] = Here(settings.rate_limit_health)
    app.config["BAD_WEBHOOK_RATE"] = Here(settings.rate_limit_bad_webhooks)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # answers in the contract's order
    # With and without the slash at the end, and never a redirect, which would lose a POST's body.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    tracing.of_app(app)
    metrics.prepare(app)
    app.before_request(_begin)
    app.after_request(_end)
    auth.prepare(app)
    rates.prepare(app, settings)
    problems.register(app)
    _let_browsers_in(app, settings)
    app.wsgi_app = admin.Beside(app.wsgi_app, settings)  # type: ignore[method-assign]
    if settings.trusted_proxies:
        # Whoever asked the outermost of our own proxies; what stands before that anybody can write.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    for part in (withdrawals, batches, wallets, provider, health, metrics):
        app.register_blueprint(part.blueprint)
    page.register(app)
    return app


def _let_browsers_in(app: APIFlask, settings: Settings) -> None:
    """Let pages of these origins call us, and read what is theirs. Without origins nothing is added."""
    if not settings.cors_origins:
        return
    app.before_request(_preflight)
    CORS(
        app,
        resources=r"/api/razorpay/(withdraw|wallet)(/.*)?$",
        origins=list(settings.cors_origins),
        methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id"],
        expose_headers=[
            "Idempotency-Replayed",
            "Retry-After",
            "X-Request-Id",
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
        ],
        max_age=PREFLIGHT_SECONDS,
        allow_private_network=False,
    )


def _preflight() -> Response | None:
    """A browser asks whether it may ask; the answer's headers say it."""
    is_question = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    return Response(status=204) if is_question else None


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    usable = 0 < len(given) <= MAX_REQUEST_ID and given.isascii() and given.isprintable()
    g.request_id = given if usable else str(new_id())
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _end(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.get("request_id", "")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    return response
