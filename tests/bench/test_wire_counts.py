"""Statements and round trips are counted on the wire."""

import os

import psycopg
import redis

from bench.wire_counts import Counts, Monitor, Proxy
from sandbox.services import Databases

OWN = {"test": [os.getpid()]}


def test_a_pipeline_is_one_round_trip(databases: Databases) -> None:
    with Proxy(databases.url).running() as proxy, psycopg.connect(proxy.url, autocommit=True) as connection:
        before = proxy.counts(OWN)["test"]
        connection.execute("SELECT 1")
        connection.execute("SELECT %s::int", [1])
        assert proxy.counts(OWN)["test"] - before == Counts(statements=2, round_trips=2)
        before = proxy.counts(OWN)["test"]
        with connection.pipeline():
            for number in range(5):
                connection.execute("SELECT %s::int", [number], prepare=False)
        assert proxy.counts(OWN)["test"] - before == Counts(statements=5, round_trips=1)


def test_other_processes_are_counted_apart(databases: Databases) -> None:
    with Proxy(databases.url).running() as proxy, psycopg.connect(proxy.url) as connection:
        connection.execute("SELECT 1")
        assert proxy.counts({"api": []})["other"].statements >= 1
        assert proxy.counts({"api": []})["api"] == Counts()


def test_a_script_is_one_command(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client, Monitor(redis_url).running() as monitor:
        client.ping()
        before = monitor.counts(OWN)["test"]
        client.eval("redis.call('PING') return redis.call('PING')", 0)
        client.ping()
        while monitor.counts(OWN)["test"] - before < 2:
            pass
        assert monitor.counts(OWN)["test"] - before == 2
