"""Creates the web application. granian runs `server.py`."""

import structlog
from apiflask import APIFlask
from flask import Response, g, request
from flask_cors import CORS
from werkzeug.middleware.proxy_fix import ProxyFix

from api import (
    admin,
    auth,
    batches,
    error_responses,
    health,
    metrics,
    provider_webhooks,
    rate_limits,
    wallets,
    withdrawals,
)
from api.application import Application
from api.openapi import page
from api.openapi.document import VERSION
from api.process_limits import ProcessRateLimit
from api.slots import Slots
from shared.ids import new_id
from shared.settings import Settings, safety_warnings
from shared.settings import settings as process_settings
from shared.telemetry import log, sentry, tracing

MAX_REQUEST_ID_CHARACTERS = 100
PREFLIGHT_CACHE_SECONDS = 600  # how long a browser may cache the answer to a preflight


def create_app(settings: Settings | None = None) -> APIFlask:
    """Create the API. Raises SettingsError if the settings are not valid."""
    settings = settings or process_settings()
    log.configure()
    tracing.start("payouts-api", settings)
    sentry.start("api", settings)
    for warning in safety_warnings(settings.second_admin_required, settings.admin_totp_required_roles):
        structlog.get_logger().warning("[ADMIN] relaxed: for evaluation only", what=warning)
    app = Application(
        "coin-payouts",
        title="Coin Payouts",
        version=VERSION,
        static_folder=None,  # serve no files
        docs_path=None,
        spec_path=None,
        json_errors=False,
    )
    app.config["SETTINGS"] = settings
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["WEBHOOK_READERS"] = Slots(max(1, settings.api_bodies // 2))
    app.config["HEALTH_RATE"] = ProcessRateLimit(settings.rate_limit_health)
    app.config["BAD_WEBHOOK_RATE"] = ProcessRateLimit(settings.rate_limit_bad_webhooks)
    # Accept URLs with and without the trailing slash, without a redirect: it would lose a POST's body.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    tracing.instrument_app(app)
    metrics.register(app)
    app.before_request(_start_request)
    app.after_request(_add_headers)
    auth.register(app)
    rate_limits.register(app, settings)
    error_responses.register(app)
    _enable_cors(app, settings)
    app.wsgi_app = admin.PanelMiddleware(app.wsgi_app, settings)  # type: ignore[method-assign]
    if settings.trusted_proxies:
        # Trust only the entries of our own proxies: callers can forge those before them.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    for module in (withdrawals, batches, wallets, provider_webhooks, health, metrics):
        app.register_blueprint(module.blueprint)
    page.register(app)
    return app


def _enable_cors(app: APIFlask, settings: Settings) -> None:
    """Allow web pages of the configured origins to call the API. Without origins nothing is added."""
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
        max_age=PREFLIGHT_CACHE_SECONDS,
        allow_private_network=False,
    )


def _preflight() -> Response | None:
    """Answer a preflight with 204; Flask-CORS adds the headers."""
    is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    return Response(status=204) if is_preflight else None


def _start_request() -> None:
    sent_id = request.environ.get("HTTP_X_REQUEST_ID", "")
    is_usable = 0 < len(sent_id) <= MAX_REQUEST_ID_CHARACTERS and sent_id.isascii() and sent_id.isprintable()
    request_id = g.request_id = sent_id if is_usable else str(new_id())
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)


def _add_headers(response: Response) -> Response:
    headers = response.headers
    headers.add("X-Request-Id", g.get("request_id", ""))
    headers.add("X-Content-Type-Options", "nosniff")
    headers.setdefault("Cache-Control", "no-store")
    return response
