"""Monitoring of the running system over HTTP: Prometheus, a trace collector, Sentry, Flower."""

import html
import os
import re
import signal
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil
import psycopg
import pytest
import requests

from sandbox.processes import wait_until
from sandbox.services import free_port
from sandbox.stack import Stack
from shared.monitoring.gauges import FIRST_WAIT_SECONDS
from shared.queues import messages
from shared.queues.names import EVERY_QUEUE, PAYOUTS
from tests.e2e.collector import Collector, running_collector
from tests.e2e.conftest import QUICK, SPEED
from tests.e2e.system import System
from tests.support.scraping import Scrape

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(300),
]  # a start, and waits of FINAL_SECONDS on a busy machine
WITHDRAW = "/api/razorpay/withdraw/"
SECONDS = 40


class Observed(System):
    """A system with a collector of traces and errors."""

    def __init__(self, stack: Stack, collector: Collector) -> None:
        super().__init__(stack)
        self.collector = collector

    def scrape(self, url: str | None = None) -> Scrape:
        answer = requests.get(f"{url or self.info['api']}/metrics", timeout=15)
        assert answer.status_code == 200, answer.text
        return Scrape(answer.text)

    @property
    def worker_metrics(self) -> str:
        return f"http://127.0.0.1:{self.worker.env['METRICS_PORT']}"

    def api_workers(self) -> list[psutil.Process]:
        """The processes of the API that serve requests."""
        return [p for p in psutil.Process(self.stack.parts["api"].pid).children() if serves_requests(p)]


def serves_requests(process: psutil.Process) -> bool:
    """True for a live worker of granian; its helper process does not serve."""
    with suppress(psutil.Error):  # it ended meanwhile
        if process.status() != psutil.STATUS_ZOMBIE:
            return "resource_tracker" not in " ".join(process.cmdline())
    return False


@pytest.fixture(scope="module")
def observed() -> Iterator[Observed]:
    with running_collector() as collector:
        settings = QUICK | {
            "WATCH_SECONDS": "1",
            "SWEEP_SECONDS": "60",  # sweeps by beat would not belong to the trace of a request
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "SENTRY_DSN": collector.dsn,
        }
        with Stack(settings, api_workers=2, provider_speed=SPEED) as stack:
            worker = stack.parts["worker"]  # only one process can use the port
            worker.env = stack.env | {"METRICS_PORT": str(free_port())}
            worker.restart()
            yield Observed(stack, collector)


def call_health(observed: Observed, number: int) -> None:
    """Send this many requests over separate connections, so that each process gets some."""
    with ThreadPoolExecutor(8) as threads:
        for answer in threads.map(
            lambda _: requests.get(f"{observed.info['api']}/healthz", timeout=5), range(number)
        ):
            assert answer.status_code == 200


def test_metrics_of_both_api_processes_are_summed_also_after_one_dies(observed: Observed) -> None:
    def healthz() -> float:
        return observed.scrape().total("payouts_http_requests_total", route="/healthz")

    before = healthz()
    call_health(observed, 100)
    assert {healthz() for _ in range(10)} == {before + 100}
    victim = observed.api_workers()[0]
    os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: len(set(observed.api_workers()) - {victim}) == 2, SECONDS)
    wait_until(lambda: {healthz() for _ in range(3)} == {before + 100}, SECONDS)
    call_health(observed, 100)
    assert {healthz() for _ in range(10)} == {before + 200}


def test_the_worker_exports_its_payments_and_the_api_the_database_gauges(observed: Observed) -> None:
    withdrawal_id = observed.withdraw(observed.user())
    assert observed.wait_for(withdrawal_id) == "completed"
    wait_until(
        lambda: observed.scrape(observed.worker_metrics).total("payouts_paid_paise_total") >= 5000, SECONDS
    )
    scraped = observed.scrape(observed.worker_metrics)
    assert scraped.total("payouts_withdrawal_moves_total", to="completed") >= 1
    assert scraped.total("payouts_answers_total", step="send", answer="accepted") >= 1
    assert scraped("payouts_task_seconds_count", task=messages.SUBMIT, outcome="done") >= 1
    assert scraped.total("payouts_provider_call_seconds_count", operation="send", outcome="2xx") >= 1
    api = observed.scrape()
    assert api("payouts_http_requests_total", route=WITHDRAW, method="POST", status="201") >= 1
    assert api("payouts_up", service="database") == 1
    wait_until(lambda: observed.scrape()("payouts_check_timestamp_seconds") > 0, SECONDS)


