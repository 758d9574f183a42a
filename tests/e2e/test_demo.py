"""`payouts demo`: what somebody sees who has just cloned the repository."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.demo import fates
from tests.e2e.command import Command, running

STORY_SECONDS = 240
pytestmark = pytest.mark.timeout(600)  # two stories, at the same time but on one machine
CURL = re.compile(r"^curl -X POST (?:.*\\\n)*.*", re.MULTILINE)  # with the lines that it goes on in


@dataclass
class Demos:
    """The demo twice at the same time, since each mostly waits: one that ends, one that stays."""

    once: Command
    staying: Command


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demos]:
    directory: Path = tmp_path_factory.mktemp("demo")
    with running("demo", output=directory / "staying") as staying:
        staying.wait_for("Everything answers", STORY_SECONDS)  # it has port 8000 now, where one is free
        with running("demo", "--once", output=directory / "once") as once:
            yield Demos(once, staying)


def test_the_demo_tells_all_five_fates_and_ends_well(demos: Demos) -> None:
    assert demos.once.code(STORY_SECONDS) == 0, demos.once.said()
    said = demos.once.said()
    assert "Differs" not in said
    told = {fate.title: [line for line in said.splitlines() if fate.title in line] for fate in fates()}
    assert len(told) == 5
    for fate in fates():
        for status in fate.ends:
            assert any(status in line for line in told[fate.title]), (fate.title, status, said)
    assert said.count("₹") >= 1 + len(told), "the table at the end has the rupees of each"
    assert "holds" in said
    assert "BROKEN" not in said


def test_the_printed_curl_line_works_and_ctrl_c_ends_it_all(demos: Demos) -> None:
    demos.staying.wait_for("Ctrl-C ends it all", STORY_SECONDS)
    line = CURL.search(demos.staying.said())
    assert line, demos.staying.said()
    done = subprocess.run(
        ["bash", "-c", line.group()], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["success"] is True, answer
    assert answer["data"]["rupees_amount"] == 50.0
    assert answer["data"]["status"] == "pending"
    assert demos.staying.end(signal.SIGINT) == 0
