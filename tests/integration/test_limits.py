"""What may not be asked for though the coins are there, and what waits though nobody must look: the user's limits in
a day and a month in India, and the first payment to a UPI id."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from api.app import create_app
from shared import db, wallet, withdrawals
from shared.errors import BadRequest
from shared.withdrawals import terms
from tests.integration.app import BATCH, GOOD, WITHDRAW, assert_refused
from tests.integration.test_requesting import ask
from tests.integration.test_review import approve
from tests.world import KEY, World

pytestmark = [pytest.mark.usefixtures("one_day"), pytest.mark.usefixtures("people")]

INDIA = ZoneInfo("Asia/Kolkata")
HEADERS = {"Authorization": f"Bearer {KEY}"}


def limited(world: World, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    world.forget_settings()


def used(user_id: str = "user123") -> tuple[int, int, int, int]:
    """Withdrawals and coins of the day and of the month."""
    with db.transaction() as session:
        told = terms.usage(session, user_id)
    return told.day_withdrawals, told.day_coins, told.month_withdrawals, told.month_coins


def days_pass(world: World, days: int) -> None:
    """As if the last withdrawal had been so many days ago."""
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
def test_fifty_at_once_never_exceed_a_limit(
    world: World, monkeypatch: pytest.MonkeyPatch, setting: str, limit: int, code: str
) -> None:
    limited(world, monkeypatch, **{setting: limit})
    world.credit(coins=100_000)
    start = threading.Barrier(50)

    def one(_: int) -> str:
        start.wait()
        return ask(world, coins=100)

    with ThreadPoolExecutor(50) as threads:
        outcomes = list(threads.map(one, range(50)))
    assert (outcomes.count("taken"), outcomes.count(code)) == (7, 43)
    assert (world.balance(), used()) == (99_300, (7, 700, 7, 700))


def test_what_is_cancelled_or_given_back_does_not_count(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(world, monkeypatch, LIMIT_WITHDRAWALS_PER_DAY=1)
    world.credit(coins=5000)
    withdrawals.cancel(world.request(coins=500), reason="a whim", actor="app:test")
    assert used() == (0, 0, 0, 0)
    assert world.finish(world.request(upi_id="fail.bank_account_closed@sim")) == "failed"
    assert ask(world) == "taken"
    assert ask(world) == "daily_limit"


def test_what_is_given_back_on_a_later_day_counts_no_more_in_the_month_and_never_did_in_the_day(
    world: World,
) -> None:
    world.credit(coins=5000)
    old = world.request(coins=500)
    days_pass(world, 1)
    world.request(coins=100)
    in_one_month = datetime.now(INDIA).day > 1
    assert used() == (1, 100, 1 + in_one_month, 100 + 500 * in_one_month)
    withdrawals.cancel(old, reason="a whim", actor="app:test")
    assert used() == (1, 100, 1, 100)


@pytest.mark.failure(23)
def test_a_new_day_and_a_new_month_begin_at_zero(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(world, monkeypatch, LIMIT_WITHDRAWALS_PER_DAY=1, LIMIT_COINS_PER_MONTH=2000)
    world.credit(coins=9000)
    assert [ask(world, coins=500), ask(world, coins=500)] == ["taken", "daily_limit"]
    # The first of this month, however late in it: the month counts on, the day does not.
    first = datetime.now(INDIA).day
    days_pass(world, first - 1)
    assert ask(world, coins=500) == ("taken" if first > 1 else "daily_limit")
    days_pass(world, 31)
    assert used() == (0, 0, 0, 0)
    assert [ask(world, coins=2100), ask(world, coins=2000)] == ["monthly_limit", "taken"]


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
    asked = f"SELECT {wallet.TODAY} AS today, {wallet.THIS_MONTH} AS month"
    row = world.sql(asked.replace("now()", "CAST(:moment AS timestamptz)"), moment=moment)[0]
    assert (row.today, row.month) == (today, month)


@pytest.mark.failure(23)
def test_who_waited_over_midnight_counts_for_the_day_that_has_begun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction began yesterday, another's today: that one's count is not begun anew."""
    limited(world, monkeypatch, LIMIT_WITHDRAWALS_PER_DAY=2)
    world.credit(coins=5000)
    world.request()
    days_pass(world, -1)
    late = world.request()
    assert used()[:2] == (2, 1000)
    tomorrow = datetime.now(INDIA).date() + timedelta(days=1)
    assert world.read(late).counted_on == tomorrow
    assert ask(world) == "daily_limit"


def test_the_refusal_says_which_limit_how_much_counts_and_when_it_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(world, monkeypatch, LIMIT_COINS_PER_DAY=700, LIMIT_WITHDRAWALS_PER_MONTH=9)
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
    assert [one.get("code") for one in answer["results"]] == [None, None, "daily_limit"]


def test_the_contracts_own_refusals_come_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(world, monkeypatch, LIMIT_COINS_PER_DAY=0)
    assert ask(world, coins=500) == "wallet_not_found"
    world.credit(coins=300_000)
    assert ask(world, coins=300_001) == "insufficient_coins"
    assert ask(world, coins=200_000) == "amount_too_high"
    assert ask(world, coins=500) == "daily_limit"


