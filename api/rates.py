"""How often each may ask: per key, per user, per address; and how often an address may fail to come in.

Counted in Redis for all processes together. While Redis is away each process counts for itself.
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

from shared import metrics, queues
from shared.settings import OFF, Settings
from shared.settings.places import Redis

# The caller waits for it: a Redis that has not answered by then counts as away.
REDIS_SECONDS = 0.2
# RazorpayX must be heard, and whoever watches over us answered: `here.py` counts what is too much of that.
NOT_COUNTED = ("provider", "health", "metrics")
# Some proxies write the caller's port too, which changes with each connection.
WITH_PORT = re.compile(r"\[(?P<six>[^]]+)\](:[0-9]+)?|(?P<four>[0-9.]+):[0-9]+")
OF_ONE_SUBSCRIBER = 64  # bits: within an IPv6 prefix of this length everybody chooses addresses as they like
SCOPES = ("failed", "key", "user", "users", "address", "name")  # the last one is the panel's

log = structlog.get_logger()


def prepare(app: Flask, settings: Settings) -> None:
    """Count this application's requests. Who asks, `auth.recognise` has said by then."""
    limits = [
        # Whoever came in lately goes on, however many others try wrong keys from the same address.
        limit(settings.rate_limit_failed_auth, "failed", address, _is_stranger, _has_failed),
        limit(settings.rate_limit_per_key, "key", lambda: g.credential, _has_key),
        limit(settings.rate_limit_per_user, "user", lambda: g.caller.user_id, _is_user),
        # Apart, so that strangers cannot use up what users at the same address may ask.
        limit(settings.rate_limit_per_address, "address", address, _is_stranger),
        limit(settings.rate_limit_per_address, "users", address, _is_user),
    ]
    limiter = count(app, settings, limits, prefix="rates")
    limiter.request_filter(lambda: request.blueprint in NOT_COUNTED)


def count(app: Flask, settings: Settings, limits: list[ApplicationLimit | None], *, prefix: str) -> Limiter:
    """Hold this application's requests against the limits, and tell who asks how much is left."""
    place = Redis.at(settings.redis_url.get_secret_value())
    limiter = Limiter(
        key_func=address,
        application_limits=[one for one in limits if one is not None],
        strategy="sliding-window-counter",
        storage_uri=place.for_limits,
        storage_options=queues.redis_options(place, REDIS_SECONDS),
        in_memory_fallback_enabled=True,
        swallow_errors=True,  # a count that cannot be kept refuses nobody
        key_prefix=prefix,
    )
    limiter.logger.setLevel(logging.WARNING)  # who was told to wait, `_tell` writes down
    limiter.init_app(app)
    app.extensions["rates"] = limiter
    app.after_request(_tell)
    return limiter


def of_user(user_id: str) -> None:
    """Count a wish that an app sends for this user, together with the user's own. Raises HTTP 429."""
    settings: Settings = current_app.config["SETTINGS"]
    if settings.rate_limit_per_user == OFF or _is_user():
        return  # a user's own requests are counted before they are read
    g.asked_for = user_id
    limiter: Limiter = current_app.extensions["rates"]
    with limiter.shared_limit(
        settings.rate_limit_per_user,
        scope="user",
        key_func=lambda: str(g.asked_for),
        override_defaults=False,
    ):
        pass


def limit(
    rate: str,
    scope: str,
    key: Callable[[], str],
    counts: Callable[[], bool],
    deduct: Callable[[], bool] | None = None,
) -> ApplicationLimit | None:
    """One limit: for each `key`, whatever `counts`, or only what `deduct` says afterwards. None when off."""
    if rate == OFF:
        return None
    return ApplicationLimit(
        rate,
        key_function=key,
        scope=scope,
        exempt_when=lambda: not counts(),
        deduct_when=(lambda _: deduct()) if deduct else None,
    )


def address() -> str:
    """Where the caller is, as it is counted."""
    given = request.remote_addr or "nowhere"
    with_port = WITH_PORT.fullmatch(given)
    try:
        known = ip_address((with_port["six"] or with_port["four"]) if with_port else given)
    except ValueError:
        return given
    if isinstance(known, IPv6Address):
        return str(known.ipv4_mapped or IPv6Network((int(known), OF_ONE_SUBSCRIBER), strict=False))
    return str(known)


def _is_user() -> bool:
    return g.caller is not None and g.caller.user_id is not None


def _has_key() -> bool:
    return bool(g.credential) and not _is_user()


def _is_stranger() -> bool:
    return not g.is_known


def _has_failed() -> bool:
    return bool(g.get("has_failed"))


def _scope(key: str) -> str:
    """Which of the limits it was, from the name under which it is counted: `…/scope/60/1/minute`."""
    return metrics.known(key.rsplit("/", 4)[-4], SCOPES)


def _tell(response: Response) -> Response:
    """Say how much is left: of the limit that was reached, or else of the one with the shortest time."""
    limiter: Limiter = current_app.extensions["rates"]
    limit = limiter.current_limit
    if limit is None:
        return response
    try:
        remaining, reset_at = limit.remaining, limit.reset_at
    except RedisError:
        return response
    response.headers["X-RateLimit-Limit"] = str(limit.limit.amount)
    response.headers["X-RateLimit-Remaining"] = str(remaining)
    response.headers["X-RateLimit-Reset"] = str(reset_at)
    if response.status_code == 429:
        response.headers["Retry-After"] = str(max(1, math.ceil(reset_at - time.time())))
        metrics.RATE_LIMITED.labels(_scope(limit.key)).inc()
        log.warning("[API] too many", path=request.path, address=request.remote_addr, limit=str(limit.limit))
    return response
