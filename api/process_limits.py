"""Rate limits that each API process counts in its own memory, so they work and stay fast without Redis.

For health checks (/healthz, /readyz), and for webhooks with an invalid signature.
"""

import math
import time

import limits
from flask import Response
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.error_responses import HTTP_ERRORS, problem
from api.rate_limits import client_address
from shared.settings import OFF


class ProcessRateLimit:
    """A rate limit per client address."""

    def __init__(self, rate: str) -> None:
        self._rate = None if rate == OFF else limits.parse(rate)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def refusal(self) -> Response | None:
        """Count the request; returns the 429 response if the client's address is over the limit."""
        if self._rate is None or self._limiter.hit(self._rate, client_address()):
            return None
        reset_time = self._limiter.get_window_stats(self._rate, client_address()).reset_time
        response = problem(429, *HTTP_ERRORS[429])
        response.headers["Retry-After"] = str(max(1, math.ceil(reset_time - time.time())))
        return response
