"""A batch: one message brings many withdrawals on, each as safely as if it were alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from sandbox.processes import wait_until
from shared import withdrawals
from shared.db.engines import engine
from shared.providers.answers import Answer
from shared.providers.calls import CALLS_AT_ONCE
from shared.providers.clients import client
from shared.providers.razorpayx.client import RazorpayXClient
from shared.providers.steps import Send, Step
from shared.queues import redis_broker
from shared.queues.names import WEBHOOKS
from shared.settings import settings
from shared.withdrawals import inbox
from tests.support import steps
from tests.support.world import World, event_body


@pytest.fixture
def funded(world: World) -> World:
    world.credit(coins=1_000_000)
    world.paid()  # registers the payee
    return world


def due(world: World, number: int, **about: str) -> list[UUID]:
    requested = [world.request(coins=100, **about) for _ in range(number)]
    world.advance()
    return requested


def bring_on(ids: list[UUID]) -> None:
    withdrawals.bring_on([str(key) for key in ids], RazorpayXClient(settings()))


def is_recorded(world: World, withdrawal_id: UUID) -> bool:
    return any(attempt.payout_id for attempt in world.attempts(withdrawal_id))


def queries_of(world: World) -> int:
    """The number of calls that asked the provider about payouts."""
    return sum(call["method"] == "GET" for call in world.simulator.get("calls")["items"])


def completed(world: World, number: int) -> list[UUID]:
    batch = due(world, number)
    for _ in range(3):
        bring_on(batch)
        world.advance()
    assert {world.read(key).status for key in batch} == {"completed"}
    return batch


class Gate:
    """The provider's client, whose call for one withdrawal waits until the gate opens."""

    def __init__(self, withdrawal_id: UUID) -> None:
        self.withdrawal_id = withdrawal_id
        self.is_open = threading.Event()

    def perform(self, step: Step) -> Answer:
        if step.withdrawal_id == self.withdrawal_id:
            assert self.is_open.wait(30)
        return client().perform(step)


def test_each_withdrawal_of_a_batch_is_paid_once(funded: World) -> None:
    batch = due(funded, 20)
    bring_on([*batch, *batch[:3]])  # an id twice is one withdrawal
    assert [len(funded.attempts(key)) for key in batch] == [1] * 20
    for _ in range(3):
        funded.advance()
        bring_on(batch)
    assert {funded.read(key).status for key in batch} == {"completed"}
    references = {payout["reference_id"] for payout in funded.simulator.live_payouts()}
    assert len(funded.simulator.live_payouts()) == len(references) == 21


def test_new_payees_of_a_batch_are_registered_and_paid_in_the_same_run(funded: World) -> None:
    batch = [funded.request(coins=100, upi_id=f"new{number}@okaxis") for number in range(5)]
    funded.advance()
    bring_on(batch)
    assert [len(funded.attempts(key)) for key in batch] == [1] * 5
    assert len(funded.sql("SELECT FROM destinations")) == 6


def test_an_answer_is_recorded_when_it_arrives_and_not_when_the_slowest_does(funded: World) -> None:
    batch = due(funded, 5)
    gate = Gate(batch[2])
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(withdrawals.bring_on, [str(key) for key in batch], gate)  # type: ignore[arg-type]
        quick = [key for key in batch if key != gate.withdrawal_id]
        wait_until(lambda: all(is_recorded(funded, key) for key in quick), 15)
        assert funded.attempts(gate.withdrawal_id)[0].state == "sending"
        gate.is_open.set()
        run.result()
    assert funded.attempts(gate.withdrawal_id)[0].payout_id


@pytest.mark.failure(26)
def test_a_row_that_raises_is_set_aside_and_holds_up_no_other(funded: World) -> None:
    batch = due(funded, 6)
    faulty = batch[3]
    funded.sql(
        f"ALTER TABLE payout_attempts ADD CONSTRAINT ours CHECK (withdrawal_id <> '{faulty}') NOT VALID"
    )
    with pytest.raises(IntegrityError):
        bring_on(batch)
    assert [len(funded.attempts(key)) for key in batch] == [1, 1, 1, 0, 1, 1]
    assert funded.story(faulty)[-1] == "worker_error"
    assert funded.read(faulty).status == "pending"


