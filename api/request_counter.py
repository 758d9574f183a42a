"""Counts a request for all of its rate limits at once: one round trip to Redis, or in memory without it.

The count is that of a sliding window: of the window before, as much as still overlaps the last `window`, and
all of the current one. `limits` counts in the same way under the same keys, in two round trips per limit.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import redis
import structlog
from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.redis_script import Script

# After an error, Redis is not tried for this long: each request would wait for it.
REDIS_RETRY_SECONDS = 1.0
# KEYS: for each limit, the count of the window before and that of the current one. ARGV: the number of the
# limit with which the second stage begins; then for each limit its amount, its window in milliseconds, and 1
# if the request uses it up. Every limit of a stage is counted, unless it refuses; the second stage only if
# the first refuses nothing. Returns what the headers need: the number of the limit that they show (the last
# that refuses, or else the first of the last stage), 1 if it refuses, how much of it is left, and in how many
# milliseconds there is more.
COUNT = """
    local second = tonumber(ARGV[1])
    local shown, refused, remaining, reset = 1, 0, 0, 0
    for n = 1, #KEYS / 2 do
        if n == second then
            if refused == 1 then break end
            shown = n
        end
        local before_key, current_key = KEYS[2 * n - 1], KEYS[2 * n]
        local amount, window, uses_up = tonumber(ARGV[3 * n - 1]), tonumber(ARGV[3 * n]), ARGV[3 * n + 1]
        local current_ttl = redis.call('PTTL', current_key)
        if current_ttl > 0 and current_ttl < window then
            redis.call('RENAME', current_key, before_key)
            current_ttl = current_ttl + window
            redis.call('SET', current_key, 0, 'PX', current_ttl)
        end
        local counts = redis.call('MGET', before_key, current_key)
        local before, current = tonumber(counts[1] or 0), tonumber(counts[2] or 0)
        local before_ttl = before > 0 and math.max(redis.call('PTTL', before_key), 0) or 0
        local before_overlap = math.floor(before * before_ttl / window)
        local is_over = before_overlap + current >= amount
        if is_over then
            shown, refused = n, 1
        elseif uses_up == '1' then
            current = current + 1
            if current_ttl > 0 then
                redis.call('INCR', current_key)
            else
                current_ttl = 2 * window
                redis.call('SET', current_key, current, 'PX', current_ttl)
            end
        end
        if shown == n then
            remaining = math.max(0, amount - before_overlap - current)
            reset = math.huge
            if before > 0 then reset = before_ttl % (window / before) end
            if current > 0 then reset = math.min(reset, (current_ttl - 1) % window + 1) end
            if reset == math.huge then reset = 0 end
        end
    end
    return redis.status_reply(string.format('%d %d %d %d', shown, refused, remaining, reset))
"""

log = structlog.get_logger()


class Rate:
    """A limit of one scope, such as requests with one API key, with what is the same for each request."""

    def __init__(self, prefix: str, scope: str, limit: RateLimitItem) -> None:
        self.prefix = prefix  # of the keys: each application counts for itself
        self.scope = scope
        self.limit = limit
        self.arguments = f"{limit.amount} {limit.get_expiry() * 1000}".split()
        # As `limits` names the key.
        self._head, self._tail = f"LIMITS:{{{limit.key_for(*self.identifiers('@'))}}}".split("@")

    def identifiers(self, key: str) -> tuple[str, str, str]:
        """Return under what `limits` counts this key."""
        return self.prefix, key, self.scope

    def redis_keys(self, key: str) -> tuple[str, str]:
        """Return where Redis counts this key: in the window before, and in the current one."""
        current = f"{self._head}{key}{self._tail}"
        return f"{current}/-1", current


class Counted(NamedTuple):
    """A rate, and what a request counts for: an API key, a user, an address."""

    rate: Rate
    key: str
    uses_up: bool = True


class Verdict(NamedTuple):
    """Whether a limit refuses the request, and what the headers show of it, or of the nearest one."""

    rate: Rate
    is_refused: bool
    remaining: int
    reset_at: float  # Unix seconds


class RequestCounter:
    """Counts for one application."""

    def __init__(self, client: redis.Redis) -> None:
        self._script = Script(client.connection_pool, COUNT)
        self._memory = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._away_until = 0.0

    def count(self, first: Sequence[Counted], second: Sequence[Counted] = ()) -> Verdict:
        """Count a request for all of these; `second` only if none of the first refuses it. Give at least one.

        Never raises: without Redis, this process counts for itself.
        """
        if time.monotonic() >= self._away_until:
            try:
                return self._count_in_redis(first, second)
            except redis.RedisError as error:
                self._away_until = time.monotonic() + REDIS_RETRY_SECONDS
                log.warning("[API] rate limits are counted in memory", error=type(error).__name__)
        return self._count_in_memory(first, second)

    def _count_in_redis(self, first: Sequence[Counted], second: Sequence[Counted]) -> Verdict:
        every = [*first, *second]
        keys: list[str] = []
        arguments = [str(len(first) + 1)]
        for rate, key, uses_up in every:
            keys += rate.redis_keys(key)
            arguments += (*rate.arguments, "1" if uses_up else "0")
        shown, refused, remaining, reset_milliseconds = map(int, self._script.run(keys, arguments))
        reset_at = time.time() + reset_milliseconds / 1000
        return Verdict(every[shown - 1].rate, bool(refused), remaining, reset_at)

    def _count_in_memory(self, first: Sequence[Counted], second: Sequence[Counted]) -> Verdict:
        refused: Counted | None = None
        shown = (second or first)[0]
        for stage in (first, second):
            for counted in stage:
                if not self._has_room(counted):
                    refused = shown = counted
            if refused:
                break
        stats = self._memory.get_window_stats(shown.rate.limit, *shown.rate.identifiers(shown.key))
        return Verdict(shown.rate, refused is not None, stats.remaining, stats.reset_time)

    def _has_room(self, counted: Counted) -> bool:
        count = self._memory.hit if counted.uses_up else self._memory.test
        return count(counted.rate.limit, *counted.rate.identifiers(counted.key))
