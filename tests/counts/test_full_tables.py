"""No statement reads a whole table, even if the tables are full of withdrawals that have ended.

The server chooses how to read a table by what it believes about the rows, so only full tables show this. It
may choose again for another number of values, and when a statement has run five times and gets its plan for
good. So each piece of work is done seven times, with twenty withdrawals each.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import text

from api.app import create_app
from shared.db.engines import engine
from shared.monitoring import old_webhooks, watchdog
from shared.providers.answers import Answer
from shared.providers.steps import Step
from shared.withdrawals import inbox
from tests.api.admin.conftest import Signed, panel, signed_in
from tests.support import steps
from tests.support.api import BATCH, CANCEL, CREDIT, GOOD, WITHDRAW
from tests.support.world import KEY, World, event_body
from worker import tasks

__all__ = ["panel", "signed_in"]

ROWS = 50_000
TIMES = 7
NUMBER = 20
PLANT = f"""
    INSERT INTO wallets (user_id) SELECT 'old' || n FROM generate_series(0, {ROWS} / 20) n;
    INSERT INTO withdrawals (id, user_id, coins_amount, amount_paise, upi_id, status, completed_at, utr,
                             idempotency_key, created_at)
    SELECT gen_random_uuid(), 'old' || n / 20, 100, 1000, 'old' || n / 20 || '@okaxis', 'completed',
           at + interval '20 seconds', 'OLD' || n, md5(n::text), at
    FROM (SELECT n, now() - interval '1 year' + n * interval '10 minutes' AS at
          FROM generate_series(1, {ROWS}) n) times;
    INSERT INTO payout_attempts (id, withdrawal_id, number, request_body, state, sent_as, payout_id, utr,
                                 created_at)
    SELECT gen_random_uuid(), id, 1, '', 'paid', 'old', 'pout_' || id, utr, created_at
    FROM withdrawals WHERE utr LIKE 'OLD%';
    INSERT INTO coin_transactions (user_id, kind, coins, balance_after, withdrawal_id, actor, created_at)
    SELECT user_id, 'withdrawal', -coins_amount, 1000000, id, 'old', created_at
    FROM withdrawals WHERE utr LIKE 'OLD%';
    INSERT INTO withdrawal_events (withdrawal_id, from_status, to_status, actor, reason, data, created_at)
    SELECT id, 'processing', status, 'worker', 'old', '{{}}', created_at
    FROM withdrawals WHERE utr LIKE 'OLD%';
    INSERT INTO webhook_events (event_id, body, received_at, applied_at, outcome, withdrawal_id, occurred_at,
                                reference_id)
    SELECT 'old' || id, '', created_at, created_at, 'applied', withdrawal_id, created_at, id::text
    FROM payout_attempts WHERE utr LIKE 'OLD%'"""
TABLES = ("withdrawals", "payout_attempts", "coin_transactions", "withdrawal_events", "webhook_events")
FULL = f"SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE relname IN {TABLES}"


class FullTables:
    """A system whose tables hold many withdrawals, and the rows of them that scans of a whole table have read."""

    def __init__(self, world: World) -> None:
        world.altered = world.broken_on_purpose = True
        engine().dispose()  # one connection from here on: another reports only seconds later what it read
        for statement in PLANT.split(";\n"):
            world.sql_without_rules(statement)
        with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))

    def read_by(self, work: Callable[[], Any]) -> dict[str, int]:
        """Do the work; return the tables of which it read every row, and how many rows."""
        before = self._read()
        work()
        return {table: rows for table, rows in (self._read() - before).items() if rows >= ROWS}

    def _read(self) -> Counter[str]:
        with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
            connection.execute(text("SELECT 1"))
            return Counter({table.relname: table.seq_tup_read for table in connection.execute(text(FULL))})


class Life:
    """A batch of withdrawals, step by step from the request to the confirmed payment."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ids: list[UUID] = []
        self._answers: list[tuple[Step, Answer]] = []

    def request(self) -> None:
        self._ids = [self._world.request(coins=100) for _ in range(NUMBER)]
        for key in self._ids:
            self._world.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=key)

    def claim(self) -> None:
        self._answers = [(step, self._world.perform(step)) for step in steps.claim_all(self._ids)]
        assert len(self._answers) == NUMBER

    def record(self) -> None:
        steps.record_all(self._answers)

    def receive_webhooks(self) -> None:
        self._world.simulator.post("advance", {"seconds": 60})  # each payout ends, and has its UTR
        for key in self._ids:
            [payout] = self._world.simulator.payouts(str(self._world.attempts(key)[0].id))
            about = {name: payout[name] for name in ("id", "amount", "reference_id", "utr")}
            body = event_body("payout.processed", {**about, "status": "processed", "status_details": {}})
            inbox.receive(f"{key}-processed", body)

    def apply_webhooks(self) -> None:
        inbox.apply_due()
        self._world.sql("UPDATE payout_attempts SET recheck_at = now() WHERE recheck_at > now()")


