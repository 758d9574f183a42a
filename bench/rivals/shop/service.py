"""Runs the rival: the same PostgreSQL, Redis and simulator as ours, gunicorn and Celery workers.

As many processes and threads as ours. `server="granian"` runs the API on our own server instead of gunicorn,
and `pool="prefork"` Celery's default pool: both show how much of a difference comes from these.
"""

import importlib.util
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psycopg

from bench.ours import ALWAYS, ROOT
from bench.service import WEBHOOK, PromiseBroken, Service
from sandbox.processes import Part
from sandbox.readiness import is_consuming, status
from sandbox.services import LOOPBACK, Postgres, Redis, free_port

THREADS = ALWAYS["API_THREADS"]
FINISH_SECONDS = 60.0
APPLICATION = "bench.rivals.shop.wsgi:application"
NEEDED = ("django", "rest_framework", "gunicorn")
BROKEN = {
    "a balance that is not the sum of its journal": """
        SELECT count(*) FROM wallets w WHERE balance_coins IS DISTINCT FROM
            (SELECT sum(coins) FROM coin_transactions t WHERE t.user_id = w.user_id)""",
    "a withdrawal that did not debit its coins once": """
        SELECT count(*) FROM withdrawals w WHERE 1 IS DISTINCT FROM
            (SELECT count(*) FROM coin_transactions t
             WHERE t.withdrawal_id = w.id AND kind = 'withdrawal')""",
    "a failed withdrawal without a refund": """
        SELECT count(*) FROM withdrawals w WHERE status = 'failed' AND NOT EXISTS
            (SELECT FROM coin_transactions t WHERE t.withdrawal_id = w.id AND kind = 'refund')""",
}


def missing() -> str | None:
    """Why it cannot run here; None if it can."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return (
        f"{', '.join(absent)} not installed: `make bench` installs requirements-bench.lock"
        if absent
        else None
    )


@contextmanager
def running(
    settings: Mapping[str, str],
    *,
    workers: int = 1,
    api_workers: int = 1,
    pool: str = "threads",
    server: str = "gunicorn",
) -> Iterator[Service]:
    """Run it with those of our settings that it has: the cancel window, the simulator's, limits on or off."""
    settings = {**ALWAYS, **settings}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coin-rival-")))
        database: str = settings.get("DATABASE_URL") or ""
        parts: dict[str, list[Part]] = {}
        if not database:
            postgres = stack.enter_context(Postgres(directory / "postgres"))
            database = postgres.url
            parts["postgres"] = [postgres]
        redis = stack.enter_context(Redis(directory / "redis"))
        parts["redis"] = [redis]
        env = _environment(settings, database, redis.url)
        simulator = stack.enter_context(_simulator(env, directory))
        parts["simulator"] = [simulator]
        env["RIVAL_PROVIDER_URL"] = json.loads((directory / "simulator.json").read_text())["url"]
        _migrate(env, directory)
        parts["api"] = [stack.enter_context(_api(env, directory, api_workers, server))]
        parts["worker"] = [
            stack.enter_context(_worker(env, directory, number, pool)) for number in range(workers)
        ]
        stack.enter_context(_logs_shown([*parts["api"], *parts["worker"]]))
        yield Service(
            name="Django rival",
            api=env["RIVAL_API_URL"],
            api_key=env["RIVAL_API_KEY"],
            database_url=database,
            redis_url=redis.url,
            simulator_url=env["RIVAL_PROVIDER_URL"],
            provider_auth=(env["RIVAL_PROVIDER_KEY"], env["RIVAL_PROVIDER_SECRET"]),
            webhook_secret=env["RIVAL_WEBHOOK_SECRET"],
            pids={kind: [part.pid for part in some if part.pid] for kind, some in parts.items()},
            check_promises=partial(_check, database),
            env=env,
        )


@contextmanager
def _logs_shown(parts: list[Part]) -> Iterator[None]:
    """Show the end of the logs if what runs in this block fails."""
    try:
        yield
    except BaseException:
        for part in parts:
            sys.stderr.write(f"--- the end of {part.name}.log\n{part.log_tail(120)}\n")
        raise


