"""Every scenario of the provider, end to end: requested over HTTP, ended by worker, webhook, poll or look-up."""

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

# In one process the same is shown in tests/shared/withdrawals and tests/api/test_provider_webhooks.py.
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(300),  # a start, and waits of FINAL_SECONDS on a busy machine
]
COINS = 500
BALANCE_COINS = 2000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a withdrawal ends, or why it waits."""

    status: str
    payouts: int  # in the provider's list
    keys: int  # different keys that the provider received
    refunds: int
    waits_for: str | None = None
    calls: int = 0  # calls about it before the result is checked


PAID = Outcome("completed", payouts=1, keys=1, refunds=0)
NOT_PAID = Outcome("failed", payouts=1, keys=1, refunds=1)
FAILED_THREE_TIMES = Outcome("failed", payouts=3, keys=3, refunds=1)  # a temporary failure that did not end
REFUSED = Outcome("failed", payouts=0, keys=1, refunds=1)
# Our balance or the stored payee is at fault: a retry may succeed.
REFUSED_THREE_TIMES = Outcome("failed", payouts=0, keys=3, refunds=1)
# The fault is in our account: the payout waits until an operator has corrected it.
OUR_ACCOUNT_REFUSED = Outcome("processing", 0, 1, 0, waits_for="provider_refuses_us", calls=2)
# Refused like wrong settings, while others are paid: this one waits for a person.
ON_HOLD = Outcome("processing", 0, 1, 0, waits_for="in_review", calls=2)

EXPECTED = {
    "success": PAID,
    "slow": PAID,
    "never": Outcome("processing", 1, 1, 0, waits_for="bank_processing", calls=3),
    "reversed": NOT_PAID,
    "failed.reversed": FAILED_THREE_TIMES,
    "queued": PAID,
    "queued.failed": FAILED_THREE_TIMES,
    "pending": PAID,
    "rejected": NOT_PAID,
    "cancelled": NOT_PAID,
    "fail.beneficiary_vpa_invalid": NOT_PAID,
    "fail.beneficiary_psp_offline": FAILED_THREE_TIMES,
    "fail.npci_beneficiary_timeout": FAILED_THREE_TIMES,
    "fail.beneficiary_bank_offline": FAILED_THREE_TIMES,
    "fail.beneficiary_bank_failure": FAILED_THREE_TIMES,
    "fail.beneficiary_bank_technical_error": FAILED_THREE_TIMES,
    "fail.beneficiary_bank_rejected": NOT_PAID,
    "fail.transaction_limit_exceeded": NOT_PAID,
    "fail.bank_account_closed": NOT_PAID,
    "fail.bank_account_frozen": NOT_PAID,
    "fail.beneficiary_account_dormant": NOT_PAID,
    "fail.bank_account_invalid": NOT_PAID,
    "fail.gateway_down": FAILED_THREE_TIMES,
    "fail.gateway_technical_error": FAILED_THREE_TIMES,
    "fail.gateway_timeout": FAILED_THREE_TIMES,
    "fail.insufficient_funds": FAILED_THREE_TIMES,
    "fail.server_error": NOT_PAID,
    "fail.server_error_temporary": FAILED_THREE_TIMES,
    "refuse.invalid_vpa": REFUSED,
    "refuse.amount_limit": REFUSED,
    "refuse.mode": ON_HOLD,
    "refuse.inactive": REFUSED_THREE_TIMES,
    "refuse.account_number": ON_HOLD,
    "refuse.insufficient_funds": REFUSED_THREE_TIMES,
    "refuse.ip": OUR_ACCOUNT_REFUSED,
    "refuse.url": OUR_ACCOUNT_REFUSED,
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
    "500.always": Outcome("processing", 0, 1, 0, waits_for="confirming", calls=5),
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
class Result:
    """The result of one scenario, from the API and from the provider."""

    item: dict[str, Any]
    balance: int
    refunds: int
    keys: set[str]
    payouts: list[dict[str, Any]]
    polls: int
    deliveries: list[dict[str, Any]]


@pytest.fixture(scope="module")
def results(shared: System) -> Iterator[dict[str, Result]]:
    """Run all scenarios at once, each with its own user and UPI id; read the results when nothing moves."""
    users = {name: shared.user(BALANCE_COINS) for name in SCENARIOS}
    with ThreadPoolExecutor(8) as threads:
        futures = {name: threads.submit(shared.withdraw, users[name], _upi_id(name), COINS) for name in users}
    ids = {name: future.result() for name, future in futures.items()}
    deadline = time.monotonic() + FINAL_SECONDS
    for name, withdrawal_id in ids.items():
        with suppress(TimeoutError):  # the test of that scenario reports the difference
            wait_until(lambda: _is_settled(shared, name, withdrawal_id), deadline - time.monotonic())  # noqa: B023
    wait_until(lambda: _webhooks_ended(shared), FINAL_SECONDS)
    yield _read_results(shared, users, ids)
    on_hold = re.findall(r"On hold, waiting for a decision: (.*)", shared.check())
    expected = {ids[name] for name, outcome in EXPECTED.items() if outcome is ON_HOLD}
    assert set(", ".join(on_hold).split(", ")) == expected


def _upi_id(name: str) -> str:
    return f"{name}-table@sim"


def _is_settled(system: System, name: str, withdrawal_id: str) -> bool:
    expected = EXPECTED[name]
    item = system.status(withdrawal_id)
    if (item["status"], item["status_reason"]) != (
        expected.status,
        expected.waits_for or item["status_reason"],
    ):
        return False
    return not expected.calls or _number_of_calls(system, withdrawal_id) >= expected.calls


def _number_of_calls(system: System, withdrawal_id: str) -> int:
    """The number of calls about a withdrawal: sends, look-ups and polls."""
    ids = {key for key, owner in system.keys().items() if owner == withdrawal_id}
    ids |= {payout["id"] for payout in system.payouts_of(withdrawal_id)}
    calls = system.provider.get("calls")["items"]
    return sum(any(id_ in f"{c['path']} {c['query']} {c['idempotency_key']}" for id_ in ids) for c in calls)


def _webhooks_ended(system: System) -> bool:
    under_way = {"waiting", "retrying"}
    return not any(hook["state"] in under_way for hook in system.provider.get("webhooks")["items"])


def _read_results(system: System, users: dict[str, str], ids: dict[str, str]) -> dict[str, Result]:
    keys = system.keys()
    calls = system.provider.get("calls")["items"]
    payouts = system.provider.payouts()
    hooks = system.provider.get("webhooks")["items"]
    results = {}
    for name, withdrawal_id in ids.items():
        mine = [payout for payout in payouts if payout["vpa"] == _upi_id(name)]
        payout_ids = {payout["id"] for payout in mine}
        sent = {c["idempotency_key"] for c in calls if c["path"] == "/v1/payouts" and c["method"] == "POST"}
        results[name] = Result(
            item=system.status(withdrawal_id),
            balance=system.balance(users[name]),
            refunds=system.refunds(users[name]),
            keys={key for key in sent if keys.get(key) == withdrawal_id},
            payouts=mine,
            polls=sum(c["path"].removeprefix("/v1/payouts/") in payout_ids for c in calls),
            deliveries=[hook for hook in hooks if hook["payout_id"] in payout_ids],
        )
    return results


def test_every_scenario_of_the_table_has_an_expected_outcome() -> None:
    assert set(EXPECTED) == set(SCENARIOS), "add the expected outcome of a new scenario to EXPECTED"


@pytest.mark.failure(18)
@pytest.mark.parametrize("name", EXPECTED)
def test_each_provider_scenario_ends_in_its_expected_outcome(results: dict[str, Result], name: str) -> None:
    result = results[name]
    expected = EXPECTED[name]
    outcome = (result.item["status"], len(result.payouts), len(result.keys), result.refunds)
    assert outcome == (expected.status, expected.payouts, expected.keys, expected.refunds), result
    assert result.balance == (BALANCE_COINS if expected.refunds else BALANCE_COINS - COINS)
    assert {payout["idempotency_key"] for payout in result.payouts} <= result.keys
    assert all(payout["amount"] == 5000 for payout in result.payouts)
    if expected.status == "completed":
        assert result.item["utr"] == result.payouts[0]["utr"]
        assert result.item["completed_at"]
    assert bool(result.item["failure_reason"]) == (expected.status == "failed")


@pytest.mark.failure(11)
@pytest.mark.parametrize("name", [name for name, outcome in EXPECTED.items() if outcome.waits_for])
def test_an_unknown_result_holds_the_coins_and_shows_a_reason_and_a_time(
    results: dict[str, Result], name: str
) -> None:
    item = results[name].item
    assert item["status_reason"] == EXPECTED[name].waits_for
    assert item["status_message"]
    assert item["expected_by"] > item["created_at"]
    assert (item["completed_at"], item["failure_reason"]) == (None, None)
    assert (results[name].refunds, results[name].balance) == (0, BALANCE_COINS - COINS)


@pytest.mark.failure(12)
@pytest.mark.parametrize("name", ["hook.lost", "cancelled"])
def test_without_webhooks_polling_finds_the_result(results: dict[str, Result], name: str) -> None:
    result = results[name]
    assert "delivered" not in {
        hook["state"]
        for hook in result.deliveries
        if hook["event"] in ("payout.processed", "payout.updated", "payout.cancelled")
    }
    assert result.polls >= 1
    assert result.item["status"] == EXPECTED[name].status


@pytest.mark.failure(8)
@pytest.mark.parametrize(("name", "copies"), [("hook.twice", 2), ("hook.many", 10)])
def test_every_copy_of_a_webhook_is_accepted_and_applied_once(
    results: dict[str, Result], name: str, copies: int
) -> None:
    result = results[name]
    times = Counter(hook["event_id"] for hook in result.deliveries)
    assert len(times) >= 3
    assert set(times.values()) == {copies}
    assert {(hook["state"], hook["last_status"], hook["attempts"]) for hook in result.deliveries} == {
        ("delivered", 200, 1)
    }


@pytest.mark.failure(9, 13)
@pytest.mark.parametrize("name", ["hook.disorder", "hook.early", "hook.oldsecret", "hook.late"])
def test_unusual_but_genuine_webhooks_are_accepted_on_first_delivery(
    results: dict[str, Result], name: str
) -> None:
    deliveries = results[name].deliveries
    assert {"payout.initiated", "payout.processed"} <= {hook["event"] for hook in deliveries}
    assert {(hook["last_status"], hook["attempts"]) for hook in deliveries} == {(200, 1)}


def test_a_webhook_is_accepted_when_it_comes_again_with_a_valid_signature(results: dict[str, Result]) -> None:
    deliveries = results["hook.badsign"].deliveries
    assert deliveries
    assert {(hook["state"], hook["last_status"], hook["attempts"]) for hook in deliveries} == {
        ("delivered", 200, 2)
    }


@pytest.mark.failure(13)
def test_a_forged_webhook_changes_nothing(shared: System) -> None:
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
    before = _number_of_calls(shared, withdrawal_id)
    wait_until(
        lambda: _number_of_calls(shared, withdrawal_id) > before, FINAL_SECONDS
    )  # queried once more since
    assert shared.status(withdrawal_id)["status"] == "processing"
    assert (shared.refunds(user_id), shared.balance(user_id)) == (0, 1500)


@pytest.mark.failure(10)
def test_a_payout_reversed_after_completion_refunds_the_coins_once(shared: System) -> None:
    """The bank returns the money days later: the only transition from `completed`."""
    user_id = shared.user()
    withdrawal_id = shared.withdraw(user_id, "success-reversed@sim")
    assert shared.wait_for(withdrawal_id) == "completed"
    assert shared.balance(user_id) == 1500
    payout_id = shared.payouts_of(withdrawal_id)[0]["id"]
    shared.provider.post(f"payouts/{payout_id}/status", {"status": "reversed"})
    assert shared.wait_for(withdrawal_id, "failed") == "failed"
    shared.provider.post("webhooks/replay", {"payout_id": payout_id})
    wait_until(lambda: _webhooks_ended(shared), FINAL_SECONDS)
    assert shared.status(withdrawal_id)["failure_reason"]
    assert (shared.refunds(user_id), shared.balance(user_id)) == (1, 2000)
    assert len(shared.payouts_of(withdrawal_id)) == 1
