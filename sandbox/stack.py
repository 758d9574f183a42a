"""The whole system on one machine: database, broker, simulator, API, workers, notifier, beat, Flower.

with Stack(workers=2) as stack:
    requests.get(stack.info()["api"] + "/readyz")
"""

import base64
import http.client
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any, Self

from sandbox.processes import Part, PartFailed
from sandbox.readiness import is_consuming, status
from sandbox.services import LOOPBACK, PORT_ATTEMPTS, PORT_TAKEN, Postgres, Redis, free_port, is_free
from sandbox.signals import Terminated, in_main_thread, raise_terminated, signals_ignored
from shared.settings.panel import safety_warnings

ROOT = Path(__file__).parents[1]
WEBHOOK_PATH = "/api/razorpay/webhook/"
PROVIDER_SECRETS = (
    "RAZORPAYX_KEY_ID",
    "RAZORPAYX_KEY_SECRET",
    "RAZORPAYX_ACCOUNT_NUMBER",
    "RAZORPAYX_WEBHOOK_SECRET",
)
# One person who tries things out needs neither a second admin nor a phone. The start prints a warning.
RELAXED = {
    "SECOND_ADMIN_REQUIRED": "off",
    "ADMIN_TOTP_REQUIRED_ROLES": "off",
    "ADJUST_ALONE_MAX_COINS": "1000",
}
FINISH_SECONDS = 60.0
WATCH_SECONDS = 0.2
RESTART_SECONDS = 1.0  # before the first restart; doubles with each further one
MAX_RESTART_SECONDS = 30.0


@dataclass
class _Watched:
    """The state of one watched part."""

    deaths: int = 0  # in a row, since it was last ready
    ready: bool = True
    restart_at: float | None = None


