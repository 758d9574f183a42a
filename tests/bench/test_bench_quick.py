"""`make bench` with tiny sizes: every row starts real processes, measures, checks the promises and writes."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.ours import ROOT
from bench.rivals.shop import service as shop
from bench.rows import ROWS

CHEAP = "parts"  # one start
START_SECONDS = 600  # nine starts on a busy machine


def run(name: str, output: Path) -> str:
    command = [sys.executable, "-m", "bench", "--quick", "--rows", name, "--output", str(output)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=START_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"<!-- bench:{name} -->" in output.read_text()
    return done.stderr


@pytest.mark.timeout(START_SECONDS)
def test_a_row_is_measured_and_written(tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    run(CHEAP, output)
    text = output.read_text()
    assert "| Celery: send_task | " in text
    assert "PostgreSQL 18" in text and "(fsync on)" in text


@pytest.mark.exhaustive
@pytest.mark.timeout(START_SECONDS)
@pytest.mark.parametrize("name", [row.name for row in ROWS if row.name != CHEAP])
def test_each_row_runs_to_its_end(name: str, tmp_path: Path) -> None:
    """Without Django its rival is left out, and the run says so."""
    progress = run(name, tmp_path / "report.md")
    left_out = [line for line in progress.splitlines() if "left out: Django" in line]
    assert not left_out or shop.missing()
    assert f"{name}: round 1 of 1: " in progress


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rows", "creates"])
    assert "no row is named creates" in capsys.readouterr().err
