"""A clean day raises nothing; each planted discrepancy is found and named once."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.reconciliation.days import Day, balances, lively, ran, summary, table
from tests.integration.reconciliation.planting import plant

pytestmark = pytest.mark.timeout(300)


@pytest.mark.failure(25)
def test_fifty_of_fifty_are_found_and_none_on_a_clean_day(day: Day, tmp_path: Path) -> None:
    lively(day)
    clean = day.run()
    assert clean.outcome == "clean", clean.detail or day.open()
    assert day.rows() == [] and clean.totals.payouts >= 60 and clean.totals.remainder == 0
    plant(day)
    before = balances(day.world)
    found = day.run()
    assert day.open() == Counter(day.planted)
    assert found.outcome == "exceptions" and found.exceptions == 50
    assert found.totals.remainder == 0
    records = [tuple(row[:8]) for row in day.rows()]
    done = ran(day, tmp_path)
    assert done.exit_code == 1
    assert [tuple(row[:8]) for row in day.rows()] == records
    assert balances(day.world) == before
    verdicts = Counter(row["verdict"] for row in table(tmp_path) if row["exceptions"])
    assert set(verdicts) == {kind for kind, _ in day.planted}
    assert {number for row in table(tmp_path) for number in re.findall(r"\d+", row["exceptions"])} == {
        str(row.id) for row in day.rows()
    }
    assert "It closes to zero." in summary(tmp_path)
    for kind, count in Counter(kind for kind, _ in day.planted).items():
        assert f"+ {count} x {kind}" in summary(tmp_path)
