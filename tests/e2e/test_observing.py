"""Who looks at the running system: Prometheus, a collector of traces, Sentry, Flower. Real processes, HTTP."""

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
from shared import queues
from shared.gauges import PATIENCE_SECONDS
from tests.e2e.collector import Collector, collecting
from tests.e2e.conftest import QUICK, SPEED
from tests.e2e.system import System
from tests.integration.scraping import Scrape

pytestmark = pytest.mark.timeout(300)  # a start, and waits of FINAL_SECONDS on a busy machine
WITHDRAW = "/api/razorpay/withdraw/"
SECONDS = 40


class Observed(System):
    """A system with somebody who looks at it."""

    def __init__(self, stack: Stack, collector: Collector) -> None:
        super().__init__(stack)
        self.collector = collector

    def scrape(self, what: str | None = None) -> Scrape:
        answer = requests.get(f"{what or self.info['api']}/metrics", timeout=15)
        assert answer.status_code == 200, answer.text
        return Scrape(answer.text)

    @property
    def worker_metrics(self) -> str:
        return f"http://127.0.0.1:{self.worker.env['METRICS_PORT']}"

    def api_workers(self) -> list[psutil.Process]:
        """The API's processes that answer."""
        return [one for one in psutil.Process(self.stack.parts["api"].pid).children() if answers(one)]


def answers(process: psutil.Process) -> bool:
    """Whether it is one of those; granian's own helper is not."""
    with suppress(psutil.Error):  # it died while it was looked at
        if process.status() != psutil.STATUS_ZOMBIE:
            return "resource_tracker" not in " ".join(process.cmdline())
    return False


@pytest.fixture(scope="module")
def observed() -> Iterator[Observed]:
    with collecting() as collector:
        settings = QUICK | {
            "WATCH_SECONDS": "1",
            "SWEEP_SECONDS": "60",  # beat's sweeps belong to no request: here each finds its own work
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "SENTRY_DSN": collector.dsn,
        }
        with Stack(settings, api_workers=2, provider_speed=SPEED) as stack:
            worker = stack.parts["worker"]  # it alone: one machine has one port of a number
            worker.env = stack.env | {"METRICS_PORT": str(free_port())}
            worker.restart()
            yield Observed(stack, collector)


def ask_often(observed: Observed, number: int) -> None:
    """So many requests, over so many connections that each process gets its share."""
    with ThreadPoolExecutor(8) as threads:
        for answer in threads.map(
            lambda _: requests.get(f"{observed.info['api']}/healthz", timeout=5), range(number)
        ):
            assert answer.status_code == 200


def test_both_processes_of_the_api_count_as_one_also_after_a_death(observed: Observed) -> None:
    def healthz() -> float:
        return observed.scrape().total("payouts_http_requests_total", route="/healthz")

    before = healthz()
    ask_often(observed, 100)
    assert {healthz() for _ in range(10)} == {before + 100}
    victim = observed.api_workers()[0]
    os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: len(set(observed.api_workers()) - {victim}) == 2, SECONDS)
    wait_until(lambda: {healthz() for _ in range(3)} == {before + 100}, SECONDS)
    ask_often(observed, 100)
    assert {healthz() for _ in range(10)} == {before + 200}


def test_a_worker_tells_what_it_paid_and_the_api_what_waits(observed: Observed) -> None:
    withdrawal_id = observed.withdraw(observed.user())
    assert observed.wait_for(withdrawal_id) == "completed"
    wait_until(
        lambda: observed.scrape(observed.worker_metrics).total("payouts_paid_paise_total") >= 5000, SECONDS
    )
    told = observed.scrape(observed.worker_metrics)
    assert told.total("payouts_withdrawal_moves_total", to="completed") >= 1
    assert told.total("payouts_answers_total", step="send", answer="accepted") >= 1
    assert told("payouts_task_seconds_count", task=queues.SUBMIT, outcome="done") >= 1
    assert told.total("payouts_provider_call_seconds_count", operation="send", outcome="2xx") >= 1
    api = observed.scrape()
    assert api("payouts_http_requests_total", route=WITHDRAW, method="POST", status="201") >= 1
    assert api("payouts_up", service="database") == 1
    wait_until(lambda: observed.scrape()("payouts_check_timestamp_seconds") > 0, SECONDS)


