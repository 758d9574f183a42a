"""The documents are under test: every command runs, every JSON is what is answered, every name exists."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from click.testing import CliRunner

from sandbox.stack import Stack
from shared.cli import main
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs" / "api.md").read_text()
EXAMPLE_ID = "01a208a5-b724-779f-a85a-7688d7fa28bd"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "sandbox" / "razorpayx" / "README.md",
]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def curls() -> list[str]:
    """Every curl command of the README, continued lines joined."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("curl")]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack({"CANCEL_WINDOW_SECONDS": "3"}, flower=False, api_auth="off") as stack:
        for user_id in ("user123",):
            body = {"user_id": user_id, "coins": 20_000, "reference": "demo", "reason": "Welcome"}
            requests.post(f"{stack.info()['api']}/api/razorpay/wallet/credit/", json=body, timeout=10)
        yield stack


def run(command: str, stack: Stack) -> dict[str, Any]:
    here = stack.info()["api"].removeprefix("http://")
    words = shlex.split(command.replace("localhost:8000", here))
    done = subprocess.run(
        [*words, "--silent", "--fail-with-body"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", curls())
def test_every_curl_line_works(command: str, stack: Stack) -> None:
    assert run(command, stack)["success"] is True


def test_the_metrics_can_be_asked_for(stack: Stack) -> None:
    (command,) = blocks("sh", (ROOT / "docs" / "metrics.md").read_text())
    words = shlex.split(command.replace("localhost:8000", stack.info()["api"].removeprefix("http://")))
    done = subprocess.run([*words, "--silent", "--fail"], capture_output=True, text=True, timeout=30)
    assert 'payouts_up{service="database"} 1.0' in done.stdout


def check_sh(base: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "examples" / "check.sh"), base]
    environment = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_ten_checks_hold(stack: Stack) -> None:
    done = check_sh(stack.info()["api"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[:10]] == [
        ["ok", str(number)] for number in range(1, 11)
    ]
    assert done.stdout.splitlines()[10:] == ["0 of 10 failed"]


def test_the_ten_checks_say_when_nobody_is_there() -> None:
    done = check_sh("http://127.0.0.1:1")
    assert done.returncode == 10
    assert "nobody answers at http://127.0.0.1:1" in done.stdout


def test_the_json_is_what_the_first_line_answers(stack: Stack) -> None:
    shown = json.loads(blocks("json")[0])
    answered = run(curls()[0], stack)
    assert shown["message"] == answered["message"]
    assert list(shown["data"]) == list(answered["data"])
    same = ("amount", "rupees_amount", "upi_id", "status")
    assert [shown["data"][name] for name in same] == [answered["data"][name] for name in same]


def in_the_reference() -> list[tuple[str, Any]]:
    """Every curl command of docs/api.md, and what it is said to answer."""
    sections = REFERENCE.split("\n## ")
    both = [(blocks("sh", section), blocks("json", section)) for section in sections]
    return [(command[0].replace("\\\n", " "), json.loads(shown[0])) for command, shown in both if command]


@pytest.mark.parametrize(("command", "shown"), in_the_reference())
def test_every_curl_line_of_the_reference_answers_what_it_shows(
    command: str, shown: Any, stack: Stack
) -> None:
    if EXAMPLE_ID in command:
        made = run(f"{curls()[0]} -H 'Idempotency-Key: {uuid4()}'", stack)
        command = command.replace(EXAMPLE_ID, made["data"]["withdrawal_id"])
    answered = run(command, stack)
    assert answered["success"] is True
    assert built_like(answered, shown)


def built_like(answered: Any, shown: Any) -> bool:
    """The same names in the same order, all the way down; lists by their first items."""
    if isinstance(answered, dict) and isinstance(shown, dict):
        return list(answered) == list(shown) and all(
            built_like(answered[name], shown[name]) for name in shown
        )
    if isinstance(answered, list) and isinstance(shown, list):
        return all(built_like(*pair) for pair in zip(answered, shown, strict=False))
    return True


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 250


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def anchors(page: Path) -> set[str]:
    """What may stand behind the # of a link to the page, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w -]", "", one).strip().lower().replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_into_a_page_leads_to_a_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        there = page.parent / target if target else page
        assert anchor in anchors(there), f"{target}#{anchor}"


def test_every_picture_is_shown_and_is_made_by_a_test() -> None:
    pictures = {path.name for path in (ROOT / "docs" / "img").glob("*.png")}
    shown = {name for page in PAGES for name in re.findall(r"!\[[^]]+\]\(img/([^)]+)\)", page.read_text())}
    made = "".join(path.read_text() for path in (ROOT / "tests" / "panel").glob("*.py"))
    assert pictures == shown == set(re.findall(r'"([\w-]+\.png)"', made))


def test_every_file_that_the_readme_names_exists() -> None:
    for name in re.findall(r"`((?:api|shared|worker|sandbox|tests|docs)/[\w/.]*)`", README):
        assert (ROOT / name).exists(), name


def test_every_rule_that_the_readme_names_exists() -> None:
    migration = "".join(path.read_text() for path in (ROOT / "shared/migrations/versions").glob("*.py"))
    table = README.split("## The promises")[1].split("##")[0]
    for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", table):
        code = migration + "".join(path.read_text() for path in (ROOT / "shared/models").glob("*.py"))
        assert name in code or name in ("withdrawal_events",), name


@pytest.mark.parametrize("words", re.findall(r"`payouts ([a-z-]+)", README))
def test_every_payouts_command_exists(words: str) -> None:
    assert CliRunner().invoke(main, [words, "--help"]).exit_code == 0


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)|`make (\w+)", README, re.M))
def test_every_make_target_exists(target: tuple[str, str]) -> None:
    name = "".join(target)
    done = subprocess.run(["make", "--dry-run", name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_make_env_writes_what_compose_and_the_settings_need(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".env.example", tmp_path)
    command = [sys.executable, str(ROOT / "sandbox" / "dotenv.py")]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    written = dict(
        line.split("=", 1)
        for line in (tmp_path / ".env").read_text().splitlines()
        if re.match(r"[A-Z]", line)
    )
    assert all(written.values())
    compose = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{(\w+):\?", compose)) <= set(written)
    needed = {name.upper() for name, field in Settings.model_fields.items() if field.is_required()}
    assert needed - {"DATABASE_URL", "REDIS_URL"} <= set(written)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode != 0 and "there already" in again.stderr


def test_the_edges_in_the_database_are_those_of_the_code() -> None:
    from shared.states import EDGES

    sql = (ROOT / "shared/migrations/versions/0002_rules.py").read_text()
    told = re.search(r"NOT IN \((.*?)\) THEN", sql, re.S)
    assert told
    assert set(re.findall(r"\('(\w+)', '(\w+)'\)", told[1])) == {(str(a), str(b)) for a, b in EDGES}
