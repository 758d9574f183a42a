"""`make calm`: thousands of healthy withdrawals through the real stack must raise no alarm.

Nothing is broken, and apps send requests no faster than this machine pays. Spot checks run every few seconds and
every process is scraped as by Prometheus. At the end there must be no exception record, not even a closed one, no
finding of `payouts check`, and no alert of deploy/prometheus/alerts.yml at any scrape, as promtool evaluates them.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import requests

from sandbox.services import free_port
from sandbox.stack import ROOT, Stack
from tests.chaos.alerts import Watch, fired, with_a_fault
from tests.e2e.system import App

# The defaults, except for the rate limit and the frequency of checks.
SETTINGS = {
    "CANCEL_WINDOW_SECONDS": "2",
    "WATCH_SECONDS": "10",
    "TASK_EVENTS": "off",  # there is no Flower
    "SIM_BALANCE_PAISE": str(10**12),
}
SCRAPE_SECONDS = 15
REQUESTS_PER_USER = 10
COINS = 500
# Per hundred, as on a healthy day: failed at the bank, reversed, cancelled; all others are paid.
ENDS = {1: "fail.beneficiary_vpa_invalid", 2: "fail.bank_account_closed", 50: "reversed"}
CANCELLED = 3
# No more requests while so many are open: an overloaded machine is not healthy and would raise alarms.
MAX_OPEN = 100
WORKERS = ("worker", "worker2", "notifier")


def main(argv: Sequence[str] | None = None) -> int:
    """Run once and print the result. Returns 0 if there was no alarm, otherwise 1."""
    parser = argparse.ArgumentParser("make calm", description=__doc__)
    parser.add_argument("--withdrawals", type=int, default=5000)
    parser.add_argument("--clients", type=int, default=8, help="apps at once")
    # Expected times rely on this rate: if the machine does not reach it, withdrawals become overdue.
    parser.add_argument("--pace", type=float, default=30, help="calls a second; this machine must reach it")
    parser.add_argument("--patience", type=float, default=600, help="seconds to become final")
    parser.add_argument("--afterwards", type=float, default=60, help="seconds to watch after all are final")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="coin-calm-") as name:
        directory = Path(name)
        settings = SETTINGS | {"PAYOUTS_PER_SECOND": f"{options.pace:g}"}
        with Stack(settings, workers=2, api_workers=2, provider_speed=5.0, flower=False) as stack:
            faults = _run(stack, options, directory)
    for fault in faults:
        print(f"NOT CALM  {fault}")
    print("Calm." if not faults else f"{len(faults)} alarms.")
    return bool(faults)


def _run(stack: Stack, options: argparse.Namespace, directory: Path) -> list[str]:
    targets = _targets(stack)
    watch = Watch(SCRAPE_SECONDS, time.time())
    over = threading.Event()
    scraper = threading.Thread(target=_scrape_until, args=(over, watch, targets), daemon=True)
    scraper.start()
    started = time.monotonic()
    try:
        _request_all(stack, options)
        request_seconds = time.monotonic() - started
        _wait_until_final(stack, options.patience)
        final_seconds = time.monotonic() - started
        time.sleep(options.afterwards)
    finally:
        over.set()
        scraper.join()
    statuses, spot_checks = _statuses(stack)
    print(f"withdrawals   {sum(statuses.values()):,}: {', '.join(f'{n:,} {s}' for s, n in statuses.items())}")
    print(
        f"seconds       {request_seconds:.0f} to send all requests, {final_seconds:.0f} until all were final"
    )
    print(f"spot checks   each every {SETTINGS['WATCH_SECONDS']} s; {spot_checks} checks in the last minute")
    faults = [*_records(stack), *_check(stack), *_alerts(watch, directory)]
    if sum(statuses.values()) != options.withdrawals:
        faults.append(f"of {options.withdrawals} withdrawals there are {sum(statuses.values())}")
    return faults


def _targets(stack: Stack) -> dict[tuple[str, str], str]:
    """The metrics address of each process; on one machine each needs its own port."""
    targets = {("payouts-api", "api"): stack.info()["api"]}
    for name in WORKERS:
        port = str(free_port())
        stack.parts[name].env = stack.env | {"METRICS_PORT": port}
        stack.parts[name].restart()
        targets["payouts-worker", name] = f"http://127.0.0.1:{port}"
    return targets


def _scrape_until(over: threading.Event, watch: Watch, targets: dict[tuple[str, str], str]) -> None:
    next_scrape = time.monotonic()
    while True:
        watch.take({target: _scrape(url) for target, url in targets.items()})
        next_scrape += SCRAPE_SECONDS
        if over.wait(max(0.0, next_scrape - time.monotonic())):
            return


def _scrape(url: str) -> str | None:
    with suppress(requests.RequestException):
        answer = requests.get(f"{url}/metrics", timeout=10)
        return answer.text if answer.ok else None
    return None


def _request_all(stack: Stack, options: argparse.Namespace) -> None:
    app = App(stack.info()["api"], stack.info()["api_key"])
    number = options.withdrawals

    def request(first: int) -> None:
        while _open(stack) > MAX_OPEN:
            time.sleep(0.5)
        user_id = app.user(COINS * REQUESTS_PER_USER)
        for n in range(first, min(first + REQUESTS_PER_USER, number)):
            scenario = ENDS.get(n % 100, "success")
            withdrawal_id = app.withdraw(user_id, f"{scenario}-{first}@sim", COINS)
            if n % 100 == CANCELLED:
                app.cancel(withdrawal_id)

    with ThreadPoolExecutor(options.clients) as clients:
        list(clients.map(request, range(0, number, REQUESTS_PER_USER)))


def _rows(stack: Stack, query: str) -> list[Any]:
    with psycopg.connect(stack.info()["database_url"]) as connection:
        return connection.execute(query.encode()).fetchall()


def _wait_until_final(stack: Stack, patience: float) -> None:
    until = time.monotonic() + patience
    while _open(stack):
        if time.monotonic() > until:
            return
        time.sleep(2)


def _open(stack: Stack) -> int:
    query = "SELECT count(*) FROM withdrawals WHERE status IN ('pending', 'processing')"
    return int(_rows(stack, query)[0][0])


def _statuses(stack: Stack) -> tuple[Counter[str], int]:
    statuses = Counter(dict(_rows(stack, "SELECT status, count(*) FROM withdrawals GROUP BY status")))
    return statuses, _rows(
        stack, "SELECT count(*) FROM spot_checks WHERE asked_at > now() - interval '1 minute'"
    )[0][0]


def _records(stack: Stack) -> list[str]:
    rows = _rows(stack, "SELECT kind, subject, ours::text FROM exception_records ORDER BY id LIMIT 20")
    return [f"exception record {kind} of {subject}: {ours}" for kind, subject, ours in rows]


def _check(stack: Stack) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "check"],
        env=stack.env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return [] if done.returncode == 0 else [f"payouts check: {done.stdout[-2000:]} {done.stderr[-2000:]}"]


def _alerts(watch: Watch, directory: Path) -> list[str]:
    print(
        f"scrapes       {watch.scrapes} of each of {1 + len(WORKERS)} processes, {len(watch.series):,} series"
    )
    if "PayoutsPromiseBroken" not in fired(with_a_fault(watch), directory):
        return ["a planted fault raised no alert: the rules were not evaluated"]
    return [f"alert {name} at {', '.join(at)}" for name, at in fired(watch, directory).items()]


if __name__ == "__main__":
    sys.exit(main())
