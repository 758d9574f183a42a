"""Rate limits per API key, per user and per address, and of failed authentications per address.

Redis counts for all processes together (request_counter.py). Without it, each process counts for itself.
"""

import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any, TypeVar

import limits
import redis
import structlog
from flask import Flask, Request, Response, current_app, g, request
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
USER = "user"  # the scope of requests for one user

View = TypeVar("View", bound=Callable[..., Any])

log = structlog.get_logger()


def register(app: Flask, settings: Settings) -> None:
    """Limit this application's requests. `auth.identify_caller` must run before."""
    rates = {
        "failed": settings.rate_limit_failed_auth,
        "key": settings.rate_limit_per_key,
        USER: settings.rate_limit_per_user,
        # Separate, so that unknown callers cannot use up the limit of users at the same address.
        "address": settings.rate_limit_per_address,
        "users": settings.rate_limit_per_address,
    }
    RequestLimits(app, settings, rates, _keys, on_failure=("failed",), prefix="rates")


def counts_user(view: View) -> View:
    """Mark a view that calls `count_for_user`: it counts a known app's request, for both limits at once."""
    view.counts_user = True  # type: ignore[attr-defined]
    return view


def count_for_user(user_id: str) -> None:
    """Count an app's request for this user together with the user's own requests. Raises HTTP 429."""
    request_limits: RequestLimits = current_app.extensions["rates"]
    request_limits.count_for_user(user_id)


class RequestLimits:
    """The limits of one application, and their headers in its responses.

    `rates` has the setting of each scope. `keys` returns the scopes that apply to a request, and what it
    counts for in each. The scopes `on_failure` are used up only by requests that set `g.has_failed`.
    """

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        rates: Mapping[str, str],
        keys: Callable[[], Mapping[str, str]],
        *,
        on_failure: Collection[str],
        prefix: str,
    ) -> None:
        every = [
            Rate(prefix, scope, limit)
            for scope, rate in rates.items()
            if rate != OFF
            for limit in limits.parse_many(rate)
        ]
        # The headers show the first of several: that of the shortest window.
        self._rates = sorted(every, key=lambda rate: rate.limit)
        self._per_user = [rate for rate in self._rates if rate.scope == USER]
        self._keys = keys
        self._on_failure = on_failure
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
        here = _here()
        if self._per_user and not _is_user(here):  # a user's own requests are counted before the body is read
            first = here.pop("uncounted", None)
            for_user = [Counted(rate, user_id) for rate in self._per_user]
            self._count(here, *((first, for_user) if first else (for_user,)))

    def _check(self) -> None:
        """Count the request before its view runs. Raises TooManyRequests."""
        http: Request = request._get_current_object()  # type: ignore[attr-defined]
        if not self._rates or http.endpoint is None or http.blueprint in EXEMPT_BLUEPRINTS:
            return
        here = _here()
        keys = self._keys()
        counted = [
            Counted(rate, keys[rate.scope], uses_up=rate.scope not in self._on_failure)
            for rate in self._rates
            if rate.scope in keys
        ]
        here.on_failure = [each for each in counted if not each.uses_up]
        if self._is_counted_by_view(http.endpoint, here):
            here.uncounted = counted
        elif counted:
            self._count(here, counted)

    def _is_counted_by_view(self, endpoint: str, here: Any) -> bool:
        """True if the view will count the request: only for a key that was valid recently."""
        view = current_app.view_functions.get(endpoint)
        return bool(
            getattr(view, "counts_user", False) and self._per_user and here.is_known and not _is_user(here)
        )

    def _count(self, here: Any, first: list[Counted], second: Sequence[Counted] = ()) -> None:
        here.verdict = self._counter.count(first, second)
        if here.verdict.is_refused:
            raise TooManyRequests

    def _finish(self, response: Response) -> Response:
        """Count what is still to be counted, and report the limit in headers."""
        here = _here()
        if uncounted := here.pop("uncounted", None):  # the request was refused before the view counted it
            try:
                self._count(here, uncounted)
            except TooManyRequests as error:
                response = current_app.make_response(current_app.handle_user_exception(error))
        on_failure = here.get("on_failure")
        if on_failure and here.get("has_failed"):
            self._counter.count([Counted(rate, key) for rate, key, _ in on_failure])
        verdict: Verdict | None = here.get("verdict")
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


def _here() -> Any:
    """Return what `g` stands for: each use of a proxy looks it up."""
    return g._get_current_object()


def _is_user(here: Any) -> bool:
    return here.caller is not None and here.caller.user_id is not None


def _keys() -> dict[str, str]:
    """Return the scopes that apply to this request of the API, and what it counts for in each."""
    here = _here()
    if _is_user(here):
        return {USER: here.caller.user_id, "users": client_address()}
    keys = {"key": here.credential} if here.credential else {}
    if here.is_known:
        # Callers who were valid recently continue, however many others try wrong keys from the same address.
        return keys
    address = client_address()
    return {**keys, "failed": address, "address": address}


def _add_headers(response: Response, verdict: Verdict) -> Response:
    """Report the remaining requests: of the exceeded limit, or else of the one that resets first."""
    headers = response.headers
    reset_at = int(verdict.reset_at + 1)
    headers.add("X-RateLimit-Limit", str(verdict.rate.limit.amount))
    headers.add("X-RateLimit-Remaining", str(verdict.remaining))
    headers.add("X-RateLimit-Reset", str(reset_at))
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
