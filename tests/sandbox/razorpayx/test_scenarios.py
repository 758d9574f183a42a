"""Each scenario as a client sees it."""

import re
import uuid

import pytest
import requests

from sandbox.razorpayx.reasons import UPI_FAILURES
from sandbox.razorpayx.scenarios import REFUSALS, SCENARIOS

from .conftest import ACCOUNT, ROOT, Client, wait_until

BEFORE = {
    "drop.before": ("drop", 1),
    "504.before": (504, 1),
    "500": (500, 2),
    "429": (429, 2),
    "401": (401, 1),
    "silent.before": ("silence", 1),
}
AFTER = {"drop": "drop", "silent.after": "silence", "504": 504, "504.json": 504, "500.after": 500, "409": 409}


def attempt(sim: Client, body: dict, key: str, *, patience: float = 10) -> str | requests.Response:
    """The response, or the kind of failure."""
    try:
        return sim.send(body, key, timeout=patience)
    except requests.ReadTimeout:
        return "silence"
    except requests.ConnectionError:
        return "drop"


def patience_with(expected: str | int) -> float:
    """A short timeout if no response is expected, else one long enough for a busy machine."""
    return 0.4 if expected == "silence" else 10


def outcome(answer: str | requests.Response) -> str | int:
    return answer if isinstance(answer, str) else answer.status_code


def walk(sim: Client, payout_id: str) -> list[str]:
    (row,) = [row for row in sim.look("payouts")["items"] if row["id"] == payout_id]
    return [step["status"] for step in row["history"]]


def test_the_readme_and_the_table_agree():
    text = (ROOT / "sandbox/razorpayx/README.md").read_text()
    table = text.split("| scenario | what happens |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", table, re.MULTILINE))
    assert rows == {scenario.name: scenario.summary for scenario in SCENARIOS.values()}


def test_the_listed_scenarios_are_the_table(sim: Client):
    assert [item["name"] for item in sim.look("scenarios")["items"]] == list(SCENARIOS)


@pytest.mark.parametrize("vpa", ["asha@okbank", "success-7@sim", "SUCCESS-7@SIM"])
def test_a_success_is_processed_with_a_utr(sim: Client, vpa):
    first = sim.pay(vpa)
    assert first["status"] == "processing"
    done = sim.reaches(first["id"], "processed")
    assert re.fullmatch(r"[0-9]{12}", done["utr"])
    assert walk(sim, first["id"]) == ["processing", "processed"]


@pytest.mark.parametrize(
    "name,statuses",
    [
        ("slow", ["processing", "processing", "processed"]),
        ("reversed", ["processing", "processed", "reversed"]),
        ("failed.reversed", ["processing", "failed", "reversed"]),
        ("queued", ["queued", "processing", "processed"]),
        ("queued.failed", ["queued", "failed"]),
        ("pending", ["pending", "processing", "processed"]),
        ("rejected", ["pending", "rejected"]),
        ("cancelled", ["queued", "cancelled"]),
        ("never", ["processing", "processing"]),
    ],
)
def test_each_scenario_goes_through_its_statuses(sim: Client, name, statuses):
    opening = sim.balance()
    first = sim.pay(f"{name}-1@sim")
    assert first["status"] == statuses[0]
    sim.control("advance", seconds=60)
    assert walk(sim, first["id"]) == statuses
    paid_or_open = statuses[-1] in ("processed", "processing")
    assert sim.balance() == opening - (25590 if paid_or_open else 0)


def test_slow_takes_twenty_times_as_long_and_never_does_not_end(sim: Client):
    sim.control("speed", speed=0.01)
    slow, never = sim.pay("slow-1@sim"), sim.pay("never-1@sim")
    sim.control("advance", seconds=25)
    for payout in (slow, never):
        now = sim.payout(payout["id"])
        assert now["status"] == "processing"
        assert now["status_details"]["reason"] == "beneficiary_bank_confirmation_pending"
    sim.control("advance", seconds=10)
    assert sim.payout(slow["id"])["status"] == "processed"
    sim.control("advance", seconds=30 * 24 * 3600)
    assert sim.payout(never["id"])["status"] == "processing"


def test_failed_reversed_gives_the_money_back_only_with_the_reversal(sim: Client):
    sim.control("speed", speed=0.01)
    opening = sim.balance()
    payout = sim.pay("failed.reversed-1@sim")
    sim.control("advance", seconds=2)
    assert sim.payout(payout["id"])["status"] == "failed" and sim.balance() == opening - 25590
    sim.control("advance", seconds=2)
    assert sim.payout(payout["id"])["status"] == "reversed" and sim.balance() == opening


@pytest.mark.parametrize("reason", UPI_FAILURES)
def test_every_upi_failure_is_accepted_first_and_says_why(sim: Client, reason):
    first = sim.pay(f"fail.{reason}-7@sim")
    assert first["status"] == "processing"
    details = sim.reaches(first["id"], "failed")["status_details"]
    assert (details["reason"], details["source"]) == (reason, UPI_FAILURES[reason].source)


def test_lite_reports_a_failure_after_the_debit_as_reversed(sim: Client):
    sim.control("settings", lite=True)
    details = sim.reaches(sim.pay("fail.gateway_down-1@sim")["id"], "reversed")["status_details"]
    assert details["reason"] == "gateway_down"


