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
from shared.queue_names import NOTIFICATIONS, QUEUES

FLOWER_PAGES = Path(__file__).parents[2] / "worker" / "flower_pages.py"
KILL_SECONDS = 10  # what a process gets to finish what it has in hand
MOST_HEAD_BYTES = 64 * 1024  # of one connection; granian would keep 400 KiB for whoever sends half a head
OTHER_FILES = 256  # that an API process holds open beside its connections: database, Redis, log, counts


@click.command()
@click.option("--wait", default=0.0, metavar="SECONDS", help="How long the database may take to appear.")
def migrate(wait: float) -> None:
    """Bring the database up to date."""
    from shared import causes, db
    from shared.errors import Unavailable
    from shared.migrations import migrate as bring_up
    from shared.settings import settings

    deadline = time.monotonic() + wait
    while True:
        try:
            db.reach()
            break
        except Unavailable as error:
            cause = causes.of(error)
            if time.monotonic() >= deadline or (cause and cause.lasts):
                raise
        time.sleep(0.5)
    with db.told_plainly():
        bring_up(settings().database_url.get_secret_value())
    click.echo("The database is up to date.")


@click.command()
def api() -> None:
    """Serve the HTTP API."""
    from shared import starting
    from shared.settings import settings

    here = settings()
    address = _address_of(here.api_host)
    _must_be_free(address, here.api_port)
    starting.look(at_database=True, needs_broker=False)
    _count_together()
    _need_what_is_asked_for()
    _become(
        "granian", "--interface", "wsgi", "--factory", "api.served:create",
        "--host", address, "--port", str(here.api_port),
        "--workers", str(here.api_workers), "--blocking-threads", str(here.api_threads + here.api_bodies),
        # With HTTP/2 allowed as well, granian waits for the first byte for ever, for that tells which it is.
        "--http", "1", "--http1-header-read-timeout", str(round(here.api_head_seconds * 1000)),
        "--http1-buffer-size", str(MOST_HEAD_BYTES),
        "--backpressure", str(_room_for(here.api_connections)),
        "--respawn-failed-workers", "--workers-kill-timeout", str(KILL_SECONDS), "--no-ws",
    )  # fmt: skip


@click.command()
@click.option("--queues", default=",".join(QUEUES), show_default=True, help="Which queues to work.")
def worker(queues: str) -> None:
    """Work the queues: pay, apply webhooks, sweep. With `--queues notifications`: tell apps and users."""
    from shared import starting
    from shared.settings import settings

    _need_what_is_asked_for()
    if NOTIFICATIONS in queues.split(",") and settings().webhook_signing_key is None:
        raise SettingsError(["WEBHOOK_SIGNING_KEY: is missing (base64 of 32 random bytes)"])
    starting.look(at_database=True, needs_broker=True)
    events = ["--events"] if settings().task_events == "on" else ["--without-heartbeat"]
    _become(
        "celery", "--quiet", "--app", "worker.app", "worker", "--queues", queues, "--pool", "threads",
        "--concurrency", str(settings().worker_threads), "--hostname", f"payouts-{os.getpid()}@%h",
        "--without-mingle", "--without-gossip", *events,
    )  # fmt: skip


@click.command()
def beat() -> None:
    """Send the sweep, and all else that is done by the clock. Two of them do no harm."""
    from shared import starting

    starting.look(at_database=False, needs_broker=True)
    # The plain scheduler keeps nothing on disk: after a restart all is due at once, which is right here.
    _become(
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
    """Show queues, workers and tasks in a browser, behind FLOWER_BASIC_AUTH."""
    from shared import starting
    from shared.settings import settings

    here = settings()
    if here.flower_basic_auth is None:
        raise SettingsError(["FLOWER_BASIC_AUTH: is missing (user:password)"])
    starting.look(at_database=False, needs_broker=True)
    # Flower reads its password from the environment, where a list of processes does not show it.
    os.environ["FLOWER_BASIC_AUTH"] = here.flower_basic_auth.get_secret_value()
    _become(
        "celery", "--app", "worker.app", "flower", f"--conf={FLOWER_PAGES}",
        f"--address={here.flower_host}", f"--port={here.flower_port}", "--persistent=False",
        "--read_only=True",  # its buttons would stop workers, and no book would say who did
        # A task's result is nothing here; its queue is the routing key (worker/shown.py). Its id leads to its
        # page, and from there to the withdrawal: it stands where no window is too narrow for it.
        "--tasks_columns=name,uuid,args,routing_key,state,received,started,runtime,exception,worker",
    )  # fmt: skip


def _room_for(connections: int) -> int:
    """So many connections, or as many as this process may hold open, which it then says."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    may = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < may:
        resource.setrlimit(resource.RLIMIT_NOFILE, (may, hard))
    room = max(may // 2, may - OTHER_FILES)
    if room < connections:
        click.echo(
            f"API_CONNECTIONS: {connections} need {wanted} open files, and this process may have {hard}: "
            f"{room} connections are let in. Raise the limit (ulimit -Hn, LimitNOFILE, ulimits).",
            err=True,
        )
    return min(connections, room)


def _need_what_is_asked_for() -> None:
    """Say at start that an extra is missing. Raises SettingsError."""
    from shared import sentry, tracing
    from shared.settings import settings

    tracing.require(settings())
    sentry.require(settings())


def _count_together() -> None:
    """What each of the API's processes counts is told as one sum, whichever of them is asked."""
    from shared import metric_files

    directory = metric_files.fresh_directory()
    if directory is None:
        click.echo("No place for shared counts: each API process tells its own in /metrics.", err=True)
        os.environ.pop(metric_files.VARIABLE, None)
    else:
        os.environ[metric_files.VARIABLE] = str(directory)


def _address_of(host: str) -> str:
    """The address of a name: granian takes no names. Raises SettingsError."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        raise SettingsError([f"API_HOST: nobody knows an address of {host}"]) from None
    addresses = [str(where[0]) for *_, where in found]
    return next((address for address in addresses if ":" not in address), addresses[0])


def _must_be_free(host: str, port: int) -> None:
    """granian shares its port with whoever else wants it, and requests would go to either. Refuse that."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise SettingsError(
                [f"API_PORT: {host}:{port}: {os.strerror(error.errno or 0).lower()}"]
            ) from None


def _become(module: str, *arguments: str) -> NoReturn:
    """Go on as another program, under the same process id: signals reach it without a go-between."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606  no shell is meant


COMMANDS = (migrate, api, worker, beat, flower)
