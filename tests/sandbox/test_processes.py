"""A part is one child process; nothing of it outlives its parent, however the parent ends."""

import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest

from sandbox.processes import Part, PartFailed, wait_until
from tests.sandbox.programs import lives, readable, running

SLEEP = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()  # as a pool does: a child in the same group that no signal to its parent reaches
print("up", flush=True)
signal.pause()
"""
PARENT = """
import signal, sys
from sandbox.processes import Part
parts = [Part(str(n), [sys.executable, "-c", sys.argv[2]], log=f"{sys.argv[1]}/{n}.log") for n in (1, 2)]
for part in parts:
    part.start()
for part in parts:
    part.wait_ready(lambda: part.log_text().count("up") == 2)
print("ready", flush=True)
signal.pause()
"""


def part(tmp_path: Path, argv: list[str] = SLEEP, **options: object) -> Part:
    return Part("sample", argv, log=tmp_path / "sample.log", **options)


def test_a_part_starts_restarts_and_stops(tmp_path: Path) -> None:
    sample = part(tmp_path)
    sample.ready = lambda: "up" in sample.log_text()
    with sample:
        first = psutil.Process(sample.pid)
        assert sample.alive
        sample.restart()
        assert sample.alive
        second = psutil.Process(sample.pid)
        assert second != first
        assert not first.is_running()
    assert not sample.alive
    assert sample.returncode == -signal.SIGTERM
    assert not second.is_running()


def test_the_log_of_a_restart_is_separate_from_the_previous_one(tmp_path: Path) -> None:
    with part(tmp_path) as sample:
        sample.wait_ready(lambda: "up" in sample.log_text(), 10)
        sample.kill()
        sample.start()
        sample.wait_ready(lambda: sample.log_text() == "up\n", 10)
        assert readable(tmp_path / "sample.log") == "up\nup\n"


def test_a_part_that_exits_early_is_reported_at_once_with_its_log(tmp_path: Path) -> None:
    broken = part(tmp_path, [sys.executable, "-c", "import sys; print('the reason'); sys.exit(3)"])
    broken.start()
    with pytest.raises(PartFailed, match=r"(?s)sample: ended with exit code 3 .*the reason") as failure:
        broken.wait_ready(lambda: False, 60)
    assert failure.value.name == "sample"
    broken.stop()


def test_a_program_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    broken = part(tmp_path, ["no-such-program"])
    broken.start()
    with pytest.raises(PartFailed, match="no-such-program"):
        broken.wait_ready(lambda: False, 60)
    broken.stop()


def test_a_part_that_starts_too_slowly_is_reported(tmp_path: Path) -> None:
    with part(tmp_path) as sample, pytest.raises(PartFailed, match=r"sample: not ready after 0.1 s"):
        sample.wait_ready(lambda: False, 0.1)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_ending_a_part_ends_its_whole_group(tmp_path: Path, end: str) -> None:
    sample = part(tmp_path, [sys.executable, "-c", STUBBORN], stop_seconds=0.2)
    sample.start()
    sample.wait_ready(lambda: sample.log_text().count("up") == 2, 10)
    family = [psutil.Process(sample.pid), *psutil.Process(sample.pid).children()]
    assert len(family) == 2
    getattr(sample, end)()
    assert not any(map(lives, family))
    assert sample.returncode == -signal.SIGKILL


def test_leftovers_of_a_dead_part_are_stopped_before_the_next_start(tmp_path: Path) -> None:
    sample = part(tmp_path, [sys.executable, "-c", STUBBORN], stop_seconds=0.2)
    with sample:
        sample.wait_ready(lambda: sample.log_text().count("up") == 2, 10)
        left = psutil.Process(sample.pid).children()
        os.kill(sample.pid, signal.SIGKILL)
        sample.wait(10)
        assert all(map(lives, left))
        sample.start()
        wait_until(lambda: not any(map(lives, left)), 2)  # killed before; a busy kernel takes a moment
        assert sample.alive


def test_a_part_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    # The kernel's death signal follows the thread; see the spawner.
    sample = part(tmp_path)
    thread = threading.Thread(target=sample.start)
    thread.start()
    thread.join()
    try:
        sample.wait_ready(lambda: "up" in sample.log_text(), 10)
        with pytest.raises(PartFailed, match="still running"):
            sample.wait(0.3)
    finally:
        sample.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_parent(tmp_path: Path, number: int) -> None:
    with running(PARENT, tmp_path, STUBBORN) as parent:
        assert parent.line() == "ready"
        assert len(parent.family()) == 6  # the parent, its keeper, two parts with a child each
        parent.end(number)
        parent.assert_nothing_left()


def test_without_its_keeper_a_parent_still_stops_its_parts(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the death signal is Linux's")
    source = STUBBORN.replace("os.fork()", "print('up')")
    with running(PARENT, tmp_path, source) as parent:
        assert parent.line() == "ready"
        keeper = next(process for process in parent.family() if process.cmdline()[-1].endswith("keeper.py"))
        keeper.kill()
        parent.end(signal.SIGKILL)
        parent.assert_nothing_left()


def test_waiting_ends_with_the_condition_or_an_error() -> None:
    looks = iter([False, False, True])
    wait_until(lambda: next(looks), 10)
    with pytest.raises(TimeoutError):
        wait_until(lambda: False, 0.05)
