"""One run: the real stack under load and faults, then calm, then judgement."""

import random
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import requests

from sandbox.keeper import family_of
from sandbox.stack import ROOT, Stack
from tests.chaos import oracle
from tests.chaos.faults import FULL_PAISE, PAYEES_OF_A_BANK, Injected, Injector
from tests.chaos.load import Load, wishes
from tests.chaos.oracle import Truth
from tests.chaos.schedule import FAULTS, plan
from tests.simulator import Simulator

SPEED = 5.0  # a payout is processed in 0.3 s, a deemed success in 6
# Every wait that the defaults count in minutes, in seconds. What the schedule relies on: a lie of the
# provider (schedule.py) is shorter than two LOOKUP_SECONDS, and a frozen worker sleeps longer than LEASE_SECONDS.
QUICK = {
    "CANCEL_WINDOW_SECONDS": "0.5",
    "TASK_EVENTS": "off",  # there is no Flower in these runs
    "SWEEP_SECONDS": "3",
    "SWEEP_BATCH": "80",
    "RESEND_SECONDS": "1,2,4",
    "LOOKUP_SECONDS": "2",
    "ABSENT_SECONDS": "20",
    "POLL_SECONDS": "6",
    "POLL_MAX_SECONDS": "20",
    "RECHECK_SECONDS": "100,400",
    "LEASE_SECONDS": "6",
    "RAZORPAYX_READ_SECONDS": "2",
    "RAZORPAYX_CONNECT_SECONDS": "1",
    "THROTTLE_SECONDS": "0.2",
    "PACE_HOLD_SECONDS": "0.2",
    "RETRY_SECONDS": "2",
    "MAX_ATTEMPTS": "3",
    "PAYOUTS_PER_SECOND": "1000",
    "PAYOUTS_PER_USER": "1000",
    "PROBE_SECONDS": "1",
    "PROBE_MAX_SECONDS": "4",
    "SIM_BALANCE_PAISE": str(FULL_PAISE),
}
LATE_ASKING_SECONDS = 60  # apps that could not ask in time
LOOK_SECONDS, SILENCE_SECONDS, TELL_SECONDS, LIST_SECONDS, CPU_SECONDS = 1.0, 10.0, 15.0, 60, 2.0
# Between the two of our looks at the clock lies the provider's: much less than the oracle's CLOCK_SECONDS.
CLOCK_EXACT_SECONDS, CLOCK_TRIES = 0.05, 200
MOVES = ("processing", "completed", "failed")  # what only the system does: progress
HOLDS_WORK = ("worker.kill", "workers.kill", "worker.freeze")
CLAIMS = ("claimed", "new_attempt", "sent_again", "preparing")  # events after which a worker is on the wire


@dataclass(frozen=True)
class Options:
    """What to run. `patience` is how long everything may take to become final once calm has returned, `within`
    how long the whole run may take, from the start of the first part to the judgement.
    """

    withdrawals: int = 1000
    seconds: float = 60
    seed: int = 1
    faults: tuple[str, ...] = tuple(FAULTS)
    directory: Path | None = None
    patience: float = 240
    within: float = 600
    workers: int = 2
    api_workers: int = 2

    @property
    def command(self) -> str:
        """What repeats this run."""
        names = "all" if set(self.faults) == set(FAULTS) else ",".join(self.faults)
        wanted = {
            "withdrawals": self.withdrawals,
            "seconds": f"{self.seconds:g}",
            "seed": self.seed,
            "faults": names,
            "patience": f"{self.patience:g}",
            "within": f"{self.within:g}",
            "workers": self.workers,
            "api-workers": self.api_workers,
        }
        return f'make chaos ARGS="{" ".join(f"--{name} {value}" for name, value in wanted.items())}"'


@dataclass
class Result:
    """What came of it. Times in seconds."""

    options: Options
    took: dict[str, float] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    provider: Counter[str] = field(default_factory=Counter)
    answers: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    recovery: dict[str, list[float]] = field(default_factory=dict)
    truths: dict[Truth, list[str]] = field(default_factory=dict)
    check: str = ""
    check_holds: bool = False
    errors: list[str] = field(default_factory=list)
    died: list[str] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)
    reading: dict[str, bool] = field(default_factory=dict)

    @property
    def broken(self) -> int:
        """How many truths do not hold."""
        return sum(bool(who) for who in self.truths.values()) + (not self.check_holds)

    @property
    def seconds(self) -> float:
        """How long all of it took."""
        return sum(self.took.values())

    @property
    def in_time(self) -> bool:
        """Whether that was short enough."""
        return self.seconds <= self.options.within

    @property
    def good(self) -> bool:
        """Whether every promise was kept, nothing died that nobody killed, and the run was done as planned."""
        whole = bool(self.truths) and not self.broken and not self.errors
        return whole and not self.died and self.in_time


