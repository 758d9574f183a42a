"""Everything that RazorpayX may do, end to end: asked for over HTTP, ended by worker, webhook, poll or look-up."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from sandbox.processes import wait_until
from sandbox.razorpayx.scenarios import SCENARIOS
from tests.e2e.system import FINAL_SECONDS, System

pytestmark = pytest.mark.timeout(300)  # a start, and waits of FINAL_SECONDS on a busy machine
COINS, HAS = 500, 2000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a withdrawal ends, or why it waits."""

    status: str
    payouts: int  # in the provider's list
    keys: int  # different ones that the provider saw
    refunds: int
    waits_for: str | None = None
    asked: int = 0  # calls about it after which waiting counts as waiting


PAID = Outcome("completed", payouts=1, keys=1, refunds=0)
NOT_PAID = Outcome("failed", payouts=1, keys=1, refunds=1)
TRIED_THRICE = Outcome("failed", payouts=3, keys=3, refunds=1)  # a passing cause that did not pass
REFUSED = Outcome("failed", payouts=0, keys=1, refunds=1)
# Our purse, or what we remember of the payee: may be in order the next time.
REFUSED_THRICE = Outcome("failed", payouts=0, keys=3, refunds=1)
# Not this payout's fault but ours: it waits until somebody has mended our account.
OURS_TO_MEND = Outcome("processing", 0, 1, 0, waits_for="provider_refuses_us", asked=2)
# Refused as wrong settings are, while others are paid: this one waits for a person.
SET_ASIDE = Outcome("processing", 0, 1, 0, waits_for="in_review", asked=2)

EXPECTED = {
    "success": PAID,
    "slow": PAID,
    "never": Outcome("processing", 1, 1, 0, waits_for="bank_processing", asked=3),
    "reversed": NOT_PAID,
    "failed.reversed": TRIED_THRICE,
    "queued": PAID,
    "queued.failed": TRIED_THRICE,
    "pending": PAID,
    "rejected": NOT_PAID,
    "cancelled": NOT_PAID,
    "fail.beneficiary_vpa_invalid": NOT_PAID,
    "fail.beneficiary_psp_offline": TRIED_THRICE,
    "fail.npci_beneficiary_timeout": TRIED_THRICE,
    "fail.beneficiary_bank_offline": TRIED_THRICE,
    "fail.beneficiary_bank_failure": TRIED_THRICE,
    "fail.beneficiary_bank_technical_error": TRIED_THRICE,
    "fail.beneficiary_bank_rejected": NOT_PAID,
    "fail.transaction_limit_exceeded": NOT_PAID,
    "fail.bank_account_closed": NOT_PAID,
    "fail.bank_account_frozen": NOT_PAID,
    "fail.beneficiary_account_dormant": NOT_PAID,
    "fail.bank_account_invalid": NOT_PAID,
    "fail.gateway_down": TRIED_THRICE,
    "fail.gateway_technical_error": TRIED_THRICE,
    "fail.gateway_timeout": TRIED_THRICE,
    "fail.insufficient_funds": TRIED_THRICE,
    "fail.server_error": NOT_PAID,
    "fail.server_error_temporary": TRIED_THRICE,
    "refuse.invalid_vpa": REFUSED,
    "refuse.amount_limit": REFUSED,
    "refuse.mode": SET_ASIDE,
    "refuse.inactive": REFUSED_THRICE,
    "refuse.account_number": SET_ASIDE,
    "refuse.insufficient_funds": REFUSED_THRICE,
    "refuse.ip": OURS_TO_MEND,
    "refuse.url": OURS_TO_MEND,
    "refuse.fund_account": Outcome("failed", payouts=0, keys=0, refunds=1),
    "drop": PAID,
    "drop.before": PAID,
    "silent.after": PAID,
    "silent.before": PAID,
    "silent.late": PAID,
    "504": PAID,
    "504.json": PAID,
    "504.before": PAID,
    "500": PAID,
    "500.after": PAID,
    # Sent four times, then looked up: absent is not failed, so the coins stay held.
    "500.always": Outcome("processing", 0, 1, 0, waits_for="confirming", asked=5),
    "500.fund_account": PAID,
    "429": PAID,
    "401": PAID,
    "409": PAID,
    "garbage": PAID,
    "empty": PAID,
    "wrong": PAID,
    "hook.lost": PAID,
    "hook.twice": PAID,
    "hook.many": PAID,
    "hook.disorder": PAID,
    "hook.early": PAID,
    "hook.badsign": PAID,
    "hook.oldsecret": PAID,
    "hook.late": PAID,
}


