"""The clients in Python and JavaScript: the same truths for both, against the running system."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from sandbox.stack import ROOT
from shared import app_keys
from tests.e2e.system import System
from tests.examples.clients import Client, Failure, Mistake, coin_payouts, in_node, in_python
from tests.examples.conftest import nobody_pays
from tests.examples.wire import BUSY, GARBLED, GATEWAY, LOST, MOVED, NO_ROUTE, TOO_MANY, UNAVAILABLE, Wire

PYTHON, NODE = "python", "node"
UPI = "user@okhdfcbank"
Make = Callable[..., Client]


@pytest.fixture(params=[PYTHON, NODE])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a client of the language: `make(url, key, max_tries)`."""
    if request.param == PYTHON:
        return in_python
    node = request.getfixturevalue("node")
    return lambda *args, **options: in_node(node, *args, **options)


@pytest.fixture
def client(make: Make, wire: Wire, system: System) -> Client:
    return make(wire.url, system.info["api_key"])


@pytest.fixture(scope="module")
def narrow_key(system: System) -> str:
    """An app's key, as an operator makes it, that may not give coins."""
    words = [word for scope in app_keys.SCOPES if scope != "credit" for word in ("--scope", scope)]
    done = subprocess.run(
        [sys.executable, "-m", "shared.cli", "keys", "create", "quiz-app", *words],
        env=system.stack.env, cwd=ROOT, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_was_not_answered_is_sent_again_under_its_key_and_done_once(
    client: Client, wire: Wire, system: System
) -> None:
    user_id = system.user(2000)
    wire.fates.extend([LOST, GATEWAY, UNAVAILABLE, BUSY])
    taken = client.withdraw(user_id, 500, UPI, key := coin_payouts.new_key())
    assert wire.keys() == [key] * 5
    assert wire.posts[3].at - wire.posts[2].at >= float(UNAVAILABLE.retry_after or 0)
    assert [item["id"] for item in system.history(user_id)] == [taken["withdrawal_id"]]
    assert system.balance(user_id) == taken["remaining_coins"] == 1500


@pytest.mark.parametrize("no_key", ["", None])
def test_without_a_key_no_withdrawal_is_sent_at_all(client: Client, wire: Wire, no_key: str | None) -> None:
    with pytest.raises(Mistake, match=r"make it with \w+\(\) and keep it"):
        client.withdraw("user", 500, UPI, no_key)
    assert wire.posts == []


def test_a_lost_answer_to_a_cancel_refunds_once(client: Client, wire: Wire, system: System) -> None:
    user_id = system.user(2000)
    wire.fates.append(LOST)
    with nobody_pays(system):
        cancelled = client.cancel(system.withdraw(user_id))
    assert (cancelled["status"], cancelled["refunded_coins"]) == ("cancelled", 500)
    assert len(wire.keys()) == 2 and len(set(wire.keys())) == 1
    assert (system.balance(user_id), system.refunds(user_id)) == (2000, 1)


def test_a_lost_answer_to_a_credit_gives_the_coins_once(client: Client, wire: Wire, system: System) -> None:
    user_id = system.user(100)
    wire.fates.append(LOST)
    assert client.credit(user_id, 50, "quiz-42")["available_coins"] == 150
    assert client.wallet(user_id)["available_coins"] == 150


def test_a_refusal_is_told_at_once_with_what_helps(client: Client, wire: Wire, system: System) -> None:
    user_id = system.user(200)
    for amount, upi_id, code, extra in [
        (500, UPI, "insufficient_coins", {"available_coins": 200}),
        (50, UPI, "amount_too_low", {"min_amount": 100}),
        (100, "user#bank", "invalid_upi", {"example": UPI}),
    ]:
        with pytest.raises(Failure) as refused:
            client.withdraw(user_id, amount, upi_id, coin_payouts.new_key())
        told = refused.value
        assert (told.name, told.status, told.code, told.extra) == ("Refused", 400, code, extra)
    assert len(wire.posts) == 3


def test_a_limit_that_is_reached_no_more_is_met_again_under_the_same_key(
    client: Client, wire: Wire, system: System
) -> None:
    wire.fates.append(MOVED)
    client.withdraw(system.user(2000), 500, UPI, key := coin_payouts.new_key())
    assert wire.keys() == [key] * 2


def test_one_key_for_two_wishes_is_refused(client: Client, system: System) -> None:
    user_id = system.user(2000)
    client.withdraw(user_id, 500, UPI, key := coin_payouts.new_key())
    with pytest.raises(Failure) as refused:
        client.withdraw(user_id, 600, UPI, key)
    assert (refused.value.name, refused.value.code) == ("Refused", "idempotency_key_reused")
    assert system.balance(user_id) == 1500


def test_a_wrong_key_and_one_without_the_scope_are_no_access(
    make: Make, wire: Wire, system: System, narrow_key: str
) -> None:
    user_id = system.user(2000)
    with pytest.raises(Failure) as wrong:
        make(wire.url, "x" * 48).wallet(user_id)
    assert (wrong.value.name, wrong.value.status) == ("NoAccess", 401)
    with pytest.raises(Failure) as narrow:
        make(wire.url, narrow_key).credit(user_id, 5, "quiz-42")
    assert (narrow.value.name, narrow.value.status) == ("NoAccess", 403)
    assert len(wire.posts) == 1


def test_whoever_gives_up_says_that_it_may_have_been_done(make: Make, wire: Wire, system: System) -> None:
    user_id = system.user(2000)
    impatient = make(wire.url, system.info["api_key"], max_tries=2)
    wire.fates.extend([LOST, LOST])
    with pytest.raises(Failure) as unknown:
        impatient.withdraw(user_id, 500, UPI, key := coin_payouts.new_key())
    assert (unknown.value.name, unknown.value.code) == ("TryLater", "no_answer")
    assert impatient.withdraw(user_id, 500, UPI, key)["remaining_coins"] == 1500
    assert len(system.history(user_id)) == 1


def test_a_gateways_no_after_a_lost_answer_is_no_refusal(make: Make, wire: Wire, system: System) -> None:
    """Whoever believed it would throw the key away, ask with a new one, and be paid twice."""
    user_id = system.user(2000)
    impatient = make(wire.url, system.info["api_key"], max_tries=2)
    wire.fates.extend([LOST, NO_ROUTE])
    with pytest.raises(Failure) as unknown:
        impatient.withdraw(user_id, 500, UPI, coin_payouts.new_key())
    assert (unknown.value.name, unknown.value.code) == ("TryLater", "not_ours")
    assert len(system.history(user_id)) == 1


def test_a_server_that_asks_for_a_minute_is_not_waited_for(client: Client, wire: Wire) -> None:
    wire.fates.append(TOO_MANY)
    with pytest.raises(Failure) as later:
        client.withdraw("user", 500, UPI, coin_payouts.new_key())
    assert (later.value.name, later.value.code, later.value.retry_after) == ("TryLater", "rate_limited", 60)
    assert len(wire.posts) == 1


def test_nobody_there_is_told_as_try_later(make: Make) -> None:
    with pytest.raises(Failure) as nobody:
        make("http://127.0.0.1:1", "x" * 48, max_tries=1).wallet("user")
    assert (nobody.value.name, nobody.value.status) == ("TryLater", 0)


def test_an_answer_that_nobody_can_read_is_no_answer(make: Make, wire: Wire, system: System) -> None:
    """What reads it says that a header is wrong, and does not mean one of ours."""
    wire.fates.append(GARBLED)
    with pytest.raises(Failure) as unknown:
        make(wire.url, system.info["api_key"], max_tries=1).withdraw("user", 500, UPI, "a-key")
    assert (unknown.value.name, unknown.value.code) == ("TryLater", "no_answer")


@pytest.mark.parametrize(
    ("url", "key"), [("http://127.0.0.1:1", "a-key-from\n-a-file"), ("127.0.0.1:1", "x" * 48), ("", "x" * 48)]
)
def test_what_can_never_be_sent_is_not_to_be_tried_later(make: Make, url: str, key: str) -> None:
    with pytest.raises(Mistake):
        make(url, key, max_tries=1).wallet("user")


def test_the_key_goes_before_what_a_netrc_has_for_the_host(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`requests` takes that file's password instead of a header."""
    user_id = system.user(2000)
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert in_python(system.info["api"], system.info["api_key"]).wallet(user_id)["available_coins"] == 2000


def test_a_history_of_many_pages_is_whole_and_in_order(client: Client, system: System) -> None:
    user_id = system.user(2000)
    with nobody_pays(system):
        made = [system.withdraw(user_id, coins=100) for _ in range(7)]
        system.cancel(made[3])
    assert [item["id"] for item in client.history(user_id, page_size=3)] == made[::-1]
    assert [item["id"] for item in client.history(user_id, status="cancelled")] == [made[3]]


def test_the_python_client_tells_times_and_rupees_as_such(system: System) -> None:
    user_id = system.user(2000)
    payouts = coin_payouts.CoinPayouts(system.info["api"], system.info["api_key"])
    with nobody_pays(system):
        taken = payouts.withdraw(user_id, 125, UPI, idempotency_key=coin_payouts.new_key())
        now = payouts.status(taken.withdrawal_id)
    assert taken.rupees_amount == Decimal("12.5") and isinstance(taken.rupees_amount, Decimal)
    assert abs((datetime.now(UTC) - now.created_at).total_seconds()) < 30
    assert now.expected_by is not None and now.expected_by > now.created_at
    assert (now.status, now.is_final, now.status_message) == (
        "pending", False, "You can still cancel; the payment starts after that.",
    )  # fmt: skip


class Script:
    """`withdraw` of one language, running."""

    def __init__(self, program: list[str], system: System, key: str, user_id: str, *arguments: str) -> None:
        environment = os.environ | {"PAYOUTS_URL": system.info["api"], "PAYOUTS_KEY": key}
        self._process = subprocess.Popen(
            [*program, user_id, *arguments],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def ends(self, code: int) -> list[str]:
        """What it said, once it has ended with this exit status."""
        said = self._process.communicate(timeout=60)[0]
        assert self._process.returncode == code, said
        return said.splitlines()


@pytest.fixture
def programs(node: str) -> dict[str, list[str]]:
    return {
        "asha": [sys.executable, "examples/python/withdraw.py"],
        "ravi": [node, "examples/js/withdraw.mjs"],
    }


def test_both_scripts_credit_withdraw_and_show_each_status(
    programs: dict[str, list[str]], system: System
) -> None:
    def started(user: str) -> Script:
        wish = ("500", UPI, "--credit", "2000", "--key", f"key-of-{user}")
        return Script(programs[user], system, system.info["api_key"], user, *wish)

    for user, script in [(user, started(user)) for user in programs]:
        said = script.ends(0)
        [item] = system.history(user)
        assert said[:3] == [
            f"idempotency key key-of-{user}",
            "2000 coins given, 2000 there",
            f"withdrawal {item['id']}: 500 coins, ₹50.00",
        ]
        assert said[3].startswith("pending: You can still cancel")
        assert said[-1] == f"completed: paid, bank reference {item['utr']}"
        # Run again with the same key: the same withdrawal, and no more coins.
        assert started(user).ends(0)[2:3] == [f"withdrawal {item['id']}: 500 coins, ₹50.00"]
        assert system.balance(user) == 1500
    system.assert_paid_once(system.history(user)[0]["id"] for user in programs)


def test_the_scripts_say_by_their_exit_status_what_was_not_paid(
    programs: dict[str, list[str]], system: System, narrow_key: str
) -> None:
    wishes = {
        ("50", UPI): "Refused: Withdrawal amount too low: Minimum withdrawal is 100 coins",
        ("100", "fail.beneficiary_vpa_invalid@sim"): "failed: This UPI id does not exist. Please check it.",
    }
    user_id = system.user(2000)
    scripts = [
        (words, Script(program, system, narrow_key, user_id, *wish, "--credit", "5"))
        for program in programs.values()
        for wish, words in wishes.items()
    ]
    for words, script in scripts:
        said = script.ends(1)
        assert said[1].startswith("no coins given: Not allowed")
        assert said[-1] == words
    assert system.balance(user_id) == 2000
