"""The user's wish: coins are taken at once, together with everything else or not at all."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from sandbox.services import Databases
from shared import db, withdrawals
from shared.errors import BadRequest, Unavailable
from shared.withdrawals import requesting, terms
from shared.withdrawals.requesting import OutcomeUnknown
from tests.world import World


def ask(world: World, **about: object) -> str:
    """Request a withdrawal; the word for what came of it. Whoever waited in vain took nothing, and asks again."""
    for _ in range(20):
        try:
            world.request(**about)  # type: ignore[arg-type]
        except BadRequest as refused:
            return refused.code
        except Unavailable as busy:
            if busy.code != "database_busy":
                raise
        else:
            return "taken"
    raise AssertionError("the database is busy for ever")


@pytest.mark.failure(6)
def test_fifty_threads_and_coins_for_ten(world: World) -> None:
    world.credit(coins=5000)
    with ThreadPoolExecutor(50) as threads:
        outcomes = list(threads.map(lambda _: ask(world, coins=500), range(50)))
    assert (outcomes.count("taken"), outcomes.count("insufficient_coins")) == (10, 40)
    assert world.balance() == 0
    lines = world.sql("SELECT coins, balance_after FROM coin_transactions WHERE coins < 0 ORDER BY id")
    assert [(line.coins, line.balance_after) for line in lines] == [(-500, 4500 - 500 * n) for n in range(10)]


def test_a_create_is_one_round_trip(world: World, tmp_path: Path) -> None:
    world.credit()
    world.request(coins=100)  # so that a connection is open
    trace = tmp_path / "trace"
    with trace.open("wb") as file:
        with db.one_statement() as connection:
            wire = connection.connection.driver_connection.pgconn  # type: ignore[union-attr]
            wire.trace(file.fileno())
        # The same pooled connection serves the next request: there is only one.
        world.request(coins=100)
        wire.untrace()
    answers = trace.read_text().count("ReadyForQuery")
    assert answers == 1, trace.read_text()


def test_too_few_coins_leave_nothing_behind(world: World) -> None:
    world.credit(coins=499)
    assert ask(world, coins=500) == "insufficient_coins"
    assert world.balance() == 499
    assert world.sql("SELECT FROM withdrawals") == []
    assert world.sql("SELECT FROM withdrawal_events") == []


@pytest.mark.parametrize(
    ("has", "wants", "told"),
    [
        (None, 500, "wallet_not_found"),
        (None, 200_000, "wallet_not_found"),
        (300, 500, "insufficient_coins"),
        (150_000, 200_000, "insufficient_coins"),
        (300_000, 200_000, "amount_too_high"),
        (300_000, 10**40, "insufficient_coins"),
        (100_000, 100_000, "taken"),
    ],
)
def test_what_only_the_wallet_can_tell(world: World, has: int | None, wants: int, told: str) -> None:
    if has is not None:
        world.credit(coins=has)
    assert ask(world, coins=wants) == told


def test_cancelling_gives_the_coins_back_once(world: World) -> None:
    world.credit(coins=2000)
    withdrawal_id = world.request(coins=500)
    withdrawal, balance = withdrawals.cancel(withdrawal_id, reason="a whim", actor="app:test")
    assert (withdrawal.status, withdrawal.admin_notes, balance) == ("cancelled", "Cancelled: a whim", 2000)
    with pytest.raises(BadRequest, match="Cannot cancel withdrawal with status: cancelled"):
        withdrawals.cancel(withdrawal_id, reason="again", actor="app:test")
    assert world.balance() == 2000
    assert world.finish(withdrawal_id, steps=3) == "cancelled"
    assert world.simulator.payouts() == []


def test_many_cancel_at_once_and_one_refund_comes(world: World) -> None:
    world.credit(coins=500)
    withdrawal_id = world.request(coins=500)

    def cancel(_: int) -> str:
        try:
            withdrawals.cancel(withdrawal_id, reason="now", actor="app:test")
        except BadRequest:
            return "refused"
        return "cancelled"

    with ThreadPoolExecutor(20) as threads:
        outcomes = list(threads.map(cancel, range(20)))
    assert outcomes.count("cancelled") == 1
    assert (world.balance(), world.refunds(withdrawal_id)) == (500, 1)


@pytest.mark.failure(20)
def test_cancel_against_claim_two_hundred_times(world: World) -> None:
    """Whoever comes first: never refunded and paid. Until both have been, lest it was no race."""
    world.credit(coins=100_000)
    world.paid()  # the payee is known from here on, so that a claim goes straight to the payment
    outcomes: list[bool] = []
    with ThreadPoolExecutor(2) as threads:
        while len(outcomes) < 200 or (len(set(outcomes)) == 1 and len(outcomes) < 900):
            withdrawal_id = world.request(coins=100)
            world.advance()

            def cancel(key=withdrawal_id) -> str:  # type: ignore[no-untyped-def]
                try:
                    withdrawals.cancel(key, reason="race", actor="app:test")
                except BadRequest:
                    return "refused"
                return "cancelled"

            def work(key=withdrawal_id) -> str:  # type: ignore[no-untyped-def]
                world.bring_on(key)
                return "worked"

            # Either has its turn to be first.
            both = (cancel, work) if len(outcomes) % 2 else (work, cancel)
            told = {one.result() for one in [threads.submit(one) for one in both]}
            cancelled = "cancelled" in told
            claimed = bool(world.attempts(withdrawal_id))
            assert cancelled != claimed
            assert world.refunds(withdrawal_id) == (1 if cancelled else 0)
            outcomes.append(cancelled)
    assert set(outcomes) == {True, False}, "one of them won every time: this was no race"
    assert len(world.simulator.payouts()) == 1 + outcomes.count(False)


def test_a_connection_cut_under_the_request_is_asked_again_and_takes_once(world: World) -> None:
    world.credit(coins=2000)
    world.request(coins=100)
    # Every pooled connection dies, as after a restart of the database.
    world.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    world.sql_ending_itself()
    world.request(coins=100)
    assert world.balance() == 1800


def test_the_same_id_twice_takes_coins_once(world: World) -> None:
    """The end of a statement whose connection broke is not known: it is run again under its id."""
    world.credit(coins=2000)
    made = withdrawals.request(user_id="user123", coins=500, upi_id="user@okhdfcbank", actor="app:test")
    again = {
        "id": made.id, "user_id": "user123", "coins": 500, "amount_paise": 5000, "upi_id": "user@okhdfcbank",
        "actor": "app:test", "idempotency_key": None, "fingerprint": None, **terms.of(500, "user@okhdfcbank"),
    }  # fmt: skip
    with pytest.raises(Exception, match="pk_withdrawals"):
        requesting._take(again)
    assert requesting._already_taken(made.id).remaining_coins == 1500
    assert world.balance() == 1500


class CutAfter:
    """The wire to the database breaks right after a statement was done, before its reply is read: so many times."""

    def __init__(self, begins: str, *, times: int, then: Callable[[], None] = lambda: None) -> None:
        self.begins, self.left, self.then = begins, times, then

    def __enter__(self) -> None:
        event.listen(db.engine(), "after_cursor_execute", self._cut)

    def __exit__(self, *_: object) -> None:
        event.remove(db.engine(), "after_cursor_execute", self._cut)

    def _cut(self, connection: Any, cursor: Any, statement: str, *_: object) -> None:
        if self.left and statement.strip().startswith(self.begins):
            self.left -= 1
            cursor.connection.close()
            db.engine().pool.dispose()
            self.then()
            raise psycopg.OperationalError("the reply was lost")


@pytest.mark.failure(24)
def test_a_reply_that_is_lost_takes_the_coins_once_and_says_so(world: World) -> None:
    """All that the user had: the second run finds no coins, because the first run took them."""
    world.credit(coins=500)
    with CutAfter("WITH taken AS", times=1):
        made = withdrawals.request(user_id="user123", coins=500, upi_id="user@okhdfcbank", actor="app:test")
    assert made.remaining_coins == 0
    assert [row.id for row in world.sql("SELECT id FROM withdrawals")] == [made.id]


def test_a_lost_reply_and_a_lost_database_say_that_nobody_knows_and_under_which_id(
    world: World, databases: Databases
) -> None:
    world.credit(coins=2000)
    name = world.sql("SELECT current_database() AS name")[0].name
    with psycopg.connect(databases.url, autocommit=True) as server:

        def close_the_door() -> None:
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")

        cut = CutAfter("WITH taken AS", times=1, then=close_the_door)
        try:
            with cut, pytest.raises(OutcomeUnknown) as told:
                world.request(coins=500)
        finally:  # else it could not be emptied for the next test
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert told.value.code == "outcome_unknown"
    assert [str(row.id) for row in world.sql("SELECT id FROM withdrawals")] == [
        told.value.extra["withdrawal_id"]
    ]
    assert world.balance() == 1500


def test_with_the_database_away_nothing_is_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.credit()
    world.point_database_at_nothing(monkeypatch)
    with pytest.raises(Unavailable):
        world.request()
    world.point_database_back(monkeypatch)
    assert world.balance() == 2000


def test_history_pages_without_missing_or_repeating(world: World) -> None:
    world.credit(coins=100_000)
    made = [world.request(coins=100) for _ in range(25)]
    seen, after = [], None
    with db.transaction() as session:
        while True:
            page = withdrawals.history(session, "user123", limit=7, after=after)
            seen += [row.id for row in page.withdrawals]
            if (after := page.next) is None:
                break
    assert seen == list(reversed(made))