Tell = Callable[[str], None]


def run(options: Options, directory: Path, tell: Tell = lambda _: None) -> Result:
    """Do it all; logs stay in `directory`. Raises PartFailed when the stack does not start or stop."""
    result, clock = Result(options), _Stopwatch()
    stack = Stack(
        QUICK,
        workers=options.workers,
        api_workers=options.api_workers,
        provider_speed=SPEED,
        flower=False,
        directory=directory,
    )
    with stack:
        provider = Simulator(stack.info()["simulator"])
        result.reading = _choose_reading(provider, options.seed)
        result.took["start"] = clock.lap()
        with _Cpu(stack) as cpu:
            tell(f"all parts are up; {options.withdrawals} withdrawals in {options.seconds:g} s")
            load, injector = _storm(stack, provider, options, tell)
            result.took["faults"] = clock.lap()
            if not load.join(LATE_ASKING_SECONDS):
                result.errors.append(f"apps still ask {LATE_ASKING_SECONDS} s after calm has returned")
            _drain(stack, provider, options.patience, tell)
            _silence(stack, provider)
            result.took["drain"] = clock.lap()
        result.cpu, result.died = cpu.seconds, injector.died
        result.errors += injector.errors
        _judge(stack, provider, load, injector, result)
        result.took["judgement"] = clock.lap()
    return result


def _choose_reading(provider: Simulator, seed: int) -> dict[str, bool]:
    """Where RazorpayX's pages contradict each other, each seed is another reading of them."""
    chance = random.Random(f"{seed} reading")
    names = ("replay_saved", "mismatch_409", "refusal_consumes_key", "created_201", "lite")
    reading = {name: chance.random() < 0.5 for name in names}
    reading["transaction_events"] = reading["lite"]  # by the documents only Lite sends them
    provider.settings(**reading)
    for payee in PAYEES_OF_A_BANK:
        provider.scenario("success", vpa=payee)
    return reading


def _storm(stack: Stack, provider: Simulator, options: Options, tell: Tell) -> tuple[Load, Injector]:
    info = stack.info()
    load = Load(
        info["api"], info["api_key"], wishes(options.seed, options.withdrawals), options.seconds, options.seed
    )
    injector = Injector(stack, provider)
    load.start()
    injector.start(plan(options.seed, options.seconds, options.faults))
    over = time.monotonic() + options.seconds
    while (left := over - time.monotonic()) > 0:
        time.sleep(min(left, TELL_SECONDS))
        tell(f"{load.ledger.told} taken, {len(injector.injected)} faults")
    injector.calm()
    return load, injector


def _drain(stack: Stack, provider: Simulator, patience: float, tell: Tell) -> None:
    """Wait until nothing is left to do; what is left after `patience`, the oracle finds."""
    deadline, told_at = time.monotonic() + patience, 0.0
    while (left := _left(stack, provider)) and time.monotonic() < deadline:
        if time.monotonic() - told_at > TELL_SECONDS:
            told_at = time.monotonic()
            tell(f"calm; still to do: {', '.join(f'{number} {what}' for what, number in left.items())}")
        time.sleep(LOOK_SECONDS)


def _silence(stack: Stack, provider: Simulator) -> None:
    """No more webhooks, and none in hand: one more copy that comes while the judge looks is nobody's fault."""
    provider.settings(webhooks_enabled=False)
    time.sleep(LOOK_SECONDS)  # one that was on its way has come
    _drain(stack, provider, SILENCE_SECONDS, lambda _: None)


def _left(stack: Stack, provider: Simulator) -> dict[str, int]:
    with psycopg.connect(stack.env["DATABASE_URL"]) as connection:
        left = dict(
            connection.execute(
                """SELECT coalesce(status_reason, status), count(*) FROM withdrawals
                   WHERE status IN ('pending', 'processing') GROUP BY 1
                   UNION ALL SELECT 'webhooks', count(*) FROM webhook_events WHERE applied_at IS NULL"""
            ).fetchall()
        )
        # A payout that was sent back after it was completed: its webhook, or the next look, tells.
        back = [payout["id"] for payout in provider.get("payouts", status="reversed")["items"]]
        query = "SELECT count(*) FROM payout_attempts WHERE state = 'paid' AND payout_id = ANY(%s)"
        left["sent back"] = connection.execute(query, [back]).fetchone()[0]  # type: ignore[index]
    return {what: number for what, number in left.items() if number}


