"""Why PostgreSQL or Redis cannot be used: in words, without a secret; what lasts ends at once."""

import os
import time
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from click.testing import CliRunner
from flask.testing import FlaskClient

from sandbox.services import Redis
from shared import queues, starting
from shared.cli import main
from shared.errors import SettingsError
from tests.integration.app import GOOD, WITHDRAW, assert_refused
from tests.world import World

NOBODY = "postgresql://u:secret-value@127.0.0.1:1/none"


def other(**parts: str) -> str:
    """Our database's address, changed."""
    url = urlsplit(os.environ["DATABASE_URL"])
    login = f"{parts.pop('user', url.username)}:{parts.pop('password', url.password)}"
    return urlunsplit(url._replace(netloc=f"{login}@{url.hostname}:{url.port}", **parts))


def told_at_start() -> str:
    with pytest.raises(SettingsError) as refused:
        starting.look(at_database=True, needs_broker=True)
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
def test_a_wrong_address_of_the_database_is_told_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, parts: dict[str, str], why: str
) -> None:
    """`migrate --wait` does not wait for what never comes, and no process starts."""
    ours = os.environ["DATABASE_URL"]
    monkeypatch.setenv("DATABASE_URL", other(**parts))
    world.forget_settings()
    begun = time.monotonic()
    done = CliRunner().invoke(main, ["migrate", "--wait", "60"])
    assert time.monotonic() - begun < 30
    at_start = told_at_start()
    monkeypatch.setenv("DATABASE_URL", ours)
    world.forget_settings()
    for words in (at_start, done.output):
        assert why in words and "secret-value" not in words
    assert done.exit_code == 1


def test_a_database_that_is_away_is_waited_for_and_told_why(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.point_database_at_nothing(monkeypatch)
    monkeypatch.setenv("DATABASE_URL", NOBODY)
    world.forget_settings()
    begun = time.monotonic()
    done = CliRunner().invoke(main, ["migrate", "--wait", "1"])
    assert time.monotonic() - begun > 1
    starting.look(at_database=True, needs_broker=True)  # a process starts, and waits
    assert_refused(client.post(WITHDRAW, json=GOOD), 503, "Service unavailable")
    world.point_database_back(monkeypatch)
    assert done.exit_code == 1
    for words in (done.output, capsys.readouterr().out):
        assert "Connection refused" in words and "secret-value" not in words


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://:secret-value@{}/0", "invalid username-password pair"),
        ("redis://{}/0", "Redis asks for a password"),
        ("redis://:right@{}/99", "DB index is out of range"),
    ],
)
def test_a_wrong_address_of_redis_is_told_at_once(
    world: World,
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str,
    why: str,
) -> None:
    """A worker does not start. The API does, and takes withdrawals."""
    with Redis() as server, redis.Redis.from_url(server.url) as admin:
        admin.config_set("requirepass", "right")
        monkeypatch.setenv("REDIS_URL", url.format(urlsplit(server.url).netloc))
        world.forget_settings()
        assert why in told_at_start()
        starting.look(at_database=True, needs_broker=False)
        assert client.get("/readyz").get_json()["status"] == "degraded"
        assert queues.nudge(queues.APPLY, "lost") is False
        status = CliRunner().invoke(main, ["status"])
    said = capsys.readouterr().out + status.output
    assert said.count(why) >= 2 and "secret-value" not in said