def test_without_postgresql_a_scrape_says_so_and_waits_for_nobody(observed: Observed) -> None:
    postgres = observed.stack.parts["postgres"]
    processes = [psutil.Process(postgres.pid), *psutil.Process(postgres.pid).children(recursive=True)]
    for process in processes:  # frozen: it takes connections and never answers, which is the worst
        process.suspend()
    scrapes: list[Scrape] = []

    def says_so() -> bool:
        began = time.monotonic()
        scrapes.append(observed.scrape())
        assert time.monotonic() - began < PATIENCE_SECONDS + 5  # the database never answers
        return scrapes[-1]("payouts_up", service="database") == 0

    try:
        wait_until(says_so, 2 * SECONDS)
        told = scrapes[-1]
    finally:
        for process in reversed(processes):
            process.resume()
    assert told("payouts_up", service="broker") == 1
    assert "payouts_withdrawals_open" not in told.names()
    assert told.total("payouts_http_requests_total") > 0
    wait_until(lambda: observed.scrape()("payouts_up", service="database") == 1, SECONDS)


def test_a_trace_leads_from_the_request_to_the_provider(observed: Observed) -> None:
    user = observed.user()
    user_id, upi_id = user, "success-traced@sim"
    assert observed.wait_for(observed.withdraw(user, upi_id)) == "completed"
    collector = observed.collector

    def trace() -> set[str]:
        creates = [s for s in list(collector.spans) if s.name == f"POST {WITHDRAW}"]
        return (
            {f"{one.service} {one.name}" for one in collector.spans_of(creates[-1].trace)}
            if creates
            else set()
        )

    wanted = {
        f"payouts-api POST {WITHDRAW}",
        "payouts-api apply_async/sweep",
        "payouts-worker run/sweep",
        "payouts-worker run/submit_withdrawal",
        "payouts-worker POST",
    }
    wait_until(lambda: wanted <= trace(), SECONDS, lambda: AssertionError(f"only {trace()}"))
    asked = next(s for s in reversed(collector.spans) if s.name == f"POST {WITHDRAW}").trace

    def above_the_call() -> list[str]:
        """What the call to the provider belongs to; a span is told when it ends, so what is above comes later."""
        spans = collector.spans_of(asked)
        names = {span.id: span.name for span in spans}
        calls = [span for span in spans if span.name == "POST" and "/v1/payouts" in str(span.about)]
        return [names[call.parent] for call in calls if call.parent in names]

    wait_until(above_the_call, SECONDS)
    assert set(above_the_call()) == {"run/submit_withdrawal"}
    assert any(span.name.startswith(("INSERT", "SELECT", "UPDATE", "WITH")) for span in collector.spans)
    observed.history(user)
    wait_until(lambda: any("history" in span.name for span in collector.spans), SECONDS)
    for secret in (upi_id, user_id, "Bearer", "rzp_test"):
        told = [(k, v) for s in list(collector.spans) for k, v in s.about.items() if secret in v]
        assert not told, secret


def test_an_unforeseen_error_is_told_without_what_is_a_users(observed: Observed) -> None:
    user = observed.user()
    told = len(observed.collector.errors)
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
            e for e in observed.collector.errors[told:] if e["tags"].get("request_id") == "req-of-this-test"
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