def test_a_refund_in_a_batch_takes_its_wallets_lock_alone(funded: World) -> None:
    """Two workers that each held many rows and waited for each other's wallets would block each other."""
    before = funded.balance()
    failing = [funded.request(coins=100, upi_id="fail.bank_account_closed@sim") for _ in range(3)]
    paid = due(funded, 3)
    batch = [*failing, *paid]
    for _ in range(4):
        bring_on(batch)
        funded.advance()
    assert [funded.read(key).status for key in batch] == ["failed"] * 3 + ["completed"] * 3
    assert [funded.refunds(key) for key in batch] == [1] * 3 + [0] * 3
    assert funded.balance() == before - 300


def test_an_answer_whose_row_is_locked_waits_alone(funded: World) -> None:
    batch = due(funded, 3)
    claimed = steps.claim_all(batch)
    answers = [(step, funded.perform(step)) for step in claimed]
    locked = batch[0]
    with ThreadPoolExecutor(1) as threads:
        with engine().begin() as connection:
            connection.execute(text("SELECT FROM withdrawals WHERE id = :id FOR UPDATE"), {"id": locked})
            record = threads.submit(steps.record_all, answers)
            wait_until(lambda: all(is_recorded(funded, key) for key in batch[1:]), 15)
            assert not record.done() and not is_recorded(funded, locked)
        record.result()
    assert is_recorded(funded, locked)


def test_two_workers_with_the_same_rows_in_another_order_pay_each_once(funded: World) -> None:
    batch = due(funded, 20)
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            orders = (batch, batch[::-1], batch[10:] + batch[:10], batch[::2] + batch[1::2])
            for run in [threads.submit(bring_on, list(order)) for order in orders]:
                run.result()
            funded.advance()
    bring_on(batch)
    assert {funded.read(key).status for key in batch} == {"completed"}
    assert [len(funded.attempts(key)) for key in batch] == [1] * 20


def test_nothing_is_claimed_whose_call_could_not_begin_soon(funded: World) -> None:
    """Withdrawals that wait for a slow provider stay pending: users can cancel them."""
    is_open = threading.Event()

    class Slow:
        def perform(self, step: Step) -> Answer:
            assert is_open.wait(30)
            return client().perform(step)

    batches = [due(funded, CALLS_AT_ONCE) for _ in range(5)]
    with ThreadPoolExecutor(len(batches)) as threads:
        for batch in batches:
            threads.submit(withdrawals.bring_on, [str(key) for key in batch], Slow())  # type: ignore[arg-type]
        claimed = "SELECT count(*) FROM withdrawals WHERE status = 'processing'"
        try:
            wait_until(lambda: funded.sql(claimed)[0].count >= 2 * CALLS_AT_ONCE, 10)
            waiting = [key for batch in batches for key in batch if funded.read(key).status == "pending"]
            assert len(waiting) == 3 * CALLS_AT_ONCE
            withdrawals.cancel(waiting[0], reason="changed my mind", actor="app:test")
        finally:
            is_open.set()
    assert funded.read(waiting[0]).status == "cancelled"
    assert funded.sql(claimed)[0].count == 5 * CALLS_AT_ONCE - 1


def test_a_batch_commits_each_attempt_before_its_call(funded: World) -> None:
    class Watching:
        """Reads at the moment of each call what another transaction sees."""

        def perform(self, step: Step) -> Answer:
            assert isinstance(step, Send)
            states = [row.state for row in funded.attempts(step.withdrawal_id)]
            assert states == ["sending"], states
            return client().perform(step)

    withdrawals.bring_on([str(key) for key in due(funded, 8)], Watching())  # type: ignore[arg-type]


def test_one_call_confirms_a_batch(funded: World) -> None:
    batch = completed(funded, 20)
    funded.sql("UPDATE payout_attempts SET recheck_at = now()")
    before = queries_of(funded)
    bring_on(batch)
    assert queries_of(funded) == before + 1
    assert funded.sql("SELECT count(*) FROM payout_attempts WHERE recheck_at > now()")[0].count == 20


