"""The clients in Python and JavaScript: the same tests for both, against the running system."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from sandbox.stack import ROOT
from shared.access import app_keys
from tests.e2e.system import System
from tests.examples.clients import Client, Failure, Mistake, coin_payouts, in_node, in_python
from tests.examples.conftest import worker_paused
from tests.examples.wire import BUSY, GARBLED, GATEWAY, LOST, MOVED, NO_ROUTE, TOO_MANY, UNAVAILABLE, Wire

PYTHON = "python"
NODE = "node"
UPI = "user@okhdfcbank"
Make = Callable[..., Client]


@pytest.fixture(params=[PYTHON, NODE])
def make(request: pytest.FixtureRequest) -> Make:
    """Create a client in the language: `make(url, key, max_tries)`."""
    if request.param == PYTHON:
        return in_python
    node = request.getfixturevalue("node")
    return lambda *args, **options: in_node(node, *args, **options)


@pytest.fixture
def client(make: Make, wire: Wire, system: System) -> Client:
    return make(wire.url, system.info["api_key"])


@pytest.fixture(scope="module")
def key_without_credit(system: System) -> str:
    """An API key without the scope `credit`, created by an operator."""
    scopes = [word for scope in app_keys.SCOPES if scope != "credit" for word in ("--scope", scope)]
    done = subprocess.run(
        [sys.executable, "-m", "cli", "keys", "create", "quiz-app", *scopes],
        env=system.stack.env, cwd=ROOT, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_unanswered_request_is_retried_with_its_key_and_runs_once(
    client: Client, wire: Wire, system: System
) -> None:
    user_id = system.user(2000)
    wire.fates.extend([LOST, GATEWAY, UNAVAILABLE, BUSY])
    created = client.withdraw(user_id, 500, UPI, key := coin_payouts.new_key())
    assert wire.keys() == [key] * 5
    assert wire.posts[3].at - wire.posts[2].at >= float(UNAVAILABLE.retry_after or 0)
    assert [item["id"] for item in system.history(user_id)] == [created["withdrawal_id"]]
    assert system.balance(user_id) == created["remaining_coins"] == 1500


@pytest.mark.parametrize("no_key", ["", None])
def test_a_withdrawal_without_a_key_is_not_sent(client: Client, wire: Wire, no_key: str | None) -> None:
    with pytest.raises(Mistake, match=r"create it with \w+\(\) and store it"):
        client.withdraw("user", 500, UPI, no_key)
    assert wire.posts == []


def test_a_cancellation_whose_response_was_lost_refunds_once(
    client: Client, wire: Wire, system: System
) -> None:
    user_id = system.user(2000)
    wire.fates.append(LOST)
    with worker_paused(system):
        cancelled = client.cancel(system.withdraw(user_id))
    assert (cancelled["status"], cancelled["refunded_coins"]) == ("cancelled", 500)
    assert len(wire.keys()) == 2 and len(set(wire.keys())) == 1
    assert (system.balance(user_id), system.refunds(user_id)) == (2000, 1)


def test_a_credit_whose_response_was_lost_adds_the_coins_once(
    client: Client, wire: Wire, system: System
) -> None:
    user_id = system.user(100)
    wire.fates.append(LOST)
    assert client.credit(user_id, 50, "quiz-42")["available_coins"] == 150
    assert client.wallet(user_id)["available_coins"] == 150


def test_a_refusal_is_raised_at_once_with_its_details(client: Client, wire: Wire, system: System) -> None:
    user_id = system.user(200)
    for amount, upi_id, code, extra in [
        (500, UPI, "insufficient_coins", {"available_coins": 200}),
        (50, UPI, "amount_too_low", {"min_amount": 100}),
        (100, "user#bank", "invalid_upi", {"example": UPI}),
    ]:
        with pytest.raises(Failure) as refused:
            client.withdraw(user_id, amount, upi_id, coin_payouts.new_key())
        error = refused.value
        assert (error.name, error.status, error.code, error.extra) == ("Refused", 400, code, extra)
    assert len(wire.posts) == 3


def test_limit_moved_is_retried_with_the_same_key(client: Client, wire: Wire, system: System) -> None:
    wire.fates.append(MOVED)
    client.withdraw(system.user(2000), 500, UPI, key := coin_payouts.new_key())
    assert wire.keys() == [key] * 2


def test_one_key_for_two_requests_is_refused(client: Client, system: System) -> None:
    user_id = system.user(2000)
    client.withdraw(user_id, 500, UPI, key := coin_payouts.new_key())
    with pytest.raises(Failure) as refused:
        client.withdraw(user_id, 600, UPI, key)
    assert (refused.value.name, refused.value.code) == ("Refused", "idempotency_key_reused")
    assert system.balance(user_id) == 1500


def test_a_wrong_key_and_a_missing_scope_raise_no_access(
    make: Make, wire: Wire, system: System, key_without_credit: str
) -> None:
    user_id = system.user(2000)
    with pytest.raises(Failure) as wrong:
        make(wire.url, "x" * 48).wallet(user_id)
    assert (wrong.value.name, wrong.value.status) == ("NoAccess", 401)
    with pytest.raises(Failure) as narrow:
        make(wire.url, key_without_credit).credit(user_id, 5, "quiz-42")
    assert (narrow.value.name, narrow.value.status) == ("NoAccess", 403)
    assert len(wire.posts) == 1


def test_a_client_that_gives_up_reports_that_the_result_is_unknown(
    make: Make, wire: Wire, system: System
) -> None:
    user_id = system.user(2000)
    impatient = make(wire.url, system.info["api_key"], max_tries=2)
    wire.fates.extend([LOST, LOST])
    with pytest.raises(Failure) as unknown:
        impatient.withdraw(user_id, 500, UPI, key := coin_payouts.new_key())
    assert (unknown.value.name, unknown.value.code) == ("TryLater", "no_answer")
    assert impatient.withdraw(user_id, 500, UPI, key)["remaining_coins"] == 1500
    assert len(system.history(user_id)) == 1


def test_a_gateway_error_after_a_lost_response_is_not_a_refusal(
    make: Make, wire: Wire, system: System
) -> None:
    """An app that takes it for a refusal would retry with a new key and pay twice."""
    user_id = system.user(2000)
    impatient = make(wire.url, system.info["api_key"], max_tries=2)
    wire.fates.extend([LOST, NO_ROUTE])
    with pytest.raises(Failure) as unknown:
        impatient.withdraw(user_id, 500, UPI, coin_payouts.new_key())
    assert (unknown.value.name, unknown.value.code) == ("TryLater", "not_ours")
    assert len(system.history(user_id)) == 1


def test_a_retry_after_of_a_minute_is_returned_and_not_waited_for(client: Client, wire: Wire) -> None:
    wire.fates.append(TOO_MANY)
    with pytest.raises(Failure) as later:
        client.withdraw("user", 500, UPI, coin_payouts.new_key())
    assert (later.value.name, later.value.code, later.value.retry_after) == ("TryLater", "rate_limited", 60)
    assert len(wire.posts) == 1


def test_a_failed_connection_raises_try_later(make: Make) -> None:
    with pytest.raises(Failure) as unreachable:
        make("http://127.0.0.1:1", "x" * 48, max_tries=1).wallet("user")
    assert (unreachable.value.name, unreachable.value.status) == ("TryLater", 0)


def test_an_unreadable_response_counts_as_no_answer(make: Make, wire: Wire, system: System) -> None:
    """The HTTP library reports an invalid header, but it is not one that the app sent."""
    wire.fates.append(GARBLED)
    with pytest.raises(Failure) as unknown:
        make(wire.url, system.info["api_key"], max_tries=1).withdraw("user", 500, UPI, "a-key")
    assert (unknown.value.name, unknown.value.code) == ("TryLater", "no_answer")


@pytest.mark.parametrize(
    ("url", "key"), [("http://127.0.0.1:1", "a-key-from\n-a-file"), ("127.0.0.1:1", "x" * 48), ("", "x" * 48)]
)
def test_an_invalid_url_or_key_is_a_mistake_and_not_try_later(make: Make, url: str, key: str) -> None:
    with pytest.raises(Mistake):
        make(url, key, max_tries=1).wallet("user")


def test_the_api_key_takes_precedence_over_a_netrc_file(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`requests` prefers the password of that file to a header."""
    user_id = system.user(2000)
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert in_python(system.info["api"], system.info["api_key"]).wallet(user_id)["available_coins"] == 2000


