"""Injects the planned faults into the real system and restarts everything else as a supervisor would."""

import random
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg
import redis

from sandbox.stack import Stack
from tests.chaos.schedule import Planned
from tests.support.simulator import Simulator

FULL_PAISE = 10**13  # the provider's account: more than any run can spend
SLOW_MS = (200, 2500)
RATE_PER_SECOND = (5, 30)
NEXT = (3, 8)  # creates per burst of bad webhooks or replies: too few to pause all payouts
REFUSED = (1, 2)  # a refusal of our account pauses at once, and each refused probe doubles the wait
REPLAYED = 20  # payouts whose events are all resent
SUPERVISE_SECONDS = 0.3
PAYEES_OF_A_BANK = ("asha@okaxis", "ravi@okaxis")  # paid at once unless their bank is offline
CALM = {
    "down": None,
    "lookups": "ok",
    "latency_ms": 0,
    "rate_limit_per_second": None,
    "webhooks_enabled": True,
}


@dataclass(frozen=True, slots=True)
class Injected:
    """One injected fault: its name, start and end (Unix seconds)."""

    name: str
    began: float
    ended: float


class Injector:
    """Executes the schedule, one thread per track; `calm` ends all faults."""

    def __init__(self, stack: Stack, provider: Simulator) -> None:
        self.stack = stack
        self.provider = provider
        self.injected: list[Injected] = []
        self.errors: list[str] = []
        self.died: list[str] = []  # parts that ended by themselves
        self._over = threading.Event()
        # A part that one thread holds is left alone by the others, including the supervisor.
        self.hold = {name: threading.RLock() for name in stack.parts}
        self._threads: list[threading.Thread] = []

    def start(self, tracks: dict[str, list[Planned]]) -> None:
        """Start a thread for every track and the supervisor."""
        began = time.monotonic()
        for track in tracks.values():
            self._spawn(self._run_track, track, began)
        self._spawn(self._supervise)

    def calm(self) -> None:
        """Wait for the end of the plan, then switch off every fault and wait until every part is ready."""
        for thread in self._threads[:-1]:
            thread.join()
        self._over.set()
        self._threads[-1].join()
        self.provider.settings(**CALM)
        self.provider.post("balance", {"paise": FULL_PAISE})
        for payee in PAYEES_OF_A_BANK:
            self.provider.scenario("success", vpa=payee)
        for part in self.stack.parts.values():
            part.start()
        for part in self.stack.parts.values():
            part.wait_ready()

    def _spawn(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run_track(self, track: list[Planned], began: float) -> None:
        for fault in track:
            time.sleep(max(0.0, began + fault.at - time.monotonic()))
            at = time.time()
            try:
                with HANDLERS[fault.name](self, random.Random(fault.dice)):
                    time.sleep(fault.lasts)
            except Exception as error:
                self.errors.append(f"{fault.name}: {type(error).__name__}: {error}")
            self.injected.append(Injected(fault.name, at, time.time()))

    def _supervise(self) -> None:
        while not self._over.wait(SUPERVISE_SECONDS):
            for name, part in self.stack.parts.items():
                if self.hold[name].acquire(blocking=False):
                    try:
                        if not part.alive:
                            self.died.append(f"{name} (exit code {part.returncode})")
                            part.start()
                    finally:
                        self.hold[name].release()

    @contextmanager
    def down(self, *names: str, kill: bool = True) -> Iterator[None]:
        """Kill (or stop) these parts, and start them again when the block ends."""
        parts = [self.stack.parts[name] for name in names]
        locks = [self.hold[name] for name in names]
        for lock in locks:
            lock.acquire()
        try:
            for part in parts:
                part.kill() if kill else part.stop()
            yield
            for part in parts:
                part.start()
        finally:
            for lock in reversed(locks):
                lock.release()

    @contextmanager
    def switched(self, **settings: Any) -> Iterator[None]:
        """Apply these simulator settings until the block ends."""
        self.provider.settings(**settings)
        try:
            yield
        finally:
            self.provider.settings(**{name: CALM[name] for name in settings})


Handler = Callable[[Injector, random.Random], Any]


def _workers(injector: Injector) -> list[str]:
    return sorted(name for name in injector.stack.parts if name.startswith("worker"))


def _a_worker_dies(injector: Injector, chance: random.Random) -> Any:
    return injector.down(chance.choice(_workers(injector)))


def _all_workers_die(injector: Injector, _: random.Random) -> Any:
    return injector.down(*_workers(injector))


@contextmanager
def _a_worker_freezes(injector: Injector, chance: random.Random) -> Iterator[None]:
    part = injector.stack.parts[chance.choice(_workers(injector))]
    process = psutil.Process(part.pid)
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGSTOP)
    yield
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGCONT)


@contextmanager
def _one_api_process_dies(injector: Injector, chance: random.Random) -> Iterator[None]:
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(injector.stack.parts["api"].pid).children()
        if children:
            chance.choice(children).kill()
    yield


