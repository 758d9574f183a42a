"""One simulator: its parts, its call log, and its reset."""

from __future__ import annotations

import itertools
import time
from collections import deque
from typing import Any

from aiohttp import web

from .clock import Clock
from .config import Config
from .payouts import Payouts
from .settings import Settings
from .state import World
from .webhooks import Webhooks

MAX_LOGGED_CALLS = 200_000


class CallLog:
    """A bounded log of /v1 requests with their arrival and outcome, read with a cursor."""

    def __init__(self) -> None:
        self.entries: deque[list[Any]] = deque(maxlen=MAX_LOGGED_CALLS)
        self.count = 0

    def arrived(self, method: str, path: str, query: str, key: str | None) -> list[Any]:
        """Add an entry, to be completed when the request ends."""
        self.count += 1
        entry = [self.count, time.monotonic(), time.time(), method, path, query, key, None, "running"]
        self.entries.append(entry)
        return entry

    def since(self, cursor: int, limit: int) -> list[dict[str, Any]]:
        """Entries with a number above the cursor, oldest first."""
        names = ("n", "monotonic", "wall", "method", "path", "query", "idempotency_key", "status", "outcome")
        oldest = self.count - len(self.entries)
        start = max(0, cursor - oldest)
        return [
            dict(zip(names, entry, strict=True))
            for entry in itertools.islice(self.entries, start, start + limit)
        ]


class Sim:
    """One simulated RazorpayX account."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.clock = Clock(config.speed)
        self.settings = Settings()
        self.webhooks = Webhooks(
            config.webhook_url,
            config.webhook_secret,
            config.webhook_previous_secret,
            self.clock,
            self.settings,
        )
        self._initialize()

    def _initialize(self) -> None:
        self.world = World(self.config.balance_paise)
        self.payouts = Payouts(
            self.world, self.clock, self.webhooks, self.settings, self.config.account_number, self.config.seed
        )
        self.calls = CallLog()
        self.recent_calls: deque[float] = deque()

    async def reset(self) -> None:
        """Return to the initial state: payouts, keys, events, timers, settings, balance and clock."""
        defaults = Settings()
        for name in Settings.__slots__:
            setattr(self.settings, name, getattr(defaults, name))
        self.clock.reset(self.config.speed)
        self.webhooks.secret = self.config.webhook_secret
        self.webhooks.previous_secret = self.config.webhook_previous_secret
        await self.webhooks.restart()
        self._initialize()

    def is_rate_limited(self) -> bool:
        """True if more calls than allowed came in the last real second; else counts this call."""
        limit = self.settings.rate_limit_per_second
        if limit is None:
            return False
        now = time.monotonic()
        while self.recent_calls and self.recent_calls[0] <= now - 1:
            self.recent_calls.popleft()
        if len(self.recent_calls) >= limit:
            return True
        self.recent_calls.append(now)
        return False


SIM = web.AppKey("sim", Sim)
