"""`Idempotency-Key`: a repeated request runs once and always gets the first response."""

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.test import TestResponse

from api import idempotency as api_idempotency
from api.app import create_app
from shared.access import idempotency
from shared.db.transactions import transaction
from tests.api.test_auth import key_for
from tests.shared.withdrawals.test_review import approve
from tests.support.api import BATCH, CANCEL, CREDIT, GOOD, WITHDRAW, assert_refused
from tests.support.world import KEY, World

pytestmark = pytest.mark.usefixtures("people")

KEY_HEADER = {"Idempotency-Key": "0f8fad5b-d9cb-469f-a165-70867728950e"}
CREDIT_BODY = {"user_id": "user123", "coins": 700, "reference": "gift"}


def send(client: FlaskClient, path: str, body: dict[str, Any], **headers: str) -> TestResponse:
    return client.post(path, json=body, headers={**KEY_HEADER, **headers})


def forget_response(world: World) -> None:
    """Leave the database as if the process died between the commit and the response."""
    world.sql("UPDATE idempotent_requests SET http_status = NULL, answer = NULL")


def age_requests(world: World, seconds: float) -> None:
    world.sql("UPDATE idempotent_requests SET started_at = started_at - make_interval(secs => :s)", s=seconds)


@pytest.fixture
def first_response(world: World, client: FlaskClient) -> dict[str, Any]:
    """The response to a withdrawal that was requested with a key."""
    world.credit(coins=2000)
    first = send(client, WITHDRAW, GOOD)
    assert first.status_code == 201 and "Idempotency-Replayed" not in first.headers
    return dict(first.get_json())


@pytest.mark.failure(7)
def test_a_repeat_with_the_same_key_and_body_gets_the_first_response(
    world: World, client: FlaskClient, first_response: dict[str, Any]
) -> None:
    world.credit(coins=50, reference="meanwhile")
    again = send(client, WITHDRAW, {**GOOD, "amount": "500", "upi_id": " user@okhdfcbank "})
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert json.dumps(again.get_json()) == json.dumps(first_response)
    assert world.balance() == 1550


@pytest.mark.failure(7)
def test_a_different_body_with_the_same_key_is_refused_and_takes_no_coins(
    world: World, client: FlaskClient, first_response: dict[str, Any]
) -> None:
    for body in ({**GOOD, "amount": 600}, {**GOOD, "upi_id": "other@ybl"}, {**GOOD, "user_id": "user9"}):
        refusal = assert_refused(send(client, WITHDRAW, body), 422, "Idempotency-Key already used")
        assert refusal["code"] == "idempotency_key_reused"
    assert world.balance() == 1500


@pytest.mark.failure(7)
def test_a_key_cannot_be_reused_for_another_endpoint(world: World, client: FlaskClient) -> None:
    world.credit(coins=5000)
    withdrawal_id = client.post(WITHDRAW, json=GOOD).get_json()["data"]["withdrawal_id"]
    requests_by_endpoint = {
        "withdraw": lambda key: client.post(WITHDRAW, json=GOOD, headers=key),
        "batch": lambda key: client.post(BATCH, json={"items": [GOOD]}, headers=key),
        "cancel": lambda key: client.post(CANCEL, json={"withdrawal_id": withdrawal_id}, headers=key),
        "credit": lambda key: client.post(CREDIT, json=CREDIT_BODY, headers=key),
    }
    for first, send_first in requests_by_endpoint.items():
        assert send_first({"Idempotency-Key": first}).get_json()["success"]
        balance_before = world.balance()
        for other in requests_by_endpoint.keys() - {first}:
            refusal = assert_refused(
                requests_by_endpoint[other]({"Idempotency-Key": first}), 422, "Idempotency-Key already used"
            )
            assert "to another endpoint" in refusal["details"]
        assert world.balance() == balance_before


