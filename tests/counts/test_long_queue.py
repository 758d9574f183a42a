"""The sweep and the claim read as much in a queue of a hundred thousand as in one of a thousand."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from shared import withdrawals
from shared.db.engines import engine
from shared.queues import redis_broker
from shared.withdrawals.claim import claim
from tests.support.world import World

FEW, MANY = 1_000, 100_000
USERS = 50
BATCH = 20
PLANTED_AT_ONCE = 20_000  # a statement may take ten seconds, on a busy machine too
SWEEP_BATCH = 100  # so that a thousand are already more than a sweep looks at

# The rows and blocks that statements read, by the server's own count.
READ = """
    SELECT (SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables)::bigint
               AS rows,
           (SELECT sum(heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0))
            FROM pg_statio_user_tables)::bigint AS blocks
"""
ADD = """
    INSERT INTO withdrawals (id, user_id, coins_amount, amount_paise, upi_id, status, status_reason, due_at,
                             expected_by)
    SELECT gen_random_uuid(), 'user' || 1 + n % {users}, 100, 1000, 'success@sim', 'pending', 'cancel_window',
           now() - interval '1 hour' + n * interval '1 millisecond', now()
    FROM generate_series({first}, {last}) n
"""


def plant(world: World, first: int, last: int) -> None:
    """Add due withdrawals. Without the rules, which would take a minute: only what is read is looked at."""
    for start in range(first, last + 1, PLANTED_AT_ONCE):
        end = min(start + PLANTED_AT_ONCE - 1, last)
        world.sql_without_rules(ADD.format(first=start, last=end, users=USERS))
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE withdrawals"))


def read_by(work: Callable[[], Any], prepare: Callable[[], Any]) -> dict[str, int]:
    """Do the work; returns the rows and the blocks that its statements read."""
    for _ in range(6):  # afterwards psycopg has prepared every statement, and the server has planned it
        prepare()
        work()
    prepare()
    before = _read()
    work()
    return {what: number - before[what] for what, number in _read().items()}


def _read() -> dict[str, int]:
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        connection.execute(text("SELECT 1"))
        return dict(connection.execute(text(READ)).one()._mapping)


class Claim:
    """A claim of the oldest that nobody has claimed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ids: list[UUID] = []

    def prepare(self) -> None:
        query = "SELECT id FROM withdrawals WHERE status_reason = 'cancel_window' ORDER BY due_at LIMIT :n"
        self._ids = [row.id for row in self._world.sql(query, n=BATCH)]

    def __call__(self) -> None:
        assert len(claim(self._ids)) == BATCH


@pytest.fixture
def queue(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    world.altered = world.broken_on_purpose = True
    for number in range(1, USERS + 1):
        world.credit(f"user{number}", reference=f"queue-{number}")
    monkeypatch.setenv("SWEEP_BATCH", str(SWEEP_BATCH))
    world.forget_settings()
    engine().dispose()  # one connection from here on: another reports only seconds later what it read
    return world


def test_a_hundred_times_as_many_cost_no_more(queue: World) -> None:
    claim_of_a_batch = Claim(queue)
    read = {}
    planted = 0
    for size in (FEW, MANY):
        plant(queue, planted + 1, size)
        planted = size
        read[size] = {
            "sweep": read_by(withdrawals.sweep, redis_broker.client().flushall),
            "claim": read_by(claim_of_a_batch, claim_of_a_batch.prepare),
        }
    for verb in ("sweep", "claim"):
        few, many = read[FEW][verb], read[MANY][verb]
        assert many["rows"] <= 1.3 * few["rows"], f"rows read by a {verb}: {read}"
        # An index of a hundred thousand rows has three levels, and one of a thousand two.
        assert many["blocks"] <= 1.6 * few["blocks"], f"blocks read by a {verb}: {read}"
