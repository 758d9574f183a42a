"""The control endpoints."""

import itertools
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from .conftest import ACCOUNT, KEY_ID, SECRET, Client, wait_until


def status_of(sim: Client, vpa: str = "asha@okbank", **fields) -> int:
    return sim.send(sim.order(vpa, **fields)).status_code


def test_a_scenario_can_apply_to_the_next_n_new_keys(sim: Client):
    sim.control("scenario", scenario="500.after", next=2)
    sim.control("scenario", scenario="refuse.ip", next=1)
    assert [status_of(sim) for _ in range(4)] == [500, 500, 400, 200]


def test_next_is_not_used_up_by_resends(sim: Client):
    sim.control("scenario", scenario="429", next=1)
    key = str(uuid.uuid4())
    body = sim.order()
    assert [sim.send(body, key).status_code for _ in range(3)] == [429, 429, 200]


def test_a_scenario_can_apply_to_a_reference_id_a_vpa_or_all(sim: Client):
    sim.control("scenario", scenario="refuse.mode", default=True)
    sim.control("scenario", scenario="500.after", vpa="asha@okbank")
    answer = sim.control("scenario", scenario="409", reference_id="wd-1")
    assert answer == {"scenario": "409", "summary": answer["summary"], "for": "reference_id"}
    assert status_of(sim, "asha@okbank", reference_id="wd-1") == 409
    assert status_of(sim, "asha@okbank") == 500
    assert status_of(sim, "other@okbank") == 400
    assert status_of(sim, "success-1@sim") == 200


def test_the_default_scenario_can_apply_to_the_fund_account(sim: Client):
    account = sim.fund_account("asha@okbank")
    sim.control("scenario", scenario="refuse.fund_account", default=True)
    body = {"contact_id": sim.contact(), "account_type": "vpa", "vpa": {"address": "b@okbank"}}
    assert sim.post("/v1/fund_accounts", body).status_code == 400
    assert sim.send(sim.order(fund_account_id=account)).status_code == 200


@pytest.mark.parametrize(
    "path,body",
    [
        ("scenario", {"scenario": "nonsense", "next": 1}),
        ("scenario", {"scenario": "drop"}),
        ("scenario", {"next": 1}),
        ("scenario", {"scenario": "drop", "next": 1, "default": True}),
        ("scenario", {"scenario": "drop", "next": 0}),
        ("scenario", {"scenario": "drop", "vpa": 5}),
        ("scenario", {"scenario": [], "next": 1}),
        ("scenario", {"scenario": "drop", "default": "yes"}),
        ("scenario", {"scenario": "drop", "vpq": "x"}),
        ("scenario", {"scenario": "\ud800", "next": 1}),
        ("balance", {}),
        ("balance", {"paise": -1}),
        ("balance", {"paise": 1.5}),
        ("balance", {"paise": True}),
        ("balance", {"paise": 10**30}),
        ("speed", {"speed": 0}),
        ("speed", {"speed": "fast"}),
        ("speed", {"speed": float("inf")}),
        ("speed", {"speed": float("nan")}),
        ("advance", {"seconds": -1}),
        ("advance", {}),
        ("advance", {"seconds": 10**400}),
        ("settings", {"nonsense": 1}),
        ("settings", {"lite": 1}),
        ("settings", {"down": "sideways"}),
        ("settings", {"down": []}),
        ("settings", {"lookups": None}),
        ("settings", {"rate_limit_per_second": 0}),
        ("settings", {"latency_ms": -1}),
        ("settings", {"tax_paise": 600}),
        ("webhooks/replay", {"payout_id": "pout_x"}),
        ("webhooks/replay", {}),
        ("webhooks/secret", {"secret": ""}),
        ("payouts/pout_x/status", {"status": "failed"}),
    ],
)
def test_invalid_control_input_is_a_plain_error(sim: Client, path, body):
    answer = sim.http.post(f"{sim.url}/_sim/{path}", data=json.dumps(body), timeout=5)
    assert answer.status_code == 400, answer.text
    assert isinstance(answer.json()["error"], str) and answer.json()["error"].endswith(".")