def _judge(stack: Stack, provider: Simulator, load: Load, injector: Injector, result: Result) -> None:
    health, at = _clocks(provider)
    payouts = _all_payouts(provider)
    facts = oracle.gather(stack.env["DATABASE_URL"], payouts, health["now"], at, health["speed"], load.ledger)
    result.truths = oracle.judge(facts)
    command = [sys.executable, "-m", "shared.cli", "check"]
    done = subprocess.run(command, env=stack.env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    result.check, result.check_holds = done.stdout + done.stderr, done.returncode == 0
    result.statuses = Counter(row["status"] for row in facts.withdrawals)
    result.provider = Counter(payout["status"] for payout in payouts)
    result.answers = dict(sorted(load.ledger.answers.items()))
    result.faults = Counter(one.name for one in injector.injected)
    result.recovery = recovery_times(injector.injected, facts.events)
    made, nothing = oracle.unknown_to_apps(facts)
    result.numbers = {
        "wishes": len(load.ledger.wishes),
        "withdrawals": len(facts.withdrawals),
        "answer lost, taken": made,
        "answer lost, not taken": nothing,
        "cancelled by users": sum(wish.cancelled for wish in load.ledger.wishes),
        "attempts": len(facts.attempts),
        "sent more than once": sum(payout["create_calls"] > 1 for payout in payouts),
        "never arrived": sum(event["reason"] == "never_arrived" for event in facts.events),
        "reversed after completion": sum(
            (event["from_status"], event["to_status"]) == ("completed", "failed") for event in facts.events
        ),
        "workers lost on the wire": sum(event["reason"] == "worker_lost" for event in facts.events),
    }


def _clocks(provider: Simulator) -> tuple[dict[str, Any], float]:
    """What the provider says its clock shows, and ours at that moment: as exact as the oracle needs it."""
    for _ in range(CLOCK_TRIES):
        before = time.time()
        health = provider.get("health")
        after = time.time()
        if after - before < CLOCK_EXACT_SECONDS:
            break
    return health, (before + after) / 2


def _all_payouts(provider: Simulator) -> list[dict[str, Any]]:
    # Not by `provider.get`: a list of ten thousand may take longer than an ordinary answer.
    answer = requests.get(f"{provider.url}/_sim/payouts", timeout=LIST_SECONDS)
    answer.raise_for_status()
    return list(answer.json()["items"])


def recovery_times(injected: list[Injected], events: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Fault -> for each time it was done, seconds from its begin to the first withdrawal that moved after it.

    With another worker alive that is soon; so for killed and frozen workers there is also how long it took
    until the last withdrawal that any worker had on the wire at that moment went on.
    """
    moves = sorted(e["at"] for e in events if e["to_status"] in MOVES and e["from_status"] != e["to_status"])
    times: dict[str, list[float]] = defaultdict(list)
    for fault in injected:
        after = bisect_right(moves, fault.began)
        if after < len(moves):
            times[fault.name].append(moves[after] - fault.began)
        if fault.name in HOLDS_WORK and (held := _held(fault.began, events)):
            times[f"{fault.name}: what it held"].append(held)
    return dict(times)


def _held(moment: float, events: list[dict[str, Any]]) -> float:
    """How long after the moment everything that was on the wire then had gone on; 0 when nothing was."""
    on_the_wire: dict[str, bool] = {}
    last = moment
    for event in events:
        withdrawal_id = event["withdrawal_id"]
        if event["at"] <= moment:
            on_the_wire[withdrawal_id] = event["reason"] in CLAIMS
        elif on_the_wire.pop(withdrawal_id, False):
            last = max(last, event["at"])
    return last - moment


class _Stopwatch:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        return passed


class _Cpu:
    """CPU seconds by part while it lasts: children and killed processes too, but for their last moments."""

    def __init__(self, stack: Stack) -> None:
        self.seconds: dict[str, float] = {}
        self._stack, self._over = stack, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(CPU_SECONDS):
            self._seen |= self._look()

    def _look(self) -> dict[tuple[str, int], float]:
        seen = {}
        for name, part in self._stack.parts.items():
            for process in family_of(part.pid or 0) if part.alive else []:
                with suppress(psutil.Error):
                    spent = process.cpu_times()
                    seen[name, process.pid] = spent.user + spent.system
        return seen

    def __enter__(self) -> "_Cpu":
        self._before = self._look()
        self._seen = dict(self._before)
        self._own = time.process_time()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for (name, pid), spent in (self._seen | self._look()).items():
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._before.get((name, pid), 0.0)
        self.seconds["apps and this page"] = time.process_time() - self._own
