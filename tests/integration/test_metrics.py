"""`/metrics`: who may read it, what it counts, and what it says when something is away."""

import json
import re
import socket
import time
from collections.abc import Callable

import pytest
import requests
from flask.testing import FlaskClient

from api.app import create_app
from sandbox.services import free_port
from shared import db, gauges, queues, spot_checks, withdrawals
from shared.metrics import MOVES, REGISTRY
from shared.settings import settings
from shared.withdrawals import reviewing
from tests.integration.app import CREDIT, GOOD, HISTORY, WITHDRAW
from tests.integration.mailing import cancelled, known, tell, turn_on
from tests.integration.scraping import Scrape
from tests.integration.telling import listen
from tests.world import World, sign
from worker import metrics as of_worker

TOKEN = "a-token-for-prometheus"
PATIENCE_SECONDS = gauges.PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the gauges are found later than a scrape would wait for, and then it tells none."""
    monkeypatch.setattr(gauges, "PATIENCE_SECONDS", 30)


@pytest.fixture
def scrape(client: FlaskClient) -> Callable[[], Scrape]:
    def asked() -> Scrape:
        gauges.of_books.cache_clear()
        gauges.of_queues.cache_clear()
        answer = client.get("/metrics")
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return Scrape(answer)

    return asked


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# --- who may read it


def test_this_machine_may_read_it_and_whoever_comes_past_a_proxy_may_not(client: FlaskClient) -> None:
    assert client.get("/metrics").status_code == 200
    for passed_on in ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"):
        assert client.get("/metrics", headers={passed_on: "127.0.0.1"}).status_code == 401
    assert client.get("/metrics", headers={"Host": "pay.example"}).status_code == 401
    outside = {"REMOTE_ADDR": "10.0.0.7"}
    answer = client.get("/metrics", environ_overrides=outside)
    assert answer.status_code == 401 and answer.get_json()["code"] == "unauthorized"


def test_what_alerts_look_at_is_told_before_it_happens(world: World, scrape) -> None:
    MOVES.clear()
    client = create_app().test_client()
    told = Scrape(client.get("/metrics")).samples
    reversed_by_webhook = {("to", "failed"), ("by", "webhook"), ("reason", "reversed")}
    assert told["payouts_withdrawal_moves_total", frozenset(reversed_by_webhook)] == 0


def test_with_a_token_only_the_token_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_TOKEN", TOKEN)
    world.forget_settings()
    client = create_app().test_client()
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert (
        client.get("/metrics", headers=right, environ_overrides={"REMOTE_ADDR": "10.0.0.7"}).status_code
        == 200
    )


def test_behind_trusted_proxies_a_token_is_needed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", "1")
    world.forget_settings()
    assert create_app().test_client().get("/metrics").status_code == 401


# --- what it counts


def test_requests_are_told_by_rule_and_not_by_address(world: World, client: FlaskClient, scrape) -> None:
    before = scrape()
    world.credit()
    client.post(WITHDRAW, json=GOOD)
    client.get(HISTORY, query_string={"user_id": "user123"})
    for path in ("/no/such/place", "/api/razorpay/user123@okhdfcbank/"):
        client.get(path)
    client.open("/healthz", method="BREW")
    after = scrape()

    def more(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert more("payouts_http_requests_total", route=WITHDRAW, method="POST", status="201") == 1
    assert more("payouts_http_requests_total", route=HISTORY, method="GET", status="200") == 1
    assert more("payouts_http_requests_total", route="unknown", method="GET", status="404") == 2
    odd = {"route": "unknown", "method": "other"}
    name = "payouts_http_requests_total"
    assert after.total(name, **odd) - before.total(name, **odd) == 1
    assert more("payouts_http_request_seconds_count", route=WITHDRAW, method="POST") == 1
    assert more("payouts_accept_seconds_count") == 1
    assert more("payouts_withdrawal_moves_total", to="pending", by="app", reason="") == 1


def test_who_is_not_let_in_and_who_asks_too_often_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT_FAILED_AUTH", "2/minute")
    world.forget_settings()
    queues.broker().flushdb()
    client = create_app().test_client()
    before = counted("payouts_auth_failures_total", why="wrong_key")
    limited = counted("payouts_rate_limited_total", limit="failed")
    for _ in range(3):
        client.get(HISTORY, headers={"Authorization": "Bearer not-a-key-of-ours"})
    assert counted("payouts_auth_failures_total", why="wrong_key") == before + 2
    assert counted("payouts_rate_limited_total", limit="failed") == limited + 1
    queues.broker().flushdb()


def test_a_payment_is_counted_from_the_wish_to_the_end(world: World, scrape) -> None:
    before = scrape()
    withdrawal_id = world.paid()
    after = scrape()

    def more(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    assert world.read(withdrawal_id).status == "completed"
    assert more("payouts_withdrawal_moves_total", to="processing", by="worker") == 1
    assert more("payouts_withdrawal_moves_total", to="completed") == 1
    assert more("payouts_paid_paise_total") == 5000
    assert more("payouts_paid_seconds_count") == 1
    assert more("payouts_answers_total", step="send", answer="accepted") == 1
    assert more("payouts_provider_call_seconds_count", operation="send", outcome="2xx") == 1
    assert more("payouts_turn_wait_seconds_count") >= 3  # payee, payout, look


def failures(reason: str) -> float:
    by = ("poll", "reply")
    return sum(counted("payouts_withdrawal_moves_total", to="failed", by=one, reason=reason) for one in by)


def test_a_failure_is_told_by_its_reason_and_an_unknown_reason_is_other(world: World) -> None:
    before, others = failures("beneficiary_vpa_invalid"), failures("other")
    world.paid(upi_id="fail.beneficiary_vpa_invalid@sim")
    assert failures("beneficiary_vpa_invalid") == before + 1
    world.credit()
    step = world.first_send()
    world.perform(step)
    payout = {**world.simulator.payouts()[-1], "status": "failed"}
    payout["status_details"] = {"reason": "asha@okhdfcbank said so", "description": "x", "source": "x"}
    assert failures("other") == others
    world.hears(payout)
    assert failures("other") == others + 1


def test_what_is_rolled_back_is_not_counted(world: World) -> None:
    from shared import db
    from shared.withdrawals import journey

    world.credit()
    withdrawal_id = world.request()
    before = counted("payouts_withdrawal_moves_total", to="cancelled", by="app", reason="")
    with pytest.raises(ZeroDivisionError), db.transaction() as session:
        withdrawal = withdrawals.find(session, withdrawal_id, lock=True)
        journey.move(session, withdrawal, "cancelled", actor="app:test", reason="a slip")
        raise ZeroDivisionError
    assert counted("payouts_withdrawal_moves_total", to="cancelled", by="app", reason="") == before
    withdrawals.cancel(withdrawal_id, reason="meant", actor="app:test")
    assert counted("payouts_withdrawal_moves_total", to="cancelled", by="app", reason="") == before + 1


def test_the_sweep_tells_how_late_it_was(world: World, scrape) -> None:
    world.credit()
    world.request()
    world.advance(3610)
    before = scrape()
    assert before("payouts_withdrawals_due") == 1
    assert 3590 < before("payouts_withdrawals_late_seconds") < 3700
    withdrawals.sweep()
    withdrawals.sweep()  # the message still waits: it is not told again
    after = scrape()
    lag = "payouts_sweep_lag_seconds"
    assert (
        after(f"{lag}_count", task="submit_withdrawal") - before(f"{lag}_count", task="submit_withdrawal")
        == 1
    )
    assert (
        after(f"{lag}_sum", task="submit_withdrawal") - before(f"{lag}_sum", task="submit_withdrawal") > 3590
    )
    assert after("payouts_queue_messages", queue="payouts") == 1


def test_webhooks_tell_their_lag_and_what_they_did(world: World, client: FlaskClient) -> None:
    world.credit()
    step = world.first_send()
    withdrawals.record_answer(step, world.perform(step))
    payout = world.simulator.payouts()[0]
    event = {"entity": "event", "event": "payout.processed", "created_at": int(time.time()) - 42}
    body = json.dumps(
        {**event, "payload": {"payout": {"entity": {**payout, "status": "processed"}}}}
    ).encode()
    lag = counted("payouts_webhook_lag_seconds_sum")
    new = counted("payouts_webhooks_received_total", outcome="new")
    bad = counted("payouts_webhooks_received_total", outcome="bad_signature")
    signed = {"X-Razorpay-Signature": sign(body), "X-Razorpay-Event-Id": "evt-metrics"}
    assert client.post("/api/razorpay/webhook/", data=body, headers=signed).status_code == 200
    assert client.post("/api/razorpay/webhook/", data=body + b" ", headers=signed).status_code == 400
    from shared import inbox

    assert inbox.apply("evt-metrics") == "pay"
    assert 41 <= counted("payouts_webhook_lag_seconds_sum") - lag <= 60
    assert counted("payouts_webhooks_received_total", outcome="new") == new + 1
    assert counted("payouts_webhooks_received_total", outcome="bad_signature") == bad + 1
    assert counted("payouts_webhooks_applied_total", outcome="pay") >= 1


# --- what the books say


def test_the_books_say_what_waits_and_why(world: World, scrape) -> None:
    world.credit()
    world.request()
    world.request(coins=300)
    world.sql("UPDATE withdrawals SET created_at = now() - interval '90 seconds' WHERE coins_amount = 300")
    told = scrape()
    window = {"status": "pending", "reason": "cancel_window"}
    assert told("payouts_withdrawals_open", **window) == 2
    assert told("payouts_withdrawals_open_paise", **window) == 8000
    assert 89 < told("payouts_withdrawals_oldest_seconds", **window) < 120
    assert told("payouts_up", service="database") == told("payouts_up", service="broker") == 1


def test_pauses_balance_and_exceptions_are_told(world: World, scrape) -> None:
    from shared import db, exception_records, watching

    withdrawals.pause("payouts", reason="by hand", actor="operator:asha")
    withdrawals.pause("handle:okaxis", reason="by hand", actor="operator:asha")
    watching.learn_balance(123_456)
    with db.transaction() as session:
        exception_records.open_record(
            session, kind="two_payouts", subject="x", source="test", ours={}, theirs={}
        )
    told = scrape()
    assert told("payouts_paused", switch="payouts") == 1
    assert told("payouts_paused", switch="network") == 0
    assert told("payouts_paused_handles") == 1
    assert told("payouts_provider_balance_paise") == 123_456
    assert time.time() - told("payouts_provider_balance_timestamp_seconds") < 60
    assert told("payouts_exceptions_open", kind="two_payouts", severity="critical") == 1
    assert "okaxis" not in told.text


def test_what_apps_and_users_are_still_to_be_told(
    world: World, scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen("https://app.example/hook")
    known(world)
    port = free_port()
    assert ("payouts_news_unseen_seconds", frozenset({("to", "users")})) not in scrape().samples, (
        "mail is off"
    )
    turn_on(world, monkeypatch, port)
    assert scrape()("payouts_news_unseen_seconds", to="users") == 0
    cancelled(world)
    world.sql("ALTER TABLE withdrawal_events DISABLE TRIGGER USER")
    world.sql("UPDATE withdrawal_events SET created_at = now() - interval '90 seconds'")
    world.sql("ALTER TABLE withdrawal_events ENABLE TRIGGER USER")
    told = scrape()
    for to in ("apps", "users"):
        assert 89 < told("payouts_news_unseen_seconds", to=to) < 120
    assert told("payouts_mails", state="waiting") == told("payouts_mail_server_failing") == 0
    tell()  # nobody listens at that port
    told = scrape()
    assert told("payouts_mails", state="waiting") == told("payouts_mail_server_failing") == 1
    world.sql("UPDATE emails SET state = 'failed', due_at = NULL, server_failed_at = NULL, last_error = 'no'")
    told = scrape()
    assert told("payouts_mails", state="failed") == 1 and told("payouts_mail_server_failing") == 0


def test_how_long_people_are_waited_for_is_told(
    world: World, scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = scrape()
    kinds = ("withdrawals", "decisions", "coins")
    assert [told("payouts_review_oldest_seconds", of=of) for of in kinds] == [0, 0, 0]
    monkeypatch.setenv("REVIEW_ALL", "on")
    world.forget_settings()
    world.credit()
    world.operators("asha")
    awaits = world.request()
    world.sql(
        "UPDATE withdrawals SET expected_by = expected_by - interval '5 hours' WHERE id = :id", id=awaits
    )
    assert scrape()("payouts_review_oldest_seconds", of="withdrawals") == pytest.approx(5 * 3600, abs=60)
    with db.transaction() as session:
        shown = reviewing.facts(session, world.read(awaits))
    withdrawals.reject_review(awaits, shown=shown, reason="no", actor="operator:asha")
    told = scrape()
    assert told("payouts_review_oldest_seconds", of="withdrawals") == 0
    moves = "payouts_withdrawal_moves_total"
    assert told(moves, to="failed", by="operator", reason="rejected_in_review") >= 1, (
        "PayoutsFailOften leaves it out"
    )


def test_kinds_of_exceptions_are_bounded(world: World, scrape) -> None:
    world.sql(
        "INSERT INTO exception_records (kind, subject, source, ours, theirs)"
        " SELECT 'kind_' || n, 'x', 'test', '{}', '{}' FROM generate_series(1, 80) n"
    )
    told = scrape()
    kinds = [labels for name, labels in told.samples if name == "payouts_exceptions_open"]
    assert len(kinds) == gauges.MOST_KINDS + 1
    assert told("payouts_exceptions_open", kind="other", severity="warning") == 30


def test_nothing_of_a_user_stands_in_a_label(world: World, client: FlaskClient, scrape) -> None:
    world.credit("someone-named-asha")
    client.post(WITHDRAW, json={**GOOD, "user_id": "someone-named-asha", "upi_id": "asha.secret@okicici"})
    client.post(CREDIT, json={"user_id": "other-asha", "coins": 5, "reference": "r"})
    client.get(HISTORY, query_string={"user_id": "someone-named-asha"})
    world.advance()
    withdrawals.sweep()
    told = scrape().text
    assert "asha" not in told and "okicici" not in told and not re.search(r"[\w.]+@[a-z]", told)


# --- when something is away


def test_without_the_database_the_scrape_says_so(
    world: World, client: FlaskClient, scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.point_database_at_nothing(monkeypatch)
    try:
        told = scrape()
    finally:
        world.point_database_back(monkeypatch)
    assert told("payouts_up", service="database") == 0 and told("payouts_up", service="broker") == 1
    assert "payouts_withdrawals_open" not in told.names()
    assert told.total("payouts_http_requests_total") > 0
    assert scrape()("payouts_up", service="database") == 1


def test_a_database_that_says_nothing_holds_no_scrape(
    world: World, scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("DATABASE_URL", f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d")
        url = settings().database_url.get_secret_value()
        # Who looks waits for so long; the scrape does not.
        monkeypatch.setattr("shared.db.CONNECT_SECONDS", 60)
        monkeypatch.setattr(gauges, "PATIENCE_SECONDS", PATIENCE_SECONDS)
        world.forget_settings()
        began = time.monotonic()
        told = scrape()
        took = time.monotonic() - began
    monkeypatch.setenv("DATABASE_URL", url.replace("+psycopg", ""))
    world.forget_settings()
    assert took < PATIENCE_SECONDS + 15
    assert told("payouts_up", service="database") == 0 and told("payouts_up", service="broker") == 1


def test_without_the_broker_the_scrape_says_so(world: World, scrape, monkeypatch: pytest.MonkeyPatch) -> None:
    world.point_broker_at_nothing(monkeypatch)
    lost = counted("payouts_nudges_lost_total", task="submit_withdrawal")
    assert not queues.nudge(queues.SUBMIT, "x")
    told = scrape()
    assert told("payouts_up", service="broker") == 0 and told("payouts_up", service="database") == 1
    assert "payouts_queue_messages" not in told.names()
    assert counted("payouts_nudges_lost_total", task="submit_withdrawal") == lost + 1


def test_the_answers_serve_all_scrapes_of_some_seconds(world: World, client: FlaskClient) -> None:
    world.credit()
    assert Scrape(client.get("/metrics"))("payouts_withdrawals_open", status="pending", reason="") == 0
    world.request()
    labels = {"status": "pending", "reason": "cancel_window"}
    assert Scrape(client.get("/metrics"))("payouts_withdrawals_open", **labels) == 0
    known = gauges.of_books()
    known._old_at = known._found_at = 0
    assert Scrape(client.get("/metrics"))("payouts_withdrawals_open", **labels) == 1


# --- a worker


@pytest.fixture
def port(world: World, monkeypatch: pytest.MonkeyPatch) -> int:
    number = free_port()
    monkeypatch.setenv("METRICS_PORT", str(number))
    world.forget_settings()
    return number


def test_a_worker_tells_itself_on_its_port(port: int, world: World) -> None:
    MOVES.clear()
    server = of_worker.serve(settings())
    assert server
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5)
        assert answer.status_code == 200
        told = Scrape(answer.text)
        assert told("process_resident_memory_bytes") > 0
        assert told.total("payouts_withdrawal_moves_total", reason="reversed") == 0
        assert "payouts_withdrawal_moves_total" in told.names(), "from the start, at zero"
        assert "payouts_withdrawals_open" not in told.names()
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=5).status_code == 404
        assert requests.post(f"http://127.0.0.1:{port}/metrics", timeout=5).status_code == 404
        assert of_worker.serve(settings()) is None  # the port is taken: said, and no more
    finally:
        server.shutdown()
        server.server_close()


def test_a_worker_asks_for_the_token(port: int, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_TOKEN", TOKEN)
    world.forget_settings()
    server = of_worker.serve(settings())
    assert server
    try:
        where = f"http://127.0.0.1:{port}/metrics"
        assert requests.get(where, timeout=5).status_code == 401
        assert requests.get(where, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5).status_code == 200
    finally:
        server.shutdown()
        server.server_close()


# --- spot checks


def test_spot_checks_ask_every_truth_and_find_a_broken_one(world: World, scrape) -> None:
    world.paid()
    world.credit("other")
    assert spot_checks.run() == 0
    told = scrape()
    assert told.total("payouts_check_faults") == 0
    assert time.time() - told("payouts_check_timestamp_seconds") < 60
    world.broken_on_purpose = True
    world.sql_without_rules("UPDATE wallets SET balance_coins = balance_coins + 1 WHERE user_id = 'other'")
    world.sql_without_rules(
        "UPDATE withdrawals SET status = 'failed', failure_reason = 'x', completed_at = NULL"
    )
    assert spot_checks.run() >= 3
    told = scrape()
    assert told("payouts_check_faults", promise="1") == 1
    assert told("payouts_check_faults", promise="3") == 1
    assert told("payouts_exceptions_open", kind="promise_broken", severity="critical") >= 3
    world.sql_without_rules("UPDATE wallets SET balance_coins = balance_coins - 1 WHERE user_id = 'other'")
    spot_checks.run()
    assert scrape()("payouts_check_faults", promise="1") == 0
