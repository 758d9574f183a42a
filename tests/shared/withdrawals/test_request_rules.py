"""Limits per user for a day and a month in India, and the wait before the first payment to a UPI id."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from api.app import create_app
from shared import withdrawals
from shared.coins import wallet
from shared.db.transactions import transaction
from shared.errors import BadRequest
from shared.withdrawals import request_rules
from tests.shared.withdrawals.test_request import try_request
from tests.shared.withdrawals.test_review import approve
from tests.support.api import BATCH, GOOD, WITHDRAW, assert_refused
from tests.support.world import KEY, World

pytestmark = [pytest.mark.usefixtures("one_day"), pytest.mark.usefixtures("people")]

INDIA = ZoneInfo("Asia/Kolkata")
HEADERS = {"Authorization": f"Bearer {KEY}"}


def set_settings(world: World, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    world.forget_settings()


def usage(user_id: str = "user123") -> tuple[int, int, int, int]:
    """Withdrawals and coins of the day and of the month."""
    with transaction() as session:
        totals = request_rules.usage(session, user_id)
    return totals.day_withdrawals, totals.day_coins, totals.month_withdrawals, totals.month_coins


def pass_days(world: World, days: int) -> None:
    """Move the last withdrawal this many days into the past."""
    world.sql("UPDATE wallets SET used_on = used_on - CAST(:days AS integer)", days=days)
    world.sql("UPDATE withdrawals SET counted_on = counted_on - CAST(:days AS integer)", days=days)


@pytest.mark.failure(23)
@pytest.mark.parametrize(
    ("setting", "limit", "code"),
    [
        ("LIMIT_WITHDRAWALS_PER_DAY", 7, "daily_limit"),
        ("LIMIT_COINS_PER_DAY", 750, "daily_limit"),
        ("LIMIT_WITHDRAWALS_PER_MONTH", 7, "monthly_limit"),
        ("LIMIT_COINS_PER_MONTH", 799, "monthly_limit"),
    ],
)
def test_fifty_concurrent_requests_never_exceed_a_limit(
    world: World, monkeypatch: pytest.MonkeyPatch, setting: str, limit: int, code: str
) -> None:
    set_settings(world, monkeypatch, **{setting: limit})
    world.credit(coins=100_000)
    start = threading.Barrier(50)

    def request_at_once(_: int) -> str:
        start.wait()
        return try_request(world, coins=100)

    with ThreadPoolExecutor(50) as threads:
        outcomes = list(threads.map(request_at_once, range(50)))
    assert (outcomes.count("taken"), outcomes.count(code)) == (7, 43)
    assert (world.balance(), usage()) == (99_300, (7, 700, 7, 700))


def test_cancelled_and_refunded_withdrawals_do_not_count(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_settings(world, monkeypatch, LIMIT_WITHDRAWALS_PER_DAY=1)
    world.credit(coins=5000)
    withdrawals.cancel(world.request(coins=500), reason="a whim", actor="app:test")
    assert usage() == (0, 0, 0, 0)
    assert world.finish(world.request(upi_id="fail.bank_account_closed@sim")) == "failed"
    assert try_request(world) == "taken"
    assert try_request(world) == "daily_limit"


def test_a_refund_on_a_later_day_lowers_the_monthly_and_not_the_daily_usage(
    world: World,
) -> None:
    world.credit(coins=5000)
    old = world.request(coins=500)
    pass_days(world, 1)
    world.request(coins=100)
    in_one_month = datetime.now(INDIA).day > 1
    assert usage() == (1, 100, 1 + in_one_month, 100 + 500 * in_one_month)
    withdrawals.cancel(old, reason="a whim", actor="app:test")
    assert usage() == (1, 100, 1, 100)


@pytest.mark.failure(23)
def test_usage_starts_at_zero_each_day_and_each_month(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    set_settings(world, monkeypatch, LIMIT_WITHDRAWALS_PER_DAY=1, LIMIT_COINS_PER_MONTH=2000)
    world.credit(coins=9000)
    assert [try_request(world, coins=500), try_request(world, coins=500)] == ["taken", "daily_limit"]
    # Move it to the first of this month: it still counts for the month, but not for the day.
    day_of_month = datetime.now(INDIA).day
    pass_days(world, day_of_month - 1)
    assert try_request(world, coins=500) == ("taken" if day_of_month > 1 else "daily_limit")
    pass_days(world, 31)
    assert usage() == (0, 0, 0, 0)
    assert [try_request(world, coins=2100), try_request(world, coins=2000)] == ["monthly_limit", "taken"]


@pytest.mark.failure(23)
@pytest.mark.parametrize(
    ("moment", "today", "month"),
    [
        ("2026-11-24T18:29:59.999999Z", date(2026, 11, 24), date(2026, 11, 1)),
        ("2026-11-24T18:30:00Z", date(2026, 11, 25), date(2026, 11, 1)),
        ("2026-11-30T18:29:59.999999Z", date(2026, 11, 30), date(2026, 11, 1)),
        ("2026-11-30T18:30:00Z", date(2026, 12, 1), date(2026, 12, 1)),
    ],
)
def test_a_day_begins_at_midnight_in_india_by_the_databases_clock(
    world: World, moment: str, today: date, month: date
) -> None:
    query = f"SELECT {wallet.TODAY} AS today, {wallet.THIS_MONTH} AS month"
    row = world.sql(query.replace("now()", "CAST(:moment AS timestamptz)"), moment=moment)[0]
    assert (row.today, row.month) == (today, month)


@pytest.mark.failure(23)
def test_a_request_that_waits_over_midnight_counts_for_the_new_day(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction began yesterday and another one today: the count of today is not reset."""
    set_settings(world, monkeypatch, LIMIT_WITHDRAWALS_PER_DAY=2)
    world.credit(coins=5000)
    world.request()
    pass_days(world, -1)
    late = world.request()
    assert usage()[:2] == (2, 1000)
    tomorrow = datetime.now(INDIA).date() + timedelta(days=1)
    assert world.read(late).counted_on == tomorrow
    assert try_request(world) == "daily_limit"


