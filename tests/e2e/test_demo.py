"""`payouts demo`: the first command after cloning the repository."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.demo import cases
from tests.e2e.command import Command, running

DEMO_SECONDS = 240
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(600),
]  # two demos at the same time on one machine
CURL = re.compile(r"^curl -X POST (?:.*\\\n)*.*", re.MULTILINE)  # with its continuation lines


@dataclass
class Demos:
    """Two demos at the same time, since each mostly waits: one exits, one keeps running."""

    once: Command
    staying: Command


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demos]:
    directory: Path = tmp_path_factory.mktemp("demo")
    with running("demo", output=directory / "staying") as staying:
        staying.wait_for("Everything is ready", DEMO_SECONDS)  # it now has port 8000, if that was free
        with running("demo", "--once", output=directory / "once") as once:
            yield Demos(once, staying)


def test_the_demo_shows_all_five_cases_and_exits_with_0(demos: Demos) -> None:
    assert demos.once.wait(DEMO_SECONDS) == 0, demos.once.text()
    output = demos.once.text()
    assert "Differs" not in output
    lines_of = {case.title: [line for line in output.splitlines() if case.title in line] for case in cases()}
    assert len(lines_of) == 5
    for case in cases():
        for status in case.expected:
            assert any(status in line for line in lines_of[case.title]), (case.title, status, output)
    assert output.count("₹") >= 1 + len(lines_of), "the table at the end shows the rupees of each case"
    assert "holds" in output
    assert "BROKEN" not in output


def test_the_printed_curl_command_works_and_ctrl_c_stops_everything(demos: Demos) -> None:
    demos.staying.wait_for("Press Ctrl-C", DEMO_SECONDS)
    line = CURL.search(demos.staying.text())
    assert line, demos.staying.text()
    done = subprocess.run(
        ["bash", "-c", line.group()], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["success"] is True, answer
    assert answer["data"]["rupees_amount"] == 50.0
    assert answer["data"]["status"] == "pending"
    assert demos.staying.end(signal.SIGINT) == 0
