"""The whole system on one machine: database, broker, provider simulator, API, workers, notifier, beat,
Flower.

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
from sandbox.readiness import status, waits_for_messages
from sandbox.services import LOOPBACK, PORT_ATTEMPTS, PORT_TAKEN, Postgres, Redis, free_port, is_free
from sandbox.signals import Terminated, in_main_thread, terminate, undisturbed
from shared.settings.panel import relaxed

ROOT = Path(__file__).parents[1]
WEBHOOK_PATH = "/api/razorpay/webhook/"
PROVIDER_SECRETS = (
    "RAZORPAYX_KEY_ID",
    "RAZORPAYX_KEY_SECRET",
    "RAZORPAYX_ACCOUNT_NUMBER",
    "RAZORPAYX_WEBHOOK_SECRET",
)
# Somebody who tries things out is alone and has no phone at hand. The start says so in words.
RELAXED = {
    "SECOND_ADMIN_REQUIRED": "off",
    "ADMIN_TOTP_REQUIRED_ROLES": "off",
    "ADJUST_ALONE_MAX_COINS": "1000",
}
FINISH_SECONDS = 60.0
WATCH_SECONDS = 0.2
RESTART_SECONDS = 1.0  # a part that dies at once would otherwise keep a core busy; each further wait doubles
MOST_RESTART_SECONDS = 30.0


@dataclass
class _Watched:
    """What the watch knows of one part."""

    deaths: int = 0  # in a row, since it was last ready
    ready: bool = True
    restart_at: float | None = None


class Stack:
    """Starts everything on free loopback ports; `parts` holds the processes by name.

    `settings` go to every process and win over what is chosen here; with DATABASE_URL or REDIS_URL
    among them that service is used and none is started. (The same names in our own environment are
    not used: a sandbox must not write to whatever a shell happens to point at.) With `provider_url`
    no simulator starts, and the provider's secrets come from `settings` or the environment.
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
        self.workers, self.flower, self.api_port = workers, flower, api_port
        self.provider_url = provider_url
        self._temporary = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="coin-sandbox-")).absolute()
        self.parts: dict[str, Part] = {}
        self.env: dict[str, str] = {}
        self._admin = ("admin", secrets.token_hex(12))
        self._chosen = {
            "API_HOST": LOOPBACK,
            "API_WORKERS": str(api_workers),
            "API_AUTH": api_auth,
            # A laptop's load is one app, one address, few users. What fails to come in is counted as always.
            "RATE_LIMIT_PER_KEY": "off",
            "RATE_LIMIT_PER_USER": "off",
            "RATE_LIMIT_PER_ADDRESS": "off",
            "API_KEYS": secrets.token_hex(24),
            "WEBHOOK_SIGNING_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "FLOWER_HOST": LOOPBACK,
            "FLOWER_BASIC_AUTH": ":".join(self._admin),
            "SANDBOX_OPERATOR": ":".join(self._admin),
            "PAYOUTS_OPERATOR_TOKEN": f"cpo_{secrets.token_urlsafe(32)}",  # made to count by `sandbox.admit`
            # Its first operator adds the second one, and the two try out together what takes two.
            "MAKER_CHECKER_INDEPENDENCE_DAYS": "0",
            "ADMIN_SECRET_KEY": secrets.token_hex(24),
            "ADMIN_COOKIE_SECURE": "off",  # http on loopback
            **RELAXED,
            "SIM_SPEED": str(provider_speed),
            "PYTHONUNBUFFERED": "1",  # a log that is behind hides why a part died
            "RUST_BACKTRACE": "0",  # so do 100 lines of Granian's frames below the reason
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
        """Starts everything and returns when every part answers.

        Raises PartFailed, which names the part and shows its log, and Terminated at SIGTERM;
        in both cases nothing is left running.
        """
        self._catch_sigterm()
        try:
            self._refuse_a_taken_port()
            for left in reversed(range(PORT_ATTEMPTS)):
                try:
                    return self._start()
                except PartFailed as failed:
                    if not left or self._given_port() or PORT_TAKEN not in failed.tail.lower():
                        raise
                    self._stop_parts()  # somebody took a port that was free: choose others
        except BaseException:
            self.stop()
            raise

    def _given_port(self) -> int:
        given = self.settings.get("API_PORT", "")
        return int(given) if given.isdecimal() else self.api_port

    def _refuse_a_taken_port(self) -> None:
        """A port that was chosen for us is not exchanged: say so before anything starts."""
        port = self._given_port()
        if port and not is_free(port):
            raise PartFailed("api", f"port {port}: {PORT_TAKEN}")

    def _start(self) -> None:
        self.parts = {}
        self.env = self._environment(self.api_port or free_port(), free_port())
        simulator = None if self.provider_url else self._add_simulator()
        self._start_services()
        migrate = self._part("migrate", "shared.cli", "migrate")
        migrate.start()
        if simulator:
            simulator.wait_ready()
        # Beat and Flower need no tables, so they start beside the migration.
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
        ours = self._chosen | {"API_PORT": str(api_port), "FLOWER_PORT": str(flower_port)}
        ours["ADMIN_URL"] = f"http://{LOOPBACK}:{api_port}/admin/"
        if self.flower:
            ours["FLOWER_URL"] = f"http://{LOOPBACK}:{flower_port}"
        env = dict(os.environ) | ours | self.settings
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
        # A proxy for the outside world cannot reach our loopback.
        direct = ",".join(filter(None, [env.get("NO_PROXY"), LOOPBACK, "localhost"]))
        more = {"PYTHONPATH": os.pathsep.join(paths), "NO_PROXY": direct, "no_proxy": direct}
        return env | more | simulator | self.settings

    def _add_simulator(self) -> Part:
        told = self.directory / "simulator.json"
        arguments = ["--host", LOOPBACK, "--port", str(free_port()), "--ready-file", str(told)]
        part = self._part("simulator", "sandbox.razorpayx", *arguments)
        part.ready = lambda: self._simulator_answers(part, told)
        self.parts["simulator"] = part
        part.start()
        return part

    def _simulator_answers(self, part: Part, told: Path) -> bool:
        try:
            said = json.loads(told.read_text())
        except (FileNotFoundError, ValueError):
            return False
        if said["pid"] != part.pid:  # the file of the process before
            return False
        self.env["RAZORPAYX_BASE_URL"] = self.settings.get("RAZORPAYX_BASE_URL", said["url"])
        return True

    def _start_services(self) -> None:
        # The environment of our own process names other services; see the class.
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
        # The environment is shared on purpose: it is completed while the parts start.
        return Part(name, argv, self.env, self.directory / f"{name}.log", cwd=ROOT)

    def _add(self, name: str, ready: Callable[[], object], *words: str) -> None:
        part = self.parts[name] = self._part(name, "shared.cli", *(words or (name,)))
        part.ready = ready
        part.start()

    def _consumes(self, name: str) -> bool:
        return waits_for_messages(self.parts[name], self.env["REDIS_URL"])

    def _finish(self, part: Part) -> None:
        """Wait for a program that does one thing and ends."""
        try:
            if part.wait(FINISH_SECONDS):
                raise part.failed(f"ended with exit code {part.returncode}")
        finally:
            part.kill()

    # --- what it is

    def _url(self, port: str) -> str:
        return f"http://{LOOPBACK}:{self.env[port]}"

    def info(self) -> dict[str, Any]:
        """Where everything is and how to get in. Read it again after a restart: pids change."""
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

    def relaxed(self) -> list[str]:
        """What this stack allows that a real system does not, in words."""
        found = relaxed(self.env["SECOND_ADMIN_REQUIRED"], self.env["ADMIN_TOTP_REQUIRED_ROLES"])
        return [f"Only to try things out: {words}" for words in found]

    def write_ready_file(self, path: Path | str) -> None:
        """Writes `info()` as JSON, whole or not at all, for our eyes only; again at every restart."""
        self._ready_file = Path(path).absolute()
        descriptor, name = tempfile.mkstemp(dir=self._ready_file.parent)  # mode 0600
        with os.fdopen(descriptor, "w") as file:
            json.dump(self.info(), file, indent=2)
        Path(name).replace(self._ready_file)

    # --- watching

    def run_until_signal(self) -> None:
        """Returns at SIGTERM or Ctrl-C; the caller then stops the stack.

        A part that dies by itself is reported on stderr with the end of its log and restarted a
        second later; if it dies again before it is ready, after longer waits. It is never given up: whoever
        breaks what it needs may mend it, and the others go on meanwhile.
        """
        watched = {name: _Watched() for name in self.parts}
        try:
            while True:
                for name, part in self.parts.items():
                    self._tend(part, watched[name])
                time.sleep(WATCH_SECONDS)
        except (Terminated, KeyboardInterrupt):
            return

    def _tend(self, part: Part, watched: _Watched) -> None:
        if not part.wanted:
            return
        if watched.restart_at is not None:
            if time.monotonic() >= watched.restart_at:
                watched.restart_at = None
                with _reported():
                    part.start()
        elif not part.alive:
            self._mourn(part, watched)
        elif not watched.ready and part.answers():
            watched.ready, watched.deaths = True, 0
            if self._ready_file:
                self.write_ready_file(self._ready_file)

    def _mourn(self, part: Part, watched: _Watched) -> None:
        watched.ready, watched.deaths = False, watched.deaths + 1
        death = part.failed(f"ended with exit code {part.returncode}")
        wait = min(MOST_RESTART_SECONDS, RESTART_SECONDS * 2.0 ** (watched.deaths - 1))
        _report(f"{death}\n{part.name} restarts in {wait:g} s")
        watched.restart_at = time.monotonic() + wait

    # --- stopping

    def stop(self) -> None:
        """Stops everything, what works before what it works on. May be called twice."""
        with undisturbed():
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
            self._former_handler = signal.signal(signal.SIGTERM, terminate)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except PartFailed as failed:
        _report(str(failed))


def _report(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