def test_a_refusal_gives_the_limit_the_usage_and_the_reset_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_settings(world, monkeypatch, LIMIT_COINS_PER_DAY=700, LIMIT_WITHDRAWALS_PER_MONTH=9)
    world.credit(coins=5000)
    app = create_app().test_client()
    assert app.post(WITHDRAW, json=GOOD, headers=HEADERS).status_code == 201
    body = assert_refused(app.post(WITHDRAW, json=GOOD, headers=HEADERS), 400, "Daily limit reached")
    assert (body["code"], body["limit"], body["used"], body["counted"]) == ("daily_limit", 700, 500, "coins")
    resets = datetime.fromisoformat(body["resets_at"])
    assert f"{resets.astimezone(INDIA):%H:%M:%S.%f}" == "00:00:00.000000"
    assert timedelta(0) < resets - datetime.now(UTC) <= timedelta(days=1, seconds=5)
    items = {"items": [{**GOOD, "amount": 100}, {**GOOD, "amount": 100}, {**GOOD, "amount": 100}]}
    answer = app.post(BATCH, json=items, headers={**HEADERS, "Idempotency-Key": "batch-1"}).get_json()
    assert [result.get("code") for result in answer["results"]] == [None, None, "daily_limit"]


def test_the_contracts_refusals_take_precedence_over_limits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_settings(world, monkeypatch, LIMIT_COINS_PER_DAY=0)
    assert try_request(world, coins=500) == "wallet_not_found"
    world.credit(coins=300_000)
    assert try_request(world, coins=300_001) == "insufficient_coins"
    assert try_request(world, coins=200_000) == "amount_too_high"
    assert try_request(world, coins=500) == "daily_limit"


