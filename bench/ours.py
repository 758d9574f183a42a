"""Our own system, of this commit or another one, as real processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.service import PromiseBroken, Service

ROOT = Path(__file__).parents[1]
RUNNER = Path(__file__).with_name("stack_process.py")
START_SECONDS = 180
CHECK_SECONDS = 900  # a million withdrawals take minutes
STOP_SECONDS = 60
NEVER_REACHED = "100000000/minute"
# Everything is on, at its default or, where that would hide its cost from a run of some seconds, sooner:
# events are sealed every 2 s instead of every 15 s, and payments confirmed after 2 s instead of 120 s.
ALWAYS = {
    "API_THREADS": "8",
    "WORKER_THREADS": "8",
    "SEAL_SECONDS": "2",
    "CONFIRM_SECONDS": "2",
    "SIM_BALANCE_PAISE": str(10**14),
    "RATE_LIMIT_PER_KEY": NEVER_REACHED,
    "RATE_LIMIT_PER_USER": NEVER_REACHED,
    "RATE_LIMIT_PER_ADDRESS": NEVER_REACHED,
}
# Withdrawals are due at once, the provider answers at once and pays in 15 ms, and its rate limit is never
# reached.
INSTANT = {"CANCEL_WINDOW_SECONDS": "0", "PAYOUTS_PER_SECOND": "10000", "SIM_SPEED": "100"}
# Nothing is paid during the measurement.
NOT_DUE = {"CANCEL_WINDOW_SECONDS": "3600"}
LIMITS_OFF = {
    "RATE_LIMIT_PER_KEY": "off",
    "RATE_LIMIT_PER_USER": "off",
    "RATE_LIMIT_PER_ADDRESS": "off",
    "RATE_LIMIT_FAILED_AUTH": "off",
}


@contextmanager
def running(
    settings: Mapping[str, str],
    *,
    workers: int = 1,
    api_workers: int = 1,
    flower: bool = False,
    name: str = "ours",
    root: Path = ROOT,
    cli: str = "cli",
) -> Iterator[Service]:
    """Run the stack of the commit in `root`, whose command line is the module `cli`."""
    options = {
        "settings": {**ALWAYS, **settings},
        "workers": workers,
        "api_workers": api_workers,
        "flower": flower,
    }
    command = [sys.executable, "-P", str(RUNNER), json.dumps(options)]
    env = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, cwd=root, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdin
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{name}: the stack did not start (its message is above)")
            yield _service(json.loads(line), name, root, cli)
        finally:
            process.stdin.close()
            process.wait(STOP_SECONDS)


def _service(started: dict[str, Any], name: str, root: Path, cli: str) -> Service:
    info = started["info"]
    env = started["env"]
    return Service(
        name=name,
        api=info["api"],
        api_key=info["api_key"],
        database_url=info["database_url"],
        redis_url=info["redis_url"],
        simulator_url=info["simulator"],
        provider_auth=(env["RAZORPAYX_KEY_ID"], env["RAZORPAYX_KEY_SECRET"]),
        webhook_secret=info["webhook_secret"],
        pids=pids_by_kind(info["pids"]),
        check_promises=partial(_check, name, env, root, cli),
        env=env,
    )


def pids_by_kind(pids: Mapping[str, int]) -> dict[str, list[int]]:
    """`worker2` is a worker."""
    kinds: dict[str, list[int]] = {}
    for part, pid in pids.items():
        kinds.setdefault(part.rstrip("0123456789"), []).append(pid)
    return kinds


def _check(name: str, env: Mapping[str, str], root: Path, cli: str) -> None:
    """Run `payouts check`. Raises PromiseBroken with its output."""
    done = subprocess.run(
        [sys.executable, "-m", cli, "check"],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
    )
    if done.returncode:
        raise PromiseBroken(f"{name}: payouts check failed\n{done.stdout}{done.stderr}")
