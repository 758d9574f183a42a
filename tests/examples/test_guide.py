"""docs/integration.md, followed from start to end: every command, every JSON, and the page in a browser."""

import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from playwright.sync_api import Browser, expect

from api import error_responses
from sandbox.processes import wait_until
from sandbox.services import free_port
from tests.support.paths import ROOT, files

GUIDE = (ROOT / "docs" / "integration.md").read_text()
BLOCK = re.compile(r"^```(\w+) ?(\w*)\n(.*?)^```$", re.S | re.M)
CURL_AS_USER = 'curl -s "{api}/api/razorpay/wallet/?user_id=user123" -H "Authorization: Bearer {token}"'
READY_SECONDS = 60
RUN_SECONDS = 100
ARRIVE_SECONDS = 30
END_SECONDS = 30
PAGE_MS = 30_000
# Shorter waits than the guide shows.
QUICKER = {
    # The cancel window stays: the guide shows a withdrawal that can still be cancelled.
    "CANCEL_WINDOW_SECONDS=5": "CANCEL_WINDOW_SECONDS=5 --set SWEEP_SECONDS=0.5 --set SIM_SPEED=5",
}
# Values that differ in each run: only their presence and type are compared.
VARYING = {"withdrawal_id", "id", "created_at", "changed_at", "timestamp", "expected_by", "request_id", "utr",
           "iat", "exp"}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A code block of the guide: its language, the word after it, its text."""

    language: str
    kind: str
    text: str


def blocks() -> list[Block]:
    quick = GUIDE
    for shown, quicker in QUICKER.items():
        assert shown in quick
        quick = quick.replace(shown, quicker)
    return [Block(*groups) for groups in BLOCK.findall(quick)]


def assert_matches(shown: Any, answered: Any, name: str = "") -> None:
    """Assert the same names in the same order, and the same values unless they vary."""
    if isinstance(shown, dict):
        assert list(shown) == list(answered), name
        for key, value in shown.items():
            assert_matches(value, answered[key], key)
    elif isinstance(shown, list):
        assert len(shown) == len(answered), name
        for expected, actual in zip(shown, answered, strict=True):
            assert_matches(expected, actual, name)
    elif name in VARYING:
        assert type(shown) is type(answered), name
    else:
        assert shown == answered, name


class Reader:
    """A reader who follows the guide in a fresh clone, with several terminals."""

    def __init__(self, clone: Path, ports: dict[str, int]) -> None:
        self.clone = clone
        self._ports = ports
        self._state = clone.parent / "environment"
        self._state.write_text("")
        self._staying: list[subprocess.Popen[bytes]] = []
        self.answer = ""

    def follow(self, block: Block) -> None:
        """Run the block."""
        if block.kind == "stays":
            self._stay(block.text)
        elif block.language == "sh":
            self.answer = self.run(block.text)
        elif block.language == "python":
            self.answer = self._in_file(
                "snippet.py", block.text, "PYTHONPATH=examples/python .venv/bin/python"
            )
        elif block.language == "js":
            client = (ROOT / "examples/js/coin-payouts.mjs").as_uri()
            self.answer = self._in_file(
                "snippet.mjs", block.text.replace("./coin-payouts.mjs", client), "node"
            )

    def run(self, text: str) -> str:
        """Run in the second terminal, which keeps its variables."""
        script = f"set -e; . {self._state}\n{self._here(text)}\nexport -p > {self._state}\n"
        done = self._bash(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = done.communicate(timeout=RUN_SECONDS)
        assert done.returncode == 0, f"{text}\n{out.decode()}{err.decode()}"
        return out.decode()

    def _in_file(self, name: str, text: str, program: str) -> str:
        (self.clone / name).write_text(text)
        return self.run(f"{program} {name}")

    def _stay(self, text: str) -> None:
        """Run in a new terminal, without the variables of the others."""
        with (self.clone.parent / f"terminal{len(self._staying)}").open("wb") as output:
            process = self._bash(self._here(text), stdout=output, stderr=output)
        self._staying.append(process)
        ready = self._ready_when(text)
        wait_until(lambda: ready() or process.poll() is not None, READY_SECONDS, lambda: AssertionError(text))
        assert process.poll() is None, Path(str(output.name)).read_text()

    def _ready_when(self, text: str) -> Any:
        if "sandbox --env-file" in text:
            return (self.clone / "sandbox.env").exists
        port = self._ports["5173" if "serve.mjs" in text else "9000"]
        return lambda: _answers(f"http://localhost:{port}/")

    def _here(self, text: str) -> str:
        """Replace the ports by free ones."""
        for port, free in self._ports.items():
            text = re.sub(rf"(?<=[:=\s]){port}\b", str(free), text)
        return text

    def _bash(self, script: str, **streams: Any) -> subprocess.Popen[bytes]:
        clean = {name: os.environ[name] for name in ("PATH", "HOME", "CI") if name in os.environ}
        command = ["bash", "-c", script]
        return subprocess.Popen(command, cwd=self.clone, env=clean, start_new_session=True, **streams)

    def leave(self) -> None:
        """Ctrl-C in each terminal, the newest first."""
        for process in reversed(self._staying):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise

    # --- the steps that the text describes

    def port(self, of: str) -> str:
        return f"http://localhost:{self._ports[of]}"

    def pay_in_the_page(self, browser: Browser) -> None:
        """Request 500 coins in the form and wait until they are paid."""
        page = browser.new_page()
        page.goto(self.port("5173"))
        page.get_by_role("textbox", name="Coins").fill("500")
        page.get_by_role("textbox", name="UPI id").fill("user@okhdfcbank")
        page.get_by_role("button", name="Withdraw").click()
        first = page.get_by_test_id("withdrawal").first
        expect(first).to_contain_text("to user@okhdfcbank", timeout=PAGE_MS)
        expect(page.get_by_role("status")).to_contain_text("completed", timeout=PAGE_MS)
        expect(first).to_have_attribute("data-status", "completed")
        page.close()

    def claims(self) -> dict[str, Any]:
        """The claims of the token that the page gets."""
        token = requests.post(self.port("5173") + "/session", timeout=10).json()["token"]
        return dict(jwt.decode(token, options={"verify_signature": False}))

    def received(self, status: str) -> list[dict[str, Any]]:
        """The withdrawals that the receiver stored with this status."""
        with closing(sqlite3.connect(self.clone / "withdrawals.db")) as connection:
            rows = connection.execute("SELECT event FROM withdrawals WHERE status = ?", [status]).fetchall()
        return [json.loads(row[0]) for row in rows]


def _answers(url: str) -> bool:
    try:
        requests.get(url, timeout=1)
    except requests.RequestException:  # not yet, or not yet in time
        return False
    return True


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    clone = tmp_path / "clone"
    clone.mkdir()
    for path in ROOT.iterdir():
        if path.name != ".git":
            (clone / path.name).symlink_to(path)
    reader = Reader(clone, {port: free_port() for port in ("8000", "5173", "9000")})
    try:
        yield reader
    finally:
        reader.leave()


@pytest.mark.exhaustive
@pytest.mark.timeout(300)  # eight programs, one after the other
def test_following_the_guide_pays_from_each_client_and_receives_webhooks(
    reader: Reader, built: Path, node: str, browser: Browser
) -> None:
    shown = {block.kind: json.loads(block.text) for block in blocks() if block.language == "json"}
    paid = requested = 0
    for block in blocks():
        if block.kind == "answer":
            assert_matches(json.loads(block.text), json.loads(reader.answer))
        elif block.language != "json":
            reader.follow(block)
            paid += reader.answer.count("completed: paid, bank reference ")
            requested += reader.answer.startswith("requested ")
        if "serve.mjs" in block.text:
            reader.pay_in_the_page(browser)
            assert_matches(shown["token"], reader.claims())
        if "jwt.encode" in block.text:
            wallet = reader.run(CURL_AS_USER.format(token=reader.answer.strip(), api=reader.port("8000")))
            assert json.loads(wallet)["data"]["user_id"] == "user123"
    assert stat.S_IMODE((reader.clone / "sandbox.env").stat().st_mode) == 0o600, "it contains every secret"
    assert (paid, requested) == (3, 2)  # Python, Node, and Python again with a webhook; the two snippets
    assert reader.answer.splitlines()[-2:] == [
        "failed: This UPI id does not exist. Please check it.",
        "exit status 1",
    ]
    wait_until(lambda: reader.received("failed"), ARRIVE_SECONDS)
    [stored] = reader.received("completed")
    assert_matches(shown["webhook"]["data"], stored)
    assert shown["webhook"]["type"] == f"withdrawal.{stored['status']}"


def test_the_guide_lists_every_error_code() -> None:
    table = GUIDE.split("## 9.")[1].split("## 10.")[0]
    listed = set(re.findall(r"`([a-z_]+)`", "\n".join(re.findall(r"^\| \d.*? \| (.*?) \|", table, re.M))))
    withdrawal_files = [f"shared/withdrawals/{name}.py" for name in ("queries", "request", "request_rules")]
    other_files = ("shared/text/fields.py", "shared/coins/wallet.py", "shared/access/idempotency.py")
    sources = files("api/*.py", *withdrawal_files, *other_files, "shared/db/transactions.py")
    code = "\n".join(path.read_text() for path in sources)
    known = set(re.findall(r'code="(\w+)"', code)) | {
        error[2] for error in (*error_responses.HTTP_ERRORS.values(), error_responses.INTERNAL_ERROR)
    }
    assert known - listed == {"too_many_webhooks"}, "only RazorpayX gets this one"
    assert listed <= known


def test_every_upi_id_of_the_guide_names_a_scenario_of_the_simulator() -> None:
    scenarios = (ROOT / "sandbox/razorpayx/README.md").read_text()
    named = set(re.findall(r"([a-z0-9_.]+)(?:-7)?@sim", GUIDE))
    assert len(named) > 5
    assert [name for name in named if f"| `{name}` |" not in scenarios] == []
