"""docs/webhooks.md: its commands run, its JSON matches a delivery, its receivers verify."""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from standardwebhooks import Webhook

from shared.net import addresses
from shared.settings import Settings
from shared.states import EDGES
from tests.support.paths import ROOT
from tests.support.receiver import webhook_receiver
from tests.support.shell import invoke
from tests.support.webhook_steps import add_endpoint, run_notifier
from tests.support.world import World

PAGE = (ROOT / "docs" / "webhooks.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


@pytest.fixture
def delivered(world: World) -> Iterator[tuple[str, list[Any]]]:
    """The secret, and a withdrawal's changes as they arrive."""
    with webhook_receiver() as receiver:
        _, secret = add_endpoint(receiver.url)
        world.paid()
        run_notifier()
        yield secret, receiver.messages


def test_the_commands_work_in_their_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_getaddrinfo", lambda _: ["93.184.216.34"])
    lines = "".join(blocks("sh")).splitlines()
    assert len(lines) == 6
    for line in lines:
        program, *arguments = shlex.split(line)
        done = invoke(*arguments)
        assert program == "payouts" and done.exit_code == 0, (line, done.output)


def test_the_json_matches_a_delivery(delivered: tuple[str, list[Any]]) -> None:
    shown = json.loads(blocks("json")[0])
    received = json.loads(delivered[1][-1].body)
    assert list(shown) == list(received) and list(shown["data"]) == list(received["data"])
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
    assert {name: shown["data"][name] for name in same} == {name: received["data"][name] for name in same}
    assert {name: type(value) for name, value in shown["data"].items()} == {
        name: type(value) for name, value in received["data"].items()
    }


Sent = tuple[bytes, dict[str, str], int]  # a body, its headers, and the status that the receiver must answer


def sent(secret: str, messages: list[Any]) -> list[Sent]:
    """The deliveries, the first one twice; altered ones; an unknown event type; and invalid signatures."""
    good = [
        (message.body, {"Content-Type": "application/json", **signed(message)})
        for message in (*messages, messages[0])
    ]
    now = datetime.now(UTC)
    other = json.dumps({"type": "wallet.frozen", "data": {}})
    later = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", now, other),
    }
    headers = good[0][1]
    return [
        *((body, headers_sent, 204) for body, headers_sent in good),
        *((body + b" ", headers_sent, 400) for body, headers_sent in good),
        (other.encode(), headers | later, 204),
        *((good[0][0], headers | {"webhook-signature": odd}, 400) for odd in ("v1", "v1,a,b", "v1,%", "")),
        (b"\xff", headers, 400),
    ]


def signed(message: Any) -> dict[str, str]:
    return {name: value for name, value in message.headers.items() if name.startswith("webhook-")}


def test_the_python_receiver_keeps_the_newest_change(
    delivered: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, messages = delivered
    monkeypatch.setenv("PAYOUTS_WEBHOOK_SECRET", secret)
    code: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(blocks("python")[0], "docs/webhooks.md", "exec"), code)
    app: Flask = code["app"]
    client = app.test_client()
    for body, headers, status in sent(secret, messages):
        answer = client.post("/webhooks/payouts", data=body, headers=headers)
        assert answer.status_code == status, (body, headers)
    [newest] = code["latest"].values()
    assert (newest["status"], newest["sequence"]) == ("completed", 3)


# Stand-ins for the two packages that the receiver of the page uses, which are not installed here.
EXPRESS = """
const express = () => {
  let receive;
  const post = (_path, _raw, handler) => (receive = handler);
  const send = ([body, headers]) => {
    let status;
    receive({ body: Buffer.from(body, "base64"), headers }, { sendStatus: (given) => (status = given) });
    return status;
  };
  return { post, listen: () => console.log(JSON.stringify(JSON.parse(process.env.SENT).map(send))) };
};
express.raw = () => null;
export default express;
"""
STANDARD_WEBHOOKS = """
import { createHmac } from "node:crypto";

export class Webhook {
  constructor(secret) {
    this.key = Buffer.from(secret.slice("whsec_".length), "base64");
  }
  verify(body, { "webhook-id": id, "webhook-timestamp": at, "webhook-signature": given }) {
    const signature = createHmac("sha256", this.key).update(`${id}.${at}.${body}`).digest("base64");
    if (!given.split(" ").includes(`v1,${signature}`)) throw new Error("No matching signature found");
    return JSON.parse(body.toString());
  }
}
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_the_node_receiver_keeps_the_newest_change(delivered: tuple[str, list[Any]], tmp_path: Path) -> None:
    for name, text in {"express": EXPRESS, "standardwebhooks": STANDARD_WEBHOOKS}.items():
        package = tmp_path / "node_modules" / name
        package.mkdir(parents=True)
        (package / "package.json").write_text(json.dumps({"type": "module", "exports": "./index.js"}))
        (package / "index.js").write_text(text)
    path = tmp_path / "receiver.mjs"
    path.write_text(blocks("js")[0] + "console.log(JSON.stringify([...latest.values()]));\n")
    secret, messages = delivered
    requests = sent(secret, messages)
    encoded = json.dumps([(base64.b64encode(body).decode(), headers) for body, headers, _ in requests])
    environment = os.environ | {"PAYOUTS_WEBHOOK_SECRET": secret, "SENT": encoded}
    done = subprocess.run(["node", str(path)], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    statuses, [newest] = map(json.loads, done.stdout.splitlines())
    assert statuses == [status for *_, status in requests]
    assert (newest["status"], newest["sequence"]) == ("completed", 3)


def test_the_table_lists_every_change() -> None:
    rows = re.findall(r"^\| `withdrawal\.(\w+)` \| (.*?) \|", PAGE, re.M)
    listed = {(was, to) for to, words in rows for was in re.findall(r"`(\w+)`", words)}
    assert listed == {(str(a), str(b)) for a, b in EDGES} | {("null", "pending")}


def test_the_times_are_the_defaults() -> None:
    fields = Settings.model_fields
    assert fields["notify_retry_seconds"].default == (5, 30, 120, 600, 1800, 3600, 7200)
    assert (
        fields["notify_give_up_seconds"].default == 24 * 3600
        and fields["notify_answer_seconds"].default == 10
    )