def test_without_a_key_identical_requests_are_two_withdrawals(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    for _ in range(2):
        assert client.post(WITHDRAW, json=GOOD).status_code == 201
    assert world.balance() == 1000


@pytest.mark.parametrize("key", ["", " ", "a b", "k" * 256, "clé", "a\tb"])
def test_an_invalid_idempotency_key_is_refused(world: World, client: FlaskClient, key: str) -> None:
    world.credit(coins=2000)
    answer = send(client, WITHDRAW, GOOD, **{"Idempotency-Key": key})
    assert_refused(answer, 400, "Invalid Idempotency-Key")
    assert world.balance() == 2000


def test_a_refusal_is_stored_and_returned_again(world: World, client: FlaskClient) -> None:
    world.credit(coins=100)
    first = send(client, WITHDRAW, GOOD)
    assert_refused(first, 400, "Insufficient coin balance")
    world.credit(coins=2000, reference="more")
    again = send(client, WITHDRAW, GOOD)
    assert again.get_json() == first.get_json() and again.headers["Idempotency-Replayed"] == "true"
    assert world.balance() == 2100


def test_a_request_that_fails_validation_does_not_use_up_its_key(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    assert_refused(send(client, WITHDRAW, {**GOOD, "amount": 5}), 400, "Withdrawal amount too low")
    assert send(client, WITHDRAW, GOOD).status_code == 201


def test_a_cancellation_sent_twice_gets_the_same_response_and_one_refund(
    world: World, client: FlaskClient, first_response: dict[str, Any]
) -> None:
    body = {"withdrawal_id": first_response["data"]["withdrawal_id"]}
    answers = [send(client, CANCEL, body, **{"Idempotency-Key": "cancel-1"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].get_json() == answers[1].get_json()
    assert world.balance() == 2000
    other = send(client, CANCEL, body, **{"Idempotency-Key": "cancel-2"})
    assert_refused(other, 400, "Cannot cancel withdrawal with status: cancelled")


def test_a_credit_sent_twice_gets_201_twice_and_adds_the_coins_once(
    world: World, client: FlaskClient
) -> None:
    answers = [send(client, CREDIT, CREDIT_BODY) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].get_json() == answers[1].get_json()
    assert world.balance() == 700


def test_a_key_is_unique_per_user_across_apps(
    world: World, client: FlaskClient, first_response: dict[str, Any]
) -> None:
    other = {"Authorization": f"Bearer {key_for('withdraw')}"}
    again = send(client, WITHDRAW, GOOD, **other)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.get_json() == first_response
    third = {"Authorization": f"Bearer {key_for('withdraw', app='third')}"}
    refusal = send(client, WITHDRAW, {**GOOD, "amount": 600}, **third)
    assert_refused(refusal, 422, "Idempotency-Key already used")
    assert world.balance() == 1500


def test_two_apps_can_use_the_same_key_for_different_users(
    world: World, client: FlaskClient, first_response: dict[str, Any]
) -> None:
    world.credit("ravi")
    other = {"Authorization": f"Bearer {key_for('withdraw')}"}
    created = send(client, WITHDRAW, {**GOOD, "user_id": "ravi"}, **other)
    assert created.status_code == 201 and "Idempotency-Replayed" not in created.headers
    assert (world.balance(), world.balance("ravi")) == (1500, 1500)


@pytest.mark.failure(7)
def test_a_hundred_concurrent_requests_with_one_key_create_one_withdrawal(world: World) -> None:
    world.credit(coins=100_000)
    app = create_app()
    barrier = threading.Barrier(20)

    def ask(_: int) -> TestResponse:
        barrier.wait(10)
        headers = {"Authorization": f"Bearer {KEY}", **KEY_HEADER}
        return app.test_client().post(WITHDRAW, json=GOOD, headers=headers)

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(ask, range(100)))
    assert set(Counter(answer.status_code for answer in answers)) <= {201, 409}
    for running in (answer for answer in answers if answer.status_code == 409):
        assert running.get_json()["code"] == "idempotency_key_running"
        assert running.headers["Retry-After"] == "1"
    bodies = [json.dumps(answer.get_json()) for answer in answers if answer.status_code == 201]
    assert len(set(bodies)) == 1
    assert json.dumps(ask_again(app).get_json()) == bodies[0]
    assert world.balance() == 99_500


def ask_again(app: Any) -> TestResponse:
    headers = {"Authorization": f"Bearer {KEY}", **KEY_HEADER}
    return app.test_client().post(WITHDRAW, json=GOOD, headers=headers)


def authorized_client(app: Any) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {KEY}"
    return client


# --- a process that dies between the commit and the response


def test_a_withdrawal_without_a_stored_response_is_found_by_its_row(
    world: World, client: FlaskClient
) -> None:
    world.credit(coins=600)
    lost_response = send(client, WITHDRAW, GOOD).get_json()
    forget_response(world)
    assert_refused(send(client, WITHDRAW, GOOD), 409, "Request still running")
    age_requests(world, idempotency.MAX_RUNNING_SECONDS + 1)
    again = send(client, WITHDRAW, GOOD)  # the balance is too low for a second one
    assert again.status_code == 201 and again.get_json() == lost_response
    assert again.headers["Idempotency-Replayed"] == "true"
    assert world.balance() == 100
    assert len(world.sql("SELECT FROM withdrawals")) == 1


@pytest.mark.parametrize(
    ("setting", "phrase"),
    [
        ({"REVIEW_ALL": "on"}, "reviewed by an admin"),
        ({"NEW_UPI_WAIT_HOURS": "24"}, "waits 24 hours"),
        ({"REVIEW_ALL": "on", "NEW_UPI_WAIT_HOURS": "24"}, "reviewed by an admin"),
    ],
)
def test_a_repeat_gets_the_first_message_after_the_wait_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str], phrase: str
) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    world.forget_settings()
    client = authorized_client(create_app())
    world.credit(coins=2000)
    first = send(client, WITHDRAW, GOOD).get_json()
    assert phrase in first["message"]
    withdrawal_id = UUID(first["data"]["withdrawal_id"])
    if "REVIEW_ALL" in setting:
        approve(withdrawal_id)
    assert world.finish(withdrawal_id) == "completed"
    world.sql("DELETE FROM idempotent_requests")
    assert send(client, WITHDRAW, GOOD).get_json() == first


def test_a_cancellation_without_a_stored_response_is_found_by_its_event(
    world: World, client: FlaskClient, first_response: dict[str, Any]
) -> None:
    body = {"withdrawal_id": first_response["data"]["withdrawal_id"]}
    key = {"Idempotency-Key": "cancel-1"}
    lost_response = send(client, CANCEL, body, **key).get_json()
    forget_response(world)
    world.credit(coins=50, reference="meanwhile")
    age_requests(world, idempotency.MAX_RUNNING_SECONDS + 1)
    again = send(client, CANCEL, body, **key)
    assert again.status_code == 200 and again.get_json() == lost_response
    assert world.balance() == 2050


def test_a_credit_without_a_stored_response_is_found_by_its_reference(
    world: World, client: FlaskClient
) -> None:
    lost_response = send(client, CREDIT, CREDIT_BODY).get_json()
    forget_response(world)
    age_requests(world, idempotency.MAX_RUNNING_SECONDS + 1)
    again = send(client, CREDIT, CREDIT_BODY)
    assert again.status_code == 200 and again.get_json()["data"] == lost_response["data"]
    assert world.balance() == 700


def test_a_503_is_not_stored_so_the_next_try_runs(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    with transaction() as session:
        session.execute(text("SELECT FROM wallets FOR UPDATE"))  # another transaction holds this wallet
        assert_refused(send(client, WITHDRAW, GOOD), 503, "Service unavailable")
    assert send(client, WITHDRAW, GOOD).status_code == 201
    assert world.balance() == 1500


def test_limit_moved_is_not_stored_so_the_next_try_runs(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The debit failed, but the check for the reason finds none: coins were refunded meanwhile."""
    monkeypatch.setenv("LIMIT_WITHDRAWALS_PER_DAY", "9")
    world.forget_settings()
    world.credit(coins=2000)
    world.altered = True
    world.sql("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    world.sql("CREATE TRIGGER untouched BEFORE UPDATE ON wallets FOR EACH ROW EXECUTE FUNCTION nothing()")
    refusal = assert_refused(send(client, WITHDRAW, GOOD), 409, "You were over the limit a moment ago")
    assert refusal["code"] == "limit_moved"
    world.sql("DROP TRIGGER untouched ON wallets")
    assert send(client, WITHDRAW, GOOD).status_code == 201
    assert world.balance() == 1500


# --- a day later


def test_after_a_day_keys_are_deleted_and_still_create_no_second_withdrawal(
    world: World, client: FlaskClient, first_response: dict[str, Any]
) -> None:
    send(client, CREDIT, CREDIT_BODY, **{"Idempotency-Key": "a-credit"})
    assert idempotency.delete_expired() == 0
    age_requests(world, idempotency.RETENTION_HOURS * 3600 + 1)
    assert idempotency.delete_expired() == 2
    again = send(client, WITHDRAW, GOOD)
    assert again.status_code == 201 and again.get_json() == first_response
    assert again.headers["Idempotency-Replayed"] == "true"
    age_requests(world, idempotency.RETENTION_HOURS * 3600 + 1)
    idempotency.delete_expired()
    assert_refused(send(client, WITHDRAW, {**GOOD, "amount": 600}), 422, "Idempotency-Key already used")
    assert len(world.sql("SELECT FROM withdrawals")) == 1


def test_a_key_of_the_maximum_length_is_accepted(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    longest = {"Idempotency-Key": "k" * api_idempotency.MAX_KEY_CHARACTERS}
    assert send(client, WITHDRAW, GOOD, **longest).status_code == 201
    assert send(client, WITHDRAW, GOOD, **longest).headers["Idempotency-Replayed"] == "true"
