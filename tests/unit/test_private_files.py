"""Files of ours that hold personal data or secrets are their owner's alone, whatever the umask."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.cli import proof
from shared.importing.report import report_to
from shared.reconciliation import papers
from shared.reconciliation.running import Result


@pytest.fixture(autouse=True)
def generous() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_report_of_an_import_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.with_name(".report.csv.part").write_text("what a killed run left")
    with report_to(path):
        assert mode(path.with_name(".report.csv.part")) == 0o600
    assert mode(path) == 0o600


def test_reconciliations_and_proofs_are_their_owners_alone(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    written = [*papers.write(Result(1, now, now), tmp_path), tmp_path / "proof.json"]
    proof._put({}, written[-1])
    assert [mode(path) for path in written] == [0o600] * 3
