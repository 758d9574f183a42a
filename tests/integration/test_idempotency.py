"""`Idempotency-Key`: however often a request is sent, it is done once, and always answered as the first time."""

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

from api import once as once_view
from api.app import create_app
from shared import db, idempotency
from tests.integration.app import BATCH, CANCEL, CREDIT, GOOD, WITHDRAW, assert_refused
from tests.integration.test_keys import key_for
from tests.integration.test_review import approve
from tests.world import KEY, World

pytestmark = pytest.mark.usefixtures("people")

MINE = {"Idempotency-Key": "0f8fad5b-d9cb-469f-a165-70867728950e"}
GIFT = {"user_id": "user123", "coins": 700, "reference": "gift"}


def send(client: FlaskClient, path: str, body: dict[str, Any], **headers: str) -> TestResponse:
    return client.post(path, json=body, headers={**MINE, **headers})


def was_never_answered(world: World) -> None:
    """As when the process ended between the commit and the answer: what is behind the commit did not happen."""
    world.sql("UPDATE idempotent_requests SET http_status = NULL, answer = NULL")


def time_passes(world: World, seconds: float) -> None:
    world.sql("UPDATE idempotent_requests SET started_at = started_at - make_interval(secs => :s)", s=seconds)


@pytest.fixture
def asked(world: World, client: FlaskClient) -> dict[str, Any]:
    """The user has coins, and one withdrawal was asked for under a key; its answer."""
    world.credit(coins=2000)
    first = send(client, WITHDRAW, GOOD)
    assert first.status_code == 201 and "Idempotency-Replayed" not in first.headers
    return dict(first.get_json())


@pytest.mark.failure(7)
def test_the_same_key_and_body_get_the_first_answer_again(
    world: World, client: FlaskClient, asked: dict[str, Any]
) -> None:
    world.credit(coins=50, reference="meanwhile")
    again = send(client, WITHDRAW, {**GOOD, "amount": "500", "upi_id": " user@okhdfcbank "})
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert json.dumps(again.get_json()) == json.dumps(asked)
    assert world.balance() == 1550


@pytest.mark.failure(7)
def test_another_body_under_the_same_key_is_refused_and_takes_nothing(
    world: World, client: FlaskClient, asked: dict[str, Any]
) -> None:
    for body in ({**GOOD, "amount": 600}, {**GOOD, "upi_id": "other@ybl"}, {**GOOD, "user_id": "user9"}):
        told = assert_refused(send(client, WITHDRAW, body), 422, "Idempotency-Key already used")
        assert told["code"] == "idempotency_key_reused"
    assert world.balance() == 1500


@pytest.mark.failure(7)
def test_a_key_belongs_to_its_first_operation(world: World, client: FlaskClient) -> None:
    world.credit(coins=5000)
    made = client.post(WITHDRAW, json=GOOD).get_json()["data"]["withdrawal_id"]
    ways = {
        "withdraw": lambda key: client.post(WITHDRAW, json=GOOD, headers=key),
        "batch": lambda key: client.post(BATCH, json={"items": [GOOD]}, headers=key),
        "cancel": lambda key: client.post(CANCEL, json={"withdrawal_id": made}, headers=key),
        "credit": lambda key: client.post(CREDIT, json=GIFT, headers=key),
    }
    for first, send_first in ways.items():
        assert send_first({"Idempotency-Key": first}).get_json()["success"]
        stands = world.balance()
        for other in ways.keys() - {first}:
            told = assert_refused(
                ways[other]({"Idempotency-Key": first}), 422, "Idempotency-Key already used"
            )
            assert "to another endpoint" in told["details"]
        assert world.balance() == stands