def test_limits_set_later_count_earlier_requests(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.credit(coins=5000)
    world.request()
    set_settings(world, monkeypatch, LIMIT_WITHDRAWALS_PER_DAY=1)
    assert try_request(world) == "daily_limit"


def test_a_refused_request_can_be_retried_under_its_key_once_its_response_expired(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_settings(world, monkeypatch, LIMIT_WITHDRAWALS_PER_DAY=1)
    world.credit(coins=5000)
    first = world.request()
    request = {
        "user_id": "user123",
        "coins": 500,
        "upi_id": "user@okhdfcbank",
        "actor": "app:test",
        "key": "k",
    }
    with pytest.raises(BadRequest):
        withdrawals.request(**request, fingerprint="f")
    withdrawals.cancel(first, reason="a whim", actor="app:test")
    created = withdrawals.request(**request, fingerprint="f")
    assert withdrawals.request(**request, fingerprint="f").id == created.id, (
        "the limit does not hide the withdrawal that exists"
    )


# --- the first payment to a UPI id


@pytest.fixture
def new_upi_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in which the first payment of a user to a UPI id waits for a day."""
    set_settings(world, monkeypatch, NEW_UPI_WAIT_HOURS=24)
    world.credit(coins=9000)
    return world


def wait(world: World, withdrawal_id: UUID, hours: float) -> str:
    return world.step(withdrawal_id, seconds=hours * 3600)


@pytest.mark.failure(23)
def test_the_first_payment_to_a_upi_id_waits_and_then_continues_by_itself(new_upi_waits: World) -> None:
    withdrawal_id = new_upi_waits.request()
    row = new_upi_waits.read(withdrawal_id)
    assert row.status_reason == "new_upi_id" and row.due_at == row.not_before
    assert row.due_at - row.created_at == timedelta(hours=24) < row.expected_by - row.created_at
    assert wait(new_upi_waits, withdrawal_id, 23.99) == "pending"
    assert new_upi_waits.attempts(withdrawal_id) == []
    wait(new_upi_waits, withdrawal_id, 0.02)
    assert new_upi_waits.finish(withdrawal_id) == "completed"


@pytest.mark.failure(23)
def test_payments_to_a_known_upi_id_do_not_wait_in_any_letter_case(new_upi_waits: World) -> None:
    first = new_upi_waits.request(upi_id="User@OkHdfcBank")
    second = new_upi_waits.request(upi_id="user@okhdfcbank")
    wait(new_upi_waits, first, 24)
    new_upi_waits.finish(first)
    assert new_upi_waits.read(second).status_reason != "cancel_window", "requested before the first was paid"
    assert (
        new_upi_waits.read(new_upi_waits.request(upi_id="USER@okhdfcbank")).status_reason == "cancel_window"
    )
    new_upi_waits.credit("other")
    theirs = new_upi_waits.request("other", upi_id="user@okhdfcbank")
    assert new_upi_waits.read(theirs).status_reason == "new_upi_id", (
        "known for another user, not for this one"
    )


def test_a_reversed_payment_does_not_make_a_upi_id_known(new_upi_waits: World) -> None:
    first = new_upi_waits.request(upi_id="reversed@sim")
    wait(new_upi_waits, first, 24)
    new_upi_waits.simulator.post("advance", {"seconds": 3600})
    new_upi_waits.finish(first)
    new_upi_waits.sql("UPDATE payout_attempts SET recheck_at = now() WHERE recheck_at IS NOT NULL")
    new_upi_waits.bring_on(first)
    assert new_upi_waits.read(first).status == "failed"
    again = new_upi_waits.request(upi_id="reversed@sim")
    assert new_upi_waits.read(again).status_reason == "new_upi_id"


def test_a_withdrawal_that_waits_for_a_new_upi_id_can_be_cancelled(new_upi_waits: World) -> None:
    withdrawal_id = new_upi_waits.request()
    wait(new_upi_waits, withdrawal_id, 12)
    withdrawals.cancel(withdrawal_id, reason="not mine", actor="app:test")
    assert new_upi_waits.balance() == 9000


def test_a_wait_that_has_begun_ends_as_set_even_if_the_setting_changes(
    new_upi_waits: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdrawal_id = new_upi_waits.request()
    set_settings(new_upi_waits, monkeypatch, NEW_UPI_WAIT_HOURS=0)
    assert wait(new_upi_waits, withdrawal_id, 23) == "pending"
    new_upi_waits.sql("UPDATE withdrawals SET due_at = now()")
    new_upi_waits.bring_on(withdrawal_id)
    assert new_upi_waits.read(withdrawal_id).status_reason == "new_upi_id", "even if it becomes due earlier"


def test_an_approval_does_not_shorten_the_wait_for_a_new_upi_id(
    new_upi_waits: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_settings(new_upi_waits, monkeypatch, REVIEW_ALL="on")
    withdrawal_id = new_upi_waits.request()
    assert new_upi_waits.read(withdrawal_id).status_reason == "awaiting_review"
    approve(withdrawal_id)
    row = new_upi_waits.read(withdrawal_id)
    assert (row.status_reason, row.due_at) == ("new_upi_id", row.not_before)
    assert wait(new_upi_waits, withdrawal_id, 23) == "pending"
    wait(new_upi_waits, withdrawal_id, 1.1)
    assert new_upi_waits.finish(withdrawal_id) == "completed"


def test_the_response_says_how_long_a_new_upi_id_waits(new_upi_waits: World) -> None:
    response = create_app().test_client().post(WITHDRAW, json=GOOD, headers=HEADERS).get_json()
    assert "waits 24 hours" in response["message"]
