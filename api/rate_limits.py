"""Rate limits per API key, per user and per address, and of failed authentications per address.

Redis counts for all processes together. While Redis is away, each process counts for itself.
"""

import logging
import math
import re
import time
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address

import structlog
from flask import Flask, Response, current_app, g, request
from flask_limiter import ApplicationLimit, Limiter
from redis.exceptions import RedisError

from shared.queues import redis_broker
from shared.settings import OFF, Settings
from shared.settings.addresses import RedisAddress
from shared.telemetry import metrics

# The caller waits for it: a Redis that does not answer in time counts as away.
REDIS_TIMEOUT_SECONDS = 0.2
# The provider's webhooks and health checks must work without Redis: process_limits.py limits them.
EXEMPT_BLUEPRINTS = ("provider", "health", "metrics")
# Some proxies add the caller's port, which changes with each connection.
ADDRESS_WITH_PORT = re.compile(r"\[(?P<six>[^]]+)\](:[0-9]+)?|(?P<four>[0-9.]+):[0-9]+")
IPV6_PREFIX_BITS = 64  # one subscriber can use every address of such a prefix
SCOPES = ("failed", "key", "user", "users", "address", "name")  # "name" is the panel's

log = structlog.get_logger()


def register(app: Flask, settings: Settings) -> None:
    """Limit this application's requests. `auth.identify_caller` must run before."""
    limits = [
        # Callers who were valid recently continue, however many others try wrong keys from the same address.
        application_limit(
            settings.rate_limit_failed_auth, "failed", client_address, _is_unknown, _has_failed
        ),
        application_limit(settings.rate_limit_per_key, "key", lambda: g.credential, _has_key),
        application_limit(settings.rate_limit_per_user, "user", lambda: g.caller.user_id, _is_user),
        # Separate, so that unknown callers cannot use up the limit of users at the same address.
        application_limit(settings.rate_limit_per_address, "address", client_address, _is_unknown),
        application_limit(settings.rate_limit_per_address, "users", client_address, _is_user),
    ]
    limiter = create_limiter(app, settings, limits, prefix="rates")
    limiter.request_filter(lambda: request.blueprint in EXEMPT_BLUEPRINTS)


def create_limiter(
    app: Flask, settings: Settings, limits: list[ApplicationLimit | None], *, prefix: str
) -> Limiter:
    """Apply the limits to this application's requests, and report the remaining requests in headers."""
    redis_address = RedisAddress.parse(settings.redis_url.get_secret_value())
    limiter = Limiter(
        key_func=client_address,
        application_limits=[limit for limit in limits if limit is not None],
        strategy="sliding-window-counter",
        storage_uri=redis_address.limits_url,
        storage_options=redis_broker.redis_options(redis_address, REDIS_TIMEOUT_SECONDS),
        in_memory_fallback_enabled=True,
        swallow_errors=True,  # if counting fails, requests are accepted
        key_prefix=prefix,
    )
    limiter.logger.setLevel(logging.WARNING)  # `_add_headers` logs who is over a limit
    limiter.init_app(app)
    app.extensions["rates"] = limiter
    app.after_request(_add_headers)
    return limiter


def count_for_user(user_id: str) -> None:
    """Count an app's request for this user together with the user's own requests. Raises HTTP 429."""
    settings: Settings = current_app.config["SETTINGS"]
    if settings.rate_limit_per_user == OFF or _is_user():
        return  # a user's own requests are counted before the body is read
    g.limited_user_id = user_id
    limiter: Limiter = current_app.extensions["rates"]
    with limiter.shared_limit(
        settings.rate_limit_per_user,
        scope="user",
        key_func=lambda: str(g.limited_user_id),
        override_defaults=False,
    ):
        pass


def application_limit(
    rate: str,
    scope: str,
    key: Callable[[], str],
    counts: Callable[[], bool],
    deduct: Callable[[], bool] | None = None,
) -> ApplicationLimit | None:
    """Return a limit per `key`, for requests for which `counts`; None if it is off.

    With `deduct`, only requests for which it is true after the response use up the limit.
    """
    if rate == OFF:
        return None
    return ApplicationLimit(
        rate,
        key_function=key,
        scope=scope,
        exempt_when=lambda: not counts(),
        deduct_when=(lambda _: deduct()) if deduct else None,
    )


def client_address() -> str:
    """Return the caller's address under which requests are counted; for IPv6 its prefix."""
    address = request.remote_addr or "nowhere"
    with_port = ADDRESS_WITH_PORT.fullmatch(address)
    try:
        ip = ip_address((with_port["six"] or with_port["four"]) if with_port else address)
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or IPv6Network((int(ip), IPV6_PREFIX_BITS), strict=False))
    return str(ip)


def _is_user() -> bool:
    return g.caller is not None and g.caller.user_id is not None


def _has_key() -> bool:
    return bool(g.credential) and not _is_user()


def _is_unknown() -> bool:
    return not g.is_known


def _has_failed() -> bool:
    return bool(g.get("has_failed"))


def _scope(key: str) -> str:
    """Return a limit's scope from its storage key: `…/scope/60/1/minute`."""
    return metrics.known_or_other(key.rsplit("/", 4)[-4], SCOPES)


def _add_headers(response: Response) -> Response:
    """Report the remaining requests: of the exceeded limit, or else of the one that resets first."""
    limiter: Limiter = current_app.extensions["rates"]
    limit = limiter.current_limit
    if limit is None:
        return response
    try:
        remaining = limit.remaining
        reset_at = limit.reset_at
    except RedisError:
        return response
    response.headers["X-RateLimit-Limit"] = str(limit.limit.amount)
    response.headers["X-RateLimit-Remaining"] = str(remaining)
    response.headers["X-RateLimit-Reset"] = str(reset_at)
    if response.status_code == 429:
        response.headers["Retry-After"] = str(max(1, math.ceil(reset_at - time.time())))
        metrics.RATE_LIMITED.labels(_scope(limit.key)).inc()
        log.warning(
            "[API] rate limited", path=request.path, address=request.remote_addr, limit=str(limit.limit)
        )
    return response
