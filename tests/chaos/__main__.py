"""`make chaos`: break everything under load, let calm return, prove that nothing was paid twice or lost."""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.run import Options, Result, Tell, run
from tests.chaos.schedule import FAULTS

SHOWN = 5  # ids of each broken truth


Run = Callable[[Options, Path, Tell], Result]


def main(argv: Sequence[str] | None = None, run: Run = run) -> int:
    """Runs once and prints the page. 0: every promise was kept; 1: not, or the run was not as it must be."""
    options = _options(argv)
    directory = options.directory or Path(tempfile.mkdtemp(prefix="coin-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", file=sys.stderr, flush=True)

    good = False
    try:
        result = run(options, directory, tell)
        good = result.good
        print(page(result))
    finally:
        if good and options.directory is None:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            print(f"Logs: {directory}")
        if not good:
            print(f"Again: {options.command}")
    return 0 if good else 1


def _options(argv: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser("make chaos", description=__doc__)
    default = Options()
    parser.add_argument("--withdrawals", type=int, default=default.withdrawals, help="how many are asked for")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="how long faults are on")
    parser.add_argument(
        "--seed", type=int, default=default.seed, help="chooses wishes, faults and their times"
    )
    parser.add_argument("--faults", default="all", help=f"all, none, or some of {','.join(FAULTS)}")
    parser.add_argument(
        "--patience", type=float, default=default.patience, help="seconds to become final in calm"
    )
    parser.add_argument(
        "--within", type=float, default=default.within, help="seconds that the whole run may take"
    )
    parser.add_argument("--workers", type=int, default=default.workers, help="Celery worker processes")
    parser.add_argument("--api-workers", type=int, default=default.api_workers, help="API processes")
    parser.add_argument("--directory", type=Path, help="keep databases and logs here")
    given = parser.parse_args(argv)
    names = {"all": list(FAULTS), "none": []}.get(given.faults, given.faults.split(","))
    if unknown := set(names) - set(FAULTS):
        parser.error(f"--faults: {', '.join(sorted(unknown))}: unknown; known are {', '.join(FAULTS)}")
    if given.directory and given.directory.exists() and any(given.directory.iterdir()):
        parser.error(
            f"--directory: {given.directory} is not empty: old books would be judged by new memories"
        )
    return Options(
        given.withdrawals,
        given.seconds,
        given.seed,
        tuple(names),
        given.directory,
        given.patience,
        given.within,
        given.workers,
        given.api_workers,
    )


def page(result: Result) -> str:
    """The result on one page."""
    lines = [
        f"Seed {result.options.seed}: {result.numbers['withdrawals']} withdrawals, "
        f"{sum(result.faults.values())} faults, {result.broken} promises broken",
        "",
        _row("Outcome", result.statuses),
        _row("At the provider", result.provider),
        _row("Numbers", result.numbers),
        _row("Answers", result.answers),
        _row("RazorpayX reads", {name: "yes" if on else "no" for name, on in result.reading.items()}),
        _row("Seconds", {name: f"{seconds:.1f}" for name, seconds in result.took.items()}),
        _row("CPU seconds", {name: f"{seconds:.0f}" for name, seconds in sorted(result.cpu.items())}),
        "",
        f"{'Fault':34} {'times':>5}   seconds until withdrawals moved again: half within, all within",
    ]
    lines += _recoveries(result)
    lines.append("")
    for one, who in result.truths.items():
        lines.append(f"{'BROKEN' if who else 'holds '}  promise {one.promise:5} {one.sentence}")
        lines += [f"        {name}" for name in who[:SHOWN]]
        lines += [f"        and {len(who) - SHOWN} more"] * (len(who) > SHOWN)
    lines.append(f"{'holds ' if result.check_holds else 'BROKEN'}  `payouts check`")
    lines += [] if result.check_holds else [result.check]
    lines += [f"The run itself: {error}" for error in result.errors]
    lines += [f"Ended by itself and was started again: {who}" for who in result.died]
    if not result.in_time:
        lines.append(f"It took {result.seconds:.0f} s, and may take {result.options.within:g} s.")
    return "\n".join([*lines, "", _verdict(result)])


def _verdict(result: Result) -> str:
    if result.good:
        return "Every promise was kept."
    if result.truths and not result.broken:
        return "Every promise was kept, but the run was not as it must be."
    return "NOT every promise was kept."


def _row(title: str, values: dict) -> str:
    return f"{title:16} " + (", ".join(f"{name} {value}" for name, value in values.items()) or "none")


def _recoveries(result: Result) -> list[str]:
    lines = []
    for name in [name for fault in FAULTS for name in (fault, f"{fault}: what it held")]:
        times = result.recovery.get(name, [])
        if times:
            half, longest = statistics.median(times), max(times)
            lines.append(f"{name:34} {len(times):5}   {half:6.2f} {longest:6.2f}")
        elif result.faults.get(name):
            lines.append(f"{name:34} {result.faults[name]:5}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
