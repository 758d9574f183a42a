"""`/metrics`: who may read it, counters, gauges, and scrapes without a service."""

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
from shared import withdrawals
from shared.db.transactions import transaction
from shared.monitoring import gauges
from shared.proof import spot_checks
from shared.queues import messages, redis_broker
from shared.settings import settings
from shared.telemetry.metrics import MOVES, REGISTRY
from shared.withdrawals import review
from tests.support import steps
from tests.support.api import CREDIT, GOOD, HISTORY, WITHDRAW
from tests.support.mail_steps import add_user, cancel_withdrawal, run_mailer, turn_on
from tests.support.scraping import Scrape
from tests.support.webhook_steps import add_endpoint
from tests.support.world import World, sign
from worker import metrics as worker_metrics

TOKEN = "a-token-for-prometheus"
SCRAPE_WAIT_SECONDS = gauges.FIRST_WAIT_SECONDS


@pytest.fixture(autouse=True)
def allow_slow_gauges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for gauges: on a busy machine a scrape would return none."""
    monkeypatch.setattr(gauges, "FIRST_WAIT_SECONDS", 30)


@pytest.fixture
def scrape(client: FlaskClient) -> Callable[[], Scrape]:
    def scrape_now() -> Scrape:
        gauges.database_samples.cache_clear()
        gauges.broker_samples.cache_clear()
        answer = client.get("/metrics")
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return Scrape(answer)

    return scrape_now


def sample_value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# --- access


def test_metrics_are_readable_locally_and_not_through_a_proxy(client: FlaskClient) -> None:
    assert client.get("/metrics").status_code == 200
    for header in ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"):
        assert client.get("/metrics", headers={header: "127.0.0.1"}).status_code == 401
    assert client.get("/metrics", headers={"Host": "pay.example"}).status_code == 401
    outside = {"REMOTE_ADDR": "10.0.0.7"}
    answer = client.get("/metrics", environ_overrides=outside)
    assert answer.status_code == 401 and answer.get_json()["code"] == "unauthorized"


def test_the_counter_of_reversals_by_webhook_starts_at_zero(world: World, scrape) -> None:
    MOVES.clear()
    client = create_app().test_client()
    scraped = Scrape(client.get("/metrics")).samples
    reversed_by_webhook = {("to", "failed"), ("by", "webhook"), ("reason", "reversed")}
    assert scraped["payouts_withdrawal_moves_total", frozenset(reversed_by_webhook)] == 0


def test_with_a_metrics_token_every_scrape_needs_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- counters


def test_requests_are_labelled_by_route_and_not_by_path(world: World, client: FlaskClient, scrape) -> None:
    before = scrape()
    world.credit()
    client.post(WITHDRAW, json=GOOD)
    client.get(HISTORY, query_string={"user_id": "user123"})
    for path in ("/no/such/place", "/api/razorpay/user123@okhdfcbank/"):
        client.get(path)
    client.open("/healthz", method="BREW")
    after = scrape()

    def increase(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert increase("payouts_http_requests_total", route=WITHDRAW, method="POST", status="201") == 1
    assert increase("payouts_http_requests_total", route=HISTORY, method="GET", status="200") == 1
    assert increase("payouts_http_requests_total", route="unknown", method="GET", status="404") == 2
    odd = {"route": "unknown", "method": "other"}
    name = "payouts_http_requests_total"
    assert after.total(name, **odd) - before.total(name, **odd) == 1
    assert increase("payouts_http_request_seconds_count", route=WITHDRAW, method="POST") == 1
    assert increase("payouts_accept_seconds_count") == 1
    assert increase("payouts_withdrawal_moves_total", to="pending", by="app", reason="") == 1


def test_rejected_and_rate_limited_requests_are_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT_FAILED_AUTH", "2/minute")
    world.forget_settings()
    redis_broker.client().flushdb()
    client = create_app().test_client()
    before = sample_value("payouts_auth_failures_total", why="wrong_key")
    limited = sample_value("payouts_rate_limited_total", limit="failed")
    for _ in range(3):
        client.get(HISTORY, headers={"Authorization": "Bearer not-a-key-of-ours"})
    assert sample_value("payouts_auth_failures_total", why="wrong_key") == before + 2
    assert sample_value("payouts_rate_limited_total", limit="failed") == limited + 1
    redis_broker.client().flushdb()


def test_a_payment_is_counted_from_the_request_to_the_end(world: World, scrape) -> None:
    before = scrape()
    withdrawal_id = world.paid()
    after = scrape()

    def increase(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    assert world.read(withdrawal_id).status == "completed"
    assert increase("payouts_withdrawal_moves_total", to="processing", by="worker") == 1
    assert increase("payouts_withdrawal_moves_total", to="completed") == 1
    assert increase("payouts_paid_paise_total") == 5000
    assert increase("payouts_paid_seconds_count") == 1
    assert increase("payouts_answers_total", step="send", answer="accepted") == 1
    assert increase("payouts_provider_call_seconds_count", operation="send", outcome="2xx") == 1
    assert increase("payouts_turn_wait_seconds_count") >= 3  # payee, payout, lookup


def failures(reason: str) -> float:
    by = ("poll", "reply")
    return sum(
        sample_value("payouts_withdrawal_moves_total", to="failed", by=source, reason=reason) for source in by
    )


def test_a_failure_is_labelled_by_its_reason_and_an_unknown_reason_is_other(world: World) -> None:
    before, others = failures("beneficiary_vpa_invalid"), failures("other")
    world.paid(upi_id="fail.beneficiary_vpa_invalid@sim")
    assert failures("beneficiary_vpa_invalid") == before + 1
    world.credit()
    step = world.first_send()
    world.perform(step)
    payout = {**world.simulator.payouts()[-1], "status": "failed"}
    payout["status_details"] = {"reason": "asha@okhdfcbank said so", "description": "x", "source": "x"}
    assert failures("other") == others
    world.receive_report(payout)
    assert failures("other") == others + 1


def test_rolled_back_changes_are_not_counted(world: World) -> None:
    from shared.db.transactions import transaction
    from shared.withdrawals import transitions

    world.credit()
    withdrawal_id = world.request()
    before = sample_value("payouts_withdrawal_moves_total", to="cancelled", by="app", reason="")
    with pytest.raises(ZeroDivisionError), transaction() as session:
        withdrawal = withdrawals.find(session, withdrawal_id, lock=True)
        transitions.transition(session, withdrawal, "cancelled", actor="app:test", reason="a slip")
        raise ZeroDivisionError
    assert sample_value("payouts_withdrawal_moves_total", to="cancelled", by="app", reason="") == before
    withdrawals.cancel(withdrawal_id, reason="meant", actor="app:test")
    assert sample_value("payouts_withdrawal_moves_total", to="cancelled", by="app", reason="") == before + 1


def test_the_sweep_reports_its_lag(world: World, scrape) -> None:
    world.credit()
    world.request()
    world.advance(3610)
    before = scrape()
    assert before("payouts_withdrawals_due") == 1
    assert 3590 < before("payouts_withdrawals_late_seconds") < 3700
    withdrawals.sweep()
    withdrawals.sweep()  # the message is still queued, so it is not sent again
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


def test_webhooks_report_their_lag_and_effect(world: World, client: FlaskClient) -> None:
    world.credit()
    step = world.first_send()
    steps.record_answer(step, world.perform(step))
    payout = world.simulator.payouts()[0]
    event = {"entity": "event", "event": "payout.processed", "created_at": int(time.time()) - 42}
    body = json.dumps(
        {**event, "payload": {"payout": {"entity": {**payout, "status": "processed"}}}}
    ).encode()
    lag = sample_value("payouts_webhook_lag_seconds_sum")
    new = sample_value("payouts_webhooks_received_total", outcome="new")
    bad = sample_value("payouts_webhooks_received_total", outcome="bad_signature")
    signed = {"X-Razorpay-Signature": sign(body), "X-Razorpay-Event-Id": "evt-metrics"}
    assert client.post("/api/razorpay/webhook/", data=body, headers=signed).status_code == 200
    assert client.post("/api/razorpay/webhook/", data=body + b" ", headers=signed).status_code == 400

    assert steps.apply("evt-metrics") == "pay"
    assert 41 <= sample_value("payouts_webhook_lag_seconds_sum") - lag <= 60
    assert sample_value("payouts_webhooks_received_total", outcome="new") == new + 1
    assert sample_value("payouts_webhooks_received_total", outcome="bad_signature") == bad + 1
    assert sample_value("payouts_webhooks_applied_total", outcome="pay") >= 1


# --- gauges of the database


def test_the_database_gauges_report_pending_withdrawals_by_reason(world: World, scrape) -> None:
    world.credit()
    world.request()
    world.request(coins=300)
    world.sql("UPDATE withdrawals SET created_at = now() - interval '90 seconds' WHERE coins_amount = 300")
    scraped = scrape()
    window = {"status": "pending", "reason": "cancel_window"}
    assert scraped("payouts_withdrawals_open", **window) == 2
    assert scraped("payouts_withdrawals_open_paise", **window) == 8000
    assert 89 < scraped("payouts_withdrawals_oldest_seconds", **window) < 120
    assert scraped("payouts_up", service="database") == scraped("payouts_up", service="broker") == 1


def test_pauses_balance_and_exceptions_are_reported(world: World, scrape) -> None:
    from shared.db.transactions import transaction
    from shared.monitoring import watchdog
    from shared.people import exception_records

    withdrawals.pause("payouts", reason="by hand", actor="operator:asha")
    withdrawals.pause("handle:okaxis", reason="by hand", actor="operator:asha")
    watchdog.record_balance(123_456)
    with transaction() as session:
        exception_records.open_record(
            session, kind="two_payouts", subject="x", source="test", ours={}, theirs={}
        )
    scraped = scrape()
    assert scraped("payouts_paused", switch="payouts") == 1
    assert scraped("payouts_paused", switch="network") == 0
    assert scraped("payouts_paused_handles") == 1
    assert scraped("payouts_provider_balance_paise") == 123_456
    assert time.time() - scraped("payouts_provider_balance_timestamp_seconds") < 60
    assert scraped("payouts_exceptions_open", kind="two_payouts", severity="critical") == 1
    assert "okaxis" not in scraped.text


def test_undelivered_notifications_are_reported(
    world: World, scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_endpoint("https://app.example/hook")
    add_user(world)
    port = free_port()
    assert ("payouts_news_unseen_seconds", frozenset({("to", "users")})) not in scrape().samples, (
        "mail is off"
    )
    turn_on(world, monkeypatch, port)
    assert scrape()("payouts_news_unseen_seconds", to="users") == 0
    cancel_withdrawal(world)
    world.sql("ALTER TABLE withdrawal_events DISABLE TRIGGER USER")
    world.sql("UPDATE withdrawal_events SET created_at = now() - interval '90 seconds'")
    world.sql("ALTER TABLE withdrawal_events ENABLE TRIGGER USER")
    scraped = scrape()
    for to in ("apps", "users"):
        assert 89 < scraped("payouts_news_unseen_seconds", to=to) < 120
    assert scraped("payouts_mails", state="waiting") == scraped("payouts_mail_server_failing") == 0
    run_mailer()  # no server listens at that port
    scraped = scrape()
    assert scraped("payouts_mails", state="waiting") == scraped("payouts_mail_server_failing") == 1
    world.sql("UPDATE emails SET state = 'failed', due_at = NULL, server_failed_at = NULL, last_error = 'no'")
    scraped = scrape()
    assert scraped("payouts_mails", state="failed") == 1 and scraped("payouts_mail_server_failing") == 0


def test_the_age_of_the_oldest_review_is_reported(
    world: World, scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    scraped = scrape()
    kinds = ("withdrawals", "decisions", "coins")
    assert [scraped("payouts_review_oldest_seconds", of=of) for of in kinds] == [0, 0, 0]
    monkeypatch.setenv("REVIEW_ALL", "on")
    world.forget_settings()
    world.credit()
    world.operators("asha")
    awaits = world.request()
    world.sql(
        "UPDATE withdrawals SET expected_by = expected_by - interval '5 hours' WHERE id = :id", id=awaits
    )
    assert scrape()("payouts_review_oldest_seconds", of="withdrawals") == pytest.approx(5 * 3600, abs=60)
    with transaction() as session:
        shown = review.facts_hash(session, world.read(awaits))
    withdrawals.reject_review(awaits, shown=shown, reason="no", actor="operator:asha")
    scraped = scrape()
    assert scraped("payouts_review_oldest_seconds", of="withdrawals") == 0
    moves = "payouts_withdrawal_moves_total"
    assert scraped(moves, to="failed", by="operator", reason="rejected_in_review") >= 1, (
        "PayoutsFailOften leaves it out"
    )


def test_kinds_of_exceptions_are_bounded(world: World, scrape) -> None:
    world.sql(
        "INSERT INTO exception_records (kind, subject, source, ours, theirs)"
        " SELECT 'kind_' || n, 'x', 'test', '{}', '{}' FROM generate_series(1, 80) n"
    )
    scraped = scrape()
    kinds = [labels for name, labels in scraped.samples if name == "payouts_exceptions_open"]
    assert len(kinds) == gauges.MAX_KINDS + 1
    assert scraped("payouts_exceptions_open", kind="other", severity="warning") == 30


def test_labels_contain_nothing_about_a_user(world: World, client: FlaskClient, scrape) -> None:
    world.credit("someone-named-asha")
    client.post(WITHDRAW, json={**GOOD, "user_id": "someone-named-asha", "upi_id": "asha.secret@okicici"})
    client.post(CREDIT, json={"user_id": "other-asha", "coins": 5, "reference": "r"})
    client.get(HISTORY, query_string={"user_id": "someone-named-asha"})
    world.advance()
    withdrawals.sweep()
    scraped = scrape().text
    assert "asha" not in scraped and "okicici" not in scraped and not re.search(r"[\w.]+@[a-z]", scraped)


# --- unreachable services


def test_a_scrape_reports_an_unreachable_database(
    world: World, client: FlaskClient, scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.point_database_at_nothing(monkeypatch)
    try:
        scraped = scrape()
    finally:
        world.point_database_back(monkeypatch)
    assert scraped("payouts_up", service="database") == 0 and scraped("payouts_up", service="broker") == 1
    assert "payouts_withdrawals_open" not in scraped.names()
    assert scraped.total("payouts_http_requests_total") > 0
    assert scrape()("payouts_up", service="database") == 1


def test_a_silent_database_does_not_block_a_scrape(
    world: World, scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("DATABASE_URL", f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d")
        url = settings().database_url.get_secret_value()
        # The gauges' thread waits this long; the scrape does not.
        monkeypatch.setattr("shared.db.engines.CONNECT_TIMEOUT_SECONDS", 60)
        monkeypatch.setattr(gauges, "FIRST_WAIT_SECONDS", SCRAPE_WAIT_SECONDS)
        world.forget_settings()
        started_at = time.monotonic()
        scraped = scrape()
        took = time.monotonic() - started_at
    monkeypatch.setenv("DATABASE_URL", url.replace("+psycopg", ""))
    world.forget_settings()
    assert took < SCRAPE_WAIT_SECONDS + 15
    assert scraped("payouts_up", service="database") == 0 and scraped("payouts_up", service="broker") == 1


def test_a_scrape_reports_an_unreachable_broker(
    world: World, scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.point_broker_at_nothing(monkeypatch)
    lost = sample_value("payouts_nudges_lost_total", task="submit_withdrawal")
    assert not messages.nudge(messages.SUBMIT, "x")
    scraped = scrape()
    assert scraped("payouts_up", service="broker") == 0 and scraped("payouts_up", service="database") == 1
    assert "payouts_queue_messages" not in scraped.names()
    assert sample_value("payouts_nudges_lost_total", task="submit_withdrawal") == lost + 1


def test_samples_are_cached_for_a_few_seconds(world: World, client: FlaskClient) -> None:
    world.credit()
    assert Scrape(client.get("/metrics"))("payouts_withdrawals_open", status="pending", reason="") == 0
    world.request()
    labels = {"status": "pending", "reason": "cancel_window"}
    assert Scrape(client.get("/metrics"))("payouts_withdrawals_open", **labels) == 0
    cached = gauges.database_samples()
    cached._expires_at = cached._refreshed_at = 0
    assert Scrape(client.get("/metrics"))("payouts_withdrawals_open", **labels) == 1


# --- a worker


@pytest.fixture
def port(world: World, monkeypatch: pytest.MonkeyPatch) -> int:
    number = free_port()
    monkeypatch.setenv("METRICS_PORT", str(number))
    world.forget_settings()
    return number


def test_a_worker_serves_its_metrics_on_its_port(port: int, world: World) -> None:
    MOVES.clear()
    server = worker_metrics.serve(settings())
    assert server
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5)
        assert answer.status_code == 200
        scraped = Scrape(answer.text)
        assert scraped("process_resident_memory_bytes") > 0
        assert scraped.total("payouts_withdrawal_moves_total", reason="reversed") == 0
        assert "payouts_withdrawal_moves_total" in scraped.names(), "from the start, at zero"
        assert "payouts_withdrawals_open" not in scraped.names()
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=5).status_code == 404
        assert requests.post(f"http://127.0.0.1:{port}/metrics", timeout=5).status_code == 404
        assert worker_metrics.serve(settings()) is None  # the port is taken: logged and ignored
    finally:
        server.shutdown()
        server.server_close()


def test_a_worker_requires_the_token(port: int, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_TOKEN", TOKEN)
    world.forget_settings()
    server = worker_metrics.serve(settings())
    assert server
    try:
        url = f"http://127.0.0.1:{port}/metrics"
        assert requests.get(url, timeout=5).status_code == 401
        assert requests.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5).status_code == 200
    finally:
        server.shutdown()
        server.server_close()


# --- spot checks


def test_spot_checks_cover_every_promise_and_find_a_broken_one(world: World, scrape) -> None:
    world.paid()
    world.credit("other")
    assert spot_checks.run() == 0
    scraped = scrape()
    assert scraped.total("payouts_check_faults") == 0
    assert time.time() - scraped("payouts_check_timestamp_seconds") < 60
    world.broken_on_purpose = True
    world.sql_without_rules("UPDATE wallets SET balance_coins = balance_coins + 1 WHERE user_id = 'other'")
    world.sql_without_rules(
        "UPDATE withdrawals SET status = 'failed', failure_reason = 'x', completed_at = NULL"
    )
    assert spot_checks.run() >= 3
    scraped = scrape()
    assert scraped("payouts_check_faults", promise="1") == 1
    assert scraped("payouts_check_faults", promise="3") == 1
    assert scraped("payouts_exceptions_open", kind="promise_broken", severity="critical") >= 3
    world.sql_without_rules("UPDATE wallets SET balance_coins = balance_coins - 1 WHERE user_id = 'other'")
    spot_checks.run()
    assert scrape()("payouts_check_faults", promise="1") == 0