@pytest.mark.parametrize("raw", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_malformed_control_bodies_are_refused(sim: Client, raw):
    assert sim.http.post(f"{sim.url}/_sim/balance", data=raw, timeout=5).status_code == 400


def test_unknown_control_calls_are_refused(sim: Client):
    assert sim.get("/_sim/nonsense").status_code == 404
    assert sim.get("/_sim/reset").status_code == 405
    assert sim.get("/_sim/calls", since="x").status_code == 400


def test_an_invalid_setting_changes_nothing(sim: Client):
    sim.http.post(f"{sim.url}/_sim/settings", json={"lite": True, "down": "x"}, timeout=5)
    assert sim.look("health")["settings"]["lite"] is False


def test_the_call_log_lists_the_calls_after_a_cursor(sim: Client):
    key = str(uuid.uuid4())
    body = sim.order("drop-1@sim")
    cursor = sim.look("calls")["next"]
    with pytest.raises(requests.ConnectionError):
        sim.send(body, key)
    sim.send(body, key)
    sim.get("/v1/payouts", account_number=ACCOUNT)
    log = sim.look("calls", since=cursor)
    calls = [(c["method"], c["path"], c["idempotency_key"], c["status"], c["outcome"]) for c in log["items"]]
    assert calls == [
        ("POST", "/v1/payouts", key, None, "dropped"),
        ("POST", "/v1/payouts", key, 200, "answered"),
        ("GET", "/v1/payouts", None, 200, "answered"),
    ]
    assert log["items"][2]["query"] == f"account_number={ACCOUNT}"
    monotonic = [call["monotonic"] for call in log["items"]]
    assert monotonic == sorted(monotonic)
    assert sim.look("calls", since=log["next"])["items"] == []
    assert len(sim.look("calls", since=cursor, limit=1)["items"]) == 1


def test_control_lists_payouts(sim: Client):
    payout = sim.pay("fail.gateway_down-1@sim", reference_id="wd-9")
    sim.reaches(payout["id"], "failed")
    sim.pay()
    (row,) = sim.look("payouts", reference_id="wd-9")["items"]
    assert (row["id"], row["vpa"], row["amount"], row["status"], row["reason"], row["create_calls"]) == (
        payout["id"],
        "fail.gateway_down-1@sim",
        25000,
        "failed",
        "gateway_down",
        1,
    )
    times = [step["at"] for step in row["history"]]
    assert times == sorted(times) and len(times) == 2
    assert sim.look("payouts")["count"] == 2 and sim.look("payouts", status="failed")["count"] == 1


def test_advancing_the_clock_runs_all_timers_in_order(sim: Client):
    sim.control("speed", speed=0.01)
    payout = sim.pay("reversed-1@sim")
    before = sim.look("health")["now"]
    after = sim.control("advance", seconds=3600)["now"]
    assert 3600 <= after - before < 3605
    (row,) = sim.look("payouts")["items"]
    first, second, third = (step["at"] for step in row["history"])
    assert row["id"] == payout["id"] and 1.4 < second - first < 1.7 and 1.4 < third - second < 1.7


def test_speed_takes_effect_on_timers_already_set(sim: Client):
    sim.control("speed", speed=0.001)
    payout = sim.pay()
    sim.control("speed", speed=1000)
    sim.reaches(payout["id"], "processed")


@pytest.mark.parametrize("state,outcome", [("500", 500), ("empty", 200), ("drop", None)])
def test_lookups_can_fail_or_be_wrong_while_creates_work(sim: Client, state, outcome):
    payout = sim.pay()
    sim.control("settings", lookups=state)
    query = {"account_number": ACCOUNT, "reference_id": payout["reference_id"]}
    if outcome is None:
        with pytest.raises(requests.ConnectionError):
            sim.get("/v1/payouts", **query)
    else:
        assert sim.get("/v1/payouts", **query).status_code == outcome
    if state == "empty":
        assert sim.get("/v1/payouts", **query).json() == {"entity": "collection", "count": 0, "items": []}
        assert sim.get(f"/v1/payouts/{payout['id']}").status_code == 400
    assert sim.send(sim.order()).status_code == 200


@pytest.mark.parametrize("down,status", [("500", 500), ("503html", 503), ("drop", None)])
def test_the_whole_api_can_be_down(sim: Client, down, status):
    body = sim.order()
    sim.control("settings", down=down)
    if status is None:
        with pytest.raises(requests.ConnectionError):
            sim.send(body)
    else:
        answer = sim.send(body)
        assert answer.status_code == status
        assert answer.headers["Content-Type"].startswith(
            "text/html" if down == "503html" else "application/json"
        )
    sim.control("settings", down=None)
    assert sim.look("payouts")["count"] == 0
    assert sim.send(body).status_code == 200


def test_the_rate_limit_is_enforced(sim: Client):
    sim.control("settings", rate_limit_per_second=5)
    started = time.monotonic()
    assert [sim.get("/v1/contacts").status_code for _ in range(5)] == [200] * 5
    with ThreadPoolExecutor(8) as callers:  # concurrent calls exceed the limit even on a busy machine
        statuses = list(callers.map(lambda _: Client(sim.url).get("/v1/contacts").status_code, range(60)))
    seconds = time.monotonic() - started
    assert 429 in statuses and set(statuses) <= {200, 429}
    assert 5 + statuses.count(200) <= 5 * (1 + seconds), "five per second"
    wait_until(lambda: sim.get("/v1/contacts").status_code == 200, "room again")


def test_the_configured_latency_delays_responses(sim: Client):
    sim.control("settings", latency_ms=150)
    started = time.monotonic()
    sim.get("/v1/contacts")
    assert time.monotonic() - started >= 0.15


def test_a_status_can_be_changed_as_in_the_dashboard(sim: Client):
    opening = sim.balance()
    payout = sim.pay("never-1@sim")
    row = sim.control(f"payouts/{payout['id']}/status", status="failed", reason="bank_account_frozen")
    assert (row["status"], row["reason"]) == ("failed", "bank_account_frozen") and sim.balance() == opening
    sim.control(f"payouts/{payout['id']}/status", status="reversed")
    assert sim.balance() == opening
    sim.control(f"payouts/{payout['id']}/status", status="processed")
    assert sim.balance() == opening - 25590 and sim.payout(payout["id"])["utr"].isdigit()
    sim.control("advance", seconds=3600)
    assert sim.payout(payout["id"])["status"] == "processed"
    answer = sim.post(f"/_sim/payouts/{payout['id']}/status", {"status": "failed", "reason": "nonsense"})
    assert answer.status_code == 400


def test_reset_is_a_fresh_start(sim: Client):
    contact = sim.contact()
    payout = sim.pay()
    sim.control("settings", lite=True, down="500")
    sim.control("advance", seconds=24 * 3600)
    sim.control("reset")
    health = sim.look("health")
    assert (health["payouts"], health["calls"], health["deliveries"], health["balance_paise"]) == (
        0,
        0,
        0,
        10_00_000_00,
    )
    assert health["settings"]["down"] is None and abs(health["now"] - time.time()) < 60
    assert (
        sim.get(f"/v1/contacts/{contact}").status_code
        == sim.get(f"/v1/payouts/{payout['id']}").status_code
        == 400
    )


def test_many_timers_at_once_keep_responses_fast(sim: Client):
    """With 2,000 payouts in progress, a lookup still takes milliseconds, and all of them end."""
    sim.control("settings", webhooks_enabled=False)
    sim.control("speed", speed=0.01)
    body = json.dumps(sim.order(amount=100)).encode()
    cpu_seconds = [sim.cpu_seconds()]
    for _ in range(10):
        for _ in range(200):
            assert sim.send(body).status_code == 200
        cpu_seconds.append(sim.cpu_seconds())
    first, *_, last = [after - before for before, after in itertools.pairwise(cpu_seconds)]
    assert last < 3 * first, "each payout makes the next one slower"
    sim.control("advance", seconds=10)
    assert sim.look("payouts", status="processed")["count"] == 2000
    before = sim.cpu_seconds()
    assert sim.get("/v1/payouts", account_number=ACCOUNT, count=1, status="processed").json()["count"] == 1
    assert sim.cpu_seconds() - before < 0.5


def test_secrets_are_in_no_response(sim: Client):
    sim.pay()
    for path in ("/_sim/health", "/_sim/calls", "/_sim/webhooks", "/_sim/payouts"):
        text = sim.get(path).text
        assert SECRET not in text and "a-test-secret" not in text and KEY_ID not in text
