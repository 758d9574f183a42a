"""The system in one process, for tests of its verbs: real database, real broker, the provider over HTTP.

The clock is replaced by moving what the rows wait for (`advance`); nothing of ours is replaced.
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

from shared import checks, db, gauges, inbox, queues, wallet, withdrawals
from shared.clock import INDIA
from shared.models import Withdrawal
from shared.razorpayx.answers import Answer, parse_report
from shared.razorpayx.client import RazorpayX
from shared.settings import settings
from shared.states import PaidVia
from shared.steps import Prepare, Send, Step
from shared.withdrawals.paid_outside import Payment
from tests import simulator as outside
from tests.databases import EmptyDatabases
from tests.simulator import Simulator
from worker import tasks

KEY = "test-app-key-0123456789"
RATE_LIMITS = (
    "RATE_LIMIT_PER_KEY",
    "RATE_LIMIT_PER_USER",
    "RATE_LIMIT_PER_ADDRESS",
    "RATE_LIMIT_FAILED_AUTH",
    "RATE_LIMIT_HEALTH",
    "RATE_LIMIT_BAD_WEBHOOKS",
)
PATIENCE = (
    "NOTIFY_ANSWER_SECONDS",
    "RAZORPAYX_CONNECT_SECONDS",
    "RAZORPAYX_READ_SECONDS",
    "MAIL_SECONDS",
)
SIGNING_KEY = base64.b64encode(bytes(range(32))).decode()
_waiting = {
    "withdrawals": ("due_at", "not_before"),
    "webhook_events": ("due_at",),
    "hints": ("due_at", "asked_at"),
    "deliveries": ("due_at", "began_at", "leased_until"),
    "emails": ("due_at", "began_at", "leased_until", "server_failed_at"),
    "mail_listeners": ("told_at",),
    "switches": ("probe_at",),
    "pace": ("next_at",),
}
# One statement for all of them: it is run before nearly every step of a test.
ADVANCE = "WITH {} SELECT 1".format(
    ", ".join(
        f"{table}_ AS (UPDATE {table} SET "
        + ", ".join(f"{column} = {column} - make_interval(secs => :s)" for column in columns)
        + (" WHERE due_at IS NOT NULL)" if table == "withdrawals" else ")")
        for table, columns in _waiting.items()
    )
)
_numbers = count(1)


class World:
    """A system with one database, and what a test wants to do with it."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.broken_on_purpose = self.altered = False

    @classmethod
    @contextmanager
    def made(
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
            # Tests send more than anybody may; those about limits set them.
            **dict.fromkeys(RATE_LIMITS, "off"),
            # One person suffices, as to try things out; tests about two people, and about the defaults, set these.
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
            # Long enough for a busy machine. A test that waits for an answer that never comes takes `impatient`.
            **dict.fromkeys(PATIENCE, "10"),
        }
        for variable, value in environment.items():
            patch.setenv(variable, value)
        forget_settings()
        broker = queues.broker()  # it may be somebody's own: of theirs nothing is deleted
        broker.delete(*queues.EVERY_QUEUE, *broker.scan_iter("nudged:*", count=1000))
        world, whole = cls(simulator), False
        try:
            yield world
            whole = not world.broken_on_purpose and not world.altered
        finally:
            db.engine().dispose()
            forget_settings()
            databases.give_back(name, as_it_was=whole)

    # --- what people do

    def operators(self, *names: str, role: str = "admin", added_by: str = "shell:test", **about: Any) -> None:
        """Let these operators exist. Their password is nobody's: who signs in is made by `add_operator`."""
        columns = {"role": role, "password_hash": "none", "created_by": added_by, **about}
        told, given = ", ".join(columns), ", ".join(f":{column}" for column in columns)
        changed = ", ".join(f"{column} = :{column}" for column in columns)
        for name in names:
            self.sql(
                f"INSERT INTO operators (name, {told}) VALUES (:name, {given})"
                f" ON CONFLICT (name) DO UPDATE SET {changed}",
                name=name,
                **columns,
            )

    def credit(self, user_id: str = "user123", coins: int = 2000, reference: str = "start") -> None:
        with db.transaction() as session:
            wallet.credit(session, user_id=user_id, coins=coins, reference=reference, actor="app:test")

    def request(self, user_id: str = "user123", coins: int = 500, upi_id: str = "user@okhdfcbank") -> UUID:
        return withdrawals.request(user_id=user_id, coins=coins, upi_id=upi_id, actor="app:test").id

    def paid(self, upi_id: str = "user@okhdfcbank", **about: Any) -> UUID:
        """A withdrawal that was requested and brought to its end."""
        self.credit(reference=f"for-{next(_numbers)}")
        withdrawal_id = self.request(upi_id=upi_id, **about)
        self.finish(withdrawal_id)
        return withdrawal_id

    # --- what the worker and the clock do

    def bring_on(self, withdrawal_id: UUID) -> None:
        """One message of a worker."""
        tasks.bring_on(withdrawal_id, RazorpayX(settings()))

    def perform(self, step: Step) -> Answer:
        """The call of a step, without what goes before and after."""
        return RazorpayX(settings()).perform(step)

    def first_send(self, **about: Any) -> Send:
        """A withdrawal whose first attempt is claimed: the worker is about to call."""
        withdrawal_id = self.request(**about)
        self.advance()
        step = withdrawals.claim(withdrawal_id)
        if isinstance(step, Prepare):
            step = withdrawals.record_answer(step, self.perform(step))
        assert isinstance(step, Send)
        return step

    def advance(self, seconds: float = 3600) -> None:
        """Let everything that waits have waited so long."""
        self.sql(ADVANCE, s=seconds)

    def step(self, withdrawal_id: UUID, *, seconds: float = 3600) -> str:
        """Wait, then do what is due; returns the status."""
        self.advance(seconds)
        self.bring_on(withdrawal_id)
        return self.read(withdrawal_id).status

    def finish(self, withdrawal_id: UUID, *, steps: int = 40) -> str:
        """Bring a withdrawal on until it is final; returns the status."""
        for _ in range(steps):
            if self.step(withdrawal_id) in ("completed", "failed", "cancelled"):
                break
        return self.read(withdrawal_id).status

    def webhook(self, event: str, payout: dict[str, Any], event_id: str) -> str | None:
        """Receive one event of the provider and apply it."""
        inbox.receive(event_id, event_body(event, payout))
        return inbox.apply(event_id)

    def hears(self, payout: dict[str, Any], channel: str = "poll") -> str:
        """A call of ours was told this of a payout: the provider's own word. What that did."""
        report = parse_report(payout)
        assert report is not None
        with db.transaction() as session:
            return withdrawals.apply_report(session, report, channel)

    def arrives_after_all(self, withdrawal_id: UUID, status: str = "processed") -> dict[str, Any]:
        """The request that nobody saw arrive comes through: what a webhook says of that payout."""
        attempt = self.attempts(withdrawal_id)[-1]
        self.simulator.scenario("never", default=True)
        # A key of its own: the simulator remembers what it answered to the attempt's.
        headers = {"Content-Type": "application/json", "X-Payout-Idempotency": f"late{attempt.id.hex}"}
        answer = requests.post(
            f"{self.simulator.url}/v1/payouts",
            data=bytes(attempt.request_body),
            headers=headers,
            auth=(outside.KEY_ID, outside.KEY_SECRET),
            timeout=10,
        )
        assert answer.status_code == 200, answer.text
        return self.becomes(answer.json()["id"], status)

    def becomes(self, payout_id: str, status: str, reason: str | None = None) -> dict[str, Any]:
        """From now on this is how the payout stands at RazorpayX: what a webhook says of it."""
        self.simulator.post(f"payouts/{payout_id}/status", {"status": status, "reason": reason})
        [payout] = [one for one in self.simulator.payouts() if one["id"] == payout_id]
        told = {key: payout[key] for key in ("id", "amount", "reference_id", "utr", "status")}
        return {**told, "status_details": {"reason": reason}}

    # --- what one can see

    def forget_settings(self) -> None:
        """Let the next use read the environment anew."""
        forget_settings()

    def read(self, withdrawal_id: UUID) -> Withdrawal:
        with db.transaction() as session:
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
        with db.one_statement() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def clock(self) -> datetime:
        """The database's, now. What it wrote down lies between two such moments, however slow the machine is."""
        at: datetime = self.sql("SELECT clock_timestamp() AS at")[0].at
        return at

    def sql_without_rules(self, statement: str) -> None:
        """A statement that no trigger and no foreign key sees: what an intruder or a bad disk could do."""
        with db.engine().begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(text(statement))

    def sql_ending_itself(self) -> None:
        """A statement whose connection is cut: what the pool holds is dead afterwards."""
        with contextlib.suppress(DBAPIError):
            self.sql("SELECT pg_terminate_backend(pg_backend_pid())")

    def impatient(self, patch: pytest.MonkeyPatch) -> None:
        """From now on nobody is waited for longer than a second."""
        for name in PATIENCE:
            patch.setenv(name, "1")
        forget_settings()

    def point_database_at_nothing(self, patch: pytest.MonkeyPatch) -> None:
        """The database is away: nobody listens."""
        self._database_url = os.environ["DATABASE_URL"]
        patch.setenv("DATABASE_URL", "postgresql://nobody:nothing@127.0.0.1:1/none")
        forget_settings()

    def point_database_back(self, patch: pytest.MonkeyPatch) -> None:
        """The database is there again."""
        patch.setenv("DATABASE_URL", self._database_url)
        forget_settings()

    def point_broker_at_nothing(self, patch: pytest.MonkeyPatch) -> None:
        """The broker is away: nobody listens."""
        patch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        forget_settings()

    def check(self) -> None:
        """Every promise holds, as the database tells it and as the provider tells it."""
        if self.broken_on_purpose:
            return
        # Nobody was late: the test itself moved the clock.
        self.sql("UPDATE withdrawals SET due_at = now() WHERE due_at < now()")
        result = checks.run()
        assert result.holds, [(finding.check.truth, finding.ids) for finding in result.findings]
        by_withdrawal = {
            str(row.id): str(row.withdrawal_id)
            for row in self.sql("SELECT id, withdrawal_id FROM payout_attempts")
        }
        live = [
            by_withdrawal.get(p["reference_id"], p["reference_id"]) for p in self.simulator.live_payouts()
        ]
        assert len(live) == len(set(live)), f"two live payouts for one withdrawal: {live}"


def event_body(event: str, payout: dict[str, Any]) -> bytes:
    """What RazorpayX's webhook sends of a payout."""
    told = {"entity": "event", "event": event, "payload": {"payout": {"entity": payout}}}
    return json.dumps(told).encode()


def payment(
    utr: str | None = "500000000001", via: PaidVia | None = PaidVia.UPI, at: datetime | None = None
) -> Payment:
    """What two people say of a payment: of this minute, unless it is told otherwise."""
    return Payment(utr, via, at or datetime.now(UTC))


def this_minute() -> str:
    """The time in India as people type it off a statement."""
    return f"{datetime.now(INDIA):%Y-%m-%dT%H:%M}"


def sign(body: bytes, secret: str = outside.WEBHOOK_SECRET) -> str:
    """The signature of RazorpayX, made by hand."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def forget_settings() -> None:
    """Let the next use read the environment anew."""
    for remembered in (
        settings,
        db.engine,
        queues.sender,
        queues.broker,
        gauges.of_books,
        gauges.of_queues,
        tasks._razorpayx,
    ):
        remembered.cache_clear()
    queues._quiet_until = queues._swept_at = 0.0
    db._full_at = -db.FULL_SECONDS
