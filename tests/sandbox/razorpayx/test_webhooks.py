"""Webhooks: signed, at least once, in any order, and sometimes wrong on purpose."""

import hashlib
import hmac
import itertools
import json
import threading
import time

import pytest

from .conftest import OLD_SECRET, SECRET, Client, Received, Receiver, wait_until

SUCCESS_EVENTS = ["payout.initiated", "payout.processed", "payout.updated", "transaction.created"]


def signed(secret: str, item: Received) -> bool:
    return hmac.compare_digest(
        hmac.new(secret.encode(), item.body, hashlib.sha256).hexdigest(), item.signature
    )


def arrived(receiver: Receiver, payout_id: str, count: int) -> list[Received]:
    return wait_until(lambda: len(got := receiver.of(payout_id)) >= count and got, f"{count} webhooks")


def rows(sim: Client, payout_id: str) -> list[dict]:
    return sim.look("webhooks", payout_id=payout_id)["items"]


def test_a_success_sends_its_events_signed_with_the_current_secret(sim: Client, receiver: Receiver):
    payout = sim.pay()
    items = arrived(receiver, payout["id"], 4)
    assert sorted(item.event for item in items) == SUCCESS_EVENTS
    assert len({item.event_id for item in items}) == 4
    assert all(signed(SECRET, item) for item in items)
    wait_until(lambda: {row["state"] for row in rows(sim, payout["id"])} == {"delivered"}, "delivery")
    assert {(row["attempts"], row["last_status"]) for row in rows(sim, payout["id"])} == {(1, 200)}


def test_the_envelope_is_the_documented_one(sim: Client, receiver: Receiver):
    payout = sim.pay(notes={"wd": "1"})
    arrived(receiver, payout["id"], 4)
    (item,) = receiver.of(payout["id"], "payout.processed")
    data = json.loads(item.body)
    assert set(data) == {"entity", "account_id", "event", "contains", "payload", "created_at"}
    assert (data["entity"], data["contains"]) == ("event", ["payout"])
    entity = data["payload"]["payout"]["entity"]
    assert entity["status"] == "processed" and entity["reference_id"] == payout["reference_id"]
    assert entity["fund_account"]["vpa"]["address"] == "asha.rao@okbank"
    assert entity["utr"] == sim.payout(payout["id"])["utr"] and entity["notes"]["wd"] == "1"
    (txn,) = receiver.of(payout["id"], "transaction.created")
    assert json.loads(txn.body)["payload"]["transaction"]["entity"]["debit"] == 25590


@pytest.mark.parametrize(
    "name,events",
    [
        (
            "fail.gateway_down",
            ["payout.failed", "payout.initiated", "transaction.created", "transaction.created"],
        ),
        ("reversed", [*SUCCESS_EVENTS, "payout.reversed", "transaction.created"]),
        (
            "failed.reversed",
            ["payout.failed", "payout.initiated", "payout.reversed", *["transaction.created"] * 2],
        ),
        ("queued", [*SUCCESS_EVENTS, "payout.queued"]),
        ("queued.failed", ["payout.failed", "payout.queued"]),
        ("pending", [*SUCCESS_EVENTS, "payout.pending"]),
        ("rejected", ["payout.pending", "payout.rejected"]),
        ("cancelled", ["payout.queued"]),
        ("never", ["payout.initiated", "payout.updated", "transaction.created"]),
    ],
)
def test_each_scenario_sends_its_events(sim: Client, receiver: Receiver, name, events):
    payout = sim.pay(f"{name}-1@sim")
    sim.control("advance", seconds=100)
    arrived(receiver, payout["id"], len(events))
    assert sorted(row["event"] for row in rows(sim, payout["id"])) == sorted(events)


def test_transaction_events_can_be_switched_off(sim: Client, receiver: Receiver):
    sim.control("settings", transaction_events=False)
    payout = sim.pay()
    sim.control("advance", seconds=10)
    arrived(receiver, payout["id"], 3)
    assert "transaction.created" not in {row["event"] for row in rows(sim, payout["id"])}


def test_a_failed_delivery_is_retried_with_backoff_and_the_same_event_id(sim: Client, receiver: Receiver):
    receiver.answer = lambda item: 500 if len(receiver.of(item.payout_id, item.event)) < 3 else 204
    payout = sim.pay()
    items = arrived(receiver, payout["id"], 16)
    for event in SUCCESS_EVENTS:
        times = [item.at for item in items if item.event == event]
        assert len(times) == 4
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        # 1, 2 and 4 s of the simulator's clock at 20 times the speed.
        assert gaps[0] >= 0.04 and gaps[1] >= 0.09 and gaps[2] >= 0.18
        assert len({item.event_id for item in items if item.event == event}) == 1


@pytest.mark.parametrize("status", [302, 307, 400, 404, 503])
def test_only_2xx_is_a_success(sim: Client, receiver: Receiver, status):
    receiver.answer = lambda item: status if not receiver.of(item.payout_id, item.event) else 200
    payout = sim.pay()
    arrived(receiver, payout["id"], 8)
    wait_until(lambda: all(r["state"] == "delivered" for r in rows(sim, payout["id"])), "delivery")
    assert {row["attempts"] for row in rows(sim, payout["id"])} == {2}


def test_a_slow_receiver_counts_as_failed(sim: Client, receiver: Receiver):
    sim.control("settings", webhook_timeout_ms=50)
    receiver.delay_seconds = 0.2
    payout = sim.pay()
    wait_until(lambda: any(r["state"] == "retrying" for r in rows(sim, payout["id"])), "a retry")
    receiver.delay_seconds = 0
    # From now on the receiver is fast: allow for a busy machine.
    sim.control("settings", webhook_timeout_ms=5000)
    wait_until(lambda: all(r["state"] == "delivered" for r in rows(sim, payout["id"])), "delivery")
    assert max(row["attempts"] for row in rows(sim, payout["id"])) >= 2


