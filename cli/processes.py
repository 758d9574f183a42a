"""The processes: migrate, api, worker, beat, flower."""

import os
import resource
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

import click

from shared.errors import SettingsError
from shared.queues.names import NOTIFICATIONS, QUEUES

FLOWER_PAGES = Path(__file__).parents[1] / "worker" / "flower_pages.py"
SHUTDOWN_SECONDS = 10  # for a process to finish its current requests
MAX_HEADER_BYTES = 64 * 1024  # per connection; granian's default is 400 KiB
RESERVED_FILES = 256  # that an API process needs besides its connections: database, Redis, log, metrics


@click.command()
@click.option("--wait", default=0.0, metavar="SECONDS", help="How long to wait for the database.")
def migrate(wait: float) -> None:
    """Create or update the database's tables."""
    from shared.db import causes
    from shared.db.health import check
    from shared.db.transactions import map_db_errors
    from shared.errors import Unavailable
    from shared.migrations import migrate as run_migrations
    from shared.settings import settings

    deadline = time.monotonic() + wait
    while True:
        try:
            check()
            break
        except Unavailable as error:
            cause = causes.cause_of(error)
            if time.monotonic() >= deadline or (cause and cause.is_lasting):
                raise
        time.sleep(0.5)
    with map_db_errors():
        run_migrations(settings().database_url.get_secret_value())
    click.echo("The database is up to date.")


@click.command()
def api() -> None:
    """Serve the HTTP API."""
    from shared.db import startup
    from shared.settings import settings

    config = settings()
    address = _resolve(config.api_host)
    _require_free_port(address, config.api_port)
    startup.check(needs_database=True, needs_redis=False)
    _share_metrics()
    _require_extras()
    _exec(
        "granian", "--interface", "wsgi", "--factory", "api.server:create",
        "--host", address, "--port", str(config.api_port),
        "--workers", str(config.api_workers),
        "--blocking-threads", str(config.api_threads + config.api_bodies),
        # With HTTP/2 enabled too, granian waits forever for the first byte, which shows the protocol.
        "--http", "1", "--http1-header-read-timeout", str(round(config.api_head_seconds * 1000)),
        "--http1-buffer-size", str(MAX_HEADER_BYTES),
        "--backpressure", str(_allowed_connections(config.api_connections)),
        "--respawn-failed-workers", "--workers-kill-timeout", str(SHUTDOWN_SECONDS), "--no-ws",
    )  # fmt: skip


@click.command()
@click.option("--queues", default=",".join(QUEUES), show_default=True, help="Queues to consume.")
def worker(queues: str) -> None:
    """Run a worker: pay, apply webhooks, sweep. With `--queues notifications`: send webhooks and mail."""
    from shared.db import startup
    from shared.settings import settings

    _require_extras()
    if NOTIFICATIONS in queues.split(",") and settings().webhook_signing_key is None:
        raise SettingsError(["WEBHOOK_SIGNING_KEY: is missing (base64 of 32 random bytes)"])
    startup.check(needs_database=True, needs_redis=True)
    events = ["--events"] if settings().task_events == "on" else ["--without-heartbeat"]
    _exec(
        "celery", "--quiet", "--app", "worker.app", "worker", "--queues", queues, "--pool", "threads",
        "--concurrency", str(settings().worker_threads), "--hostname", f"payouts-{os.getpid()}@%h",
        "--without-mingle", "--without-gossip", *events,
    )  # fmt: skip


@click.command()
def beat() -> None:
    """Run beat, which sends the scheduled tasks. Two at once do no harm."""
    from shared.db import startup

    startup.check(needs_database=False, needs_redis=True)
    # The scheduler stores nothing on disk: after a restart every task is due at once, which is what we want.
    _exec(
        "celery",
        "--quiet",
        "--app",
        "worker.app",
        "beat",
        "--scheduler",
        "worker.beat:Scheduler",
        "--pidfile",
        "",
    )


@click.command()
def flower() -> None:
    """Run Flower: queues, workers and tasks in a browser, behind FLOWER_BASIC_AUTH."""
    from shared.db import startup
    from shared.settings import settings

    config = settings()
    if config.flower_basic_auth is None:
        raise SettingsError(["FLOWER_BASIC_AUTH: is missing (user:password)"])
    startup.check(needs_database=False, needs_redis=True)
    # In the environment, because a list of processes shows the arguments.
    os.environ["FLOWER_BASIC_AUTH"] = config.flower_basic_auth.get_secret_value()
    _exec(
        "celery", "--app", "worker.app", "flower", f"--conf={FLOWER_PAGES}",
        f"--address={config.flower_host}", f"--port={config.flower_port}", "--persistent=False",
        "--read_only=True",  # its buttons would stop workers without an audit entry
        # Without the result, which our tasks do not have. The queue is the routing key
        # (worker/task_class.py). The id is second, so that it is visible in a narrow window: it links to the
        # task and its withdrawal.
        "--tasks_columns=name,uuid,args,routing_key,state,received,started,runtime,exception,worker",
    )  # fmt: skip


def _allowed_connections(connections: int) -> int:
    """Return `connections`, or fewer if this process may not open that many files; that is printed."""
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed_files = connections + RESERVED_FILES
    files = needed_files if hard_limit == resource.RLIM_INFINITY else min(needed_files, hard_limit)
    if soft_limit != resource.RLIM_INFINITY and soft_limit < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard_limit))
    allowed = max(files // 2, files - RESERVED_FILES)
    if allowed < connections:
        click.echo(
            f"API_CONNECTIONS: {connections} connections need {needed_files} open files, but the limit is "
            f"{hard_limit}, so {allowed} are accepted. Raise the limit (ulimit -Hn, LimitNOFILE, ulimits).",
            err=True,
        )
    return min(connections, allowed)


def _require_extras() -> None:
    """Check at start that the extras which the settings need are installed. Raises SettingsError."""
    from shared.settings import settings
    from shared.telemetry import sentry, tracing

    tracing.require_extra(settings())
    sentry.require_extra(settings())


def _share_metrics() -> None:
    """Share the metrics of the API's processes, so that each of them reports the sum."""
    from shared.telemetry import metric_files

    directory = metric_files.fresh_directory()
    if directory is None:
        click.echo(
            "The temporary directory is not usable: each API process reports only its own metrics.", err=True
        )
        os.environ.pop(metric_files.DIRECTORY_VARIABLE, None)
    else:
        os.environ[metric_files.DIRECTORY_VARIABLE] = str(directory)


def _resolve(host: str) -> str:
    """Resolve a host name, because granian accepts only addresses. Raises SettingsError."""
    try:
        results = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        raise SettingsError([f"API_HOST: {host} cannot be resolved"]) from None
    addresses = [str(socket_address[0]) for *_, socket_address in results]
    return next((address for address in addresses if ":" not in address), addresses[0])


def _require_free_port(host: str, port: int) -> None:
    """Require that the port is free: granian would share it with another program. Raises SettingsError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise SettingsError(
                [f"API_PORT: {host}:{port}: {os.strerror(error.errno or 0).lower()}"]
            ) from None


def _exec(module: str, *arguments: str) -> NoReturn:
    """Replace this process by another program, so that signals reach it directly.

    granian and Celery get our modules by name, because they import them in their own processes.
    """
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606  no shell is meant


COMMANDS = (migrate, api, worker, beat, flower)
