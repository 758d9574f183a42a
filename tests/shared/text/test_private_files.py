"""Files with personal data or secrets are readable only by their owner, whatever the umask."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli import proof
from shared.importing.report import report_writer
from shared.reconciliation import report
from shared.reconciliation.run import Result


@pytest.fixture(autouse=True)
def permissive_umask() -> Iterator[None]:
    umask = os.umask(0)
    yield
    os.umask(umask)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_only_the_owner_can_read_the_report_of_an_import(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.with_name(".report.csv.part").write_text("the rest of a killed run")
    with report_writer(path):
        assert mode(path.with_name(".report.csv.part")) == 0o600
    assert mode(path) == 0o600


def test_only_the_owner_can_read_reconciliation_files_and_proofs(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    written = [*report.write_files(Result(1, now, now), tmp_path), tmp_path / "proof.json"]
    proof._write({}, written[-1])
    assert [mode(path) for path in written] == [0o600] * 3
