"""The script runs whatever happened to the connection or to Redis meanwhile."""

import os
from collections.abc import Iterator

import pytest
import redis

from api.redis_script import Script
from tests.support.counting_proxy import Counts, counting_redis

ECHO = "return redis.status_reply(KEYS[1] .. ' ' .. ARGV[1])"


@pytest.fixture
def wire(redis_url: str) -> Iterator[tuple[redis.Redis, Counts]]:
    with counting_redis(redis_url) as (url, counts):
        yield redis.Redis.from_url(url, health_check_interval=5), counts


def test_a_run_is_one_round_trip(wire: tuple[redis.Redis, Counts]) -> None:
    client, counts = wire
    script = Script(client.connection_pool, ECHO)
    assert script.run(["a"], ["1"]) == ["a", "1"]
    counts.reset()
    assert [script.run(["a"], [str(number)]) for number in range(5)] == [
        ["a", str(number)] for number in range(5)
    ]
    assert dict(counts.statements) == {"EVALSHA": 5} and counts.round_trips == 5


def test_a_redis_that_lost_its_scripts_gets_it_again(wire: tuple[redis.Redis, Counts]) -> None:
    client, _ = wire
    script = Script(client.connection_pool, ECHO)
    for _ in range(2):
        assert script.run(["a"], ["é ☂"]) == ["a", "é", "☂"]
        client.script_flush()


def test_a_connection_that_the_server_closed_is_replaced(wire: tuple[redis.Redis, Counts]) -> None:
    client, _ = wire
    script = Script(client.connection_pool, ECHO)
    for number in range(3):
        assert script.run(["a"], [str(number)]) == ["a", str(number)]
        client.client_kill_filter(_type="normal", skipme=True)
    assert len(script._idle) == 1


def test_an_error_of_the_script_is_raised_and_the_connection_stays(wire: tuple[redis.Redis, Counts]) -> None:
    client, _ = wire
    client.lpush("a list", 1)
    script = Script(client.connection_pool, "redis.call('GET', KEYS[1]) return redis.status_reply('never')")
    for _ in range(3):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            script.run(["a list"], [])
    client.delete("a list")
    assert len(script._idle) == 1


def test_an_absent_redis_is_an_error_of_redis() -> None:
    client = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2, socket_timeout=0.2)
    with pytest.raises(redis.ConnectionError):
        Script(client.connection_pool, ECHO).run(["a"], ["1"])


def test_a_forked_child_does_not_use_its_parents_connection(wire: tuple[redis.Redis, Counts]) -> None:
    client, _ = wire
    script = Script(client.connection_pool, ECHO)
    script.run(["a"], ["0"])
    child = os.fork()
    if child == 0:
        os._exit(0 if script.run(["a"], ["child"]) == ["a", "child"] and len(script._idle) == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [script.run(["a"], [str(number)]) for number in range(3)] == [
        ["a", str(number)] for number in range(3)
    ]
