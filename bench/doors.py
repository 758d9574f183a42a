"""Response times while attackers hold connections: 1,100 silent, 1,100 with half a head, 100 with slow
bodies.

    python -m bench.doors [--seconds 120] [--threads 2]

Closed connections are reopened at once. Meanwhile, health checks and signed webhooks are timed.
"""

import argparse
import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import psutil

from sandbox.stack import Stack
from tests.support.idle_clients import WEBHOOK, Strangers

INTERVAL_SECONDS = 0.25
TIMEOUT_SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--threads", type=int, default=8, help="API_THREADS")
    parser.add_argument("--silent", type=int, default=1100)
    parser.add_argument("--half", type=int, default=1100)
    parser.add_argument("--slow", type=int, default=100)
    arguments = parser.parse_args()
    with Stack({"API_THREADS": str(arguments.threads)}, flower=False) as stack:
        info = stack.info()
        url = urlsplit(info["api"])
        host = url.hostname or ""
        port = url.port or 0
        api = psutil.Process(info["pids"]["api"])
        numbers = {"silent": arguments.silent, "half": arguments.half, "slow": arguments.slow}
        with Strangers(host, port, **numbers).connected() as strangers:
            time.sleep(2)
            times = measure(host, port, info["webhook_secret"], arguments.seconds)
            print(f"connections now {dict(strangers.open)}, ended by the API {dict(strangers.ended)}")
            processes = [api, *api.children(recursive=True)]
            memory_bytes = sum(process.memory_info().rss for process in processes)
            print(f"memory of the API {memory_bytes / 2**20:.0f} MB")
        for name, seconds in times.items():
            seconds.sort()
            median = seconds[len(seconds) // 2]
            p99 = seconds[int(len(seconds) * 0.99)]
            longest = seconds[-1]
            print(
                f"{name}: {len(seconds)} requests, median {median * 1000:.0f} ms,"
                f" 99 % within {p99 * 1000:.0f} ms, longest {longest * 1000:.0f} ms"
            )


def measure(host: str, port: int, secret: str, seconds: float) -> dict[str, list[float]]:
    """The response times; a request without a response counts as `TIMEOUT_SECONDS`."""
    times: dict[str, list[float]] = {"/healthz": [], "webhook": []}
    deadline = time.monotonic() + seconds
    number = 0
    while time.monotonic() < deadline:
        number += 1
        times["/healthz"].append(timed(lambda: request_health(host, port)))
        times["webhook"].append(timed(partial(send_webhook, host, port, secret, number)))
        time.sleep(INTERVAL_SECONDS)
    return times


def timed(request: Callable[[], None]) -> float:
    started_at = time.monotonic()
    try:
        request()
    except (OSError, http.client.HTTPException):
        return TIMEOUT_SECONDS
    return time.monotonic() - started_at


def request_health(host: str, port: int) -> None:
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    connection.request("GET", "/healthz")
    read_response(connection)


def send_webhook(host: str, port: int, secret: str, number: int) -> None:
    body = json.dumps({"event": "bench.nothing", "number": number}).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    connection.request("POST", WEBHOOK, body, {"X-Razorpay-Signature": signature})
    read_response(connection)


def read_response(connection: http.client.HTTPConnection) -> None:
    try:
        status = connection.getresponse().status
        if status != http.client.OK:
            raise OSError(f"answered {status}")
    finally:
        connection.close()


if __name__ == "__main__":
    main()