def _environment(settings: Mapping[str, str], database: str, redis: str) -> dict[str, str]:
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    secret = secrets.token_hex(24)
    key = "rzp_test_rival"
    key_secret = secrets.token_hex(16)
    account = "2323230041626905"
    simulator = {name: value for name, value in settings.items() if name.startswith("SIM_")}
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
        "DJANGO_SETTINGS_MODULE": "bench.rivals.shop.settings",
        "RIVAL_DATABASE_URL": database,
        "RIVAL_REDIS_URL": redis,
        "RIVAL_API_URL": url,
        "RIVAL_API_PORT": str(port),
        "RIVAL_API_KEY": secrets.token_hex(24),
        "RIVAL_LIMITS": "off" if settings["RATE_LIMIT_PER_KEY"] == "off" else "on",
        "RIVAL_CANCEL_WINDOW_SECONDS": settings.get("CANCEL_WINDOW_SECONDS", "10"),
        "RIVAL_PROVIDER_KEY": key,
        "RIVAL_PROVIDER_SECRET": key_secret,
        "RIVAL_PROVIDER_ACCOUNT": account,
        "RIVAL_WEBHOOK_SECRET": secret,
        "SIM_KEY_ID": key,
        "SIM_KEY_SECRET": key_secret,
        "SIM_ACCOUNT_NUMBER": account,
        "SIM_WEBHOOK_URL": f"{url}{WEBHOOK}",
        "SIM_WEBHOOK_SECRET": secret,
        **simulator,
    }


def _simulator(env: Mapping[str, str], directory: Path) -> Part:
    file = directory / "simulator.json"
    argv = ["sandbox.razorpayx", "--host", LOOPBACK, "--port", str(free_port()), "--ready-file", str(file)]
    return _part("simulator", argv, env, directory, ready=file.exists)


def _migrate(env: Mapping[str, str], directory: Path) -> None:
    part = _part("migrate", ["django", "migrate", "--run-syncdb", "--verbosity", "0"], env, directory)
    part.start()
    try:
        if part.wait(FINISH_SECONDS):
            raise part.failure(f"ended with exit code {part.returncode}")
    finally:
        part.kill()


def _api(env: Mapping[str, str], directory: Path, processes: int, server: str) -> Part:
    port = env["RIVAL_API_PORT"]
    argv = {
        "gunicorn": [
            "gunicorn", APPLICATION, "--bind", f"{LOOPBACK}:{port}", "--workers", str(processes),
            "--threads", THREADS, "--worker-class", "gthread", "--keep-alive", "75",
        ],
        "granian": [
            "granian", "--interface", "wsgi", APPLICATION, "--host", LOOPBACK, "--port", port,
            "--workers", str(processes), "--blocking-threads", THREADS, "--http", "1", "--no-ws",
        ],
    }[server]  # fmt: skip
    return _part("api", argv, env, directory, ready=lambda: status(f"{env['RIVAL_API_URL']}/readyz") == 200)


def _worker(env: Mapping[str, str], directory: Path, number: int, pool: str) -> Part:
    concurrency = THREADS if pool == "threads" else str(os.cpu_count() or 1)
    argv = [
        "celery", "--app", "bench.rivals.shop.tasks", "worker", "--pool", pool, "--concurrency", concurrency,
        "--loglevel", "INFO", "--hostname", f"rival{number}@%h",
    ]  # fmt: skip
    part = _part(f"worker{number}", argv, env, directory)
    part.ready = lambda: is_consuming(part, env["RIVAL_REDIS_URL"])
    return part


def _part(name: str, argv: list[str], env: Mapping[str, str], directory: Path, **options: object) -> Part:
    command = [sys.executable, "-m", *argv]
    return Part(name, command, env, directory / f"{name}.log", cwd=ROOT, **options)  # type: ignore[arg-type]


def _check(database: str) -> None:
    with psycopg.connect(database) as connection:
        for what, query in BROKEN.items():
            row = connection.execute(query.encode()).fetchone()
            if row and row[0]:
                raise PromiseBroken(f"Django rival: {row[0]} times {what}")