@contextmanager
def _redis_forgets(injector: Injector, _: random.Random) -> Iterator[None]:
    with injector.hold["redis"], redis.Redis.from_url(injector.stack.env["REDIS_URL"]) as broker:
        broker.flushall()
    yield


@contextmanager
def _connections_break(injector: Injector, _: random.Random) -> Iterator[None]:
    with injector.hold["postgres"], psycopg.connect(injector.stack.env["DATABASE_URL"]) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    yield


@contextmanager
def _no_money(injector: Injector, _: random.Random) -> Iterator[None]:
    injector.provider.post("balance", {"paise": 0})
    try:
        yield
    finally:
        injector.provider.post("balance", {"paise": FULL_PAISE})


@contextmanager
def _old_events_again(injector: Injector, chance: random.Random) -> Iterator[None]:
    # Queried from the database: the simulator's whole list takes a second in a long run.
    query = "SELECT payout_id FROM payout_attempts WHERE payout_id IS NOT NULL ORDER BY payout_id"
    with suppress(psycopg.OperationalError), psycopg.connect(injector.stack.env["DATABASE_URL"]) as database:
        known = [payout_id for (payout_id,) in database.execute(query)]
        for payout_id in chance.sample(known, min(REPLAYED, len(known))):
            injector.provider.post("webhooks/replay", {"payout_id": payout_id})
    yield


@contextmanager
def _another_secret(injector: Injector, chance: random.Random) -> Iterator[None]:
    """The provider signs with a new secret before our settings have it: its webhooks are refused."""
    env = injector.stack.env
    new = secrets.token_hex(24)
    injector.provider.post("webhooks/secret", {"secret": new})
    yield
    with injector.down("api", kill=False):
        env["RAZORPAYX_WEBHOOK_SECRET_PREVIOUS"] = env["RAZORPAYX_WEBHOOK_SECRET"]
        env["RAZORPAYX_WEBHOOK_SECRET"] = new


def _bank_fails(*reasons: str) -> Handler:
    """For a while every payout to the payees of one bank fails for one of the reasons."""

    @contextmanager
    def fails(injector: Injector, chance: random.Random) -> Iterator[None]:
        for payee in PAYEES_OF_A_BANK:
            injector.provider.scenario(f"fail.{chance.choice(reasons)}", vpa=payee)
        try:
            yield
        finally:
            for payee in PAYEES_OF_A_BANK:
                injector.provider.scenario("success", vpa=payee)

    return fails


def _next(*scenarios: str, number: tuple[int, int] = NEXT) -> Handler:
    """A burst of the next creates follows one of these scenarios, whatever their UPI id says."""

    @contextmanager
    def burst(injector: Injector, chance: random.Random) -> Iterator[None]:
        injector.provider.scenario(chance.choice(scenarios), next=chance.randint(*number))
        yield

    return burst


def _switch(**settings: Any) -> Handler:
    return lambda injector, _: injector.switched(**settings)


HANDLERS: dict[str, Handler] = {
    "worker.kill": _a_worker_dies,
    "workers.kill": _all_workers_die,
    "worker.freeze": _a_worker_freezes,
    "beat.kill": lambda injector, _: injector.down("beat"),
    "api.kill": lambda injector, _: injector.down("api"),
    "api.worker.kill": _one_api_process_dies,
    "redis.flush": _redis_forgets,
    "redis.restart": lambda injector, _: injector.down("redis", kill=False),
    "redis.kill": lambda injector, _: injector.down("redis"),
    "postgres.restart": lambda injector, _: injector.down("postgres", kill=False),
    "postgres.kill": lambda injector, _: injector.down("postgres"),
    "postgres.sever": _connections_break,
    "provider.500": _switch(down="500"),
    "provider.drop": _switch(down="drop"),
    "provider.503": _switch(down="503html"),
    "provider.slow": lambda injector, chance: injector.switched(latency_ms=chance.randint(*SLOW_MS)),
    "provider.rate": lambda injector, chance: injector.switched(
        rate_limit_per_second=chance.randint(*RATE_PER_SECOND)
    ),
    "provider.poor": _no_money,
    "lookups.500": _switch(lookups="500"),
    "lookups.drop": _switch(lookups="drop"),
    "lookups.empty": _switch(lookups="empty"),
    "hooks.off": _switch(webhooks_enabled=False),
    "hooks.twice": _next("hook.twice", "hook.many"),
    "hooks.late": _next("hook.late", "hook.early"),
    "hooks.disorder": _next("hook.disorder"),
    "hooks.forged": _next("hook.badsign", "hook.oldsecret"),
    "hooks.again": _old_events_again,
    "hooks.secret": _another_secret,
    "replies.lost": _next("drop", "silent.after", "504"),
    "replies.garbage": _next("garbage", "empty", "wrong"),
    "replies.401": _next("401", number=REFUSED),
    "replies.429": _next("429"),
    "bank.offline": _bank_fails("beneficiary_psp_offline"),
    "network.down": _bank_fails("gateway_down", "gateway_technical_error", "gateway_timeout"),
}
