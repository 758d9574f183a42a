"""The script counts as `limits` does, under the same keys; without Redis each process counts for itself."""

import random
import threading
import time
from collections.abc import Iterator

import limits
import pytest
import redis
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.request_counter import Counted, Rate, RequestCounter, Verdict
from tests.support.corrupting_proxy import corrupting_proxy

HOUR = limits.parse("5/hour")
PREFIX = "tested"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    yield client
    for key in client.scan_iter(f"*{PREFIX}*"):
        client.delete(key)


@pytest.fixture
def theirs(redis_url: str) -> SlidingWindowCounterRateLimiter:
    return SlidingWindowCounterRateLimiter(RedisStorage(redis_url))


def rate(text: str, scope: str = "key") -> Rate:
    return Rate(PREFIX, scope, limits.parse(text))


def plant(client: redis.Redis, counted: Counted, counts: list[tuple[int, float] | None]) -> None:
    """Give the window before and the current one these counts, with the seconds after which they expire."""
    for key, planted in zip(counted.rate.redis_keys(counted.key), counts, strict=True):
        client.delete(key)
        if planted:
            client.set(key, planted[0], px=round(planted[1] * 1000))


@pytest.mark.parametrize("seed", range(10))
def test_both_count_the_same_and_share_their_counts(
    client: redis.Redis, theirs: SlidingWindowCounterRateLimiter, seed: int
) -> None:
    """In any order on the same keys, each continues what the other counted, in any state of both windows."""
    chance = random.Random(seed)
    ours = RequestCounter(client)
    for number in range(40):
        counted = Counted(rate(f"{chance.randint(1, 12)}/hour"), f"{seed}-{number}")
        identifiers = counted.rate.identifiers(counted.key)
        hour = 3600
        before = (chance.randint(1, 12), chance.uniform(1, hour)) if chance.random() < 0.6 else None
        # From 3,600 s on, a current window becomes the one before.
        current = (chance.randint(0, 12), chance.uniform(1, 2 * hour)) if chance.random() < 0.7 else None
        for _ in range(4):
            results = []
            for count_with in ("ours", "theirs"):
                plant(client, counted, [before, current])
                if count_with == "ours":
                    verdict = ours.count([counted])
                    results.append((not verdict.is_refused, verdict.remaining, verdict.reset_at))
                else:
                    hit = theirs.hit(counted.rate.limit, *identifiers)
                    stats = theirs.get_window_stats(counted.rate.limit, *identifiers)
                    results.append((hit, stats.remaining, stats.reset_time))
                ends = [(client.get(key), client.pttl(key)) for key in counted.rate.redis_keys(counted.key)]
                results.append([(value, left // 10_000) for value, left in ends])
            (hit, remaining, reset_at), state, (their_hit, their_remaining, their_reset_at), their_state = (
                results
            )
            if abs(float(weighted(before, current)) % 1 - 0.5) > 0.49:
                break  # a moment decides whether one more request fits
            assert (hit, remaining) == (their_hit, their_remaining), (before, current)
            assert [value for value, _ in state] == [value for value, _ in their_state], (before, current)
            if (
                their_reset_at > time.time() or reset_at < time.time() + 2
            ):  # theirs is 0 s in a window's first ms
                assert abs(reset_at - their_reset_at) < 2, (before, current)
            # The next try continues from here.
            break


def weighted(before: tuple[int, float] | None, current: tuple[int, float] | None) -> float:
    """The count as the documentation of `limits` defines it, for windows of an hour."""
    if current and current[1] < 3600:
        return current[0] * current[1] / 3600
    return (before[0] * before[1] / 3600 if before else 0) + (current[0] if current else 0)


def test_both_add_to_one_count(client: redis.Redis, theirs: SlidingWindowCounterRateLimiter) -> None:
    ours = RequestCounter(client)
    counted = Counted(rate("6/hour"), "shared")
    identifiers = counted.rate.identifiers("shared")
    accepted = []
    for number in range(8):
        if number % 2:
            accepted.append(theirs.hit(counted.rate.limit, *identifiers))
        else:
            accepted.append(not ours.count([counted]).is_refused)
    assert accepted == [True] * 6 + [False] * 2
    assert theirs.get_window_stats(counted.rate.limit, *identifiers).remaining == 0


def test_windows_of_a_second_slide_as_with_limits(
    client: redis.Redis, theirs: SlidingWindowCounterRateLimiter
) -> None:
    """Side by side in real time, on keys of their own. They differ by what a millisecond decides."""
    ours = RequestCounter(client)
    counted = Counted(rate("10/second"), "mine")
    accepted = {"ours": 0, "theirs": 0}
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        accepted["ours"] += not ours.count([counted]).is_refused
        accepted["theirs"] += theirs.hit(counted.rate.limit, PREFIX, "other", "key")
        time.sleep(0.02)
    assert abs(accepted["ours"] - accepted["theirs"]) <= 2, accepted
    assert 15 <= accepted["ours"] <= 40, accepted


def test_a_limit_that_is_only_peeked_at_is_not_used_up(client: redis.Redis) -> None:
    ours = RequestCounter(client)
    peeked = Counted(rate("1/hour"), "peeked", uses_up=False)
    assert [ours.count([peeked]).remaining for _ in range(3)] == [1, 1, 1]
    assert ours.count([peeked._replace(uses_up=True)]) == Verdict(
        peeked.rate, False, 0, pytest.approx(time.time() + 3600, abs=5)
    )
    assert ours.count([peeked]).is_refused


@pytest.mark.parametrize("is_redis_away", [False, True])
def test_in_a_stage_each_limit_counts_unless_it_refuses_and_the_last_that_refuses_is_shown(
    client: redis.Redis, is_redis_away: bool
) -> None:
    ours = counter(client, is_redis_away)
    small = rate("1/hour", "failed")
    large = rate("3/hour", "address")
    both = [Counted(small, "a"), Counted(large, "a")]
    shown = [ours.count(both) for _ in range(5)]
    assert [(verdict.rate.scope, verdict.is_refused, verdict.remaining) for verdict in shown] == [
        ("failed", False, 0),  # the first, as both have room
        ("failed", True, 0),
        ("failed", True, 0),
        ("address", True, 0),
        ("address", True, 0),
    ]


@pytest.mark.parametrize("is_redis_away", [False, True])
def test_the_second_stage_counts_only_if_the_first_refuses_nothing(
    client: redis.Redis, is_redis_away: bool
) -> None:
    ours = counter(client, is_redis_away)
    key = [Counted(rate("2/hour"), "k")]
    user = [Counted(rate("5/hour", "user"), "u")]
    shown = [ours.count(key, user) for _ in range(4)]
    assert [(verdict.rate.scope, verdict.is_refused, verdict.remaining) for verdict in shown] == [
        ("user", False, 4),
        ("user", False, 3),
        ("key", True, 0),
        ("key", True, 0),
    ]
    assert ours.count(user).remaining == 2
    # What the second stage refuses is counted in the first.
    other = [Counted(rate("9/hour"), "other")]
    assert [ours.count(other, user).rate.scope for _ in range(3)] == ["user"] * 3
    assert ours.count(other).remaining == 5


def counter(client: redis.Redis, is_redis_away: bool) -> RequestCounter:
    if is_redis_away:
        options = {"socket_connect_timeout": 0.2, "socket_timeout": 0.2}
        return RequestCounter(redis.Redis(host="127.0.0.1", port=1, **options))
    return RequestCounter(client)


def test_concurrent_requests_never_exceed_the_limit(client: redis.Redis) -> None:
    ours = RequestCounter(client)
    counted = [Counted(rate("50/hour"), "many")]
    accepted: list[bool] = []

    def send() -> None:
        accepted.extend(not ours.count(counted).is_refused for _ in range(20))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert accepted.count(True) == 50


def test_counts_go_back_to_redis_a_moment_after_it_returns(
    client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with corrupting_proxy(redis_url) as wire:
        ours = RequestCounter(redis.Redis.from_url(wire.url, socket_timeout=1))
        counted = [Counted(rate("9/hour"), "comes and goes")]
        assert ours.count(counted).remaining == 8
        wire.garbage = b"garbage\r\n"
        assert ours.count(counted).remaining == 8  # counted in memory
        wire.garbage = None
        assert ours.count(counted).remaining == 7  # Redis is not tried again at once
        monkeypatch.setattr("api.request_counter.REDIS_RETRY_SECONDS", 0.0)
        ours._away_until = 0.0
        assert ours.count(counted).remaining == 7  # Redis counted one
