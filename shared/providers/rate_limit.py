"""The rate limit of calls to the provider: all workers together take slots, at most so many per second.

The provider allows 5 to 10 calls a second and answers 429 above that (provider reference §6). The slots are
one row of the database (table `pace`) and not in Redis, so that wiping Redis causes no burst, and there is
one clock. After a 429 nevertheless, all workers back off: the next slot moves into the future (`back_off`).
Each provider has its own row, named by its code (`Provider.code`).
"""

import os
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import ColumnElement, bindparam, exists, func, text
from sqlalchemy.orm import Session

from shared.db.transactions import autocommit, map_db_errors
from shared.errors import Unavailable
from shared.models import RateLimit
from shared.settings import settings

# A call leaves a little after its slot begins, and the delay varies. Each slot is this much longer than its
# share of a second, so that no second has one call too many. This costs a thirtieth of the rate.
SLOT_MARGIN = 1.035
# A call that leaves later than this after its slot begins delays the next slots by as much, at most by one
# slot.
LATE_TOLERANCE_SECONDS = 0.015
# Slots are assigned only this far ahead, because an assigned slot can no longer be delayed.
MAX_AHEAD_SECONDS = 0.4
# No slot is ever this far ahead, not even after a 429 (`pace_hold_seconds` is much shorter). One that is
# comes from a wrong clock and is ignored.
IMPLAUSIBLE_SECONDS = 90
# How long to back off after a 429 without a Retry-After.
DEFAULT_BACK_OFF_SECONDS = 1.0
# While the next slot is further ahead than this, nothing is claimed: the threads have webhooks to apply, and
# users can still cancel a withdrawal that is not claimed.
BACKLOG_SECONDS = 5

# The row is locked before the clock is read, and both before the slots are counted. The delay is applied even
# if no slot can be taken: otherwise another process would take the next one before its time.
TAKE_SLOTS = text("""
    WITH pace_row AS MATERIALIZED (SELECT next_at FROM pace WHERE name = :name FOR UPDATE),
    moment AS MATERIALIZED (SELECT clock_timestamp() AS at, next_at FROM pace_row),
    free AS MATERIALIZED
        (SELECT at, CASE WHEN next_at > at + make_interval(secs => :implausible) THEN at
                         ELSE greatest(next_at + make_interval(secs => :late), at) END AS first
         FROM moment),
    taken AS MATERIALIZED
        (SELECT at, first,
                least(:number, greatest(0, ceil((extract(epoch FROM at - first) + :ahead) / :slot))) AS number
         FROM free),
    changed AS
        (UPDATE pace SET calls = calls + taken.number::bigint,
                         next_at = taken.first + make_interval(secs => taken.number * :slot)
         FROM taken WHERE name = :name AND (taken.number > 0 OR :late > 0))
    SELECT CAST(number AS integer) AS number, extract(epoch FROM first - at) AS seconds FROM taken
""")
# Queries that webhooks cause have slots of their own, so that a flood of forged webhooks cannot use up the
# calls.
HINT_SHARE = 4  # their slots are this many times as long: a quarter of the rate
HINT_BURST = 20
MAX_HINTS_AHEAD_SECONDS = 600
TAKE_HINT_SLOTS = text("""
    WITH free AS MATERIALIZED
        (SELECT CASE WHEN next_at > now() + make_interval(secs => :implausible) THEN now()
                     ELSE greatest(next_at, now() - make_interval(secs => :slot * :burst)) END AS first
         FROM pace WHERE name = 'hints' FOR UPDATE),
    taken AS MATERIALIZED
        (SELECT first,
                least(:number, ceil(extract(epoch FROM now() - first) / :slot + :ahead / :slot)) AS number
         FROM free WHERE first < now() + make_interval(secs => :ahead))
    UPDATE pace SET next_at = taken.first + make_interval(secs => taken.number * :slot)
    FROM taken WHERE name = 'hints'
    RETURNING CAST(taken.number AS integer) AS number, extract(epoch FROM taken.first - now()) AS seconds
""")
BACK_OFF = text("""
    UPDATE pace SET next_at = clock_timestamp() + make_interval(secs => :seconds)
    WHERE name = :name AND (next_at < clock_timestamp() + make_interval(secs => :seconds)
        OR next_at > clock_timestamp() + make_interval(secs => :implausible))
""")
SAMPLE_SECONDS = 30  # how often the call rate is measured
MEASURE_RATE = text("""
    WITH measured AS (
        UPDATE pace SET sampled_at = now(), sampled_calls = calls,
               per_second = (calls - sampled_calls) / extract(epoch FROM now() - sampled_at)
        WHERE name = :name AND sampled_at <= now() - make_interval(secs => :sample)
        RETURNING per_second)
    SELECT coalesce((SELECT per_second FROM measured), (SELECT per_second FROM pace WHERE name = :name), 0)
""")


