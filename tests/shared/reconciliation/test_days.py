"""Midnights, lists that change while they are read, and providers that cannot be read or return
wrong data.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared import reconciliation
from shared.clock import INDIA
from shared.db.engines import unbounded_engine
from shared.providers.clients import client
from shared.providers.razorpayx.client import RazorpayXClient
from shared.providers.razorpayx.listing import Listing
from shared.reconciliation import days
from shared.reconciliation.fetch import PeriodFetcher
from shared.settings import settings
from tests.shared.reconciliation.days import Day, make_small_day, reconcile, sent, summary
from tests.support import simulator as outside

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", ["queued-1@sim", "slow-1@sim", "reversed-1@sim", "failed.reversed-1@sim"])
def test_a_payout_across_midnight_is_no_exception_on_either_day(day: Day, name: str) -> None:
    simulator = day.world.simulator
    simulator.post("speed", {"speed": 1})
    day.world.credit(reference="late")
    withdrawal_id = day.world.request(upi_id=name)
    day.world.step(withdrawal_id)
    created_at = int(simulator.payouts()[0]["created_at"])
    midnight = datetime.fromtimestamp(created_at + 1, INDIA)
    simulator.post("advance", {"seconds": 7200})
    day.world.finish(withdrawal_id, steps=3)
    before = midnight - timedelta(days=1)
    after = midnight + timedelta(days=1)
    for _ in range(2):
        assert days.run(client(), before, midnight).outcome == "clean", day.open()
        assert days.run(client(), midnight, after).outcome == "clean", day.open()
    assert day.rows() == []


def test_money_that_is_returned_later_belongs_to_the_later_day(day: Day) -> None:
    withdrawal_id = day.world.paid()
    midnight = datetime.fromtimestamp(day.world.simulator.get("health")["now"] + 3600, INDIA)
    day.world.simulator.post("advance", {"seconds": 3 * 24 * 3600})
    day.provider.set_status(day.payout(withdrawal_id), "reversed")
    later = days.run(client(), midnight, midnight + timedelta(days=4))
    assert (later.outcome, later.applied, later.totals.payouts) == ("clean", 1, 1)
    assert (later.totals.credits, later.totals.reversed) == (5590, 5590)
    assert day.world.refunds(withdrawal_id) == 1


class ChangingProvider:
    """A provider that runs `then` right after the first page of one of its lists was read."""

    def __init__(self, path: str, then: Callable[[], Any]) -> None:
        self.provider = RazorpayXClient(settings())
        self.path = path
        self.then = then
        self.has_changed = False

    def get(self, path: str, query: dict[str, str | int]) -> Any:
        answer = self.provider.get(path, query)
        if path == self.path and not self.has_changed:
            self.has_changed = True
            self.then()
        return answer

    def listing(self) -> Listing:
        return Listing(self, outside.ACCOUNT)


def test_payouts_that_change_between_two_lists_are_fetched_again(day: Day) -> None:
    withdrawal_id = day.world.paid()
    payout_id = day.payout(withdrawal_id)
    # The list shows processed, but the statement already has the credit.
    provider = ChangingProvider("/v1/transactions", lambda: day.provider.set_status(payout_id, "reversed"))
    assert reconciliation.reconcile(provider, *day.period()).outcome == "clean"
    assert provider.has_changed and day.rows() == [] and day.world.refunds(withdrawal_id) == 1


def test_our_side_is_read_again_too(day: Day) -> None:
    make_small_day(day)
    withdrawal_id = day.world.paid()
    before = day.period()
    utr = day.attempt(withdrawal_id).utr
    day.world.sql("UPDATE payout_attempts SET utr = '5' WHERE withdrawal_id = :id", id=withdrawal_id)

    def repair() -> None:
        day.world.sql(
            "UPDATE payout_attempts SET utr = :utr WHERE withdrawal_id = :id", utr=utr, id=withdrawal_id
        )

    lookup = f"/v1/payouts/{day.payout(withdrawal_id)}"
    assert reconciliation.reconcile(ChangingProvider(lookup, repair), *before).outcome == "clean"


def test_a_payout_claimed_before_midnight_and_created_after_belongs_to_the_next_day(day: Day) -> None:
    day.world.simulator.post("advance", {"seconds": 5 * 3600})  # the provider was down that long
    withdrawal_id = day.world.paid()
    now = day.world.sql("SELECT now() AS now")[0].now
    result = days.run(client(), now - timedelta(hours=1), now + timedelta(hours=1))
    assert (result.outcome, result.totals.payouts) == ("clean", 0)
    assert day.run().totals.payouts == 1 and day.world.read(withdrawal_id).status == "completed"


def test_a_debit_days_later_is_searched_for(day: Day) -> None:
    simulator = day.world.simulator
    simulator.post("balance", {"paise": 0})
    withdrawal_id = sent(day.world)
    midnight = datetime.fromtimestamp(simulator.get("health")["now"], INDIA)
    simulator.post("advance", {"seconds": 2 * 24 * 3600})
    simulator.post("balance", {"paise": 10**9})
    simulator.post("advance", {"seconds": 600})
    one_day = timedelta(days=1)
    identity = settings().razorpayx_identity
    listing = Listing(RazorpayXClient(settings()), outside.ACCOUNT)
    with unbounded_engine().connect() as connection:
        fetcher = PeriodFetcher(
            listing, connection, midnight - one_day, midnight, midnight + 3 * one_day, identity
        )
        (pair,) = fetcher.fetch().pairs
    assert pair.ours and pair.ours.withdrawal_id == withdrawal_id
    assert [line.debit_paise for line in pair.lines] == [5590]


def test_more_missing_payouts_than_lookups_mean_an_incomplete_list(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small_day(day)
    monkeypatch.setattr("shared.reconciliation.fetch.MAX_SINGLE_LOOKUPS", 1)
    for withdrawal_id in day.paid:
        day.world.simulator.post(f"payouts/{day.payout(withdrawal_id)}/forget", {})
    result = day.run()
    assert result.outcome == "incomplete" and "lacks 2 payouts" in result.detail and day.rows() == []


def test_money_added_to_the_account_is_no_exception(day: Day, tmp_path: Path) -> None:
    make_small_day(day)
    day.provider.add_line(credit=1_000_000, source="bank_transfer")
    assert reconcile(day, tmp_path).exit_code == 0
    assert "Deposits to the account: 1, ₹10,000.00" in summary(tmp_path)


@pytest.mark.parametrize("down", ["500", "drop", "503html"])
def test_an_unreadable_provider_creates_no_record(
    day: Day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, down: str
) -> None:
    make_small_day(day)
    monkeypatch.setattr("shared.providers.razorpayx.listing.FIRST_WAIT_SECONDS", 0.01)
    day.world.simulator.settings(down=down)
    command = reconcile(day, tmp_path)
    assert command.exit_code == 2 and "RazorpayX's lists could not be read completely" in command.output
    assert day.rows() == [] and list(tmp_path.iterdir()) == []
    run = day.world.sql("SELECT outcome, detail, finished_at FROM reconciliation_runs")[0]
    assert run.outcome == "incomplete" and "/v1/payouts" in run.detail and run.finished_at


def test_a_false_empty_list_is_not_trusted(day: Day, tmp_path: Path) -> None:
    make_small_day(day)
    day.world.simulator.settings(lookups="empty")
    assert reconcile(day, tmp_path).exit_code == 2
    assert day.rows() == []