def test_a_retry_keeps_the_secret_of_its_first_sending(sim: Client, receiver: Receiver):
    down = threading.Event()
    down.set()
    receiver.answer = lambda _: 500 if down.is_set() else 200
    before = sim.pay()
    wait_until(
        lambda: len({item.event for item in receiver.of(before["id"])}) == 4, "every event's first sending"
    )
    sim.control("webhooks/secret", secret="brand-new")
    down.clear()
    after = sim.pay()
    items = arrived(receiver, after["id"], 4)
    assert all(signed("brand-new", item) for item in items)
    wait_until(lambda: all(r["state"] == "delivered" for r in rows(sim, before["id"])), "delivery")
    assert all(signed(SECRET, item) for item in receiver.of(before["id"]))


def test_after_24_hours_of_failure_the_webhook_is_disabled_until_it_is_enabled(
    sim: Client, receiver: Receiver
):
    receiver.answer = lambda _: 500
    first = sim.pay("rejected-1@sim")
    arrived(receiver, first["id"], 2)
    sim.control("advance", seconds=24 * 3600 + 60)
    wait_until(lambda: not sim.look("health")["settings"]["webhooks_enabled"], "the webhook to be disabled")
    receiver.clear()
    second = sim.pay()
    sim.reaches(second["id"], "processed")
    assert {row["state"] for row in rows(sim, second["id"])} == {"disabled"}
    sim.control("settings", webhooks_enabled=True)
    third = sim.pay()
    arrived(receiver, third["id"], 4)
    assert receiver.of(first["id"]) == receiver.of(second["id"]) == []
    assert sim.control("webhooks/replay", payout_id=second["id"]) == {"replayed": 4}
    arrived(receiver, second["id"], 4)


def test_a_replay_sends_the_same_events_with_the_current_secret(sim: Client, receiver: Receiver):
    payout = sim.pay()
    first = {item.event_id for item in arrived(receiver, payout["id"], 4)}
    sim.control("webhooks/secret", secret="brand-new")
    sim.control("webhooks/replay", payout_id=payout["id"])
    again = arrived(receiver, payout["id"], 8)[4:]
    assert {item.event_id for item in again} == first
    assert all(signed("brand-new", item) for item in again)


def test_hook_lost_sends_no_webhook(sim: Client, receiver: Receiver):
    payout = sim.pay("hook.lost-1@sim")
    sim.control("advance", seconds=3600)
    assert sim.payout(payout["id"])["status"] == "processed"
    assert {row["state"] for row in rows(sim, payout["id"])} == {"lost"} and receiver.of(payout["id"]) == []


@pytest.mark.parametrize("name,copies", [("hook.twice", 2), ("hook.many", 10)])
def test_hook_twice_and_hook_many_repeat_each_event_with_the_same_id(
    sim: Client, receiver: Receiver, name, copies
):
    payout = sim.pay(f"{name}-1@sim")
    items = arrived(receiver, payout["id"], 4 * copies)
    for event in SUCCESS_EVENTS:
        ids = [item.event_id for item in items if item.event == event]
        assert len(ids) == copies and len(set(ids)) == 1


def test_hook_disorder_sends_the_final_event_first(sim: Client, receiver: Receiver):
    payout = sim.pay("hook.disorder-1@sim")
    arrived(receiver, payout["id"], 4)
    order = [item.event for item in receiver.of(payout["id"]) if item.event != "payout.updated"]
    assert order == ["payout.processed", "payout.initiated", "transaction.created"]


def test_hook_early_is_acknowledged_before_the_reply(sim: Client, receiver: Receiver):
    sim.control("speed", speed=0.01)
    receiver.delay_seconds = 0.05
    payout = sim.pay("hook.early-1@sim")
    replied = time.monotonic()
    items = receiver.of(payout["id"])
    assert sorted(item.event for item in items) == SUCCESS_EVENTS
    assert all(item.at < replied for item in items)
    assert payout["status"] == "processing" and sim.payout(payout["id"])["status"] == "processed"


def test_hook_early_replies_even_if_the_receiver_refuses(sim: Client, receiver: Receiver):
    receiver.answer = lambda _: 500
    assert sim.pay("hook.early-1@sim")["status"] == "processing"
    sim.control("settings", webhooks_enabled=False)
    assert sim.pay("hook.early-2@sim")["status"] == "processing"


def test_hook_badsign_forges_the_first_delivery_whatever_the_response(sim: Client, receiver: Receiver):
    payout = sim.pay("hook.badsign-1@sim")
    items = arrived(receiver, payout["id"], 8)
    for event in SUCCESS_EVENTS:
        first, second = [item for item in items if item.event == event]
        assert not signed(SECRET, first) and not signed(OLD_SECRET, first)
        assert signed(SECRET, second) and first.event_id == second.event_id


def test_hook_oldsecret_signs_with_the_previous_secret(sim: Client, receiver: Receiver):
    payout = sim.pay("hook.oldsecret-1@sim")
    assert all(signed(OLD_SECRET, item) for item in arrived(receiver, payout["id"], 4))


def test_hook_late_sends_webhooks_long_after_the_end(sim: Client, receiver: Receiver):
    sim.control("speed", speed=0.01)
    payout = sim.pay("hook.late-1@sim")
    sim.control("advance", seconds=14)
    assert sim.payout(payout["id"])["status"] == "processed" and receiver.of(payout["id"]) == []
    sim.control("advance", seconds=5)
    arrived(receiver, payout["id"], 4)
