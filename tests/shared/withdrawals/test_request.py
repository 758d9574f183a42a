"""The request: coins are taken at once, in one statement with everything else."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sandbox.services import Databases
from shared import withdrawals
from shared.db.engines import engine
from shared.db.transactions import autocommit, transaction
from shared.errors import BadRequest, Unavailable
from shared.withdrawals import request_rules
from shared.withdrawals.request import OutcomeUnknown, _debit, _find_debited
from tests.support.world import World


def try_request(world: World, **fields: object) -> str:
    """Request a withdrawal; returns "taken" or the error code. A request that found the database busy is retried."""
    for _ in range(20):
        try:
            world.request(**fields)  # type: ignore[arg-type]
        except BadRequest as error:
            return error.code
        except Unavailable as error:
            if error.code != "database_busy":
                raise
        else:
            return "taken"
    raise AssertionError("the database stays busy")


@pytest.mark.failure(6)
def test_fifty_concurrent_requests_with_coins_for_ten_create_ten_withdrawals(world: World) -> None:
    world.credit(coins=5000)
    with ThreadPoolExecutor(50) as threads:
        outcomes = list(threads.map(lambda _: try_request(world, coins=500), range(50)))
    assert (outcomes.count("taken"), outcomes.count("insufficient_coins")) == (10, 40)
    assert world.balance() == 0
    entries = world.sql("SELECT coins, balance_after FROM coin_transactions WHERE coins < 0 ORDER BY id")
    assert [(entry.coins, entry.balance_after) for entry in entries] == [
        (-500, 4500 - 500 * n) for n in range(10)
    ]


def test_a_request_takes_one_round_trip_to_the_database(world: World, tmp_path: Path) -> None:
    world.credit()
    engine().dispose()  # other tests left connections
    world.request(coins=100)  # opens the only connection
    trace = tmp_path / "trace"
    with trace.open("wb") as file:
        with autocommit() as connection:
            libpq = connection.connection.driver_connection.pgconn  # type: ignore[union-attr]
            libpq.trace(file.fileno())
        # The same pooled connection serves the next request.
        world.request(coins=100)
        libpq.untrace()
    round_trips = trace.read_text().count("ReadyForQuery")
    assert round_trips == 1, trace.read_text()


def test_a_request_without_enough_coins_writes_nothing(world: World) -> None:
    world.credit(coins=499)
    assert try_request(world, coins=500) == "insufficient_coins"
    assert world.balance() == 499
    assert world.sql("SELECT FROM withdrawals") == []
    assert world.sql("SELECT FROM withdrawal_events") == []


@pytest.mark.parametrize(
    ("balance", "coins", "outcome"),
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
def test_refusals_that_depend_on_the_wallet(
    world: World, balance: int | None, coins: int, outcome: str
) -> None:
    if balance is not None:
        world.credit(coins=balance)
    assert try_request(world, coins=coins) == outcome


def test_cancelling_refunds_once(world: World) -> None:
    world.credit(coins=2000)
    withdrawal_id = world.request(coins=500)
    withdrawal, balance = withdrawals.cancel(withdrawal_id, reason="a whim", actor="app:test")
    assert (withdrawal.status, withdrawal.admin_notes, balance) == ("cancelled", "Cancelled: a whim", 2000)
    with pytest.raises(BadRequest, match="Cannot cancel withdrawal with status: cancelled"):
        withdrawals.cancel(withdrawal_id, reason="again", actor="app:test")
    assert world.balance() == 2000
    assert world.finish(withdrawal_id, steps=3) == "cancelled"
    assert world.simulator.payouts() == []


def test_twenty_concurrent_cancellations_refund_once(world: World) -> None:
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
def test_of_a_concurrent_cancel_and_claim_exactly_one_wins(world: World) -> None:
    """Never refunded and paid. Runs until each side has won at least once."""
    world.credit(coins=100_000)
    world.paid()  # registers the payee, so that a claim goes straight to the payment
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

            # Alternate which of them starts first.
            both = (cancel, work) if len(outcomes) % 2 else (work, cancel)
            results = {future.result() for future in [threads.submit(call) for call in both]}
            cancelled = "cancelled" in results
            claimed = bool(world.attempts(withdrawal_id))
            assert cancelled != claimed
            assert world.refunds(withdrawal_id) == (1 if cancelled else 0)
            outcomes.append(cancelled)
    assert set(outcomes) == {True, False}, "one side won every time: there was no race"
    assert len(world.simulator.payouts()) == 1 + outcomes.count(False)


def test_a_request_on_a_broken_connection_is_retried_and_takes_coins_once(world: World) -> None:
    world.credit(coins=2000)
    world.request(coins=100)
    # End every pooled connection, as a restart of the database does.
    world.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    world.break_connection()
    world.request(coins=100)
    assert world.balance() == 1800


def test_the_same_id_twice_takes_coins_once(world: World) -> None:
    """The result of a statement on a broken connection is unknown: it runs again under the same id."""
    world.credit(coins=2000)
    withdrawal = withdrawals.request(user_id="user123", coins=500, upi_id="user@okhdfcbank", actor="app:test")
    values = {
        "id": withdrawal.id, "user_id": "user123", "coins": 500, "amount_paise": 5000, "upi_id": "user@okhdfcbank",
        "actor": "app:test", "idempotency_key": None, "fingerprint": None, **request_rules.subjects("user@okhdfcbank"),
    }  # fmt: skip
    with pytest.raises(Exception, match="pk_withdrawals"):
        _debit(values)
    debited = _find_debited(withdrawal.id)
    assert debited is not None and debited.remaining_coins == 1500
    assert world.balance() == 1500


class CutAfter:
    """Breaks the connection after a statement ran and before its reply is read, `times` times."""

    def __init__(self, begins: str, *, times: int, then: Callable[[], None] = lambda: None) -> None:
        self.begins = begins
        self.left = times
        self.then = then

    def __enter__(self) -> None:
        self.execute = psycopg.Cursor.execute
        psycopg.Cursor.execute = lambda cursor, *args, **options: self._cut(cursor, *args, **options)  # type: ignore[method-assign]  # noqa: PLW0108

    def __exit__(self, *_: object) -> None:
        psycopg.Cursor.execute = self.execute  # type: ignore[method-assign]
        assert self.left == 0, "no connection was broken"

    def _cut(self, cursor: Any, statement: Any, *args: Any, **options: Any) -> Any:
        result = self.execute(cursor, statement, *args, **options)
        if self.left and str(statement).strip().startswith(self.begins):
            self.left -= 1
            cursor.connection.close()
            engine().dispose()
            self.then()
            raise psycopg.OperationalError("the reply was lost")
        return result


@pytest.mark.failure(24)
def test_a_request_whose_database_reply_is_lost_takes_coins_once_and_succeeds(world: World) -> None:
    """The request takes all the coins, so the second run finds none: the first run took them."""
    world.credit(coins=500)
    with CutAfter("WITH taken AS", times=1):
        withdrawal = withdrawals.request(
            user_id="user123", coins=500, upi_id="user@okhdfcbank", actor="app:test"
        )
    assert withdrawal.remaining_coins == 0
    assert [row.id for row in world.sql("SELECT id FROM withdrawals")] == [withdrawal.id]


def test_a_lost_reply_and_a_lost_database_return_outcome_unknown_with_the_id(
    world: World, databases: Databases
) -> None:
    world.credit(coins=2000)
    name = world.sql("SELECT current_database() AS name")[0].name
    with psycopg.connect(databases.url, autocommit=True) as server:

        def refuse_connections() -> None:
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")

        cut = CutAfter("WITH taken AS", times=1, then=refuse_connections)
        try:
            with cut, pytest.raises(OutcomeUnknown) as raised:
                world.request(coins=500)
        finally:  # the next test needs the database
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert raised.value.code == "outcome_unknown"
    assert [str(row.id) for row in world.sql("SELECT id FROM withdrawals")] == [
        raised.value.extra["withdrawal_id"]
    ]
    assert world.balance() == 1500


def test_without_the_database_no_coins_are_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.credit()
    world.point_database_at_nothing(monkeypatch)
    with pytest.raises(Unavailable):
        world.request()
    world.point_database_back(monkeypatch)
    assert world.balance() == 2000


def test_history_pages_neither_skip_nor_repeat_a_withdrawal(world: World) -> None:
    world.credit(coins=100_000)
    ids = [world.request(coins=100) for _ in range(25)]
    listed = []
    after = None
    with transaction() as session:
        while True:
            page = withdrawals.history(session, "user123", limit=7, after=after)
            listed += [row.id for row in page.withdrawals]
            if (after := page.next) is None:
                break
    assert listed == list(reversed(ids))
