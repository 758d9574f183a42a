"""One run: the real stack under load and faults, then a calm phase, then the judgement."""

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
from tests.chaos.load import Load, make_requests
from tests.chaos.oracle import Truth
from tests.chaos.schedule import FAULTS, plan
from tests.support.simulator import Simulator

SPEED = 5.0  # a payout is processed in 0.3 s, a deemed success in 6 s
# Seconds instead of the minutes of the defaults. The schedule relies on this: a lie of the provider (schedule.py)
# is shorter than two LOOKUP_SECONDS, and a frozen worker sleeps longer than LEASE_SECONDS.
QUICK = {
    "CANCEL_WINDOW_SECONDS": "0.5",
    "TASK_EVENTS": "off",  # there is no Flower in these runs
    "SWEEP_SECONDS": "3",
    "SWEEP_BATCH": "250",  # one message of polls
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
LATE_REQUESTS_SECONDS = 60  # for requests that could not be sent in time
LOOK_SECONDS = 1.0  # between two checks of the remaining work
LAST_WEBHOOKS_SECONDS = 10.0  # for the webhooks that were already received
PROGRESS_SECONDS = 15.0  # between two progress lines
LIST_SECONDS = 60  # a list of ten thousand payouts takes longer than an ordinary answer
CPU_SECONDS = 2.0  # between two samples of the processes
# We read our clock before and after the provider's; the gap must be far below the oracle's CLOCK_SECONDS.
CLOCK_EXACT_SECONDS = 0.05
CLOCK_TRIES = 200
MOVES = ("processing", "completed", "failed")  # statuses that only the system sets: progress
HOLDS_WORK = ("worker.kill", "workers.kill", "worker.freeze")
CLAIMS = ("claimed", "new_attempt", "sent_again", "preparing")  # events after which a worker is calling


@dataclass(frozen=True)
class Options:
    """What to run. `patience` is how long withdrawals may take to become final after the faults, `within` how
    long the whole run may take, from the start of the first part to the judgement.
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
        """The command that repeats this run."""
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
    """The result of a run. Times in seconds."""

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
        return sum(bool(violations) for violations in self.truths.values()) + (not self.check_holds)

    @property
    def seconds(self) -> float:
        """The duration of the whole run."""
        return sum(self.took.values())

    @property
    def in_time(self) -> bool:
        """True if the run was within its time limit."""
        return self.seconds <= self.options.within

    @property
    def good(self) -> bool:
        """True if every promise was kept, no part died by itself, and the run went as planned."""
        complete = bool(self.truths) and not self.broken and not self.errors
        return complete and not self.died and self.in_time


ReportProgress = Callable[[str], None]


def run(options: Options, directory: Path, report: ReportProgress = lambda _: None) -> Result:
    """Run everything; logs stay in `directory`. Raises PartFailed if the stack does not start or stop."""
    result = Result(options)
    clock = _Stopwatch()
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
            report(f"all parts are up; {options.withdrawals} withdrawals in {options.seconds:g} s")
            load, injector = _storm(stack, provider, options, report)
            result.took["faults"] = clock.lap()
            if not load.join(LATE_REQUESTS_SECONDS):
                result.errors.append(
                    f"apps still send requests {LATE_REQUESTS_SECONDS} s after the faults ended"
                )
            _drain(stack, provider, options.patience, report)
            _stop_webhooks(stack, provider)
            result.took["drain"] = clock.lap()
        result.cpu = cpu.seconds
        result.died = injector.died
        result.errors += injector.errors
        _judge(stack, provider, load, injector, result)
        result.took["judgement"] = clock.lap()
    return result


def _choose_reading(provider: Simulator, seed: int) -> dict[str, bool]:
    """Where the provider's documents contradict each other, the seed chooses how to read them."""
    chance = random.Random(f"{seed} reading")
    names = ("replay_saved", "mismatch_409", "refusal_consumes_key", "created_201", "lite")
    reading = {name: chance.random() < 0.5 for name in names}
    reading["transaction_events"] = reading["lite"]  # by the documents, only Lite accounts send them
    provider.settings(**reading)
    for payee in PAYEES_OF_A_BANK:
        provider.scenario("success", vpa=payee)
    return reading


def _storm(
    stack: Stack, provider: Simulator, options: Options, report: ReportProgress
) -> tuple[Load, Injector]:
    info = stack.info()
    load = Load(
        info["api"],
        info["api_key"],
        make_requests(options.seed, options.withdrawals),
        options.seconds,
        options.seed,
    )
    injector = Injector(stack, provider)
    load.start()
    injector.start(plan(options.seed, options.seconds, options.faults))
    over = time.monotonic() + options.seconds
    while (left := over - time.monotonic()) > 0:
        time.sleep(min(left, PROGRESS_SECONDS))
        report(f"{load.ledger.accepted} taken, {len(injector.injected)} faults")
    injector.calm()
    return load, injector


def _drain(stack: Stack, provider: Simulator, patience: float, report: ReportProgress) -> None:
    """Wait until no work is left; the oracle reports what is left after `patience`."""
    deadline = time.monotonic() + patience
    reported_at = 0.0
    while (left := _left(stack, provider)) and time.monotonic() < deadline:
        if time.monotonic() - reported_at > PROGRESS_SECONDS:
            reported_at = time.monotonic()
            report(f"calm; still to do: {', '.join(f'{number} {what}' for what, number in left.items())}")
        time.sleep(LOOK_SECONDS)


def _stop_webhooks(stack: Stack, provider: Simulator) -> None:
    """Stop webhooks and apply the last ones: a late copy during the judgement is not a fault."""
    provider.settings(webhooks_enabled=False)
    time.sleep(LOOK_SECONDS)  # for one that is on its way
    _drain(stack, provider, LAST_WEBHOOKS_SECONDS, lambda _: None)


def _left(stack: Stack, provider: Simulator) -> dict[str, int]:
    with psycopg.connect(stack.env["DATABASE_URL"]) as connection:
        left = dict(
            connection.execute(
                """SELECT coalesce(status_reason, status), count(*) FROM withdrawals
                   WHERE status IN ('pending', 'processing') GROUP BY 1
                   UNION ALL SELECT 'webhooks', count(*) FROM webhook_events WHERE applied_at IS NULL"""
            ).fetchall()
        )
        # A payout reversed after completion: its webhook or the next recheck reports it.
        back = [payout["id"] for payout in provider.get("payouts", status="reversed")["items"]]
        query = "SELECT count(*) FROM payout_attempts WHERE state = 'paid' AND payout_id = ANY(%s)"
        left["sent back"] = connection.execute(query, [back]).fetchone()[0]  # type: ignore[index]
    return {what: number for what, number in left.items() if number}


def _judge(stack: Stack, provider: Simulator, load: Load, injector: Injector, result: Result) -> None:
    health, at = _clocks(provider)
    payouts = _all_payouts(provider)
    facts = oracle.gather(stack.env["DATABASE_URL"], payouts, health["now"], at, health["speed"], load.ledger)
    result.truths = oracle.judge(facts)
    command = [sys.executable, "-m", "cli", "check"]
    done = subprocess.run(command, env=stack.env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    result.check = done.stdout + done.stderr
    result.check_holds = done.returncode == 0
    result.statuses = Counter(row["status"] for row in facts.withdrawals)
    result.provider = Counter(payout["status"] for payout in payouts)
    result.answers = dict(sorted(load.ledger.answers.items()))
    result.faults = Counter(fault.name for fault in injector.injected)
    result.recovery = recovery_times(injector.injected, facts.events)
    taken, not_taken = oracle.unknown_to_apps(facts)
    result.numbers = {
        "requests": len(load.ledger.requests),
        "withdrawals": len(facts.withdrawals),
        "answer lost, taken": taken,
        "answer lost, not taken": not_taken,
        "cancelled by users": sum(request.cancelled for request in load.ledger.requests),
        "attempts": len(facts.attempts),
        "sent more than once": sum(payout["create_calls"] > 1 for payout in payouts),
        "never arrived": sum(event["reason"] == "never_arrived" for event in facts.events),
        "reversed after completion": sum(
            (event["from_status"], event["to_status"]) == ("completed", "failed") for event in facts.events
        ),
        "workers lost on the wire": sum(event["reason"] == "worker_lost" for event in facts.events),
    }


def _clocks(provider: Simulator) -> tuple[dict[str, Any], float]:
    """The provider's health with its clock, and our time at that moment, as exact as the oracle needs."""
    for _ in range(CLOCK_TRIES):
        before = time.time()
        health = provider.get("health")
        after = time.time()
        if after - before < CLOCK_EXACT_SECONDS:
            break
    return health, (before + after) / 2


def _all_payouts(provider: Simulator) -> list[dict[str, Any]]:
    # Not by `provider.get`, which has a shorter timeout.
    answer = requests.get(f"{provider.url}/_sim/payouts", timeout=LIST_SECONDS)
    answer.raise_for_status()
    return list(answer.json()["items"])


def recovery_times(injected: list[Injected], events: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Fault -> for each injection, seconds from its start to the first withdrawal that moved after it.

    With another worker alive that is soon; so for killed and frozen workers there is also the time until the
    last withdrawal that any worker was sending at that moment continued.
    """
    moves = sorted(e["at"] for e in events if e["to_status"] in MOVES and e["from_status"] != e["to_status"])
    times: dict[str, list[float]] = defaultdict(list)
    for fault in injected:
        after = bisect_right(moves, fault.began)
        if after < len(moves):
            times[fault.name].append(moves[after] - fault.began)
        if fault.name in HOLDS_WORK and (held := _seconds_until_held_work_continued(fault.began, events)):
            times[f"{fault.name}: what it held"].append(held)
    return dict(times)


def _seconds_until_held_work_continued(moment: float, events: list[dict[str, Any]]) -> float:
    """Seconds from the moment until every withdrawal in a call at that moment continued; 0 if there was none."""
    in_a_call: dict[str, bool] = {}
    last = moment
    for event in events:
        withdrawal_id = event["withdrawal_id"]
        if event["at"] <= moment:
            in_a_call[withdrawal_id] = event["reason"] in CLAIMS
        elif in_a_call.pop(withdrawal_id, False):
            last = max(last, event["at"])
    return last - moment


class _Stopwatch:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.monotonic()
        passed = now - self._last
        self._last = now
        return passed


class _Cpu:
    """CPU seconds by part, with children and killed processes, except for their last moments."""

    def __init__(self, stack: Stack) -> None:
        self.seconds: dict[str, float] = {}
        self._stack = stack
        self._over = threading.Event()
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
