"""Limits that each API process counts in its own memory: no Redis that is away can make them fail or slow.

For who watches over us (/healthz, /readyz), and for webhooks that nobody of ours signed.
"""

import math
import time

import limits
from flask import Response
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.problems import WORDS, problem
from api.rates import address
from shared.settings import OFF


class Here:
    """So many from one address; then each is told to wait."""

    def __init__(self, rate: str) -> None:
        self._rate = None if rate == OFF else limits.parse(rate)
        self._counted = SlidingWindowCounterRateLimiter(MemoryStorage())

    def refusal(self) -> Response | None:
        """Count one more from the caller's address; the answer when that is too many."""
        if self._rate is None or self._counted.hit(self._rate, address()):
            return None
        reset_time = self._counted.get_window_stats(self._rate, address()).reset_time
        response = problem(429, *WORDS[429])
        response.headers["Retry-After"] = str(max(1, math.ceil(reset_time - time.time())))
        return response
