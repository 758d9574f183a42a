"""Why PostgreSQL or Redis cannot be used: the cause is printed without secrets; a lasting one prevents a start."""

import os
import time
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from click.testing import CliRunner
from flask.testing import FlaskClient

from cli import main
from sandbox.services import Redis
from shared.db import startup
from shared.errors import SettingsError
from shared.queues import messages
from tests.support.api import GOOD, WITHDRAW, assert_refused
from tests.support.world import World

UNREACHABLE = "postgresql://u:secret-value@127.0.0.1:1/none"


def database_url(**parts: str) -> str:
    """Return our database's address with changes."""
    url = urlsplit(os.environ["DATABASE_URL"])
    login = f"{parts.pop('user', url.username)}:{parts.pop('password', url.password)}"
    return urlunsplit(url._replace(netloc=f"{login}@{url.hostname}:{url.port}", **parts))


def fault_at_start() -> str:
    with pytest.raises(SettingsError) as refused:
        startup.check(needs_database=True, needs_redis=True)
    return str(refused.value)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"password": "secret-value"}, "password authentication failed"),
        ({"path": "/none"}, 'database "none" does not exist'),
        ({"query": "sslmode=require"}, "server does not support SSL"),
        ({"query": "options=-c%20nonsense%3D1"}, 'unrecognized configuration parameter "nonsense"'),
    ],
)
def test_a_wrong_database_url_is_reported_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, parts: dict[str, str], why: str
) -> None:
    """`migrate --wait` does not wait for a lasting cause, and no process starts."""
    original = os.environ["DATABASE_URL"]
    monkeypatch.setenv("DATABASE_URL", database_url(**parts))
    world.forget_settings()
    started = time.monotonic()
    done = CliRunner().invoke(main, ["migrate", "--wait", "60"])
    assert time.monotonic() - started < 30
    at_start = fault_at_start()
    monkeypatch.setenv("DATABASE_URL", original)
    world.forget_settings()
    for output in (at_start, done.output):
        assert why in output and "secret-value" not in output
    assert done.exit_code == 1


def test_an_unreachable_database_is_waited_for_and_the_cause_is_printed(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.point_database_at_nothing(monkeypatch)
    monkeypatch.setenv("DATABASE_URL", UNREACHABLE)
    world.forget_settings()
    started = time.monotonic()
    done = CliRunner().invoke(main, ["migrate", "--wait", "1"])
    assert time.monotonic() - started > 1
    startup.check(needs_database=True, needs_redis=True)  # the process starts and waits
    assert_refused(client.post(WITHDRAW, json=GOOD), 503, "Service unavailable")
    world.point_database_back(monkeypatch)
    assert done.exit_code == 1
    for output in (done.output, capsys.readouterr().out):
        assert "Connection refused" in output and "secret-value" not in output


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://:secret-value@{}/0", "invalid username-password pair"),
        ("redis://{}/0", "Redis requires a password"),
        ("redis://:right@{}/99", "DB index is out of range"),
    ],
)
def test_a_wrong_redis_url_is_reported_at_once(
    world: World,
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str,
    why: str,
) -> None:
    """A worker does not start. The API does, and accepts withdrawals."""
    with Redis() as server, redis.Redis.from_url(server.url) as admin:
        admin.config_set("requirepass", "right")
        monkeypatch.setenv("REDIS_URL", url.format(urlsplit(server.url).netloc))
        world.forget_settings()
        assert why in fault_at_start()
        startup.check(needs_database=True, needs_redis=False)
        assert client.get("/readyz").get_json()["status"] == "degraded"
        assert messages.nudge(messages.APPLY, "lost") is False
        status = CliRunner().invoke(main, ["status"])
    output = capsys.readouterr().out + status.output
    assert output.count(why) >= 2 and "secret-value" not in output