def test_no_step_of_a_withdrawal_reads_a_whole_table(world: World) -> None:
    world.credit(coins=1_000_000)
    world.paid()
    full = FullTables(world)
    life = Life(world)
    a_life = (
        life.request,
        life.claim,
        life.record,
        life.receive_webhooks,
        life.apply_webhooks,
        life.claim,
        life.record,
    )
    for time in range(TIMES):
        for step in a_life:
            assert full.read_by(step) == {}, f"{step.__name__}, number {time + 1}"
    assert world.sql("SELECT FROM payout_attempts WHERE unconfirmed") == []


PERIODIC = (
    tasks.sweep,
    tasks.sweep_sends,
    tasks.mark_paced,
    tasks.count,
    tasks.notify,
    tasks.mail,
    watchdog.warn_of_overdue,
    watchdog.warn_of_silence,
    old_webhooks.delete_old,
)


def test_no_periodic_task_reads_a_whole_table(world: World) -> None:
    """But for the seal and the spot checks, whose limits of thousands of rows are a large part of these tables."""
    world.credit(coins=1_000_000)
    full = FullTables(world)
    for time in range(TIMES):
        world.request(coins=100)
        world.sql("UPDATE withdrawals SET due_at = now() WHERE status = 'pending'")
        for task in PERIODIC:
            assert full.read_by(task) == {}, f"{task.__name__}, number {time + 1}"


def test_no_request_reads_a_whole_table_not_even_a_repeated_one(world: World) -> None:
    world.credit(coins=1_000_000)
    client = create_app().test_client()
    full = FullTables(world)

    def send(path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": key}
        answers = []

        def post() -> None:
            answers.append(client.post(path, json=body, headers=headers))

        for number in ("first", "repeated"):
            assert full.read_by(post) == {}, f"{number}: {path} {body}"
        assert {answer.status_code // 100 for answer in answers} == {2}, answers[0].get_json()
        first: dict[str, Any] = answers[0].get_json()
        return first

    for time in range(TIMES):
        withdrawal_id = send(WITHDRAW, GOOD, f"request-{time}")["data"]["withdrawal_id"]
        send(CANCEL, {"withdrawal_id": withdrawal_id}, f"cancel-{time}")
        send(BATCH, {"items": [GOOD, GOOD]}, f"batch-{time}")
        send(CREDIT, {"user_id": "user123", "coins": 5, "reference": f"credit-{time}"}, f"credit-{time}")


def test_no_answer_of_the_api_and_no_page_of_the_panel_reads_a_whole_table(
    world: World, signed_in: Signed
) -> None:
    world.credit(coins=1_000_000)
    withdrawal_id = world.paid()
    visitor = signed_in()
    full = FullTables(world)
    app = {"Authorization": f"Bearer {KEY}"}
    calls = [f"{WITHDRAW}status/?withdrawal_id={withdrawal_id}", f"{WITHDRAW}history/?user_id=old7"]
    calls += [f"/api/razorpay/wallet/{what}?user_id=old7" for what in ("", "transactions/")]
    searches = ("OLD77", "old77@okaxis", "old77", "nobody", f"pout_{withdrawal_id}", str(withdrawal_id))
    pages = [f"/admin/withdrawals/?q={typed}" for typed in searches]
    pages += [f"/admin/withdrawals/?{query}" for query in ("", "order=largest", "status=failed", "utr=OLD77")]
    pages += [f"/admin/withdrawal/{withdrawal_id}/", "/admin/", "/admin/users/?user_id=old7"]
    pages += ["/admin/exceptions/", "/admin/blocks/", "/admin/second-person/", "/admin/reconciliation/"]
    for _ in range(TIMES):
        for call in calls:
            assert full.read_by(lambda path=call: answered(visitor.get(path, headers=app))) == {}, call
        for page in pages:
            assert full.read_by(lambda path=page: answered(visitor.get(path))) == {}, page


def answered(answer: Any) -> None:
    assert answer.status_code in (200, 302) and "/sign-in/" not in answer.headers.get("Location", "")