def test_flower_shows_names_ids_and_queues_to_whoever_may_see_them(observed: Observed) -> None:
    withdrawal_id = observed.withdraw(observed.user())
    observed.wait_for(withdrawal_id)
    flower, who = observed.info["flower"], (observed.info["admin_user"], observed.info["admin_password"])
    for path in ("/api/tasks", "/tasks", "/broker", "/workers", "/metrics", "/healthcheck"):
        assert requests.get(flower + path, timeout=5).status_code == 401
        assert requests.get(flower + path, auth=(who[0], "wrong"), timeout=5).status_code == 401
    for path in ("/metrics", "/healthcheck"):
        assert requests.get(flower + path, auth=who, timeout=5).status_code == 200

    def done() -> list[dict[str, Any]]:
        """Our withdrawal's, as it was sent: of what was not begun Flower does not know the queue yet."""
        listed = requests.get(f"{flower}/api/tasks", params={"limit": 500}, auth=who, timeout=5).json()
        ours = [task for task in listed.values() if withdrawal_id in str(task["args"])]
        return [task for task in ours if task["name"] == queues.SUBMIT and task["state"] == "SUCCESS"]

    wait_until(done, SECONDS)
    task = done()[0]
    assert task["args"] == f"['{withdrawal_id}']" and task["kwargs"] == "{}"
    assert task["routing_key"] == queues.PAYOUTS
    told = requests.get(f"{flower}/api/queues/length", auth=who, timeout=5).json()["active_queues"]
    assert {queue["name"] for queue in told} == set(queues.EVERY_QUEUE)
    page = requests.get(f"{flower}/tasks", auth=who, timeout=5).text
    assert "Routing Key" in page
    # What leads to a task, and from there to its withdrawal, stands where no window cuts it off.
    assert [head.strip() for head in re.findall(r"<th[^>]*>([^<]+)</th>", page)][:2] == ["Name", "UUID"]
    # It shows, and stops nobody.
    stopped = requests.post(f"{flower}/api/worker/shutdown/{task['worker']}", auth=who, timeout=5)
    assert stopped.status_code == 403 and observed.worker.alive
    # It leads to the panel, and the panel leads to the tasks of this one, as Flower's own table asks for them.
    with requests.Session() as browser:
        uuid = task["uuid"]
        page = browser.get(f"{flower}/task/{uuid}", auth=who, timeout=5).text
        (back,) = re.findall(r'<a class="btn btn-primary" href="([^"]+)">Withdrawal in the panel</a>', page)
        assert back == f"{observed.info['admin']}withdrawal/{withdrawal_id}/"
        sign_in(browser, observed.info)
        links = re.findall(r'<a href="([^"]+)">Its tasks in Flower</a>', browser.get(back, timeout=5).text)
        (there,) = map(html.unescape, links)
    assert there.startswith(f"{flower}/tasks?name=")
    search = f"name:{unquote(there.partition('name=')[2])}"
    asked = {"draw": 1, "start": 0, "length": 50, "search[value]": search, "order[0][column]": 0}

    def found() -> dict[str, Any]:
        return dict(requests.get(f"{flower}/tasks/datatable", params=asked, auth=who, timeout=5).json())

    def shown() -> set[tuple[str, str]]:
        return {(one["name"], one["args"]) for one in found()["data"]}

    # Whoever sent the task tells Flower nothing; of its webhooks it hears when they are taken.
    wait_until(lambda: queues.APPLY in {name for name, _ in shown()}, SECONDS)
    assert "searchError" not in found()
    assert (queues.SUBMIT, f"['{withdrawal_id}']") in shown()
    assert {name for name, _ in shown()} <= {queues.SUBMIT, queues.POLL, queues.APPLY}
    rest = found()
    assert rest["recordsFiltered"] < rest["recordsTotal"]


def sign_in(browser: requests.Session, info: dict[str, str]) -> None:
    door = browser.get(f"{info['admin']}sign-in/", timeout=5)
    (token,) = set(re.findall(r'name="csrf_token" value="([^"]+)"', door.text))
    form = {
        "csrf_token": token,
        "username": info["admin_user"],
        "password": info["admin_password"],
        "code": "",
    }
    assert browser.post(door.url, data=form, timeout=5).status_code == 200


def half_a_scrape(address: str, *, is_killed: bool) -> socket.socket:
    """Prometheus in the middle of a scrape: it reads nothing, or is killed at once."""
    there = urlsplit(address)
    line = socket.create_connection((there.hostname, there.port), timeout=5)
    line.sendall(f"GET /metrics HTTP/1.1\r\nHost: {there.netloc}\r\n\r\n".encode())
    if is_killed:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.close()
    return line


def test_killing_prometheus_flower_and_the_collector_stops_no_payout(observed: Observed) -> None:
    """And without a place for shared counts the API goes on as well."""
    user_id, number = observed.user(), 12
    both = (observed.info["api"], observed.worker_metrics)
    with ExitStack() as lines:
        for is_killed in (True, False) * 4:
            for address in both:
                lines.enter_context(half_a_scrape(address, is_killed=is_killed))
        observed.stack.parts["flower"].kill()
        observed.collector.close()
        observed.withdraw_many(user_id, number, coins=100)
        assert observed.wait_for_all(user_id, number) == {"completed": number}
    assert observed.scrape()("payouts_up", service="database") == 1
    assert observed.scrape(observed.worker_metrics).total("payouts_paid_paise_total") >= number * 1000


def test_without_a_place_for_counts_the_api_takes_withdrawals_all_the_same(
    observed: Observed, tmp_path: Path
) -> None:
    (tmp_path / f"coin-payouts-metrics-{os.getuid()}").write_text("no directory")
    api = observed.stack.parts["api"]
    api.env = dict(observed.stack.env) | {"TMPDIR": str(tmp_path)}
    api.restart()
    assert "No place for shared counts" in api.log_text()
    assert observed.wait_for(observed.withdraw(observed.user())) == "completed"
    assert observed.scrape().total("payouts_http_requests_total") > 0
