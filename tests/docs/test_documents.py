"""The documents: every command runs, every JSON matches the response, every name exists."""

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

from cli import main
from sandbox.stack import Stack
from shared.settings import Settings
from tests.support.paths import ROOT, files

README = (ROOT / "README.md").read_text()
LIFE = (ROOT / "docs" / "life-of-a-withdrawal.md").read_text()
REFERENCE = (ROOT / "docs" / "api.md").read_text()
EXAMPLE_ID = "01a208a5-b724-779f-a85a-7688d7fa28bd"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
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
    host = stack.info()["api"].removeprefix("http://")
    arguments = shlex.split(command.replace("localhost:8000", host))
    done = subprocess.run(
        [*arguments, "--silent", "--fail-with-body"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", curls())
def test_every_curl_command_of_the_readme_works(command: str, stack: Stack) -> None:
    assert run(command, stack)["success"] is True


def test_the_documented_metrics_command_works(stack: Stack) -> None:
    (command,) = blocks("sh", (ROOT / "docs" / "metrics.md").read_text())
    arguments = shlex.split(command.replace("localhost:8000", stack.info()["api"].removeprefix("http://")))
    done = subprocess.run([*arguments, "--silent", "--fail"], capture_output=True, text=True, timeout=30)
    assert 'payouts_up{service="database"} 1.0' in done.stdout


def check_sh(base: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "examples" / "check.sh"), base]
    environment = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_check_sh_passes_its_ten_checks(stack: Stack) -> None:
    done = check_sh(stack.info()["api"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[:10]] == [
        ["ok", str(number)] for number in range(1, 11)
    ]
    assert done.stdout.splitlines()[10:] == ["0 of 10 failed"]


def test_check_sh_reports_an_unreachable_api() -> None:
    done = check_sh("http://127.0.0.1:1")
    assert done.returncode == 10
    assert "no answer from http://127.0.0.1:1" in done.stdout


def test_the_json_of_the_readme_matches_the_response(stack: Stack) -> None:
    shown = json.loads(blocks("json")[0])
    answered = run(curls()[0], stack)
    assert shown["message"] == answered["message"]
    assert list(shown["data"]) == list(answered["data"])
    same = ("amount", "rupees_amount", "upi_id", "status")
    assert [shown["data"][name] for name in same] == [answered["data"][name] for name in same]


def reference_examples() -> list[tuple[str, Any]]:
    """Every curl command of docs/api.md with its documented response."""
    sections = REFERENCE.split("\n## ")
    examples = [(blocks("sh", section), blocks("json", section)) for section in sections]
    return [(command[0].replace("\\\n", " "), json.loads(shown[0])) for command, shown in examples if command]


@pytest.mark.parametrize(("command", "shown"), reference_examples())
def test_every_curl_command_of_the_reference_returns_the_documented_fields(
    command: str, shown: Any, stack: Stack
) -> None:
    if EXAMPLE_ID in command:
        created = run(f"{curls()[0]} -H 'Idempotency-Key: {uuid4()}'", stack)
        command = command.replace(EXAMPLE_ID, created["data"]["withdrawal_id"])
    answered = run(command, stack)
    assert answered["success"] is True
    assert has_same_names(answered, shown)


def has_same_names(answered: Any, shown: Any) -> bool:
    """True if both have the same names in the same order at every level, in lists up to the shorter one."""
    if isinstance(answered, dict) and isinstance(shown, dict):
        return list(answered) == list(shown) and all(
            has_same_names(answered[name], shown[name]) for name in shown
        )
    if isinstance(answered, list) and isinstance(shown, list):
        return all(has_same_names(*pair) for pair in zip(answered, shown, strict=False))
    return True


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_linked_file_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def anchors(page: Path) -> set[str]:
    """The anchors of the page, as GitHub derives them from headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_anchor_is_a_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        linked = page.parent / target if target else page
        assert anchor in anchors(linked), f"{target}#{anchor}"


def test_every_screenshot_is_shown_and_made_by_a_test() -> None:
    pictures = {path.name for path in (ROOT / "docs" / "img").glob("*.png")}
    shown = {name for page in PAGES for name in re.findall(r"!\[[^]]+\]\(img/([^)]+)\)", page.read_text())}
    tests = "".join(path.read_text() for path in files("tests/panel"))
    assert pictures == shown == set(re.findall(r'"([\w-]+\.png)"', tests))


def test_every_file_named_in_the_readme_and_the_life_page_exists() -> None:
    for name in re.findall(
        r"`((?:api|bench|cli|deploy|docs|examples|sandbox|shared|tests|worker)/[\w/.]*)`", README + LIFE
    ):
        assert (ROOT / name).exists(), name


def test_every_database_rule_named_for_a_promise_exists() -> None:
    migration = "".join(path.read_text() for path in files("shared/migrations/versions"))
    table = LIFE.split("## The promises")[1].split("##")[0]
    for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", table):
        code = migration + "".join(path.read_text() for path in files("shared/models"))
        assert name in code or name in ("withdrawal_events",), name


@pytest.mark.parametrize("command", re.findall(r"`payouts ([a-z-]+)", README))
def test_every_payouts_command_exists(command: str) -> None:
    assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0


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
    assert again.returncode != 0 and "exists already" in again.stderr


def test_the_transitions_in_the_database_match_the_code() -> None:
    from shared.states import EDGES

    sql = (ROOT / "shared/migrations/versions/0002_rules.py").read_text()
    match = re.search(r"NOT IN \((.*?)\) THEN", sql, re.S)
    assert match
    assert set(re.findall(r"\('(\w+)', '(\w+)'\)", match[1])) == {(str(a), str(b)) for a, b in EDGES}
