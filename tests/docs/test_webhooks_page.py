"""docs/webhooks.md: its commands run, its JSON is what comes, its receivers verify."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask

from shared.cli import main
from shared.notifications import addresses
from shared.settings import Settings
from shared.states import EDGES
from tests.integration.telling import listen, tell
from tests.receiver import receiving
from tests.world import World

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


@pytest.fixture
def delivered(world: World) -> Iterator[tuple[str, list[Any]]]:
    """A withdrawal's changes as they arrive, and the secret."""
    with receiving() as receiver:
        _, secret = listen(receiver.url)
        world.paid()
        tell()
        yield secret, receiver.messages


def test_the_commands_work_in_their_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_addresses", lambda _: ["93.184.216.34"])
    lines = "".join(blocks("sh")).splitlines()
    assert len(lines) == 6
    for line in lines:
        program, *words = shlex.split(line)
        done = CliRunner().invoke(main, words)
        assert program == "payouts" and done.exit_code == 0, (line, done.output)


def test_the_json_has_what_comes(delivered: tuple[str, list[Any]]) -> None:
    shown = json.loads(blocks("json")[0])
    came = json.loads(delivered[1][-1].body)
    assert list(shown) == list(came) and list(shown["data"]) == list(came["data"])
    same = (
        "user_id",
        "amount",
        "rupees_amount",
        "upi_id",
        "status",
        "previous_status",
        "sequence",
        "failure_reason",
    )
    assert {name: shown["data"][name] for name in same} == {name: came["data"][name] for name in same}
    assert {name: type(value) for name, value in shown["data"].items()} == {
        name: type(value) for name, value in came["data"].items()
    }


def test_the_python_receiver_keeps_the_newest_change(
    delivered: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, messages = delivered
    monkeypatch.setenv("PAYOUTS_WEBHOOK_SECRET", secret)
    code: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(blocks("python")[0], "docs/webhooks.md", "exec"), code)
    app: Flask = code["app"]
    client = app.test_client()
    for message in (*messages, messages[0]):
        headers = {name: value for name, value in message.headers.items() if name.startswith("webhook-")}
        assert client.post("/webhooks/payouts", data=message.body, headers=headers).status_code == 204
        assert client.post("/webhooks/payouts", data=message.body + b" ", headers=headers).status_code == 401
    [newest] = code["latest"].values()
    assert (newest["status"], newest["sequence"]) == ("completed", 3)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_the_node_receiver_is_javascript(tmp_path: Path) -> None:
    path = tmp_path / "receiver.mjs"
    path.write_text(blocks("js")[0])
    done = subprocess.run(["node", "--check", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_table_has_every_change_that_there_is() -> None:
    rows = re.findall(r"^\| `withdrawal\.(\w+)` \| (.*?) \|", PAGE, re.M)
    told = {(was, to) for to, words in rows for was in re.findall(r"`(\w+)`", words)}
    assert told == {(str(a), str(b)) for a, b in EDGES} | {("null", "pending")}


def test_the_times_are_the_defaults() -> None:
    fields = Settings.model_fields
    assert fields["notify_retry_seconds"].default == (5, 30, 120, 600, 1800, 3600, 7200)
    assert (
        fields["notify_give_up_seconds"].default == 24 * 3600
        and fields["notify_answer_seconds"].default == 10
    )