def test_without_the_header_the_same_wish_is_two_withdrawals(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    for _ in range(2):
        assert client.post(WITHDRAW, json=GOOD).status_code == 201
    assert world.balance() == 1000


@pytest.mark.parametrize("key", ["", " ", "a b", "k" * 256, "clé", "a\tb"])
def test_a_key_that_cannot_be_one_is_told(world: World, client: FlaskClient, key: str) -> None:
    world.credit(coins=2000)
    answer = send(client, WITHDRAW, GOOD, **{"Idempotency-Key": key})
    assert_refused(answer, 400, "Invalid Idempotency-Key")
    assert world.balance() == 2000


def test_a_refusal_is_an_answer_too(world: World, client: FlaskClient) -> None:
    world.credit(coins=100)
    first = send(client, WITHDRAW, GOOD)
    assert_refused(first, 400, "Insufficient coin balance")
    world.credit(coins=2000, reference="more")
    again = send(client, WITHDRAW, GOOD)
    assert again.get_json() == first.get_json() and again.headers["Idempotency-Replayed"] == "true"
    assert world.balance() == 2100


def test_what_was_not_understood_leaves_the_key_free(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    assert_refused(send(client, WITHDRAW, {**GOOD, "amount": 5}), 400, "Withdrawal amount too low")
    assert send(client, WITHDRAW, GOOD).status_code == 201


def test_a_cancellation_sent_twice_is_answered_twice_and_refunded_once(
    world: World, client: FlaskClient, asked: dict[str, Any]
) -> None:
    body = {"withdrawal_id": asked["data"]["withdrawal_id"]}
    answers = [send(client, CANCEL, body, **{"Idempotency-Key": "cancel-1"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].get_json() == answers[1].get_json()
    assert world.balance() == 2000
    other = send(client, CANCEL, body, **{"Idempotency-Key": "cancel-2"})
    assert_refused(other, 400, "Cannot cancel withdrawal with status: cancelled")


def test_a_credit_sent_twice_is_201_twice(world: World, client: FlaskClient) -> None:
    answers = [send(client, CREDIT, GIFT) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].get_json() == answers[1].get_json()
    assert world.balance() == 700


def test_a_key_is_one_per_user_whichever_app_sends_it(
    world: World, client: FlaskClient, asked: dict[str, Any]
) -> None:
    other = {"Authorization": f"Bearer {key_for('withdraw')}"}
    again = send(client, WITHDRAW, GOOD, **other)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.get_json() == asked
    third = {"Authorization": f"Bearer {key_for('withdraw', app='third')}"}
    told = send(client, WITHDRAW, {**GOOD, "amount": 600}, **third)
    assert_refused(told, 422, "Idempotency-Key already used")
    assert world.balance() == 1500


def test_two_apps_may_choose_the_same_key_for_two_users(
    world: World, client: FlaskClient, asked: dict[str, Any]
) -> None:
    world.credit("ravi")
    other = {"Authorization": f"Bearer {key_for('withdraw')}"}
    made = send(client, WITHDRAW, {**GOOD, "user_id": "ravi"}, **other)
    assert made.status_code == 201 and "Idempotency-Replayed" not in made.headers
    assert (world.balance(), world.balance("ravi")) == (1500, 1500)


@pytest.mark.failure(7)
def test_a_hundred_at_once_make_one_withdrawal(world: World) -> None:
    world.credit(coins=100_000)
    app = create_app()
    barrier = threading.Barrier(20)

    def ask(_: int) -> TestResponse:
        barrier.wait(10)
        headers = {"Authorization": f"Bearer {KEY}", **MINE}
        return app.test_client().post(WITHDRAW, json=GOOD, headers=headers)

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(ask, range(100)))
    assert set(Counter(answer.status_code for answer in answers)) <= {201, 409}
    for running in (answer for answer in answers if answer.status_code == 409):
        assert running.get_json()["code"] == "idempotency_key_running"
        assert running.headers["Retry-After"] == "1"
    made = [json.dumps(answer.get_json()) for answer in answers if answer.status_code == 201]
    assert len(set(made)) == 1
    assert json.dumps(ask_again(app).get_json()) == made[0]
    assert world.balance() == 99_500


def ask_again(app: Any) -> TestResponse:
    headers = {"Authorization": f"Bearer {KEY}", **MINE}
    return app.test_client().post(WITHDRAW, json=GOOD, headers=headers)


def as_app(app: Any) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {KEY}"
    return client


# --- who dies between the commit and the answer


def test_a_withdrawal_that_was_never_answered_is_found_by_its_row(world: World, client: FlaskClient) -> None:
    world.credit(coins=600)
    never_seen = send(client, WITHDRAW, GOOD).get_json()
    was_never_answered(world)
    assert_refused(send(client, WITHDRAW, GOOD), 409, "Request still running")
    time_passes(world, idempotency.RUNNING_SECONDS + 1)
    again = send(client, WITHDRAW, GOOD)  # the wallet holds too little for a second one
    assert again.status_code == 201 and again.get_json() == never_seen
    assert again.headers["Idempotency-Replayed"] == "true"
    assert world.balance() == 100
    assert len(world.sql("SELECT FROM withdrawals")) == 1


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"REVIEW_ALL": "on"}, "reviewed by an admin"),
        ({"NEW_UPI_WAIT_HOURS": "24"}, "waits 24 hours"),
        ({"REVIEW_ALL": "on", "NEW_UPI_WAIT_HOURS": "24"}, "reviewed by an admin"),
    ],
)
def test_what_it_waited_for_at_first_is_told_again_when_that_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str], words: str
) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    world.forget_settings()
    client = as_app(create_app())
    world.credit(coins=2000)
    first = send(client, WITHDRAW, GOOD).get_json()
    assert words in first["message"]
    withdrawal_id = UUID(first["data"]["withdrawal_id"])
    if "REVIEW_ALL" in setting:
        approve(withdrawal_id)
    assert world.finish(withdrawal_id) == "completed"
    world.sql("DELETE FROM idempotent_requests")
    assert send(client, WITHDRAW, GOOD).get_json() == first