@dataclass(slots=True)
class Told:
    """What became of one scenario: by the API, and by the provider."""

    item: dict[str, Any]
    balance: int
    refunds: int
    keys: set[str]
    payouts: list[dict[str, Any]]
    polls: int
    deliveries: list[dict[str, Any]]


@pytest.fixture(scope="module")
def results(shared: System) -> Iterator[dict[str, Told]]:
    """All at once, each for a user and a UPI id of its own; looked at when nothing moves any more."""
    users = {name: shared.user(HAS) for name in SCENARIOS}
    with ThreadPoolExecutor(8) as threads:
        asked = {name: threads.submit(shared.withdraw, users[name], _upi_id(name), COINS) for name in users}
    ids = {name: one.result() for name, one in asked.items()}
    deadline = time.monotonic() + FINAL_SECONDS
    for name, withdrawal_id in ids.items():
        with suppress(TimeoutError):  # that scenario's own test says what it found instead
            wait_until(lambda: _rests(shared, name, withdrawal_id), deadline - time.monotonic())  # noqa: B023
    wait_until(lambda: _hooks_rest(shared), FINAL_SECONDS)
    yield _look(shared, users, ids)
    waiting = re.findall(r"Waiting for a person: (.*)", shared.check())
    set_aside = {ids[name] for name, wanted in EXPECTED.items() if wanted is SET_ASIDE}
    assert set(", ".join(waiting).split(", ")) == set_aside


def _upi_id(name: str) -> str:
    return f"{name}-table@sim"


def _rests(system: System, name: str, withdrawal_id: str) -> bool:
    wanted = EXPECTED[name]
    item = system.status(withdrawal_id)
    if (item["status"], item["status_reason"]) != (wanted.status, wanted.waits_for or item["status_reason"]):
        return False
    return not wanted.asked or _asked(system, withdrawal_id) >= wanted.asked


def _asked(system: System, withdrawal_id: str) -> int:
    """How often the provider was asked about a withdrawal: sent, looked up or polled."""
    about = {key for key, one in system.keys().items() if one == withdrawal_id}
    about |= {payout["id"] for payout in system.payouts_of(withdrawal_id)}
    calls = system.provider.get("calls")["items"]
    return sum(
        any(word in f"{c['path']} {c['query']} {c['idempotency_key']}" for word in about) for c in calls
    )


def _hooks_rest(system: System) -> bool:
    under_way = {"waiting", "retrying"}
    return not any(hook["state"] in under_way for hook in system.provider.get("webhooks")["items"])


def _look(system: System, users: dict[str, str], ids: dict[str, str]) -> dict[str, Told]:
    keys = system.keys()
    calls = system.provider.get("calls")["items"]
    payouts, hooks = system.provider.payouts(), system.provider.get("webhooks")["items"]
    told = {}
    for name, withdrawal_id in ids.items():
        mine = [payout for payout in payouts if payout["vpa"] == _upi_id(name)]
        payout_ids = {payout["id"] for payout in mine}
        sent = {c["idempotency_key"] for c in calls if c["path"] == "/v1/payouts" and c["method"] == "POST"}
        told[name] = Told(
            item=system.status(withdrawal_id),
            balance=system.balance(users[name]),
            refunds=system.refunds(users[name]),
            keys={key for key in sent if keys.get(key) == withdrawal_id},
            payouts=mine,
            polls=sum(c["path"].removeprefix("/v1/payouts/") in payout_ids for c in calls),
            deliveries=[hook for hook in hooks if hook["payout_id"] in payout_ids],
        )
    return told


def test_every_scenario_of_the_table_has_an_expected_outcome() -> None:
    assert set(EXPECTED) == set(SCENARIOS), "write down in EXPECTED how a new scenario must end"


@pytest.mark.failure(18)
@pytest.mark.parametrize("name", EXPECTED)
def test_every_scenario_ends_as_it_must(results: dict[str, Told], name: str) -> None:
    told, wanted = results[name], EXPECTED[name]
    found = (told.item["status"], len(told.payouts), len(told.keys), told.refunds)
    assert found == (wanted.status, wanted.payouts, wanted.keys, wanted.refunds), told
    assert told.balance == (HAS if wanted.refunds else HAS - COINS)
    assert {payout["idempotency_key"] for payout in told.payouts} <= told.keys
    assert all(payout["amount"] == 5000 for payout in told.payouts)
    if wanted.status == "completed":
        assert told.item["utr"] == told.payouts[0]["utr"]
        assert told.item["completed_at"]
    assert bool(told.item["failure_reason"]) == (wanted.status == "failed")


