"""The pace of calls to RazorpayX: each takes its turn, all workers together, never more in a second than set.

RazorpayX asks for 5 to 10 calls a second and answers 429 above that (razorpayx.md §6). The turns stand in one
row of the database and not in Redis: whoever wipes Redis must not provoke a burst, and there is one clock.
A 429 all the same is for everybody: the next turn is put off for all workers (`hold`).
"""

import random
import time
from contextlib import suppress

from sqlalchemy import ColumnElement, bindparam, exists, func, text
from sqlalchemy.orm import Session

from shared.db import one_statement, told_plainly
from shared.errors import Unavailable
from shared.models import Pace
from shared.settings import settings

# Calls leave a little after their turn, one sooner than another. A turn is this much longer than its share of
# a second, so that even then no second sees one call too many. The price is a thirtieth of the pace.
SPARE = 1.035
# A call that leaves later than this after its turn pushes the turns behind it back, by one at most.
LATE_SECONDS = 0.015
# Turns are given out only so far ahead: what is given out can no longer be pushed back.
AHEAD_SECONDS = 0.4
# No turn is ever this much further ahead, not even after a 429 (`pace_hold_seconds` ends well before): such a
# one is of a clock that was wrong, so nobody waits.
ABSURD_SECONDS = 90
# How long all are patient after a 429 that does not say how long.
HOLD_SECONDS = 1.0
# While the next turn is further ahead than this, nothing is claimed: a thread that would wait for it has
# webhooks to apply, and what is not claimed can still be cancelled.
LONG_SECONDS = 5

TAKE_TURN = text("""
    UPDATE pace SET calls = calls + 1, next_at = make_interval(secs => :turn) + CASE
            WHEN next_at > clock_timestamp() + make_interval(secs => :absurd) THEN clock_timestamp()
            ELSE greatest(next_at, clock_timestamp()) END
    WHERE name = 'razorpayx' AND (next_at < clock_timestamp() + make_interval(secs => :ahead)
        OR next_at > clock_timestamp() + make_interval(secs => :absurd))
    RETURNING extract(epoch FROM next_at - clock_timestamp()) - :turn AS seconds
""")
PUSH_BACK = text("UPDATE pace SET next_at = next_at + make_interval(secs => :late) WHERE name = 'razorpayx'")
# Questions that webhooks provoke have turns of their own, so that a flood of forged ones leaves the calls to
# the others: a quarter of the pace, a few at once, and none further ahead than this.
HINT_SHARE, HINTS_AT_ONCE, HINTS_AHEAD_SECONDS = 4, 20, 600
TAKE_HINT_TURN = text("""
    UPDATE pace SET next_at = make_interval(secs => :turn) + CASE
            WHEN next_at > now() + make_interval(secs => :absurd) THEN now()
            ELSE greatest(next_at, now() - make_interval(secs => :turn * :burst)) END
    WHERE name = 'hints' AND (next_at < now() + make_interval(secs => :ahead)
        OR next_at > now() + make_interval(secs => :absurd))
    RETURNING greatest(extract(epoch FROM next_at - now()) - :turn, 0) AS seconds
""")
HOLD = text("""
    UPDATE pace SET next_at = clock_timestamp() + make_interval(secs => :seconds)
    WHERE name = 'razorpayx' AND (next_at < clock_timestamp() + make_interval(secs => :seconds)
        OR next_at > clock_timestamp() + make_interval(secs => :absurd))
""")
# How often it is measured how much of the pace is used.
SAMPLE_SECONDS = 30
MEASURED = text("""
    WITH anew AS (
        UPDATE pace SET sampled_at = now(), sampled_calls = calls,
               per_second = (calls - sampled_calls) / extract(epoch FROM now() - sampled_at)
        WHERE name = 'razorpayx' AND sampled_at <= now() - make_interval(secs => :sample)
        RETURNING per_second)
    SELECT coalesce((SELECT per_second FROM anew), (SELECT per_second FROM pace WHERE name = 'razorpayx'), 0)
""")


def measured() -> float:
    """How many calls a second all workers together have lately made. Raises Unavailable."""
    with told_plainly(), one_statement() as connection:
        return float(connection.execute(MEASURED, {"sample": SAMPLE_SECONDS}).scalar_one())


def wait_for_turn(patience_seconds: float) -> float | None:
    """Wait until one call to RazorpayX may begin; returns the moment of the turn, by the monotonic clock.

    None when that would take longer than the patience. No transaction and no connection is held while it
    waits. Raises Unavailable: without the database nobody calls.
    """
    give_up = time.monotonic() + patience_seconds
    while (due := _take_turn()) is None:
        if time.monotonic() > give_up:
            return None
        time.sleep(AHEAD_SECONDS * random.uniform(0.2, 0.5))  # noqa: S311  no secret
    time.sleep(max(0.0, due - time.monotonic()))
    return due


def has_left(due: float) -> None:
    """The call of this turn has just left. If that was late, the turns not given out yet are pushed back, by
    one turn at most: however late a call is, it takes the place of one other.
    """
    late = min(time.monotonic() - due - LATE_SECONDS, _turn_seconds())
    if late > 0:
        # Without the database nobody else takes a turn either.
        with suppress(Unavailable), told_plainly(), one_statement() as connection:
            connection.execute(PUSH_BACK, {"late": late})


def hold(retry_after_seconds: float | None) -> None:
    """RazorpayX has answered 429: it is the account that calls too often, so nobody calls for as long as it
    asks, within bounds. Without this the others would go on at full pace, each to its own 429.
    """
    asked = HOLD_SECONDS if retry_after_seconds is None else retry_after_seconds
    seconds = min(asked, settings().pace_hold_seconds)
    with suppress(Unavailable), told_plainly(), one_statement() as connection:
        connection.execute(HOLD, {"seconds": seconds, "absurd": _absurd_seconds()})


def is_long() -> ColumnElement[bool]:
    """Whether the next turn is so far ahead that nothing should be begun, for a query with `bounds()`."""
    soon, absurd = (func.make_interval(0, 0, 0, 0, 0, 0, bindparam(name)) for name in ("soon", "absurd"))
    ours = Pace.name == "razorpayx"
    return exists().where(ours, Pace.next_at > func.now() + soon, Pace.next_at <= func.now() + absurd)


def bounds() -> dict[str, float]:
    """Seconds ahead, between which a turn is far but no wrong clock's. At a slow pace each turn is far."""
    return {"soon": LONG_SECONDS + 2 * _turn_seconds(), "absurd": _absurd_seconds()}


def take_hint_turn(session: Session) -> float | None:
    """In how many seconds a question may be asked that a webhook provoked; None when too many wait."""
    turn = _turn_seconds() * HINT_SHARE
    ahead = HINTS_AHEAD_SECONDS + turn
    values = {"turn": turn, "burst": HINTS_AT_ONCE, "ahead": ahead, "absurd": 2 * ahead}
    seconds = session.scalar(TAKE_HINT_TURN, values)
    return None if seconds is None else float(seconds)


def _take_turn() -> float | None:
    """The next turn, by the monotonic clock; None when all near ones are taken."""
    turn = _turn_seconds()
    values = {"turn": turn, "ahead": AHEAD_SECONDS, "absurd": _absurd_seconds()}
    with told_plainly(), one_statement() as connection:
        seconds = connection.execute(TAKE_TURN, values).scalar()
    return None if seconds is None else time.monotonic() + float(seconds)


def _absurd_seconds() -> float:
    return ABSURD_SECONDS + 2 * _turn_seconds()


def _turn_seconds() -> float:
    return SPARE / settings().payouts_per_second