def test_a_scrape_reports_a_frozen_postgresql_without_waiting_for_it(observed: Observed) -> None:
    postgres = observed.stack.parts["postgres"]
    processes = [psutil.Process(postgres.pid), *psutil.Process(postgres.pid).children(recursive=True)]
    for process in processes:  # suspended: it accepts connections and never answers, the worst case
        process.suspend()
    scrapes: list[Scrape] = []

    def reports_outage() -> bool:
        started_at = time.monotonic()
        scrapes.append(observed.scrape())
        assert time.monotonic() - started_at < FIRST_WAIT_SECONDS + 5  # the database never answers
        return scrapes[-1]("payouts_up", service="database") == 0

    try:
        wait_until(reports_outage, 2 * SECONDS)
        scraped = scrapes[-1]
    finally:
        for process in reversed(processes):
            process.resume()
    assert scraped("payouts_up", service="broker") == 1
    assert "payouts_withdrawals_open" not in scraped.names()
    assert scraped.total("payouts_http_requests_total") > 0
    wait_until(lambda: observed.scrape()("payouts_up", service="database") == 1, SECONDS)


def test_one_trace_connects_the_request_with_the_provider_call(observed: Observed) -> None:
    user = observed.user()
    user_id = user
    upi_id = "success-traced@sim"
    assert observed.wait_for(observed.withdraw(user, upi_id)) == "completed"
    collector = observed.collector

    def trace() -> set[str]:
        creates = [s for s in list(collector.spans) if s.name == f"POST {WITHDRAW}"]
        return (
            {f"{span.service} {span.name}" for span in collector.spans_of(creates[-1].trace)}
            if creates
            else set()
        )

    expected = {
        f"payouts-api POST {WITHDRAW}",
        "payouts-api apply_async/sweep",
        "payouts-worker run/sweep",
        "payouts-worker run/submit_withdrawal",
        "payouts-worker POST",
    }
    wait_until(lambda: expected <= trace(), SECONDS, lambda: AssertionError(f"only {trace()}"))
    trace_id = next(s for s in reversed(collector.spans) if s.name == f"POST {WITHDRAW}").trace

    def parents_of_the_call() -> list[str]:
        """The parent spans of the calls to the provider. Spans are exported when they end: parents arrive later."""
        spans = collector.spans_of(trace_id)
        names = {span.id: span.name for span in spans}
        calls = [span for span in spans if span.name == "POST" and "/v1/payouts" in str(span.attributes)]
        return [names[call.parent] for call in calls if call.parent in names]

    wait_until(parents_of_the_call, SECONDS)
    assert set(parents_of_the_call()) == {"run/submit_withdrawal"}
    assert any(span.name.startswith(("INSERT", "SELECT", "UPDATE", "WITH")) for span in collector.spans)
    observed.history(user)
    wait_until(lambda: any("history" in span.name for span in collector.spans), SECONDS)
    for secret in (upi_id, user_id, "Bearer", "rzp_test"):
        leaks = [(k, v) for s in list(collector.spans) for k, v in s.attributes.items() if secret in v]
        assert not leaks, secret


def test_an_unexpected_error_is_reported_without_user_data(observed: Observed) -> None:
    user = observed.user()
    errors_before = len(observed.collector.errors)
    with psycopg.connect(observed.info["database_url"], autocommit=True) as database:
        database.execute("ALTER TABLE coin_transactions RENAME TO away")
        try:
            body = {"user_id": user, "amount": 500, "upi_id": "success-asha@sim"}
            answer = requests.post(
                observed.info["api"] + WITHDRAW,
                json=body,
                headers={**observed.headers, "X-Request-Id": "req-of-this-test"},
                timeout=15,
            )
            assert answer.status_code == 500
        finally:
            database.execute("ALTER TABLE away RENAME TO coin_transactions")

    def ours() -> list[dict[str, object]]:
        return [
            e
            for e in observed.collector.errors[errors_before:]
            if e["tags"].get("request_id") == "req-of-this-test"
        ]

    wait_until(ours, SECONDS, lambda: AssertionError(f"{observed.collector.errors}"))
    event = ours()[0]
    assert set(event) <= {
        "event_id",
        "timestamp",
        "platform",
        "level",
        "exception",
        "tags",
        "release",
        "environment",
        "sdk",
    }
    kinds = [value["type"] for value in event["exception"]["values"]]
    assert "ProgrammingError" in kinds
    for secret in (user, "asha", observed.info["api_key"], "INSERT"):
        assert secret not in str(observed.collector.errors), secret