def test_a_cancellation_that_was_never_answered_is_found_by_its_event(
    world: World, client: FlaskClient, asked: dict[str, Any]
) -> None:
    body, key = {"withdrawal_id": asked["data"]["withdrawal_id"]}, {"Idempotency-Key": "cancel-1"}
    never_seen = send(client, CANCEL, body, **key).get_json()
    was_never_answered(world)
    world.credit(coins=50, reference="meanwhile")
    time_passes(world, idempotency.RUNNING_SECONDS + 1)
    again = send(client, CANCEL, body, **key)
    assert again.status_code == 200 and again.get_json() == never_seen
    assert world.balance() == 2050


def test_a_credit_that_was_never_answered_is_found_by_its_reference(
    world: World, client: FlaskClient
) -> None:
    never_seen = send(client, CREDIT, GIFT).get_json()
    was_never_answered(world)
    time_passes(world, idempotency.RUNNING_SECONDS + 1)
    again = send(client, CREDIT, GIFT)
    assert again.status_code == 200 and again.get_json()["data"] == never_seen["data"]
    assert world.balance() == 700


def test_not_now_is_no_answer_and_the_next_try_is_a_new_one(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    with db.transaction() as session:
        session.execute(text("SELECT FROM wallets FOR UPDATE"))  # somebody is busy with this wallet
        assert_refused(send(client, WITHDRAW, GOOD), 503, "Service unavailable")
    assert send(client, WITHDRAW, GOOD).status_code == 201
    assert world.balance() == 1500


def test_a_limit_that_is_not_reached_any_more_is_no_answer(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coins were not taken, and when we look why, nothing forbids it: something has come back since."""
    monkeypatch.setenv("LIMIT_WITHDRAWALS_PER_DAY", "9")
    world.forget_settings()
    world.credit(coins=2000)
    world.altered = True
    world.sql("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    world.sql("CREATE TRIGGER untouched BEFORE UPDATE ON wallets FOR EACH ROW EXECUTE FUNCTION nothing()")
    told = assert_refused(send(client, WITHDRAW, GOOD), 409, "Limit reached just now")
    assert told["code"] == "limit_moved"
    world.sql("DROP TRIGGER untouched ON wallets")
    assert send(client, WITHDRAW, GOOD).status_code == 201
    assert world.balance() == 1500


# --- a day later


def test_after_a_day_keys_are_forgotten_but_no_withdrawal_is_made_twice(
    world: World, client: FlaskClient, asked: dict[str, Any]
) -> None:
    send(client, CREDIT, GIFT, **{"Idempotency-Key": "a-credit"})
    assert idempotency.forget_old() == 0
    time_passes(world, idempotency.KEPT_HOURS * 3600 + 1)
    assert idempotency.forget_old() == 2
    again = send(client, WITHDRAW, GOOD)
    assert again.status_code == 201 and again.get_json() == asked
    assert again.headers["Idempotency-Replayed"] == "true"
    time_passes(world, idempotency.KEPT_HOURS * 3600 + 1)
    idempotency.forget_old()
    assert_refused(send(client, WITHDRAW, {**GOOD, "amount": 600}), 422, "Idempotency-Key already used")
    assert len(world.sql("SELECT FROM withdrawals")) == 1


def test_the_longest_key_fits(world: World, client: FlaskClient) -> None:
    world.credit(coins=2000)
    longest = {"Idempotency-Key": "k" * once_view.MAX_KEY}
    assert send(client, WITHDRAW, GOOD, **longest).status_code == 201
    assert send(client, WITHDRAW, GOOD, **longest).headers["Idempotency-Replayed"] == "true"
