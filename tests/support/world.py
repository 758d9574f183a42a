"""The system in one process: real database, real broker, and the provider over HTTP.

`advance` moves the times that rows wait for, in place of a clock; none of our code is replaced.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import requests
from sqlalchemy import Row, text
from sqlalchemy.exc import DBAPIError

from shared import withdrawals
from shared.clock import INDIA
from shared.coins import wallet
from shared.db import engines
from shared.db.engines import engine
from shared.db.transactions import autocommit, transaction
from shared.models import Withdrawal
from shared.monitoring import gauges
from shared.proof import checks
from shared.providers.answers import Answer
from shared.providers.clients import client
from shared.providers.razorpayx.answers import parse_report
from shared.providers.razorpayx.client import RazorpayXClient
from shared.providers.steps import Prepare, Send, Step
from shared.queues import messages, redis_broker, soon
from shared.queues.names import EVERY_QUEUE
from shared.settings import settings
from shared.states import PaidVia
from shared.withdrawals import inbox
from shared.withdrawals.paid_outside import Payment
from tests.support import simulator as outside
from tests.support.databases import EmptyDatabases
from tests.support.simulator import Simulator
from tests.support.steps import claim, record_answer
from tests.support.suspicions import suspicions

KEY = "test-app-key-0123456789"
RATE_LIMITS = (
    "RATE_LIMIT_PER_KEY",
    "RATE_LIMIT_PER_USER",
    "RATE_LIMIT_PER_ADDRESS",
    "RATE_LIMIT_FAILED_AUTH",
    "RATE_LIMIT_HEALTH",
    "RATE_LIMIT_BAD_WEBHOOKS",
)
TIMEOUTS = (
    "NOTIFY_ANSWER_SECONDS",
    "RAZORPAYX_CONNECT_SECONDS",
    "RAZORPAYX_READ_SECONDS",
    "MAIL_SECONDS",
)
SIGNING_KEY = base64.b64encode(bytes(range(32))).decode()
_time_columns = {
    "withdrawals": ("due_at", "not_before"),
    "webhook_events": ("due_at",),
    "hints": ("due_at", "asked_at"),
    "deliveries": ("due_at", "began_at", "leased_until"),
    "emails": ("due_at", "began_at", "leased_until", "server_failed_at"),
    "mail_listeners": ("told_at",),
    "switches": ("probe_at",),
    "pace": ("next_at",),
}
# One statement for all tables, because it runs before nearly every step of a test.
ADVANCE = "WITH {} SELECT 1".format(
    ", ".join(
        f"{table}_ AS (UPDATE {table} SET "
        + ", ".join(f"{column} = {column} - make_interval(secs => :s)" for column in columns)
        + (" WHERE due_at IS NOT NULL)" if table == "withdrawals" else ")")
        for table, columns in _time_columns.items()
    )
)
_numbers = count(1)
_environment: dict[str, str] = {}


class World:
    """A system with one database, and the steps that tests take with it."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.broken_on_purpose = self.altered = False

    @classmethod
    @contextmanager
    def create(
        cls,
        databases: EmptyDatabases,
        redis_url: str,
        simulator: Simulator,
        patch: pytest.MonkeyPatch,
    ) -> Iterator["World"]:
        name = databases.take()
        environment = {
            "DATABASE_URL": databases.url(name),
            "REDIS_URL": redis_url,
            "API_KEYS": KEY,
            # Tests send more requests than the limits allow; tests of limits set them.
            **dict.fromkeys(RATE_LIMITS, "off"),
            # One person is enough, as in a trial; tests of maker-checker and of the defaults set these.
            "SECOND_ADMIN_REQUIRED": "off",
            "ADMIN_TOTP_REQUIRED_ROLES": "off",
            "ADJUST_ALONE_MAX_COINS": "1000",
            "CANCEL_WINDOW_SECONDS": "10",
            "PAYOUTS_PER_SECOND": "1000",
            "RAZORPAYX_BASE_URL": simulator.url,
            "RAZORPAYX_KEY_ID": outside.KEY_ID,
            "RAZORPAYX_KEY_SECRET": outside.KEY_SECRET,
            "RAZORPAYX_ACCOUNT_NUMBER": outside.ACCOUNT,
            "RAZORPAYX_WEBHOOK_SECRET": outside.WEBHOOK_SECRET,
            "RAZORPAYX_WEBHOOK_SECRET_PREVIOUS": outside.OLD_SECRET,
            "WEBHOOK_SIGNING_KEY": SIGNING_KEY,
            # Long enough for a busy machine. A test in which no answer comes calls `shorten_timeouts`.
            **dict.fromkeys(TIMEOUTS, "10"),
        }
        for variable, value in environment.items():
            patch.setenv(variable, value)
        forget_settings()
        if soon._sender is not None:
            soon._sender._due.clear()  # what falls due for an earlier test
            soon._sender._known.clear()
        broker = redis_broker.client()  # it may be a developer's own Redis: delete only our keys
        broker.delete(*EVERY_QUEUE, *broker.scan_iter("nudged:*", count=1000))
        world = cls(simulator)
        is_unchanged = False
        world.databases = databases
        world.database = name
        try:
            yield world
            is_unchanged = not world.broken_on_purpose and not world.altered
        finally:
            if not is_unchanged:
                engine().dispose()  # its connections may have settings of this test
            forget_settings()
            databases.give_back(name, may_have_changed=not is_unchanged)

    # --- steps of people

    def operators(self, *names: str, role: str = "admin", added_by: str = "shell:test", **about: Any) -> None:
        """Create or change these operators, without a password; `add_operator` creates ones who can sign in."""
        columns = {"role": role, "password_hash": "none", "created_by": added_by, **about}
        column_names = ", ".join(columns)
        values = ", ".join(f":{column}" for column in columns)
        assignments = ", ".join(f"{column} = :{column}" for column in columns)
        for name in names:
            self.sql(
                f"INSERT INTO operators (name, {column_names}) VALUES (:name, {values})"
                f" ON CONFLICT (name) DO UPDATE SET {assignments}",
                name=name,
                **columns,
            )

    def credit(self, user_id: str = "user123", coins: int = 2000, reference: str = "start") -> None:
        with transaction() as session:
            wallet.credit(session, user_id=user_id, coins=coins, reference=reference, actor="app:test")

    def request(self, user_id: str = "user123", coins: int = 500, upi_id: str = "user@okhdfcbank") -> UUID:
        return withdrawals.request(user_id=user_id, coins=coins, upi_id=upi_id, actor="app:test").id

    def paid(self, upi_id: str = "user@okhdfcbank", **about: Any) -> UUID:
        """Credit coins, request a withdrawal and run it until it is final; returns its id."""
        self.credit(reference=f"for-{next(_numbers)}")
        withdrawal_id = self.request(upi_id=upi_id, **about)
        self.finish(withdrawal_id)
        return withdrawal_id

    # --- steps of the worker, the clock and the provider

    def bring_on(self, withdrawal_id: UUID) -> None:
        """Process one message, as a worker does."""
        withdrawals.bring_on([str(withdrawal_id)], RazorpayXClient(settings()))

    def perform(self, step: Step) -> Answer:
        """Make only the call of a step."""
        return RazorpayXClient(settings()).perform(step)

    def first_send(self, **about: Any) -> Send:
        """Request a withdrawal and claim its first attempt; returns the step whose call comes next."""
        withdrawal_id = self.request(**about)
        self.advance()
        step = claim(withdrawal_id)
        if isinstance(step, Prepare):
            step = record_answer(step, self.perform(step))
        assert isinstance(step, Send)
        return step

    def advance(self, seconds: float = 3600) -> None:
        """Move every waiting time back, as if `seconds` had passed."""
        self.sql(ADVANCE, s=seconds)

    def step(self, withdrawal_id: UUID, *, seconds: float = 3600) -> str:
        """Advance, then process one message; returns the status."""
        self.advance(seconds)
        self.bring_on(withdrawal_id)
        return self.read(withdrawal_id).status

    def finish(self, withdrawal_id: UUID, *, steps: int = 40) -> str:
        """Step until the withdrawal is final; returns the status."""
        for _ in range(steps):
            if self.step(withdrawal_id) in ("completed", "failed", "cancelled"):
                break
        return self.read(withdrawal_id).status

    def webhook(self, event: str, payout: dict[str, Any], event_id: str) -> str | None:
        """Receive one webhook of the provider and apply it."""
        inbox.receive(event_id, event_body(event, payout))
        return inbox.apply([event_id]).get(event_id)

    def receive_report(self, payout: dict[str, Any], channel: str = "poll") -> str:
        """Apply this payout as the answer to one of our own calls; returns the effect."""
        report = parse_report(payout)
        assert report is not None
        with transaction() as session:
            return withdrawals.apply_report(session, report, channel)

    def arrive_late(self, withdrawal_id: UUID, status: str = "processed") -> dict[str, Any]:
        """Let the lost request of the last attempt reach the provider after all; returns the payout."""
        attempt = self.attempts(withdrawal_id)[-1]
        self.simulator.scenario("never", default=True)
        # A different key, because the simulator remembers its answer to the attempt's key.
        headers = {"Content-Type": "application/json", "X-Payout-Idempotency": f"late{attempt.id.hex}"}
        answer = requests.post(
            f"{self.simulator.url}/v1/payouts",
            data=bytes(attempt.request_body),
            headers=headers,
            auth=(outside.KEY_ID, outside.KEY_SECRET),
            timeout=10,
        )
        assert answer.status_code == 200, answer.text
        return self.set_status(answer.json()["id"], status)

    def set_status(self, payout_id: str, status: str, reason: str | None = None) -> dict[str, Any]:
        """Set the payout's status at RazorpayX; returns the payout as a webhook reports it."""
        self.simulator.post(f"payouts/{payout_id}/status", {"status": status, "reason": reason})
        [payout] = [item for item in self.simulator.payouts() if item["id"] == payout_id]
        reported = {key: payout[key] for key in ("id", "amount", "reference_id", "utr", "status")}
        return {**reported, "status_details": {"reason": reason}}

    # --- reading and checking

    def forget_settings(self) -> None:
        """Read the settings again at the next use."""
        forget_settings()

    def read(self, withdrawal_id: UUID) -> Withdrawal:
        with transaction() as session:
            return withdrawals.find(session, withdrawal_id)

    def attempts(self, withdrawal_id: UUID) -> list[Row[Any]]:
        return self.sql(
            "SELECT * FROM payout_attempts WHERE withdrawal_id = :id ORDER BY number", id=withdrawal_id
        )

    def story(self, withdrawal_id: UUID) -> list[str]:
        rows = self.sql(
            "SELECT reason FROM withdrawal_events WHERE withdrawal_id = :id ORDER BY id", id=withdrawal_id
        )
        return [row.reason for row in rows]

    def balance(self, user_id: str = "user123") -> int:
        return self.sql("SELECT balance_coins FROM wallets WHERE user_id = :u", u=user_id)[0].balance_coins

    def refunds(self, withdrawal_id: UUID) -> int:
        sql = "SELECT count(*) AS n FROM coin_transactions WHERE kind = 'refund' AND withdrawal_id = :id"
        return self.sql(sql, id=withdrawal_id)[0].n

    def sql(self, statement: str, **values: Any) -> list[Row[Any]]:
        self.altered |= statement.startswith("ALTER")
        with autocommit() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def clock(self) -> datetime:
        """The database's time. Two readings enclose the times of the rows written between them, on any machine."""
        at: datetime = self.sql("SELECT clock_timestamp() AS at")[0].at
        return at

    def sql_without_rules(self, statement: str) -> None:
        """Run a statement without triggers and foreign keys, as an intruder or a bad disk could change rows."""
        with engine().begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text(statement))

    def break_connection(self) -> None:
        """Close a connection on the server's side, so that the pool holds a broken one."""
        with contextlib.suppress(DBAPIError):
            self.sql("SELECT pg_terminate_backend(pg_backend_pid())")

    def shorten_timeouts(self, patch: pytest.MonkeyPatch) -> None:
        """Wait at most a second for any answer from now on."""
        for name in TIMEOUTS:
            patch.setenv(name, "1")
        forget_settings()

    def point_database_at_nothing(self, patch: pytest.MonkeyPatch) -> None:
        """Make the database unreachable."""
        self._database_url = os.environ["DATABASE_URL"]
        patch.setenv("DATABASE_URL", "postgresql://nobody:nothing@127.0.0.1:1/none")
        forget_settings()

    def point_database_back(self, patch: pytest.MonkeyPatch) -> None:
        """Make the database reachable again."""
        patch.setenv("DATABASE_URL", self._database_url)
        forget_settings()

    def point_broker_at_nothing(self, patch: pytest.MonkeyPatch) -> None:
        """Make the broker unreachable."""
        patch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        forget_settings()

    def check(self) -> None:
        """Check every promise in the database, and at the provider: one live payout for each withdrawal."""
        if self.broken_on_purpose:
            return
        # Nothing is overdue: the test itself moved the times.
        self.sql("UPDATE withdrawals SET due_at = now() WHERE due_at < now()")
        with self.databases.connection(self.database) as connection:
            is_suspicious = bool(suspicions(connection))
        if is_suspicious:
            result = checks.run()
            assert result.holds, [(finding.check.invariant, finding.ids) for finding in result.findings]
        by_withdrawal = {
            str(row.id): str(row.withdrawal_id)
            for row in self.sql("SELECT id, withdrawal_id FROM payout_attempts")
        }
        live = [
            by_withdrawal.get(p["reference_id"], p["reference_id"]) for p in self.simulator.live_payouts()
        ]
        assert len(live) == len(set(live)), f"two live payouts for one withdrawal: {live}"