def test_a_payout_that_the_list_does_not_show_paid_is_asked_for_itself(funded: World) -> None:
    batch = completed(funded, 20)
    funded.sql("UPDATE payout_attempts SET recheck_at = now()")
    returned = funded.attempts(batch[7])[0]
    funded.simulator.post(f"payouts/{returned.payout_id}/status", {"status": "reversed"})
    before = queries_of(funded)
    bring_on(batch)
    assert queries_of(funded) == before + 2
    assert [funded.read(key).status for key in batch].count("completed") == 19
    assert funded.read(batch[7]).status == "failed"


# --- webhooks


def test_webhooks_about_one_payout_are_applied_in_order_in_one_transaction(funded: World) -> None:
    batch = due(funded, 4)
    bring_on(batch)
    event_ids = []
    for key in batch:
        payout = next(iter(funded.simulator.payouts(str(funded.attempts(key)[0].id))))
        for status in ("queued", "processing", "processed"):
            reported = {name: payout[name] for name in ("id", "amount", "reference_id", "utr")}
            event_ids.append(f"{key}-{status}")
            inbox.receive(
                event_ids[-1],
                event_body(f"payout.{status}", {**reported, "status": status, "status_details": {}}),
            )
    outcomes = inbox.apply(event_ids)
    assert outcomes.keys() == set(event_ids)
    ended = [outcomes[f"{key}-processed"] for key in batch]
    assert ended == ["pay"] * 4, outcomes
    applied = funded.sql("SELECT DISTINCT xmin::text AS transaction FROM webhook_events")
    assert len(applied) == 1
    assert {funded.read(key).status for key in batch} == {"completed"}


@pytest.mark.failure(26)
def test_a_webhook_that_raises_holds_up_no_other(funded: World) -> None:
    batch = due(funded, 3)
    bring_on(batch)
    faulty = funded.attempts(batch[1])[0]
    funded.sql(
        f"ALTER TABLE webhook_events ADD CONSTRAINT ours CHECK (reference_id <> '{faulty.id}') NOT VALID"
    )
    for key in batch:
        [payout] = funded.simulator.payouts(str(funded.attempts(key)[0].id))
        reported = {name: payout[name] for name in ("id", "amount", "reference_id", "utr")}
        inbox.receive(
            str(key),
            event_body("payout.processed", {**reported, "status": "processed", "status_details": {}}),
        )
    with pytest.raises(IntegrityError):
        inbox.apply_due()
    rows = {row.event_id: row for row in funded.sql("SELECT * FROM webhook_events")}
    assert [rows[str(key)].outcome is None for key in batch] == [False, True, False]
    assert rows[str(batch[1])].tries == 1


def test_a_webhook_that_comes_before_the_answer_waits_for_it(funded: World) -> None:
    send = funded.first_send(coins=100)
    answer = funded.perform(send)
    receive_processed(funded, send.withdrawal_id)
    inbox.apply_due()
    [event] = funded.sql("SELECT outcome, tries FROM webhook_events")
    assert (event.outcome, event.tries) == (None, 0)
    assert "hinted" not in funded.story(send.withdrawal_id)
    steps.record_answer(send, answer)
    wait_until(lambda: redis_broker.depth(WEBHOOKS) == 1, 15)  # a moment later there is a message
    inbox.apply_due()
    assert funded.read(send.withdrawal_id).status == "completed"


def test_a_webhook_about_a_payout_whose_worker_died_is_a_hint(funded: World) -> None:
    send = funded.first_send(coins=100)
    funded.perform(send)
    receive_processed(funded, send.withdrawal_id)
    funded.sql_without_rules(
        "UPDATE payout_attempts SET last_sent_at = last_sent_at - interval '3 seconds' WHERE state = 'sending'"
    )
    inbox.apply_due()
    assert "hinted" in funded.story(send.withdrawal_id)
    assert funded.finish(send.withdrawal_id) == "completed"
    assert len(funded.simulator.payouts(str(send.attempt_id))) == 1


def receive_processed(world: World, withdrawal_id: UUID) -> None:
    [payout] = world.simulator.payouts(str(world.attempts(withdrawal_id)[0].id))
    reported = {name: payout[name] for name in ("id", "amount", "reference_id", "utr")}
    body = event_body("payout.processed", {**reported, "status": "processed", "status_details": {}})
    inbox.receive(str(withdrawal_id), body)
