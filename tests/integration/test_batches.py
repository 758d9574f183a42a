"""Batches: a result for each item, a bad one stops nobody, and sent again nothing is done twice."""

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

from shared import db, withdrawals
from shared.idempotency import Reused
from tests.integration.app import BATCH, GOOD, WITHDRAW, assert_refused
from tests.world import World


def send(client: FlaskClient, items: Any, key: str | None = "payroll-7") -> TestResponse:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post(BATCH, json={"items": items}, headers=headers)


def people(world: World, number: int, coins: int = 500) -> list[dict[str, Any]]:
    for n in range(number):
        world.credit(f"user{n}", coins)
    return [{**GOOD, "user_id": f"user{n}"} for n in range(number)]


@pytest.mark.failure(27)
def test_a_bad_row_among_five_hundred_stops_nobody(world: World, client: FlaskClient) -> None:
    items: list[Any] = people(world, 500)
    items[7] = {**GOOD, "upi_id": "no-upi"}
    items[250] = "not even an object"
    items[499] = {**GOOD, "user_id": "nobody"}
    told = send(client, items).get_json()
    assert (told["success"], told["count"], told["accepted"], told["refused"]) == (True, 500, 497, 3)
    refused = {result["index"]: result["error"] for result in told["results"] if not result["success"]}
    assert refused == {7: "Invalid UPI ID format", 250: "Invalid item", 499: "User account not found"}
    assert [result["index"] for result in told["results"]] == list(range(500))
    assert len(world.sql("SELECT FROM withdrawals")) == 497


@pytest.mark.failure(27)
def test_a_batch_sent_again_takes_nothing_twice_and_tries_what_was_refused(
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


def test_each_item_is_answered_as_its_own_request_would_be(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    alone = client.post(WITHDRAW, json=GOOD).get_json()
    [result] = send(client, [GOOD]).get_json()["results"]
    assert (result["success"], result["http_status"]) == (True, 201)
    assert result["data"].keys() == alone["data"].keys()
    assert result["message"] == alone["message"], "whether an admin looks at it first, for instance"
    few = client.post(WITHDRAW, json={**GOOD, "amount": 50}).get_json()
    [told] = send(client, [{**GOOD, "amount": 50}], key="another").get_json()["results"]
    for field in ("error", "details", "code", "min_amount"):
        assert told[field] == few[field]
    assert told["http_status"] == 400


def test_another_list_under_the_same_key_is_refused_where_it_differs(
    world: World, client: FlaskClient
) -> None:
    items = people(world, 2, coins=2000)
    send(client, items)
    told = send(client, [items[0], {**items[1], "amount": 600}]).get_json()
    assert [result["http_status"] for result in told["results"]] == [201, 422]
    assert world.balance("user1") == 1500


@pytest.mark.parametrize("mixed_up", [[1, 0, 2], [1, 2], [0, 1, 2, 2]])
def test_the_same_people_at_other_places_are_not_paid_twice(
    world: World, client: FlaskClient, mixed_up: list[int]
) -> None:
    """A list that the app reads anew for its second try may come in another order."""
    items = people(world, 3, coins=2000)
    assert send(client, items).get_json()["accepted"] == 3
    again = send(client, [items[n] for n in mixed_up])
    assert_refused(again, 422, "Idempotency-Key already used")
    assert [world.balance(f"user{n}") for n in range(3)] == [1500] * 3
    assert send(client, items).get_json()["accepted"] == 3  # and as it was it goes on


def test_what_was_refused_may_be_mended_under_the_same_key(world: World, client: FlaskClient) -> None:
    items = people(world, 2)
    told = send(client, [items[0], {**items[1], "upi_id": "no-upi"}]).get_json()
    assert told["accepted"] == 1
    assert send(client, items).get_json()["accepted"] == 2
    assert [world.balance(f"user{n}") for n in range(2)] == [0, 0]


def test_a_list_of_no_wishes_at_all_is_told_as_such(world: World, client: FlaskClient) -> None:
    deep: Any = "user123"
    for _ in range(300):
        deep = [deep]
    items: list[Any] = [None, 7, [], {}, {"user_id": deep}, {"user_id": "\ud800"}, {"user_id": "u" * 9000}]
    for _ in range(2):
        told = send(client, items).get_json()
        assert [result["http_status"] for result in told["results"]] == [400] * len(items)


def test_the_same_wish_twice_in_a_batch_is_two_withdrawals(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    told = send(client, [GOOD, GOOD]).get_json()
    assert len({result["data"]["withdrawal_id"] for result in told["results"]}) == 2
    assert world.balance() == 1000


@pytest.mark.failure(7)
def test_the_same_wish_alone_and_in_a_batch_under_one_key_is_one_withdrawal(
    world: World, client: FlaskClient
) -> None:
    for order in ("alone first", "batch first"):
        user, key = {**GOOD, "user_id": order}, {"Idempotency-Key": str(uuid.uuid4())}
        world.credit(order)
        ways = [
            lambda user=user, key=key: client.post(WITHDRAW, json=user, headers=key),
            lambda user=user, key=key: send(client, [user], key=key["Idempotency-Key"]),
        ]
        first, second = ways if order == "alone first" else reversed(ways)
        assert first().get_json()["success"]
        told = assert_refused(second(), 422, "Idempotency-Key already used")
        assert "to another endpoint" in told["details"]
        # Nor when the day is over for which the first answer is kept.
        world.sql("DELETE FROM idempotent_requests")
        assert "to another endpoint" in second().get_data(as_text=True)
        assert world.balance(order) == 1500
        world.sql("DELETE FROM idempotent_requests")
        assert first().get_json()["success"], "whoever was first goes on to be answered"
    assert len(world.sql("SELECT FROM withdrawals")) == 2


@pytest.mark.failure(7)
def test_alone_and_in_a_batch_at_the_same_moment_make_one(world: World) -> None:
    world.credit(coins=100_000)
    barrier = Barrier(2)

    def ask(number: int) -> None:
        key = f"k{number // 2}" if number % 2 else f"k{number // 2} 0"
        barrier.wait(10)
        with suppress(Reused):
            about = {"user_id": "user123", "coins": 500, "upi_id": "user@okhdfcbank", "actor": "app:test"}
            withdrawals.request(**about, key=key, fingerprint=key)

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
def test_what_is_no_batch_is_refused_whole(world: World, client: FlaskClient, items: Any, error: str) -> None:
    world.credit(coins=2000)
    assert_refused(send(client, items), 400, error)
    assert world.balance() == 2000


def test_five_hundred_of_the_longest_items_are_not_too_large(world: World, client: FlaskClient) -> None:
    longest = {"user_id": "u" * 500, "amount": 500, "upi_id": f"{'a' * 90}@okaxis"}
    assert send(client, [longest] * 500).get_json()["refused"] == 500


def test_a_database_that_goes_away_ends_the_batch_and_the_next_try_completes_it(
    world: World, client: FlaskClient
) -> None:
    items = people(world, 4)
    with db.transaction() as session:
        session.execute(text("SELECT FROM wallets WHERE user_id = 'user1' FOR UPDATE"))  # busy for 3 s
        told = send(client, items).get_json()
    codes = [result.get("code") for result in told["results"]]
    assert codes == [None, "database_busy", "not_tried", "not_tried"]
    assert told["accepted"] == 1
    assert send(client, items).get_json()["accepted"] == 4
    assert [world.balance(f"user{n}") for n in range(4)] == [0, 0, 0, 0]