@pytest.mark.failure(11)
@pytest.mark.parametrize("name", [name for name, outcome in EXPECTED.items() if outcome.waits_for])
def test_what_is_not_known_is_held_and_says_why_and_until_when(results: dict[str, Told], name: str) -> None:
    item = results[name].item
    assert item["status_reason"] == EXPECTED[name].waits_for
    assert item["status_message"]
    assert item["expected_by"] > item["created_at"]
    assert (item["completed_at"], item["failure_reason"]) == (None, None)
    assert (results[name].refunds, results[name].balance) == (0, HAS - COINS)


@pytest.mark.failure(12)
@pytest.mark.parametrize("name", ["hook.lost", "cancelled"])
def test_without_a_webhook_polling_finds_the_end(results: dict[str, Told], name: str) -> None:
    told = results[name]
    assert "delivered" not in {
        hook["state"]
        for hook in told.deliveries
        if hook["event"] in ("payout.processed", "payout.updated", "payout.cancelled")
    }
    assert told.polls >= 1
    assert told.item["status"] == EXPECTED[name].status


@pytest.mark.failure(8)
@pytest.mark.parametrize(("name", "copies"), [("hook.twice", 2), ("hook.many", 10)])
def test_every_copy_of_a_webhook_is_accepted_and_works_once(
    results: dict[str, Told], name: str, copies: int
) -> None:
    told = results[name]
    times = Counter(hook["event_id"] for hook in told.deliveries)
    assert len(times) >= 3
    assert set(times.values()) == {copies}
    assert {(hook["state"], hook["last_status"], hook["attempts"]) for hook in told.deliveries} == {
        ("delivered", 200, 1)
    }


@pytest.mark.failure(9, 13)
@pytest.mark.parametrize("name", ["hook.disorder", "hook.early", "hook.oldsecret", "hook.late"])
def test_odd_but_genuine_webhooks_are_accepted_at_once(results: dict[str, Told], name: str) -> None:
    deliveries = results[name].deliveries
    assert {"payout.initiated", "payout.processed"} <= {hook["event"] for hook in deliveries}
    assert {(hook["last_status"], hook["attempts"]) for hook in deliveries} == {(200, 1)}


def test_a_webhook_is_accepted_once_its_signature_is_right(results: dict[str, Told]) -> None:
    deliveries = results["hook.badsign"].deliveries
    assert deliveries
    assert {(hook["state"], hook["last_status"], hook["attempts"]) for hook in deliveries} == {
        ("delivered", 200, 2)
    }


@pytest.mark.failure(13)
def test_a_forged_webhook_moves_nothing(shared: System) -> None:
    user_id = shared.user()
    withdrawal_id = shared.withdraw(user_id, "never-forged@sim")
    wait_until(lambda: shared.payouts_of(withdrawal_id), FINAL_SECONDS)
    shared.wait_for(withdrawal_id, "processing")
    payout = shared.payouts_of(withdrawal_id)[0]
    entity = {"id": payout["id"], "status": "failed", "amount": 5000, "reference_id": payout["reference_id"]}
    body = json.dumps({"event": "payout.failed", "payload": {"payout": {"entity": entity}}}).encode()
    headers = {
        "X-Razorpay-Signature": "0" * 64,
        "x-razorpay-event-id": "forged",
        "Content-Type": "application/json",
    }
    answer = requests.post(shared.url + "webhook/", data=body, headers=headers, timeout=10)
    assert answer.status_code in (400, 401, 403)
    before = _asked(shared, withdrawal_id)
    wait_until(lambda: _asked(shared, withdrawal_id) > before, FINAL_SECONDS)  # looked at once more since
    assert shared.status(withdrawal_id)["status"] == "processing"
    assert (shared.refunds(user_id), shared.balance(user_id)) == (0, 1500)


@pytest.mark.failure(10)
def test_a_payout_reversed_after_it_completed_gives_the_coins_back_once(shared: System) -> None:
    """The bank sends the money back days later: the one way out of `completed`."""
    user_id = shared.user()
    withdrawal_id = shared.withdraw(user_id, "success-reversed@sim")
    assert shared.wait_for(withdrawal_id) == "completed"
    assert shared.balance(user_id) == 1500
    payout_id = shared.payouts_of(withdrawal_id)[0]["id"]
    shared.provider.post(f"payouts/{payout_id}/status", {"status": "reversed"})
    assert shared.wait_for(withdrawal_id, "failed") == "failed"
    shared.provider.post("webhooks/replay", {"payout_id": payout_id})
    wait_until(lambda: _hooks_rest(shared), FINAL_SECONDS)
    assert shared.status(withdrawal_id)["failure_reason"]
    assert (shared.refunds(user_id), shared.balance(user_id)) == (1, 2000)
    assert len(shared.payouts_of(withdrawal_id)) == 1
