"""`make bench`: measure this system and its rivals in turns, and write docs/performance.md."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench import machine, report
from bench.ours import ROOT
from bench.plan import Options, Row, take_turns
from bench.rows import ROWS, YEAR

DOCUMENT = ROOT / "docs" / "performance.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the rows, one after the other, and write each section when it is done."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    rows = _rows(parser, chosen.rows)
    options = Options(quick=chosen.quick, rounds=1 if chosen.quick else chosen.rounds)
    output = chosen.output or (None if chosen.quick else DOCUMENT)
    _say(f"measuring {', '.join(row.name for row in rows)}; load {os.getloadavg()[0]:.1f}")
    described = machine.description()
    for row in rows:
        rounds = min(options.rounds, row.max_rounds or options.rounds)
        results = take_turns(row.contenders(options), rounds, partial(_say_of, row.name))
        text = report.section(row, results, machine=described, rounds=rounds, goals=not options.quick)
        _say(f"\n{text}")
        if output:
            report.write(output, row.name, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("make bench", description=__doc__)
    names = ", ".join(row.name for row in ROWS)
    parser.add_argument(
        "--rows", default="all", help=f"comma-separated: {names}; year: {', '.join(YEAR)}; all"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender runs")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: shows that it works")
    parser.add_argument(
        "--output", type=Path, help="file to write; with --quick none, otherwise docs/performance.md"
    )
    return parser


def _rows(parser: argparse.ArgumentParser, names: str) -> list[Row]:
    by_name = {row.name: row for row in ROWS}
    chosen: list[str] = []
    for name in names.split(","):
        chosen += {"all": list(by_name), "year": list(YEAR)}.get(name, [name])
    if unknown := [name for name in chosen if name not in by_name]:
        parser.error(f"no row is named {', '.join(unknown)}")
    return [by_name[name] for name in dict.fromkeys(chosen)]


def _say_of(name: str, line: str) -> None:
    _say(f"{name}: {line}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
