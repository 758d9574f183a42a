"""Metrics that several processes share: slots outlive their processes, directories do not."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from shared.telemetry import metric_files
from tests.support.paths import ROOT

# Counts the given number of rate-limited requests, then prints its slot.
COUNT = """
import sys
from shared.telemetry import metric_files, metrics
metrics.RATE_LIMITED.labels("key").inc(int(sys.argv[1]))
print(metric_files.slot(), flush=True)
sys.stdin.read()
"""


def process(directory: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    env = {**os.environ, metric_files.DIRECTORY_VARIABLE: str(directory)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, env=env, **pipes)


def start_counting(directory: Path, number: int) -> tuple[subprocess.Popen[str], int]:
    started = process(directory, COUNT, str(number))
    return started, int(started.stdout.readline())


def total(directory: Path) -> float:
    """Return the sum, as a scrape reads it from the files."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))
    return registry.get_sample_value("payouts_rate_limited_total", {"limit": "key"}) or 0.0


def test_a_killed_process_leaves_its_counts_to_the_next_one(tmp_path: Path) -> None:
    first, slot_of_first = start_counting(tmp_path, 3)
    second, slot_of_second = start_counting(tmp_path, 4)
    assert {slot_of_first, slot_of_second} == {1, 2}
    assert total(tmp_path) == 7
    first.kill()
    first.communicate()
    third, slot_of_third = start_counting(tmp_path, 5)
    assert slot_of_third == slot_of_first
    assert total(tmp_path) == 12
    second.communicate("")
    third.communicate("")
    assert total(tmp_path) == 12
    assert len(list(tmp_path.glob("counter_*.db"))) == 2


def test_a_child_of_a_fork_counts_in_a_slot_of_its_own(tmp_path: Path) -> None:
    code = """
import os
from shared.telemetry import metric_files, metrics
metrics.RATE_LIMITED.labels("key").inc()
ours = metric_files.slot()
child = os.fork()
if not child:
    metrics.RATE_LIMITED.labels("key").inc()
    os._exit(metric_files.slot())
print(ours, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    output, _ = process(tmp_path, code).communicate(timeout=30)
    assert output.split() == ["1", "2"]
    assert total(tmp_path) == 2


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_directory_is_empty_at_each_start_and_those_of_dead_processes_go(temporary: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    first = metric_files.fresh_directory()
    assert first and first.parent.stat().st_mode & 0o077 == 0
    (first / "counter_1.db").write_text("old")
    (first.parent / str(ended.pid)).mkdir()
    (first.parent / str(os.getppid())).mkdir()  # of a running process
    assert metric_files.fresh_directory() == first
    assert list(first.iterdir()) == []
    assert {path.name for path in first.parent.iterdir()} == {str(os.getpid()), str(os.getppid())}


def test_a_directory_that_others_can_write_to_is_not_used(temporary: Path) -> None:
    directory = metric_files.fresh_directory()
    assert directory
    directory.parent.chmod(0o777)
    assert metric_files.fresh_directory() is None


def test_metric_files_are_not_sparse(tmp_path: Path) -> None:
    started, slot = start_counting(tmp_path, 1)
    started.communicate("")
    for kind in metric_files.FILE_KINDS:
        file = (tmp_path / f"{kind}_{slot}.db").stat()
        assert file.st_size == metric_files.FILE_BYTES and file.st_blocks * 512 >= metric_files.FILE_BYTES


def test_a_directory_that_cannot_be_used_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    started = process(
        tmp_path / "file", COUNT.replace("metric_files.slot()", "metric_files.directory()"), "1"
    )
    output, _ = started.communicate("", timeout=30)
    assert output.strip() == "None"


def test_without_a_directory_each_process_reports_its_own_metrics(tmp_path: Path) -> None:
    removed = tmp_path / "gone"
    removed.mkdir()
    code = f"""
import shutil
from prometheus_client import generate_latest
from shared.telemetry import metric_files, metrics
metrics.RATE_LIMITED.labels("key").inc(2)
shutil.rmtree({str(removed)!r})
print(metric_files.directory(), generate_latest(metrics.REGISTRY).decode())
"""
    output, _ = process(removed, code).communicate(timeout=30)
    assert output.startswith("None") and 'payouts_rate_limited_total{limit="key"} 2.0' in output


def test_on_a_full_disk_each_process_reports_its_own_metrics(tmp_path: Path) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # no file can grow further, as on a full disk
from prometheus_client import generate_latest
from shared.telemetry import metric_files, metrics
metrics.RATE_LIMITED.labels("key").inc(2)
print(metric_files.directory(), generate_latest(metrics.REGISTRY).decode())
"""
    output, _ = process(tmp_path, code).communicate(timeout=30)
    assert output.startswith("None") and 'payouts_rate_limited_total{limit="key"} 2.0' in output