@pytest.mark.parametrize("name", [*REFUSALS, "anything_else"])
def test_refusals_are_400_every_time_and_create_nothing(sim: Client, name):
    key = str(uuid.uuid4())
    body = sim.order(f"refuse.{name}-1@sim")
    for _ in range(2):
        answer = sim.send(body, key)
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "BAD_REQUEST_ERROR"
    assert sim.look("payouts")["count"] == 0


@pytest.mark.parametrize("name", BEFORE)
def test_faults_before_acceptance_create_nothing_until_a_later_call_works(sim: Client, name):
    expected, calls = BEFORE[name]
    key = str(uuid.uuid4())
    body = sim.order(f"{name}-1@sim")
    for _ in range(calls):
        answer = attempt(sim, body, key, patience=patience_with(expected))
        assert outcome(answer) == expected
        assert sim.made_by(key) == []
        if name == "429":
            assert answer.headers["Retry-After"] == "1"
        if name == "504.before":
            assert answer.headers["Content-Type"].startswith("text/html")
    assert outcome(attempt(sim, body, key)) == 200
    assert [row["create_calls"] for row in sim.made_by(key)] == [calls + 1]


@pytest.mark.parametrize("name", AFTER)
def test_faults_after_acceptance_still_create_the_payout(sim: Client, name):
    key = str(uuid.uuid4())
    body = sim.order(f"{name}-1@sim")
    answer = attempt(sim, body, key, patience=patience_with(AFTER[name]))
    assert outcome(answer) == AFTER[name]
    if name == "504":
        assert "<html>" in answer.text
    (row,) = wait_until(lambda: sim.made_by(key), "the payout")
    again = sim.send(body, key)
    assert again.status_code == 200 and again.json()["id"] == row["id"]
    assert len(sim.made_by(key)) == 1
    sim.reaches(row["id"], "processed")


def test_500_always_never_accepts(sim: Client):
    key = str(uuid.uuid4())
    body = sim.order("500.always-1@sim")
    assert [sim.send(body, key).status_code for _ in range(4)] == [500] * 4
    assert sim.send(body, key).json()["error"]["code"] == "SERVER_ERROR"
    assert sim.made_by(key) == []


def test_a_late_request_is_accepted_after_its_client_gave_up(sim: Client):
    sim.control("speed", speed=0.01)
    key = str(uuid.uuid4())
    body = sim.order("silent.late-1@sim")
    assert attempt(sim, body, key, patience=0.4) == "silence"
    page = sim.get("/v1/payouts", account_number=ACCOUNT, reference_id=body["reference_id"]).json()
    assert page["count"] == 0 and sim.made_by(key) == []
    sim.control("advance", seconds=6)
    page = sim.get("/v1/payouts", account_number=ACCOUNT, reference_id=body["reference_id"]).json()
    assert page["count"] == 1
    assert sim.send(body, key).json()["id"] == page["items"][0]["id"]


def test_a_late_request_finds_its_key_used_by_a_resend(sim: Client):
    sim.control("speed", speed=0.01)
    key = str(uuid.uuid4())
    body = sim.order("silent.late-1@sim")
    assert attempt(sim, body, key, patience=0.4) == "silence"
    assert sim.send(body, key).status_code == 200
    sim.control("advance", seconds=6)
    assert len(sim.made_by(key)) == 1


def test_a_late_request_loses_to_another_body_under_its_key(sim: Client):
    sim.control("speed", speed=0.01)
    key = str(uuid.uuid4())
    body = sim.order("silent.late-1@sim")
    assert attempt(sim, body, key, patience=0.4) == "silence"
    assert sim.send({**body, "amount": 1}, key).status_code == 400
    sim.control("advance", seconds=6)
    assert sim.made_by(key) == []


def test_replies_that_are_garbage_empty_or_about_another_payout(sim: Client):
    for name in ("garbage", "empty", "wrong"):
        key = str(uuid.uuid4())
        body = sim.order(f"{name}-1@sim")
        answer = sim.send(body, key)
        assert answer.status_code == 200
        (row,) = sim.made_by(key)
        if name == "garbage":
            with pytest.raises(requests.JSONDecodeError):
                answer.json()
        elif name == "empty":
            assert answer.json() == {}
        else:
            assert answer.json()["reference_id"] != body["reference_id"] and answer.json()["id"] != row["id"]
            assert sim.get(f"/v1/payouts/{answer.json()['id']}").status_code == 400
        assert sim.send(body, key).json()["id"] == row["id"]


def test_scenarios_that_apply_to_the_fund_account(sim: Client):
    contact = sim.contact()

    def create(vpa: str) -> requests.Response:
        return sim.post(
            "/v1/fund_accounts", {"contact_id": contact, "account_type": "vpa", "vpa": {"address": vpa}}
        )

    assert [create("refuse.fund_account-1@sim").status_code for _ in range(2)] == [400, 400]
    assert [create("500.fund_account-1@sim").status_code for _ in range(3)] == [500, 201, 200]
    assert create("500.fund_account-2@sim").status_code == 500
    inline = {
        "account_type": "vpa",
        "vpa": {"address": "refuse.fund_account-2@sim"},
        "contact": {"name": "Asha Rao"},
    }
    assert sim.send(sim.order(fund_account=inline)).status_code == 400


def test_a_misspelt_scenario_is_refused_not_a_success(sim: Client):
    body = {"contact_id": sim.contact(), "account_type": "vpa", "vpa": {"address": "sucess-1@sim"}}
    answer = sim.post("/v1/fund_accounts", body)
    assert answer.status_code == 400 and "sucess" in answer.text
