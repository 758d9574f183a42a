"""A clean day raises no exception; each planted discrepancy is found and recorded once."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.shared.reconciliation.days import Day, balances, csv_rows, make_busy_day, reconcile, summary
from tests.shared.reconciliation.planting import plant

pytestmark = pytest.mark.timeout(300)


@pytest.mark.failure(25)
def test_fifty_of_fifty_planted_differences_are_found_and_none_on_a_clean_day(
    day: Day, tmp_path: Path
) -> None:
    make_busy_day(day)
    clean = day.run()
    assert clean.outcome == "clean", clean.detail or day.open()
    assert day.rows() == [] and clean.totals.payouts >= 60 and clean.totals.remainder == 0
    plant(day)
    before = balances(day.world)
    result = day.run()
    assert day.open() == Counter(day.planted)
    assert result.outcome == "exceptions" and result.exceptions == 50
    assert result.totals.remainder == 0
    records = [tuple(row[:8]) for row in day.rows()]
    command = reconcile(day, tmp_path)
    assert command.exit_code == 1
    assert [tuple(row[:8]) for row in day.rows()] == records
    assert balances(day.world) == before
    verdicts = Counter(row["verdict"] for row in csv_rows(tmp_path) if row["exceptions"])
    assert set(verdicts) == {kind for kind, _ in day.planted}
    assert {number for row in csv_rows(tmp_path) for number in re.findall(r"\d+", row["exceptions"])} == {
        str(row.id) for row in day.rows()
    }
    assert "The totals balance." in summary(tmp_path)
    for kind, count in Counter(kind for kind, _ in day.planted).items():
        assert f"+ {count} x {kind}" in summary(tmp_path)