def test_flower_shows_names_ids_and_queues_to_signed_in_operators(observed: Observed) -> None:
    withdrawal_id = observed.withdraw(observed.user())
    observed.wait_for(withdrawal_id)
    flower = observed.info["flower"]
    credentials = (observed.info["admin_user"], observed.info["admin_password"])
    for path in ("/api/tasks", "/tasks", "/broker", "/workers", "/metrics", "/healthcheck"):
        assert requests.get(flower + path, timeout=5).status_code == 401
        assert requests.get(flower + path, auth=(credentials[0], "wrong"), timeout=5).status_code == 401
    for path in ("/metrics", "/healthcheck"):
        assert requests.get(flower + path, auth=credentials, timeout=5).status_code == 200

    def finished() -> list[dict[str, Any]]:
        """The finished tasks of our withdrawal; Flower knows the queue of a task only once it has started."""
        listed = requests.get(
            f"{flower}/api/tasks", params={"limit": 500}, auth=credentials, timeout=5
        ).json()
        ours = [task for task in listed.values() if withdrawal_id in str(task["args"])]
        return [task for task in ours if task["name"] == messages.SUBMIT and task["state"] == "SUCCESS"]

    wait_until(finished, SECONDS)
    task = finished()[0]
    assert task["args"] == f"['{withdrawal_id}']" and task["kwargs"] == "{}"
    assert task["routing_key"] == PAYOUTS
    queues = requests.get(f"{flower}/api/queues/length", auth=credentials, timeout=5).json()["active_queues"]
    assert {queue["name"] for queue in queues} == set(EVERY_QUEUE)
    page = requests.get(f"{flower}/tasks", auth=credentials, timeout=5).text
    assert "Routing Key" in page
    # The columns that link to the task come first, where a narrow window does not cut them off.
    assert [head.strip() for head in re.findall(r"<th[^>]*>([^<]+)</th>", page)][:2] == ["Name", "UUID"]
    # Flower is read-only.
    stopped = requests.post(f"{flower}/api/worker/shutdown/{task['worker']}", auth=credentials, timeout=5)
    assert stopped.status_code == 403 and observed.worker.alive
    # A task links to the panel, and the panel links to the tasks of the withdrawal, by a search of Flower.
    with requests.Session() as browser:
        uuid = task["uuid"]
        page = browser.get(f"{flower}/task/{uuid}", auth=credentials, timeout=5).text
        (back,) = re.findall(r'<a class="btn btn-primary" href="([^"]+)">Withdrawal in the panel</a>', page)
        assert back == f"{observed.info['admin']}withdrawal/{withdrawal_id}/"
        sign_in(browser, observed.info)
        links = re.findall(r'<a href="([^"]+)">Tasks in Flower</a>', browser.get(back, timeout=5).text)
        (search_url,) = map(html.unescape, links)
    assert search_url.startswith(f"{flower}/tasks?name=")
    search = f"name:{unquote(search_url.partition('name=')[2])}"
    query = {"draw": 1, "start": 0, "length": 50, "search[value]": search, "order[0][column]": 0}

    def search_result() -> dict[str, Any]:
        return dict(
            requests.get(f"{flower}/tasks/datatable", params=query, auth=credentials, timeout=5).json()
        )

    def shown() -> set[tuple[str, str]]:
        return {(row["name"], row["args"]) for row in search_result()["data"]}

    # Flower learns of a task when a worker receives it.
    wait_until(lambda: messages.APPLY in {name for name, _ in shown()}, SECONDS)
    assert "searchError" not in search_result()
    assert (messages.SUBMIT, f"['{withdrawal_id}']") in shown()
    assert {name for name, _ in shown()} <= {messages.SUBMIT, messages.POLL, messages.APPLY}
    result = search_result()
    assert result["recordsFiltered"] < result["recordsTotal"]


def sign_in(browser: requests.Session, info: dict[str, str]) -> None:
    page = browser.get(f"{info['admin']}sign-in/", timeout=5)
    (token,) = set(re.findall(r'name="csrf_token" value="([^"]+)"', page.text))
    form = {
        "csrf_token": token,
        "username": info["admin_user"],
        "password": info["admin_password"],
        "code": "",
    }
    assert browser.post(page.url, data=form, timeout=5).status_code == 200


def half_a_scrape(address: str, *, is_killed: bool) -> socket.socket:
    """Start a scrape as Prometheus does, and read nothing or reset the connection."""
    url = urlsplit(address)
    connection = socket.create_connection((url.hostname, url.port), timeout=5)
    connection.sendall(f"GET /metrics HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    if is_killed:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    return connection


def test_killing_prometheus_flower_and_the_collector_stops_no_payout(observed: Observed) -> None:
    """Payouts continue while each of these is dead."""
    user_id = observed.user()
    number = 12
    addresses = (observed.info["api"], observed.worker_metrics)
    with ExitStack() as connections:
        for is_killed in (True, False) * 4:
            for address in addresses:
                connections.enter_context(half_a_scrape(address, is_killed=is_killed))
        observed.stack.parts["flower"].kill()
        observed.collector.close()
        observed.withdraw_many(user_id, number, coins=100)
        assert observed.wait_for_all(user_id, number) == {"completed": number}
    assert observed.scrape()("payouts_up", service="database") == 1
    assert observed.scrape(observed.worker_metrics).total("payouts_paid_paise_total") >= number * 1000


def test_without_a_directory_for_metrics_the_api_still_accepts_withdrawals(
    observed: Observed, tmp_path: Path
) -> None:
    (tmp_path / f"coin-payouts-metrics-{os.getuid()}").write_text("no directory")
    api = observed.stack.parts["api"]
    api.env = dict(observed.stack.env) | {"TMPDIR": str(tmp_path)}
    api.restart()
    assert "reports only its own metrics" in api.log_text()
    assert observed.wait_for(observed.withdraw(observed.user())) == "completed"
    assert observed.scrape().total("payouts_http_requests_total") > 0
