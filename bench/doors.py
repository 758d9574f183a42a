"""What the API answers while strangers hold its door: 1,100 silent, 1,100 half heads, 100 slow bodies.

    python -m bench.doors [--seconds 120] [--threads 2]

Whoever is hung up on comes again at once. Beside them health checks and signed webhooks are timed.
"""

import argparse
import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import psutil

from sandbox.stack import Stack
from tests.strangers import WEBHOOK, Strangers

EVERY_SECONDS, LONGEST_SECONDS = 0.25, 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--threads", type=int, default=8, help="API_THREADS")
    parser.add_argument("--silent", type=int, default=1100)
    parser.add_argument("--half", type=int, default=1100)
    parser.add_argument("--slow", type=int, default=100)
    given = parser.parse_args()
    with Stack({"API_THREADS": str(given.threads)}, flower=False) as stack:
        info = stack.info()
        where = urlsplit(info["api"])
        host, port = where.hostname or "", where.port or 0
        api = psutil.Process(info["pids"]["api"])
        numbers = {"silent": given.silent, "half": given.half, "slow": given.slow}
        with Strangers(host, port, **numbers).around() as strangers:
            time.sleep(2)
            answers = asked(host, port, info["webhook_secret"], given.seconds)
            print(f"connections now {dict(strangers.open)}, ended by the API {dict(strangers.ended)}")
            memory = sum(one.memory_info().rss for one in [api, *api.children(recursive=True)])
            print(f"memory of the API {memory / 2**20:.0f} MB")
        for what, took in answers.items():
            took.sort()
            print(
                f"{what}: {len(took)} asked, median {took[len(took) // 2] * 1000:.0f} ms,"
                f" 99 of 100 in {took[int(len(took) * 0.99)] * 1000:.0f} ms, longest {took[-1] * 1000:.0f} ms"
            )


def asked(host: str, port: int, secret: str, seconds: float) -> dict[str, list[float]]:
    """How long each answer took; one that never comes counts as LONGEST_SECONDS."""
    took: dict[str, list[float]] = {"/healthz": [], "webhook": []}
    deadline, number = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        number += 1
        took["/healthz"].append(timed(lambda: health(host, port)))
        took["webhook"].append(timed(lambda n=number: webhook(host, port, secret, n)))
        time.sleep(EVERY_SECONDS)
    return took


def timed(ask: Callable[[], None]) -> float:
    begun = time.monotonic()
    try:
        ask()
    except (OSError, http.client.HTTPException):
        return LONGEST_SECONDS
    return time.monotonic() - begun


def health(host: str, port: int) -> None:
    connection = http.client.HTTPConnection(host, port, timeout=LONGEST_SECONDS)
    connection.request("GET", "/healthz")
    answer(connection)


def webhook(host: str, port: int, secret: str, number: int) -> None:
    body = json.dumps({"event": "bench.nothing", "number": number}).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    connection = http.client.HTTPConnection(host, port, timeout=LONGEST_SECONDS)
    connection.request("POST", WEBHOOK, body, {"X-Razorpay-Signature": signature})
    answer(connection)


def answer(connection: http.client.HTTPConnection) -> None:
    try:
        status = connection.getresponse().status
        if status != http.client.OK:
            raise OSError(f"answered {status}")
    finally:
        connection.close()


if __name__ == "__main__":
    main()
