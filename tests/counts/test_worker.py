"""What a worker sends for one withdrawal, and for a batch of twenty: the same, to the statement.

Counts and not times, so that a slow machine changes nothing. If a change adds a statement, the failure names it.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from shared.db.engines import engine
from shared.providers.answers import Answer
from shared.providers.steps import Step
from shared.withdrawals import inbox
from tests.support import steps
from tests.support.counting_proxy import Counts, counting_postgres, counting_redis
from tests.support.world import World, event_body

BATCH = 20


class Wire:
    """What is sent to PostgreSQL and to Redis."""

    def __init__(self, sql: Counts, redis: Counts) -> None:
        self.sql = sql
        self.redis = redis

    def sent_by(self, work: Callable[[], Any]) -> Counter[str]:
        """Do the work; returns the statements that it sent, by their verb and table, and the round trips."""
        self.sql.reset()
        work()
        sent: Counter[str] = Counter()
        for statement, number in self.sql.statements.items():
            sent[kind_of(statement)] += number
        sent["round trips"] = self.sql.round_trips
        return sent


def kind_of(statement: str) -> str:
    """The verb and the table of a statement, such as `UPDATE withdrawals`."""
    if statement.startswith("SELECT"):
        table = re.search(r"\bFROM ([a-z_]+)", statement)
        return f"SELECT {table[1]}" if table else statement
    change = re.search(r"\b(UPDATE|INSERT INTO) ([a-z_]+)", statement)
    return f"{change[1]} {change[2]}" if change else statement.removesuffix(" ISOLATION LEVEL READ COMMITTED")


@pytest.fixture
def wire(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Count from now on, on connections that are open already and know every statement."""
    world.credit(coins=1_000_000)
    with (
        counting_postgres(os.environ["DATABASE_URL"]) as (database_url, sql),
        counting_redis(os.environ["REDIS_URL"]) as (redis_url, redis),
    ):
        monkeypatch.setenv("DATABASE_URL", database_url)
        monkeypatch.setenv("REDIS_URL", redis_url)
        world.forget_settings()
        world.paid()
        yield Wire(sql, redis)
        engine().dispose()


def due(world: World, number: int) -> list[UUID]:
    requested = [world.request(coins=100) for _ in range(number)]
    world.advance()
    return requested


TRANSACTION = {"BEGIN": 1, "SELECT now()": 1, "COMMIT": 1, "round trips": 2}
# The withdrawals under their locks, and what decides about them.
CASES = {"SELECT withdrawals": 1, "SELECT payout_attempts": 1, "SELECT blocks": 1, "SELECT switches": 1}
CLAIM = {
    **TRANSACTION,
    **CASES,
    "SELECT withdrawals": 2,  # and the completed ones whose recheck is due
    "SELECT payout_attempts": 2,
    "UPDATE withdrawals": 1,
    "INSERT INTO payout_attempts": 1,
    "INSERT INTO withdrawal_events": 1,
    "UPDATE webhook_events": 1,  # those that came before their attempt
}
# And the attempts, their hints and open exception records, and other payouts with the same id or UTR.
ANSWERED = {
    **TRANSACTION,
    **CASES,
    "SELECT withdrawals": 2,
    "SELECT payout_attempts": 3,
    "SELECT hints": 1,
    "SELECT exception_records": 1,
}
RECORD = {
    **ANSWERED,
    "UPDATE withdrawals": 1,
    "UPDATE payout_attempts": 1,
    "INSERT INTO withdrawal_events": 1,
}
APPLY = {
    **TRANSACTION,
    "round trips": 3,
    "SELECT now()": 2,
    "SELECT webhook_events": 1,
    "SELECT withdrawals": 2,
    "SELECT payout_attempts": 2,
    "SELECT switches": 1,
    "SELECT hints": 1,
    "UPDATE withdrawals": 1,
    "UPDATE payout_attempts": 1,
    "UPDATE webhook_events": 1,
    "INSERT INTO withdrawal_events": 1,
}
CLAIM_RECHECK = {
    **TRANSACTION,
    **CASES,
    "SELECT withdrawals": 2,
    "SELECT payout_attempts": 2,
    "UPDATE payout_attempts": 1,
}
CONFIRM = {**ANSWERED, "UPDATE payout_attempts": 1, "INSERT INTO withdrawal_events": 1}