def test_a_history_of_several_pages_is_complete_and_in_order(client: Client, system: System) -> None:
    user_id = system.user(2000)
    with worker_paused(system):
        created = [system.withdraw(user_id, coins=100) for _ in range(7)]
        system.cancel(created[3])
    assert [item["id"] for item in client.history(user_id, page_size=3)] == created[::-1]
    assert [item["id"] for item in client.history(user_id, status="cancelled")] == [created[3]]


def test_the_python_client_returns_datetimes_and_decimals(system: System) -> None:
    user_id = system.user(2000)
    payouts = coin_payouts.CoinPayouts(system.info["api"], system.info["api_key"])
    with worker_paused(system):
        created = payouts.withdraw(user_id, 125, UPI, idempotency_key=coin_payouts.new_key())
        current = payouts.status(created.withdrawal_id)
    assert created.rupees_amount == Decimal("12.5") and isinstance(created.rupees_amount, Decimal)
    assert abs((datetime.now(UTC) - current.created_at).total_seconds()) < 30
    assert current.expected_by is not None and current.expected_by > current.created_at
    assert (current.status, current.is_final, current.status_message) == (
        "pending", False, "You can still cancel. The payment starts when the cancellation window closes.",
    )  # fmt: skip


class Script:
    """The running `withdraw` script of one language."""

    def __init__(self, program: list[str], system: System, key: str, user_id: str, *arguments: str) -> None:
        environment = os.environ | {"PAYOUTS_URL": system.info["api"], "PAYOUTS_KEY": key}
        self._process = subprocess.Popen(
            [*program, user_id, *arguments],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def wait_for_exit(self, code: int) -> list[str]:
        """Wait for this exit status; returns the lines of the output."""
        output = self._process.communicate(timeout=60)[0]
        assert self._process.returncode == code, output
        return output.splitlines()


@pytest.fixture
def programs(node: str) -> dict[str, list[str]]:
    return {
        "asha": [sys.executable, "examples/python/withdraw.py"],
        "ravi": [node, "examples/js/withdraw.mjs"],
    }


def test_both_scripts_credit_withdraw_and_show_each_status(
    programs: dict[str, list[str]], system: System
) -> None:
    def start(user: str) -> Script:
        arguments = ("500", UPI, "--credit", "2000", "--key", f"key-of-{user}")
        return Script(programs[user], system, system.info["api_key"], user, *arguments)

    for user, script in [(user, start(user)) for user in programs]:
        lines = script.wait_for_exit(0)
        [item] = system.history(user)
        assert lines[:3] == [
            f"idempotency key key-of-{user}",
            "2000 coins credited, balance 2000",
            f"withdrawal {item['id']}: 500 coins, ₹50.00",
        ]
        assert lines[3].startswith("pending: You can still cancel")
        assert lines[-1] == f"completed: paid, bank reference {item['utr']}"
        # A second run with the same key: the same withdrawal, and no more coins.
        assert start(user).wait_for_exit(0)[2:3] == [f"withdrawal {item['id']}: 500 coins, ₹50.00"]
        assert system.balance(user) == 1500
    system.assert_paid_once(system.history(user)[0]["id"] for user in programs)


def test_the_scripts_exit_with_1_if_the_withdrawal_was_not_paid(
    programs: dict[str, list[str]], system: System, key_without_credit: str
) -> None:
    last_lines = {
        ("50", UPI): "Refused: Withdrawal amount too low: Minimum withdrawal is 100 coins",
        ("100", "fail.beneficiary_vpa_invalid@sim"): "failed: This UPI id does not exist. Please check it.",
    }
    user_id = system.user(2000)
    scripts = [
        (last_line, Script(program, system, key_without_credit, user_id, *arguments, "--credit", "5"))
        for program in programs.values()
        for arguments, last_line in last_lines.items()
    ]
    for last_line, script in scripts:
        lines = script.wait_for_exit(1)
        assert lines[1].startswith("no coins credited: Not allowed")
        assert lines[-1] == last_line
    assert system.balance(user_id) == 2000
