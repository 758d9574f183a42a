"""Which machine, commit and servers a measurement is from."""

import os
import platform
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg
import redis

from bench.ours import ROOT
from sandbox.services import Postgres, Redis

CPU_INFO = Path("/proc/cpuinfo")


def description() -> str:
    """One sentence. Raises AssertionError if PostgreSQL would not wait for the disk."""
    return ", ".join([*_run(), *_hardware(), *_servers(), f"Python {platform.python_version()}"])


def _run() -> Iterator[str]:
    yield f"{datetime.now(UTC):%Y-%m-%d}"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    yield f"commit {_git('rev-parse', '--short', 'HEAD') or 'unknown'}" + (" with changes" if changed else "")


def _hardware() -> Iterator[str]:
    yield _cpu_model()
    yield f"{os.cpu_count()} cores"
    yield f"{psutil.virtual_memory().total / 2**30:.0f} GiB of memory"
    yield f"{platform.system()} {platform.release()}"


def _servers() -> Iterator[str]:
    with Postgres() as server, psycopg.connect(server.url) as connection:
        version, fsync, commit = (
            connection.execute(f"SHOW {name}").fetchall()[0][0]
            for name in ("server_version", "fsync", "synchronous_commit")
        )
        assert fsync == commit == "on", "PostgreSQL must wait for the disk"
        yield f"PostgreSQL {version} (fsync {fsync})"
    with Redis() as broker, redis.Redis.from_url(broker.url) as client:
        yield f"Redis {client.info('server')['redis_version']}"


def _cpu_model() -> str:
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