@pytest.mark.parametrize("number", [1, BATCH])
def test_one_withdrawal_and_twenty_need_the_same_statements(world: World, wire: Wire, number: int) -> None:
    batch = due(world, number)
    claimed: list[Step] = []
    assert wire.sent_by(lambda: claimed.extend(steps.claim_all(batch))) == CLAIM
    answers = answers_to(world, claimed)
    assert wire.sent_by(lambda: steps.record_all(answers)) == RECORD
    receive_webhooks(world, batch)
    assert wire.sent_by(inbox.apply_due) == APPLY
    assert {world.read(key).status for key in batch} == {"completed"}
    world.sql("UPDATE payout_attempts SET recheck_at = now() WHERE unconfirmed")
    claimed.clear()
    assert wire.sent_by(lambda: claimed.extend(steps.claim_all(batch))) == CLAIM_RECHECK
    answers = answers_to(world, claimed)
    assert wire.sent_by(lambda: steps.record_all(answers)) == CONFIRM
    assert world.sql("SELECT FROM payout_attempts WHERE unconfirmed") == []


def test_a_failed_payout_among_twenty_costs_one_more_transaction(world: World, wire: Wire) -> None:
    """Its refund needs the wallet's lock; the others are recorded together, after one attempt to record all."""
    failing = [world.request(coins=100, upi_id="fail.bank_account_closed@sim") for _ in range(3)]
    world.advance()
    for key in failing:
        world.bring_on(key)  # accepted, and then failed
    paid = due(world, BATCH - len(failing))
    answers = answers_to(world, steps.claim_all([*paid, *failing]))
    sent = wire.sent_by(lambda: steps.record_all(answers))
    assert sent["BEGIN"] == 2 + len(failing)
    assert {world.read(key).status for key in failing} == {"failed"}
    assert {world.read(key).status for key in paid} == {"processing"}


@pytest.mark.parametrize(("is_on", "transactions"), [(True, 3), (False, 1)])
def test_twenty_successes_reset_a_breaker_once_and_leave_an_open_one_alone(
    world: World, wire: Wire, is_on: bool, transactions: int
) -> None:
    """The first success fails the batch and goes alone; only its probe may close an open breaker."""
    batch = due(world, BATCH)
    steps.record_all(answers_to(world, steps.claim_all(batch)))
    world.simulator.post("advance", {"seconds": 60})
    world.advance()
    answers = answers_to(world, steps.claim_all(batch))
    counted = "INSERT INTO switches (name, is_on, strikes, reason, actor) VALUES ('handle:okhdfcbank', :on, 2, '', 'x')"
    world.sql(counted, on=is_on)
    sent = wire.sent_by(lambda: steps.record_all(answers))
    assert sent["BEGIN"] == transactions
    assert {world.read(key).status for key in batch} == {"completed"}
    [breaker] = world.sql("SELECT is_on, strikes FROM switches WHERE name = 'handle:okhdfcbank'")
    assert (breaker.is_on, breaker.strikes) == ((True, 0) if is_on else (False, 2))


def answers_to(world: World, claimed: list[Step]) -> list[tuple[Step, Answer]]:
    return [(step, world.perform(step)) for step in claimed]


def receive_webhooks(world: World, batch: list[UUID]) -> None:
    world.simulator.post("advance", {"seconds": 60})  # each payout ends, and has its UTR
    for key in batch:
        [payout] = world.simulator.payouts(str(world.attempts(key)[0].id))
        about = {name: payout[name] for name in ("id", "amount", "reference_id", "utr")}
        for status in ("queued", "processing", "processed"):
            body = event_body(f"payout.{status}", {**about, "status": status, "status_details": {}})
            inbox.receive(f"{key}-{status}", body)