def test_limits_that_are_set_later_count_what_was_asked_for_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit(coins=5000)
    world.request()
    limited(world, monkeypatch, LIMIT_WITHDRAWALS_PER_DAY=1)
    assert ask(world) == "daily_limit"


def test_a_refused_request_can_be_asked_again_under_its_key_when_its_first_answer_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(world, monkeypatch, LIMIT_WITHDRAWALS_PER_DAY=1)
    world.credit(coins=5000)
    first = world.request()
    wish = {"user_id": "user123", "coins": 500, "upi_id": "user@okhdfcbank", "actor": "app:test", "key": "k"}
    with pytest.raises(BadRequest):
        withdrawals.request(**wish, fingerprint="f")
    withdrawals.cancel(first, reason="a whim", actor="app:test")
    made = withdrawals.request(**wish, fingerprint="f")
    assert withdrawals.request(**wish, fingerprint="f").id == made.id, "the limit does not hide what was made"


# --- the first payment to a UPI id


@pytest.fixture
def careful(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A UPI id that a user never was paid at waits for a day."""
    limited(world, monkeypatch, NEW_UPI_WAIT_HOURS=24)
    world.credit(coins=9000)
    return world


def wait(world: World, withdrawal_id: UUID, hours: float) -> str:
    return world.step(withdrawal_id, seconds=hours * 3600)


@pytest.mark.failure(23)
def test_the_first_to_a_upi_id_waits_and_goes_on_by_itself(careful: World) -> None:
    withdrawal_id = careful.request()
    row = careful.read(withdrawal_id)
    assert row.status_reason == "new_upi_id" and row.due_at == row.not_before
    assert row.due_at - row.created_at == timedelta(hours=24) < row.expected_by - row.created_at
    assert wait(careful, withdrawal_id, 23.99) == "pending"
    assert careful.attempts(withdrawal_id) == []
    wait(careful, withdrawal_id, 0.02)
    assert careful.finish(withdrawal_id) == "completed"


@pytest.mark.failure(23)
def test_who_was_paid_there_before_does_not_wait_whatever_the_case(careful: World) -> None:
    first = careful.request(upi_id="User@OkHdfcBank")
    second = careful.request(upi_id="user@okhdfcbank")
    wait(careful, first, 24)
    careful.finish(first)
    assert careful.read(second).status_reason != "cancel_window", "asked before the first was paid"
    assert careful.read(careful.request(upi_id="USER@okhdfcbank")).status_reason == "cancel_window"
    careful.credit("other")
    theirs = careful.request("other", upi_id="user@okhdfcbank")
    assert careful.read(theirs).status_reason == "new_upi_id", "another user was paid there, not this one"


def test_a_payment_that_failed_or_came_back_makes_no_payee_known(careful: World) -> None:
    first = careful.request(upi_id="reversed@sim")
    wait(careful, first, 24)
    careful.simulator.post("advance", {"seconds": 3600})
    careful.finish(first)
    careful.sql("UPDATE payout_attempts SET recheck_at = now() WHERE recheck_at IS NOT NULL")
    careful.bring_on(first)
    assert careful.read(first).status == "failed"
    again = careful.request(upi_id="reversed@sim")
    assert careful.read(again).status_reason == "new_upi_id"


def test_it_can_be_cancelled_while_it_waits(careful: World) -> None:
    withdrawal_id = careful.request()
    wait(careful, withdrawal_id, 12)
    withdrawals.cancel(withdrawal_id, reason="not mine", actor="app:test")
    assert careful.balance() == 9000


def test_a_wait_that_is_set_to_nothing_later_is_waited_to_its_end(
    careful: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdrawal_id = careful.request()
    limited(careful, monkeypatch, NEW_UPI_WAIT_HOURS=0)
    assert wait(careful, withdrawal_id, 23) == "pending"
    careful.sql("UPDATE withdrawals SET due_at = now()")
    careful.bring_on(withdrawal_id)
    assert careful.read(withdrawal_id).status_reason == "new_upi_id", "whoever makes it due"


def test_an_approval_does_not_end_the_wait(careful: World, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(careful, monkeypatch, REVIEW_ALL="on")
    withdrawal_id = careful.request()
    assert careful.read(withdrawal_id).status_reason == "awaiting_review"
    approve(withdrawal_id)
    row = careful.read(withdrawal_id)
    assert (row.status_reason, row.due_at) == ("new_upi_id", row.not_before)
    assert wait(careful, withdrawal_id, 23) == "pending"
    wait(careful, withdrawal_id, 1.1)
    assert careful.finish(withdrawal_id) == "completed"


def test_the_app_is_told_how_long_it_waits(careful: World) -> None:
    told = create_app().test_client().post(WITHDRAW, json=GOOD, headers=HEADERS).get_json()
    assert "waits 24 hours" in told["message"]