def calls_per_second(provider_code: str) -> float:
    """Return how many calls per second all workers together have recently made. Raises Unavailable."""
    values = {"name": provider_code, "sample": SAMPLE_SECONDS}
    with map_db_errors(), autocommit() as connection:
        return float(connection.execute(MEASURE_RATE, values).scalar_one())


def wait_for_slot(provider_code: str, timeout_seconds: float) -> float | None:
    """Wait for a slot in which one call to the provider may begin; returns its time on the monotonic clock.

    None after the timeout. It holds no transaction and no connection while it waits. Raises Unavailable:
    without the database no worker calls.
    """
    give_up_at = time.monotonic() + timeout_seconds
    slot_at = _counter.take_slot(provider_code)
    while slot_at is None:
        if time.monotonic() > give_up_at:
            return None
        time.sleep(MAX_AHEAD_SECONDS * random.uniform(0.2, 0.5))  # noqa: S311  no secret
        slot_at = _counter.take_slot(provider_code, is_retry=True)
    time.sleep(max(0.0, slot_at - time.monotonic()))
    return slot_at


def delay_slots_if_late(provider_code: str, slot_at: float) -> None:
    """Delay the unassigned slots if the call of this slot has just left late.

    The delay is one slot at most: however late a call is, it takes the place of one other.
    """
    late_seconds = time.monotonic() - slot_at
    if late_seconds > LATE_TOLERANCE_SECONDS:
        _counter.delay(provider_code, min(late_seconds, _slot_seconds()))


def back_off(provider_code: str, retry_after_seconds: float | None) -> None:
    """Make all workers back off after a 429, for as long as Retry-After says, within bounds.

    The provider limits the account, so without this every other worker would continue into its own 429.
    """
    requested = DEFAULT_BACK_OFF_SECONDS if retry_after_seconds is None else retry_after_seconds
    seconds = min(requested, settings().pace_hold_seconds)
    with suppress(Unavailable), map_db_errors(), autocommit() as connection:
        connection.execute(
            BACK_OFF, {"name": provider_code, "seconds": seconds, "implausible": _implausible_seconds()}
        )


def is_backed_up(provider_code: str) -> ColumnElement[bool]:
    """True if the next slot is so far ahead that nothing should be claimed; needs `backlog_bounds()`."""
    soon, implausible = (
        func.make_interval(0, 0, 0, 0, 0, 0, bindparam(name, None)) for name in ("soon", "implausible")
    )
    ours = RateLimit.name == provider_code
    return exists().where(
        ours, RateLimit.next_at > func.now() + soon, RateLimit.next_at <= func.now() + implausible
    )


def backlog_bounds() -> dict[str, float]:
    """Return the bounds of `is_backed_up` in seconds. At a low rate, each slot is far ahead."""
    return {"soon": BACKLOG_SECONDS + 2 * _slot_seconds(), "implausible": _implausible_seconds()}


