"""Rate limits per API key, per user and per address, and of failed authentications per address.

Redis counts for all processes together (request_counter.py). While Redis is away, each process counts for itself.
"""

import math
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, TypeVar

import limits
import redis
import structlog
from flask import Flask, Response, current_app, g, request
from werkzeug.exceptions import TooManyRequests

from api.request_counter import Counted, Rate, RequestCounter, Verdict
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

View = TypeVar("View", bound=Callable[..., Any])

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit per `key`, for requests to which it `applies`.

    With `used_up_if`, only requests for which it is true after the response use it up.
    """

    rate: str
    scope: str
    key: Callable[[], str]
    applies: Callable[[], bool]
    used_up_if: Callable[[], bool] | None = None


def register(app: Flask, settings: Settings) -> None:
    """Limit this application's requests. `auth.identify_caller` must run before."""
    limits_of_all = [
        # Callers who were valid recently continue, however many others try wrong keys from the same address.
        Limit(settings.rate_limit_failed_auth, "failed", client_address, _is_unknown, _has_failed),
        Limit(settings.rate_limit_per_key, "key", lambda: str(g.credential), _has_key),
        Limit(settings.rate_limit_per_user, "user", lambda: str(g.caller.user_id), _is_user),
        # Separate, so that unknown callers cannot use up the limit of users at the same address.
        Limit(settings.rate_limit_per_address, "address", client_address, _is_unknown),
        Limit(settings.rate_limit_per_address, "users", client_address, _is_user),
    ]
    RequestLimits(app, settings, limits_of_all, prefix="rates")


def counts_user(view: View) -> View:
    """Mark a view that calls `count_for_user`: a known app's request is counted there, for both limits at once."""
    view.counts_user = True  # type: ignore[attr-defined]
    return view


def count_for_user(user_id: str) -> None:
    """Count an app's request for this user together with the user's own requests. Raises HTTP 429."""
    request_limits: RequestLimits = current_app.extensions["rates"]
    request_limits.count_for_user(user_id)


class RequestLimits:
    """The limits of one application, and their headers in its responses."""

    def __init__(self, app: Flask, settings: Settings, of_all: Iterable[Limit], *, prefix: str) -> None:
        rates = [(limit, rate) for limit in of_all for rate in _rates(limit.rate, limit.scope, prefix)]
        # The headers show the first of several: that of the shortest window.
        self._limits = sorted(rates, key=lambda limit_and_rate: limit_and_rate[1].limit)
        self._per_user = sorted(
            _rates(settings.rate_limit_per_user, "user", prefix), key=lambda rate: rate.limit
        )
        address = RedisAddress.parse(settings.redis_url.get_secret_value())
        self.client = redis.Redis.from_url(
            address.url, **redis_broker.redis_options(address, REDIS_TIMEOUT_SECONDS)
        )
        self._counter = RequestCounter(self.client)
        app.extensions["rates"] = self
        app.before_request(self._check)
        app.after_request(self._finish)

    def count_for_user(self, user_id: str) -> None:
        """Count the request for this user. Raises TooManyRequests."""
        if self._per_user and not _is_user():  # a user's own requests are counted before the body is read
            first = g.pop("uncounted", [])
            for_user = [Counted(rate, user_id) for rate in self._per_user]
            self._count(*((first, for_user) if first else (for_user, [])))

    def _check(self) -> None:
        """Count the request before its view runs. Raises TooManyRequests."""
        if request.endpoint is None or request.blueprint in EXEMPT_BLUEPRINTS:
            return
        applying = [
            (limit, Counted(rate, limit.key(), uses_up=limit.used_up_if is None))
            for limit, rate in self._limits
            if limit.applies()
        ]
        g.peeked = [(limit, counted) for limit, counted in applying if limit.used_up_if]
        counted = [counted for _, counted in applying]
        if self._is_counted_by_view():
            g.uncounted = counted
        elif counted:
            self._count(counted, [])

    def _is_counted_by_view(self) -> bool:
        """True if the view will count the request. The caller's key was valid recently: others are not let that far."""
        view = current_app.view_functions.get(request.endpoint or "")
        return bool(getattr(view, "counts_user", False) and self._per_user and g.is_known and not _is_user())

    def _count(self, first: list[Counted], second: list[Counted]) -> None:
        g.verdict = self._counter.count(first, second)
        if g.verdict.is_refused:
            raise TooManyRequests

    def _finish(self, response: Response) -> Response:
        """Count what is still to be counted, and report the limit in headers."""
        if uncounted := g.pop("uncounted", None):  # the request was refused before the view counted it
            try:
                self._count(uncounted, [])
            except TooManyRequests as error:
                response = current_app.make_response(current_app.handle_user_exception(error))
        failed = [counted for limit, counted in g.get("peeked", ()) if limit.used_up_if()]
        if failed:
            self._counter.count([Counted(counted.rate, counted.key) for counted in failed])
        verdict: Verdict | None = g.get("verdict")
        return _add_headers(response, verdict) if verdict else response


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


def _rates(rate: str, scope: str, prefix: str) -> list[Rate]:
    return [] if rate == OFF else [Rate(scope, limit, prefix) for limit in limits.parse_many(rate)]


def _is_user() -> bool:
    return g.caller is not None and g.caller.user_id is not None


def _has_key() -> bool:
    return bool(g.credential) and not _is_user()


def _is_unknown() -> bool:
    return not g.is_known


def _has_failed() -> bool:
    return bool(g.get("has_failed"))


def _add_headers(response: Response, verdict: Verdict) -> Response:
    """Report the remaining requests: of the exceeded limit, or else of the one that resets first."""
    headers = response.headers
    reset_at = int(verdict.reset_at + 1)
    headers["X-RateLimit-Limit"] = str(verdict.rate.limit.amount)
    headers["X-RateLimit-Remaining"] = str(verdict.remaining)
    headers["X-RateLimit-Reset"] = str(reset_at)
    if verdict.is_refused:
        headers["Retry-After"] = str(max(1, math.ceil(reset_at - time.time())))
        metrics.RATE_LIMITED.labels(verdict.rate.scope).inc()
        log.warning(
            "[API] rate limited",
            path=request.path,
            address=request.remote_addr,
            limit=str(verdict.rate.limit),
        )
    return response
