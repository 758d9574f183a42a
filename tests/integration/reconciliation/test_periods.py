"""Midnights, lists that move while they are read, and providers that cannot be read or lie."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared import reconciliation
from shared.clock import INDIA
from shared.db import patient_engine
from shared.razorpayx.client import RazorpayX
from shared.razorpayx.listing import Listing
from shared.reconciliation.gathering import Gathering
from shared.settings import settings
from tests import simulator as outside
from tests.integration.reconciliation.days import Day, few, ran, sent, summary
from worker import reconcile

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", ["queued-1@sim", "slow-1@sim", "reversed-1@sim", "failed.reversed-1@sim"])
def test_a_payout_across_midnight_raises_nothing_on_either_day(day: Day, name: str) -> None:
    simulator = day.world.simulator
    simulator.post("speed", {"speed": 1})
    day.world.credit(reference="late")
    withdrawal_id = day.world.request(upi_id=name)
    day.world.step(withdrawal_id)
    made_at = int(simulator.payouts()[0]["created_at"])
    midnight = datetime.fromtimestamp(made_at + 1, INDIA)
    simulator.post("advance", {"seconds": 7200})
    day.world.finish(withdrawal_id, steps=3)
    before, after = midnight - timedelta(days=1), midnight + timedelta(days=1)
    for _ in range(2):
        assert reconcile.run(before, midnight).outcome == "clean", day.open()
        assert reconcile.run(midnight, after).outcome == "clean", day.open()
    assert day.rows() == []


def test_the_money_that_comes_back_later_belongs_to_the_later_day(day: Day) -> None:
    withdrawal_id = day.world.paid()
    midnight = datetime.fromtimestamp(day.world.simulator.get("health")["now"] + 3600, INDIA)
    day.world.simulator.post("advance", {"seconds": 3 * 24 * 3600})
    day.provider.becomes(day.payout(withdrawal_id), "reversed")
    later = reconcile.run(midnight, midnight + timedelta(days=4))
    assert (later.outcome, later.applied, later.totals.payouts) == ("clean", 1, 1)
    assert (later.totals.credits, later.totals.reversed) == (5590, 5590)
    assert day.world.refunds(withdrawal_id) == 1


class Moving:
    """RazorpayX, where something happens just after the first page of one of its lists was read."""

    def __init__(self, path: str, then: Callable[[], Any]) -> None:
        self.provider, self.path, self.then = RazorpayX(settings()), path, then
        self.has_moved = False

    def get(self, path: str, query: dict[str, str | int]) -> Any:
        answer = self.provider.get(path, query)
        if path == self.path and not self.has_moved:
            self.has_moved = True
            self.then()
        return answer


def test_what_moves_between_two_lists_is_looked_at_again(day: Day) -> None:
    withdrawal_id = day.world.paid()
    payout_id = day.payout(withdrawal_id)
    # The list says processed, the statement has the money back already.
    moving = Moving("/v1/transactions", lambda: day.provider.becomes(payout_id, "reversed"))
    assert reconciliation.reconcile(moving, *day.period()).outcome == "clean"
    assert moving.has_moved and day.rows() == [] and day.world.refunds(withdrawal_id) == 1


def test_our_own_side_is_read_again_too(day: Day) -> None:
    few(day)
    forgotten, before = day.world.paid(), day.period()
    utr = day.attempt(forgotten).utr
    day.world.sql("UPDATE payout_attempts SET utr = '5' WHERE withdrawal_id = :id", id=forgotten)

    def mended() -> None:
        day.world.sql(
            "UPDATE payout_attempts SET utr = :utr WHERE withdrawal_id = :id", utr=utr, id=forgotten
        )

    looked_at = f"/v1/payouts/{day.payout(forgotten)}"
    assert reconciliation.reconcile(Moving(looked_at, mended), *before).outcome == "clean"


def test_claimed_before_midnight_and_made_long_after_is_another_day_s(day: Day) -> None:
    day.world.simulator.post("advance", {"seconds": 5 * 3600})  # the provider was away for so long
    withdrawal_id = day.world.paid()
    now = day.world.sql("SELECT now() AS now")[0].now
    result = reconcile.run(now - timedelta(hours=1), now + timedelta(hours=1))
    assert (result.outcome, result.totals.payouts) == ("clean", 0)
    assert day.run().totals.payouts == 1 and day.world.read(withdrawal_id).status == "completed"


def test_a_debit_that_came_days_later_is_searched_for(day: Day) -> None:
    simulator = day.world.simulator
    simulator.post("balance", {"paise": 0})
    withdrawal_id = sent(day.world)
    midnight = datetime.fromtimestamp(simulator.get("health")["now"], INDIA)
    simulator.post("advance", {"seconds": 2 * 24 * 3600})
    simulator.post("balance", {"paise": 10**9})
    simulator.post("advance", {"seconds": 600})
    days, identity = timedelta(days=1), settings().razorpayx_identity
    listing = Listing(RazorpayX(settings()), outside.ACCOUNT)
    with patient_engine().connect() as connection:
        reading = Gathering(listing, connection, midnight - days, midnight, midnight + 3 * days, identity)
        (pair,) = reading.gather().pairs
    assert pair.ours and pair.ours.withdrawal_id == withdrawal_id
    assert [line.debit_paise for line in pair.lines] == [5590]


def test_more_missing_than_can_be_asked_for_is_an_incomplete_list(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(day)
    monkeypatch.setattr("shared.reconciliation.gathering.MOST_ALONE", 1)
    for withdrawal_id in day.paid:
        day.world.simulator.post(f"payouts/{day.payout(withdrawal_id)}/forget", {})
    result = day.run()
    assert result.outcome == "incomplete" and "lacks 2 payouts" in result.detail and day.rows() == []


def test_money_added_to_the_account_is_no_exception(day: Day, tmp_path: Path) -> None:
    few(day)
    day.provider.add_line(credit=1_000_000, source="bank_transfer")
    assert ran(day, tmp_path).exit_code == 0
    assert "Money added to the account: 1 times, ₹10,000.00" in summary(tmp_path)


@pytest.mark.parametrize("down", ["500", "drop", "503html"])
def test_a_provider_that_cannot_be_read_makes_no_record(
    day: Day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, down: str
) -> None:
    few(day)
    monkeypatch.setattr("shared.razorpayx.listing.FIRST_WAIT_SECONDS", 0.01)
    day.world.simulator.settings(down=down)
    done = ran(day, tmp_path)
    assert done.exit_code == 2 and "RazorpayX could not be read completely" in done.output
    assert day.rows() == [] and list(tmp_path.iterdir()) == []
    run = day.world.sql("SELECT outcome, detail, finished_at FROM reconciliation_runs")[0]
    assert run.outcome == "incomplete" and "/v1/payouts" in run.detail and run.finished_at


def test_a_list_that_lies_empty_is_not_believed(day: Day, tmp_path: Path) -> None:
    few(day)
    day.world.simulator.settings(lookups="empty")
    assert ran(day, tmp_path).exit_code == 2
    assert day.rows() == []
