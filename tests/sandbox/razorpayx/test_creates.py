"""One key creates one payout."""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import Client

WEEK = 7 * 24 * 3600


def test_the_key_is_mandatory(sim: Client):
    answer = sim.post("/v1/payouts", sim.order())
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["field"], error["reason"]) == ("X-Payout-Idempotency", "null")
    assert error["description"] == (
        "Idempotency key is missing. Include idempotency header and key in the request."
    )


@pytest.mark.failure(19)
@pytest.mark.parametrize(
    "key",
    ["abc", "x" * 37, "wd_01234567-89ab-cdef-0123-456789abcdef", "with.dot", "a/b/c/d", "ключ-ключ".encode()],
)
def test_a_key_has_4_to_36_allowed_characters(sim: Client, key):
    answer = sim.send(sim.order(), key)
    assert answer.status_code == 400 and answer.json()["error"]["field"] == "X-Payout-Idempotency"


@pytest.mark.parametrize("key", ["abcd", "A-b_c 9", "7f0c9b0e-5d0e-4a43-9f35-2f1f6c1c9a11"])
def test_valid_keys_are_accepted(sim: Client, key):
    assert sim.send(sim.order(), key).status_code == 200


def test_a_resend_returns_the_same_payout_in_its_latest_state(sim: Client):
    key = str(uuid.uuid4())
    body = sim.order()
    first = sim.send(body, key).json()
    sim.reaches(first["id"], "processed")
    again = sim.send(body, key).json()
    assert (again["id"], again["status"]) == (first["id"], "processed")
    (row,) = sim.made_by(key)
    assert row["create_calls"] == 2 and row["id"] == first["id"]


def test_a_resend_can_be_switched_to_the_saved_reply(sim: Client):
    sim.control("settings", replay_saved=True)
    key = str(uuid.uuid4())
    body = sim.order()
    first = sim.send(body, key)
    sim.reaches(first.json()["id"], "processed")
    assert sim.send(body, key).content == first.content


@pytest.mark.parametrize("switch,status", [(False, 400), (True, 409)])
def test_different_bytes_are_a_different_body_even_with_the_same_meaning(sim: Client, switch, status):
    sim.control("settings", mismatch_409=switch)
    key = str(uuid.uuid4())
    body = sim.order()
    assert sim.send(body, key).status_code == 200
    for other in ({**body, "amount": 25001}, json.dumps(body, indent=1).encode()):
        answer = sim.send(other, key)
        assert answer.status_code == status
        assert answer.json()["error"]["description"] == (
            "Different request body sent for the same Idempotency Header"
        )
    assert len(sim.made_by(key)) == 1


@pytest.mark.parametrize("consumed", [True, False])
def test_whether_a_refused_create_binds_its_key_to_its_bytes(sim: Client, consumed):
    sim.control("settings", refusal_consumes_key=consumed)
    key = str(uuid.uuid4())
    body = sim.order()
    assert sim.send({**body, "amount": 1}, key).status_code == 400
    assert sim.send(body, key).status_code == (400 if consumed else 200)


def test_the_bytes_of_a_refused_create_are_validated_again(sim: Client):
    key = str(uuid.uuid4())
    body = sim.order()
    sim.control("balance", paise=0)
    assert sim.send(body, key).status_code == 400
    sim.control("balance", paise=10_000_00)
    assert sim.send(body, key).status_code == 200


def test_while_the_first_is_in_flight_the_same_key_gets_409(sim: Client):
    sim.control("settings", latency_ms=1500)
    key = str(uuid.uuid4())
    body = sim.order()
    start = threading.Barrier(8)

    def send(_: int) -> int:
        client = Client(sim.url)
        start.wait()
        return client.send(body, key).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(send, range(8)))
    assert statuses == [200] + [409] * 7
    assert len(sim.made_by(key)) == 1
    assert sim.send(body, key).status_code == 200


@pytest.mark.failure(19)
def test_a_key_is_forgotten_after_seven_days_and_then_pays_twice(sim: Client):
    key = str(uuid.uuid4())
    body = sim.order()
    first = sim.send(body, key).json()["id"]
    sim.control("advance", seconds=WEEK - 60)
    assert sim.send(body, key).json()["id"] == first
    sim.control("advance", seconds=120)
    assert sim.send(body, key).json()["id"] != first
    assert len(sim.made_by(key)) == 2


def test_a_failed_payout_keeps_its_key(sim: Client):
    key = str(uuid.uuid4())
    body = sim.order("fail.bank_account_closed-1@sim")
    first = sim.send(body, key).json()
    sim.reaches(first["id"], "failed")
    again = sim.send(body, key).json()
    assert (again["id"], again["status"]) == (first["id"], "failed")


def test_another_key_is_another_payout_even_with_the_same_reference(sim: Client):
    body = sim.order()
    assert sim.send(body).json()["id"] != sim.send(body).json()["id"]
    assert sim.look("payouts", reference_id=body["reference_id"])["count"] == 2