class Stack:
    """All processes on free loopback ports; `parts` holds them by name.

    `settings` apply to every process and override the defaults. If they contain DATABASE_URL or REDIS_URL,
    that service is used instead of an embedded one. (The same variables in the environment are ignored: a
    sandbox must not write to whatever a shell points at.) With `provider_url` no simulator starts, and the
    provider's secrets come from `settings` or the environment.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        workers: int = 1,
        api_workers: int = 1,
        provider_url: str | None = None,
        flower: bool = True,
        api_port: int = 0,
        directory: Path | str | None = None,
        provider_speed: float = 1.0,
        api_auth: str = "on",
    ) -> None:
        self.settings = {name: str(value) for name, value in (settings or {}).items()}
        self.workers = workers
        self.flower = flower
        self.api_port = api_port
        self.provider_url = provider_url
        self._temporary = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="coin-sandbox-")).absolute()
        self.parts: dict[str, Part] = {}
        self.env: dict[str, str] = {}
        self._admin = ("admin", secrets.token_hex(12))
        self._defaults = {
            "API_HOST": LOOPBACK,
            "API_WORKERS": str(api_workers),
            "API_AUTH": api_auth,
            # A sandbox has one app, one address and few users. Failed sign-ins are still limited.
            "RATE_LIMIT_PER_KEY": "off",
            "RATE_LIMIT_PER_USER": "off",
            "RATE_LIMIT_PER_ADDRESS": "off",
            "API_KEYS": secrets.token_hex(24),
            "WEBHOOK_SIGNING_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "FLOWER_HOST": LOOPBACK,
            "FLOWER_BASIC_AUTH": ":".join(self._admin),
            "SANDBOX_OPERATOR": ":".join(self._admin),
            "PAYOUTS_OPERATOR_TOKEN": f"cpo_{secrets.token_urlsafe(32)}",  # issued by `sandbox.admit`
            # The first operator can add the second one and try out with them what takes two people.
            "MAKER_CHECKER_INDEPENDENCE_DAYS": "0",
            "ADMIN_SECRET_KEY": secrets.token_hex(24),
            "ADMIN_COOKIE_SECURE": "off",  # http on loopback
            **RELAXED,
            "SIM_SPEED": str(provider_speed),
            "PYTHONUNBUFFERED": "1",  # a buffered log would hide why a part died
            "RUST_BACKTRACE": "0",  # 100 lines of Granian's frames would hide it too
        } | self._provider_secrets()
        self._ready_file: Path | None = None
        self._former_handler: Any = None

    def _provider_secrets(self) -> dict[str, str]:
        if self.provider_url:
            return {"RAZORPAYX_BASE_URL": self.provider_url}
        return {
            "RAZORPAYX_KEY_ID": "rzp_test_sandbox" + secrets.token_hex(4),
            "RAZORPAYX_KEY_SECRET": secrets.token_hex(16),
            "RAZORPAYX_ACCOUNT_NUMBER": "2323230041626905",
            "RAZORPAYX_WEBHOOK_SECRET": secrets.token_hex(24),
            "RAZORPAYX_WEBHOOK_SECRET_PREVIOUS": secrets.token_hex(24),
        }

    # --- starting

    def start(self) -> None:
        """Start everything and return when every part is ready.

        Raises PartFailed, which names the part and shows its log, or Terminated at SIGTERM. In both cases
        nothing is left running.
        """
        self._catch_sigterm()
        try:
            self._check_given_port()
            for left in reversed(range(PORT_ATTEMPTS)):
                try:
                    return self._start()
                except PartFailed as error:
                    if not left or self._given_port() or PORT_TAKEN not in error.tail.lower():
                        raise
                    self._stop_parts()  # another process took a free port: choose others
        except BaseException:
            self.stop()
            raise

    def _given_port(self) -> int:
        port = self.settings.get("API_PORT", "")
        return int(port) if port.isdecimal() else self.api_port

    def _check_given_port(self) -> None:
        """A given port is never replaced by another one, so fail before anything starts if it is taken."""
        port = self._given_port()
        if port and not is_free(port):
            raise PartFailed("api", f"port {port}: {PORT_TAKEN}")

    def _start(self) -> None:
        self.parts = {}
        self.env = self._environment(self.api_port or free_port(), free_port())
        simulator = None if self.provider_url else self._add_simulator()
        self._start_services()
        migrate = self._part("migrate", "cli", "migrate")
        migrate.start()
        if simulator:
            simulator.wait_ready()
        # Beat and Flower need no tables, so they start during the migration.
        self._add("beat", lambda: self.parts["beat"].log_text() != "")
        if self.flower:
            self._add("flower", lambda: status(self._url("FLOWER_PORT")) < http.client.INTERNAL_SERVER_ERROR)
        self._finish(migrate)
        admit = self._part("admit", "sandbox.admit")
        admit.start()
        self._add("api", lambda: status(self._url("API_PORT") + "/readyz") == http.client.OK)
        for number in range(1, self.workers + 1):
            name = "worker" if number == 1 else f"worker{number}"
            self._add(name, partial(self._consumes, name), "worker")
        self._add("notifier", partial(self._consumes, "notifier"), "worker", "--queues", "notifications")
        self._finish(admit)
        for part in self.parts.values():
            part.wait_ready()

    def _environment(self, api_port: int, flower_port: int) -> dict[str, str]:
        defaults = self._defaults | {"API_PORT": str(api_port), "FLOWER_PORT": str(flower_port)}
        defaults["ADMIN_URL"] = f"http://{LOOPBACK}:{api_port}/admin/"
        if self.flower:
            defaults["FLOWER_URL"] = f"http://{LOOPBACK}:{flower_port}"
        env = dict(os.environ) | defaults | self.settings
        missing = [name for name in PROVIDER_SECRETS if not env.get(name)]
        if missing:
            raise PartFailed("provider", f"set {', '.join(missing)}: {self.provider_url} needs them")
        simulator = {
            "SIM_KEY_ID": env["RAZORPAYX_KEY_ID"],
            "SIM_KEY_SECRET": env["RAZORPAYX_KEY_SECRET"],
            "SIM_ACCOUNT_NUMBER": env["RAZORPAYX_ACCOUNT_NUMBER"],
            "SIM_WEBHOOK_URL": f"http://{LOOPBACK}:{env['API_PORT']}{WEBHOOK_PATH}",
            "SIM_WEBHOOK_SECRET": env["RAZORPAYX_WEBHOOK_SECRET"],
            "SIM_WEBHOOK_PREVIOUS_SECRET": env.get("RAZORPAYX_WEBHOOK_SECRET_PREVIOUS", ""),
        }
        paths = [str(ROOT), *filter(None, [env.get("PYTHONPATH")])]
        # A proxy cannot reach this machine's loopback.
        no_proxy = ",".join(filter(None, [env.get("NO_PROXY"), LOOPBACK, "localhost"]))
        process = {"PYTHONPATH": os.pathsep.join(paths), "NO_PROXY": no_proxy, "no_proxy": no_proxy}
        return env | process | simulator | self.settings

    def _add_simulator(self) -> Part:
        ready_file = self.directory / "simulator.json"
        arguments = ["--host", LOOPBACK, "--port", str(free_port()), "--ready-file", str(ready_file)]
        part = self._part("simulator", "sandbox.razorpayx", *arguments)
        part.ready = lambda: self._is_simulator_ready(part, ready_file)
        self.parts["simulator"] = part
        part.start()
        return part

    def _is_simulator_ready(self, part: Part, ready_file: Path) -> bool:
        try:
            simulator = json.loads(ready_file.read_text())
        except (FileNotFoundError, ValueError):
            return False
        if simulator["pid"] != part.pid:  # written by the previous process
            return False
        self.env["RAZORPAYX_BASE_URL"] = self.settings.get("RAZORPAYX_BASE_URL", simulator["url"])
        return True

    def _start_services(self) -> None:
        # The environment of this process may name other services; see the class.
        for name, variable, service in (
            ("redis", "REDIS_URL", Redis),
            ("postgres", "DATABASE_URL", Postgres),
        ):
            if variable not in self.settings:
                part = self.parts[name] = service(self.directory / name)
                part.start()
                self.env[variable] = part.url

    def _part(self, name: str, module: str, *arguments: str) -> Part:
        argv = [sys.executable, "-m", module, *arguments]
        # All parts share one environment, which is completed while they start.
        return Part(name, argv, self.env, self.directory / f"{name}.log", cwd=ROOT)

    def _add(self, name: str, ready: Callable[[], object], *arguments: str) -> None:
        part = self.parts[name] = self._part(name, "cli", *(arguments or (name,)))
        part.ready = ready
        part.start()

    def _consumes(self, name: str) -> bool:
        return is_consuming(self.parts[name], self.env["REDIS_URL"])

    def _finish(self, part: Part) -> None:
        """Wait until a one-off program has ended."""
        try:
            if part.wait(FINISH_SECONDS):
                raise part.failure(f"ended with exit code {part.returncode}")
        finally:
            part.kill()

    # --- information

    def _url(self, port: str) -> str:
        return f"http://{LOOPBACK}:{self.env[port]}"

    def info(self) -> dict[str, Any]:
        """URLs, credentials and process ids. The ids change when a part restarts."""
        return {
            "api": self._url("API_PORT"),
            "admin": self._url("API_PORT") + "/admin/",
            "flower": self._url("FLOWER_PORT") if self.flower else None,
            "simulator": None if self.provider_url else self.env["RAZORPAYX_BASE_URL"],
            "database_url": self.env["DATABASE_URL"],
            "redis_url": self.env["REDIS_URL"],
            "api_key": self.env["API_KEYS"].split(",")[0],
            "webhook_secret": self.env["RAZORPAYX_WEBHOOK_SECRET"],
            "admin_user": self._admin[0],
            "admin_password": self._admin[1],
            "pids": {name: part.pid for name, part in self.parts.items()},
        }

    def relaxed_rules(self) -> list[str]:
        """Warnings about rules that this stack relaxes."""
        warnings = safety_warnings(self.env["SECOND_ADMIN_REQUIRED"], self.env["ADMIN_TOTP_REQUIRED_ROLES"])
        return [f"Only for trying things out: {warning}" for warning in warnings]

    def write_ready_file(self, path: Path | str) -> None:
        """Write `info()` as JSON, atomically and readable only by its owner, now and at every restart."""
        self._ready_file = Path(path).absolute()
        descriptor, name = tempfile.mkstemp(dir=self._ready_file.parent)  # mode 0600
        with os.fdopen(descriptor, "w") as file:
            json.dump(self.info(), file, indent=2)
        Path(name).replace(self._ready_file)

    # --- watching

    def run_until_signal(self) -> None:
        """Watch all parts and return at SIGTERM or Ctrl-C; the caller then stops the stack.

        A part that dies is reported on stderr with the end of its log and restarted a second later, or after
        longer waits if it dies again before it is ready. It is restarted for ever, because what it needs may
        come back.
        """
        watched = {name: _Watched() for name in self.parts}
        try:
            while True:
                for name, part in self.parts.items():
                    self._supervise(part, watched[name])
                time.sleep(WATCH_SECONDS)
        except (Terminated, KeyboardInterrupt):
            return

    def _supervise(self, part: Part, watched: _Watched) -> None:
        if not part.should_run:
            return
        if watched.restart_at is not None:
            if time.monotonic() >= watched.restart_at:
                watched.restart_at = None
                with _reported():
                    part.start()
        elif not part.alive:
            self._schedule_restart(part, watched)
        elif not watched.ready and part.is_answering():
            watched.ready = True
            watched.deaths = 0
            if self._ready_file:
                self.write_ready_file(self._ready_file)

    def _schedule_restart(self, part: Part, watched: _Watched) -> None:
        watched.ready = False
        watched.deaths += 1
        error = part.failure(f"ended with exit code {part.returncode}")
        wait_seconds = min(MAX_RESTART_SECONDS, RESTART_SECONDS * 2.0 ** (watched.deaths - 1))
        _report(f"{error}\n{part.name} restarts in {wait_seconds:g} s")
        watched.restart_at = time.monotonic() + wait_seconds

    # --- stopping

    def stop(self) -> None:
        """Stop everything, services last. Can be called twice."""
        with signals_ignored():
            self._stop_parts()
            if self._temporary:
                shutil.rmtree(self.directory, ignore_errors=True)
        if self._former_handler is not None:
            signal.signal(signal.SIGTERM, self._former_handler)
            self._former_handler = None

    def _stop_parts(self) -> None:
        services = [self.parts[name] for name in ("postgres", "redis") if name in self.parts]
        others = [part for part in self.parts.values() if part not in services]
        for group in (others, services):
            with ThreadPoolExecutor(max(1, len(group))) as pool:
                list(pool.map(methodcaller("stop"), group))

    def _catch_sigterm(self) -> None:
        if in_main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            self._former_handler = signal.signal(signal.SIGTERM, raise_terminated)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except PartFailed as error:
        _report(str(error))


def _report(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
