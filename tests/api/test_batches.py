"""Batches: each item has a result, an invalid item stops no other, and a repeat changes nothing."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.test import TestResponse

from shared import withdrawals
from shared.access.idempotency import KeyReused
from shared.db.transactions import transaction
from tests.support.api import BATCH, GOOD, WITHDRAW, assert_refused
from tests.support.world import World


def send(client: FlaskClient, items: Any, key: str | None = "payroll-7") -> TestResponse:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post(BATCH, json={"items": items}, headers=headers)


def people(world: World, number: int, coins: int = 500) -> list[dict[str, Any]]:
    for n in range(number):
        world.credit(f"user{n}", coins)
    return [{**GOOD, "user_id": f"user{n}"} for n in range(number)]


@pytest.mark.failure(27)
def test_invalid_items_in_a_batch_of_500_do_not_stop_the_others(world: World, client: FlaskClient) -> None:
    items: list[Any] = people(world, 500)
    items[7] = {**GOOD, "upi_id": "no-upi"}
    items[250] = "not even an object"
    items[499] = {**GOOD, "user_id": "nobody"}
    body = send(client, items).get_json()
    assert (body["success"], body["count"], body["accepted"], body["refused"]) == (True, 500, 497, 3)
    refused = {result["index"]: result["error"] for result in body["results"] if not result["success"]}
    assert refused == {7: "Invalid UPI ID format", 250: "Invalid item", 499: "User account not found"}
    assert [result["index"] for result in body["results"]] == list(range(500))
    assert len(world.sql("SELECT FROM withdrawals")) == 497


@pytest.mark.failure(27)
def test_a_repeated_batch_debits_nothing_twice_and_retries_refused_items(
    world: World, client: FlaskClient
) -> None:
    items = [*people(world, 3), {**GOOD, "user_id": "poor"}]
    world.credit("poor", 100)
    first = send(client, items).get_json()
    assert first["accepted"] == 3
    world.credit("poor", 900, reference="more")
    again = send(client, items).get_json()
    assert again["accepted"] == 4
    assert json.dumps(again["results"][:3]) == json.dumps(first["results"][:3])
    assert [world.balance(f"user{n}") for n in range(3)] == [0, 0, 0]
    assert world.balance("poor") == 500


def test_each_item_gets_the_response_of_a_single_request(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    alone = client.post(WITHDRAW, json=GOOD).get_json()
    [result] = send(client, [GOOD]).get_json()["results"]
    assert (result["success"], result["http_status"]) == (True, 201)
    assert result["data"].keys() == alone["data"].keys()
    assert result["message"] == alone["message"], "for instance, whether an admin reviews it first"
    refused = client.post(WITHDRAW, json={**GOOD, "amount": 50}).get_json()
    [item] = send(client, [{**GOOD, "amount": 50}], key="another").get_json()["results"]
    for field in ("error", "details", "code", "min_amount"):
        assert item[field] == refused[field]
    assert item["http_status"] == 400


def test_a_changed_item_under_the_same_key_is_refused(world: World, client: FlaskClient) -> None:
    items = people(world, 2, coins=2000)
    send(client, items)
    body = send(client, [items[0], {**items[1], "amount": 600}]).get_json()
    assert [result["http_status"] for result in body["results"]] == [201, 422]
    assert world.balance("user1") == 1500


@pytest.mark.parametrize("order_sent", [[1, 0, 2], [1, 2], [0, 1, 2, 2]])
def test_a_reordered_batch_under_the_same_key_is_refused(
    world: World, client: FlaskClient, order_sent: list[int]
) -> None:
    """An app that reads the list again for its retry may send it in another order."""
    items = people(world, 3, coins=2000)
    assert send(client, items).get_json()["accepted"] == 3
    again = send(client, [items[n] for n in order_sent])
    assert_refused(again, 422, "Idempotency-Key already used")
    assert [world.balance(f"user{n}") for n in range(3)] == [1500] * 3
    assert send(client, items).get_json()["accepted"] == 3  # the original order still works


def test_a_refused_item_can_be_corrected_under_the_same_key(world: World, client: FlaskClient) -> None:
    items = people(world, 2)
    body = send(client, [items[0], {**items[1], "upi_id": "no-upi"}]).get_json()
    assert body["accepted"] == 1
    assert send(client, items).get_json()["accepted"] == 2
    assert [world.balance(f"user{n}") for n in range(2)] == [0, 0]


def test_items_that_are_not_withdrawal_requests_are_refused_one_by_one(
    world: World, client: FlaskClient
) -> None:
    deep: Any = "user123"
    for _ in range(300):
        deep = [deep]
    items: list[Any] = [None, 7, [], {}, {"user_id": deep}, {"user_id": "\ud800"}, {"user_id": "u" * 9000}]
    for _ in range(2):
        body = send(client, items).get_json()
        assert [result["http_status"] for result in body["results"]] == [400] * len(items)


def test_identical_items_in_a_batch_are_two_withdrawals(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    body = send(client, [GOOD, GOOD]).get_json()
    assert len({result["data"]["withdrawal_id"] for result in body["results"]}) == 2
    assert world.balance() == 1000


@pytest.mark.failure(7)
def test_a_single_request_and_a_batch_with_the_same_key_are_one_withdrawal(
    world: World, client: FlaskClient
) -> None:
    for order in ("alone first", "batch first"):
        item = {**GOOD, "user_id": order}
        key = {"Idempotency-Key": str(uuid.uuid4())}
        world.credit(order)
        requests_in_order = [
            lambda item=item, key=key: client.post(WITHDRAW, json=item, headers=key),
            lambda item=item, key=key: send(client, [item], key=key["Idempotency-Key"]),
        ]
        first, second = requests_in_order if order == "alone first" else reversed(requests_in_order)
        assert first().get_json()["success"]
        body = assert_refused(second(), 422, "Idempotency-Key already used")
        assert "to another endpoint" in body["details"]
        # Also when the stored response has expired.
        world.sql("DELETE FROM idempotent_requests")
        assert "to another endpoint" in second().get_data(as_text=True)
        assert world.balance(order) == 1500
        world.sql("DELETE FROM idempotent_requests")
        assert first().get_json()["success"], "the endpoint that used the key first still works"
    assert len(world.sql("SELECT FROM withdrawals")) == 2


@pytest.mark.failure(7)
def test_a_concurrent_single_request_and_batch_item_create_one_withdrawal(world: World) -> None:
    world.credit(coins=100_000)
    barrier = Barrier(2)

    def ask(number: int) -> None:
        key = f"k{number // 2}" if number % 2 else f"k{number // 2} 0"
        barrier.wait(10)
        with suppress(KeyReused):
            fields = {"user_id": "user123", "coins": 500, "upi_id": "user@okhdfcbank", "actor": "app:test"}
            withdrawals.request(**fields, key=key, fingerprint=key)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(ask, range(40)))
    assert len(world.sql("SELECT FROM withdrawals")) == 20
    assert world.balance() == 90_000


def test_a_batch_without_a_key_is_refused(world: World, client: FlaskClient) -> None:
    assert_refused(send(client, people(world, 1), key=None), 400, "Idempotency-Key is required")
    assert world.balance("user0") == 500


@pytest.mark.parametrize(
    ("items", "error"),
    [
        (None, "items is required"),
        ("many", "Invalid items"),
        ([], "Invalid number of items"),
        ([GOOD] * 501, "Invalid number of items"),
    ],
)
def test_an_invalid_list_of_items_is_refused(
    world: World, client: FlaskClient, items: Any, error: str
) -> None:
    world.credit(coins=2000)
    assert_refused(send(client, items), 400, error)
    assert world.balance() == 2000


def test_a_batch_of_500_items_of_maximum_length_is_accepted(world: World, client: FlaskClient) -> None:
    longest = {"user_id": "u" * 500, "amount": 500, "upi_id": f"{'a' * 90}@okaxis"}
    assert send(client, [longest] * 500).get_json()["refused"] == 500


def test_a_database_error_ends_the_batch_and_a_retry_completes_it(world: World, client: FlaskClient) -> None:
    items = people(world, 4)
    with transaction() as session:
        session.execute(text("SELECT FROM wallets WHERE user_id = 'user1' FOR UPDATE"))  # busy for 3 s
        body = send(client, items).get_json()
    codes = [result.get("code") for result in body["results"]]
    assert codes == [None, "database_busy", "not_tried", "not_tried"]
    assert body["accepted"] == 1
    assert send(client, items).get_json()["accepted"] == 4
    assert [world.balance(f"user{n}") for n in range(4)] == [0, 0, 0, 0]
