"""A running payout system, ours or a rival, as a measurement sees it: addresses, processes, tables.

All have the same paths and the same names of tables and columns where these are used here. So one function
measures them all.
"""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from bench import load, processes
from sandbox.keeper import wait_until
from tests.support.simulator import Simulator

WITHDRAW = "/api/razorpay/withdraw/"
WEBHOOK = "/api/razorpay/webhook/"
COINS = 10**9  # of each user
AMOUNT = 100  # coins of each withdrawal
# A machine that a worker shares with everything else; nothing here takes longer unless it is broken.
PATIENCE_SECONDS = 300.0
_event_numbers = count(1)

OPEN = """
    SELECT 1 WHERE EXISTS (SELECT FROM withdrawals WHERE status IN ('pending', 'processing'))
                OR EXISTS (SELECT FROM webhook_events WHERE applied_at IS NULL)
"""
# Rivals confirm nothing.
CONFIRMS = """
    SELECT 1 FROM information_schema.columns
    WHERE table_name = 'payout_attempts' AND column_name = 'unconfirmed'
"""
UNCONFIRMED = "SELECT 1 FROM payout_attempts WHERE unconfirmed LIMIT 1"

Payee = tuple[str, str]  # (user id, UPI id)


class PromiseBroken(AssertionError):
    """A run that does not keep the promises measures nothing."""


@dataclass
class Service:
    """One running system."""

    name: str
    api: str
    api_key: str
    database_url: str
    redis_url: str
    simulator_url: str
    provider_auth: tuple[str, str]
    webhook_secret: str
    pids: dict[str, list[int]]  # by kind: worker, api, postgres, redis, simulator, and what else there is
    check_promises: Callable[[], None]
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.simulator = Simulator(self.simulator_url)

    # --- its data

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """A connection in which each statement is a transaction."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            yield connection

    def value(self, query: str, *parameters: Any) -> Any:
        """The first column of the first row."""
        with self.database() as connection:
            row = connection.execute(query, parameters).fetchone()
        assert row is not None, query
        return row[0]

    def give_coins(self, users: int) -> None:
        """Create user1, user2, …, with coins for any run, and the journal entries that promise 1 requires."""
        give_coins(self.database_url, users)

    def open_withdrawals(self) -> int:
        """How many withdrawals are not final."""
        return int(self.value("SELECT count(*) FROM withdrawals WHERE status IN ('pending', 'processing')"))

    def unapplied_webhooks(self) -> int:
        """How many stored webhooks wait for a worker."""
        return int(self.value("SELECT count(*) FROM webhook_events WHERE applied_at IS NULL"))

    # --- its requests

    def withdraw_request(self, payee: Payee) -> bytes:
        """The bytes of a request for a withdrawal."""
        user_id, upi_id = payee
        body = json.dumps({"user_id": user_id, "amount": AMOUNT, "upi_id": upi_id}).encode()
        return load.http_request(self.api, WITHDRAW, body, {"Authorization": f"Bearer {self.api_key}"})

    def withdraw(self, payees: Sequence[Payee], connections: int = 8) -> None:
        """Request a withdrawal to each payee."""
        done = load.send(self.api, iter(map(self.withdraw_request, payees)), connections=connections)
        assert len(done.times) == len(payees), f"{len(done.times)} of {len(payees)} requests were answered"

    def webhook_request(self, body: bytes) -> bytes:
        """The bytes of a webhook with this body, signed, with an event id that was not used before."""
        signature = hmac.new(self.webhook_secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "X-Razorpay-Signature": signature,
            "X-Razorpay-Event-Id": f"bench{next(_event_numbers):014}",
        }
        return load.http_request(self.api, WEBHOOK, body, headers)

    def webhook_bodies(self, number: int) -> list[bytes]:
        """The bodies of webhooks that reported payouts as paid, as the provider sent them."""
        with self.database() as connection:
            rows = connection.execute(
                "SELECT body FROM webhook_events WHERE applied_at IS NOT NULL"
                " AND position('\"payout.processed\"'::bytea IN body) > 0 LIMIT %s",
                [number],
            ).fetchall()
        assert rows, "no webhook has arrived yet"
        return [bytes(row[0]) for row in rows]

    # --- its work

    @contextmanager
    def workers_frozen(self) -> Iterator[None]:
        """Suspend the workers in this block: what is requested meanwhile is a backlog at its end."""
        with processes.frozen(self.pids["worker"]):
            yield

    def wait_until_final(self, seconds: float = PATIENCE_SECONDS, *, confirmed: bool = True) -> None:
        """Wait until every withdrawal is final, every webhook applied and, if `confirmed`, every payment
        confirmed by a call of our own.
        """
        with self.database() as connection:
            confirms = confirmed and bool(connection.execute(CONFIRMS).fetchone())
            wait_until(lambda: _is_quiet(connection, confirms), seconds, lambda: TimeoutError(self._state()))

    def _state(self) -> str:
        return (
            f"{self.name}: {self.open_withdrawals()} withdrawals are open,"
            f" {self.unapplied_webhooks()} webhooks are not applied"
        )

    def check(self) -> None:
        """Check every promise in the database, and at the provider. Raises PromiseBroken."""
        self.check_promises()
        with self.database() as connection:
            rows = connection.execute("SELECT id::text, withdrawal_id::text FROM payout_attempts").fetchall()
        withdrawal_of = dict(rows)
        live = Counter(
            withdrawal_of.get(payout["idempotency_key"]) for payout in self.simulator.live_payouts()
        )
        if live[None] or set(live.values()) > {1}:
            raise PromiseBroken(f"{self.name}: live payouts of one withdrawal: {live.most_common(3)}")


Run = Callable[..., AbstractContextManager[Service]]  # `running` of ours or of a rival: settings and sizes
Start = Callable[[], AbstractContextManager[Service]]  # the same with all arguments


def payees_of(number: int, scenario: str = "success") -> list[Payee]:
    """So many users with one UPI id each, which chooses what the simulator does."""
    return [(f"user{n}", f"{scenario}-{n}@sim") for n in range(1, number + 1)]


def in_turns(payees: Sequence[Payee], number: int) -> list[Payee]:
    """So many payees, each of these as often as any other."""
    return list(islice((payee for _ in count() for payee in payees), number))


def give_coins(database_url: str, users: int) -> None:
    """Create user1, user2, …, with their credits. Users that exist keep what they have."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO wallets (user_id, balance_coins, lifetime_coins)"
            " SELECT 'user' || n, %s, %s FROM generate_series(1, %s) n ON CONFLICT DO NOTHING",
            [COINS, COINS, users],
        )
        connection.execute(
            "INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor)"
            " SELECT user_id, 'credit', balance_coins, balance_coins, 'bench', 'bench' FROM wallets"
            " WHERE NOT EXISTS (SELECT FROM coin_transactions t WHERE t.user_id = wallets.user_id)"
        )


def _is_quiet(connection: psycopg.Connection[TupleRow], confirms: bool) -> bool:
    is_open = connection.execute(OPEN).fetchone()
    return not is_open and not (confirms and connection.execute(UNCONFIRMED).fetchone())