def event_body(event: str, payout: dict[str, Any]) -> bytes:
    """The body of RazorpayX's webhook about a payout."""
    body = {"entity": "event", "event": event, "payload": {"payout": {"entity": payout}}}
    return json.dumps(body).encode()


def payment(
    utr: str | None = "500000000001", via: PaidVia | None = PaidVia.UPI, at: datetime | None = None
) -> Payment:
    """A payment outside the provider, as two people report it; made now by default."""
    return Payment(utr, via, at or datetime.now(UTC))


def this_minute() -> str:
    """The time in India, as people copy it from a statement."""
    return f"{datetime.now(INDIA):%Y-%m-%dT%H:%M}"


def sign(body: bytes, secret: str = outside.WEBHOOK_SECRET) -> str:
    """The signature of RazorpayX, computed without our code."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def forget_settings() -> None:
    """Read the settings again if the environment has changed, and clear what the process cached."""
    global _environment  # noqa: PLW0603  the environment of the current settings
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    if environment != _environment:
        for cached in (settings, messages.sender, redis_broker.client, client):
            cached.cache_clear()
        _environment = environment
    for cached in (gauges.database_samples, gauges.broker_samples):
        cached.cache_clear()
    messages._backoff_until = 0.0
    engines._full_at = -engines.FULL_RETRY_SECONDS
