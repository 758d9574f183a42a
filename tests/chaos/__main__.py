"""`make chaos`: break everything under load, stop the faults, prove that nothing was paid twice or lost."""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.run import Options, ReportProgress, Result, run
from tests.chaos.schedule import FAULTS

MAX_IDS_SHOWN = 5  # for each broken truth


Run = Callable[[Options, Path, ReportProgress], Result]


def main(argv: Sequence[str] | None = None, run: Run = run) -> int:
    """Run once and print the page. Returns 0 if every promise was kept and the run was valid, otherwise 1."""
    options = _options(argv)
    directory = options.directory or Path(tempfile.mkdtemp(prefix="coin-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def report(progress: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {progress}", file=sys.stderr, flush=True)

    good = False
    try:
        result = run(options, directory, report)
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
    parser.add_argument("--withdrawals", type=int, default=default.withdrawals, help="how many are requested")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="how long faults are injected")
    parser.add_argument(
        "--seed", type=int, default=default.seed, help="determines requests, faults and their times"
    )
    parser.add_argument("--faults", default="all", help=f"all, none, or a list of {','.join(FAULTS)}")
    parser.add_argument(
        "--patience", type=float, default=default.patience, help="seconds to become final after the faults"
    )
    parser.add_argument(
        "--within", type=float, default=default.within, help="seconds that the whole run may take"
    )
    parser.add_argument("--workers", type=int, default=default.workers, help="Celery worker processes")
    parser.add_argument("--api-workers", type=int, default=default.api_workers, help="API processes")
    parser.add_argument("--directory", type=Path, help="keep databases and logs here")
    arguments = parser.parse_args(argv)
    names = {"all": list(FAULTS), "none": []}.get(arguments.faults, arguments.faults.split(","))
    if unknown := set(names) - set(FAULTS):
        parser.error(f"--faults: {', '.join(sorted(unknown))}: unknown; known are {', '.join(FAULTS)}")
    if arguments.directory and arguments.directory.exists() and any(arguments.directory.iterdir()):
        parser.error(f"--directory: {arguments.directory} is not empty: the result needs an empty one")
    return Options(
        arguments.withdrawals,
        arguments.seconds,
        arguments.seed,
        tuple(names),
        arguments.directory,
        arguments.patience,
        arguments.within,
        arguments.workers,
        arguments.api_workers,
    )


def page(result: Result) -> str:
    """The result as one page of text."""
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
    for truth, violations in result.truths.items():
        lines.append(f"{'BROKEN' if violations else 'holds '}  promise {truth.promise:5} {truth.sentence}")
        lines += [f"        {name}" for name in violations[:MAX_IDS_SHOWN]]
        lines += [f"        and {len(violations) - MAX_IDS_SHOWN} more"] * (len(violations) > MAX_IDS_SHOWN)
    lines.append(f"{'holds ' if result.check_holds else 'BROKEN'}  `payouts check`")
    lines += [] if result.check_holds else [result.check]
    lines += [f"The run itself: {error}" for error in result.errors]
    lines += [f"Ended by itself and was started again: {part}" for part in result.died]
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
            half = statistics.median(times)
            longest = max(times)
            lines.append(f"{name:34} {len(times):5}   {half:6.2f} {longest:6.2f}")
        elif result.faults.get(name):
            lines.append(f"{name:34} {result.faults[name]:5}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