def take_hint_slots(session: Session, number: int) -> list[float]:
    """Take slots for queries that webhooks caused; returns the seconds until each, fewer if too many wait."""
    if not number:
        return []
    slot = _slot_seconds() * HINT_SHARE
    ahead = MAX_HINTS_AHEAD_SECONDS + slot
    values = {"slot": slot, "burst": HINT_BURST, "ahead": ahead, "implausible": 2 * ahead}
    taken = session.execute(TAKE_HINT_SLOTS, {**values, "number": number}).one_or_none()
    if taken is None:
        return []
    return [max(0.0, float(taken.seconds) + place * slot) for place in range(taken.number)]


class _Counter:
    """Where the threads of this process queue for slots: the first one takes slots for all who wait.

    Otherwise each of thirty calls at once would send its own statement for the same row.
    """

    def __init__(self) -> None:
        self._waiting: list[_Ticket] = []
        self._late_seconds = 0.0
        self._none_until = 0.0  # all near slots are assigned until then, on the monotonic clock
        self._adding = threading.Lock()
        self._serving = threading.Lock()

    def take_slot(self, provider_code: str, *, is_retry: bool = False) -> float | None:
        """Return the time of a slot on the monotonic clock; None if all near slots are assigned.

        A retry asks the database only when a slot may be free again: dozens of threads wait at a low rate.
        """
        ticket = _Ticket(is_retry)
        with self._adding:
            self._waiting.append(ticket)
        with self._serving:
            if not ticket.is_served:
                self._serve(provider_code)
        if ticket.error is not None:
            raise ticket.error
        return ticket.slot_at

    def delay(self, provider_code: str, seconds: float) -> None:
        """Delay the slots that are not assigned yet, together with what other threads add meanwhile."""
        with self._adding:
            self._late_seconds += seconds
        if self._serving.acquire(blocking=False):
            try:
                self._serve(provider_code)
            finally:
                self._serving.release()

    def _serve(self, provider_code: str) -> None:
        with self._adding:
            tickets = self._waiting
            self._waiting = []
            late_seconds = self._late_seconds
            self._late_seconds = 0.0
        error: Exception | None = None
        slots: list[float] = []
        try:
            if late_seconds or self._may_be_free(tickets):
                slots, self._none_until = _take_slots(provider_code, len(tickets), late_seconds)
        except Exception as failure:  # each of them raises it
            error = failure
        for number, ticket in enumerate(tickets):
            ticket.slot_at = slots[number] if number < len(slots) else None
            ticket.error = error
            ticket.is_served = True

    def _may_be_free(self, tickets: list["_Ticket"]) -> bool:
        return time.monotonic() >= self._none_until or not all(ticket.is_retry for ticket in tickets)


@dataclass(slots=True)
class _Ticket:
    is_retry: bool
    is_served: bool = False
    slot_at: float | None = None
    error: Exception | None = None


_counter = _Counter()


def _reset_counter() -> None:
    global _counter  # noqa: PLW0603  a child has its own, without its parent's threads and locks
    _counter = _Counter()


os.register_at_fork(after_in_child=_reset_counter)


def _take_slots(provider_code: str, number: int, late_seconds: float) -> tuple[list[float], float]:
    """Delay the free slots, then take up to so many of those that are near.

    Returns their times and the time until which none is free, both on the monotonic clock.
    """
    slot = _slot_seconds()
    values = {"name": provider_code, "slot": slot, "ahead": MAX_AHEAD_SECONDS, "number": number}
    values |= {"late": late_seconds, "implausible": _implausible_seconds()}
    with map_db_errors(), autocommit() as connection:
        row = connection.execute(TAKE_SLOTS, values).one()
    first = time.monotonic() + float(row.seconds)
    next_free = first + row.number * slot
    # Another process only takes more. But a slot that is far ahead may be brought back.
    none_until = min(next_free - MAX_AHEAD_SECONDS, time.monotonic() + MAX_AHEAD_SECONDS)
    return [first + place * slot for place in range(row.number)], none_until


def _implausible_seconds() -> float:
    return IMPLAUSIBLE_SECONDS + 2 * _slot_seconds()


def _slot_seconds() -> float:
    return SLOT_MARGIN / settings().payouts_per_second
