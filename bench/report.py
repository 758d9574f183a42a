"""The report in Markdown: a section for each row, between two markers, so that one can be written alone."""

import re
from collections.abc import Sequence
from pathlib import Path

from bench.figures import median_ratio, rounded
from bench.plan import Column, Goal, Results, Row, Table, values

TITLE = "# Performance\n"
END = re.compile(r"<!-- bench:/\w+ -->")  # of any row's section


def section(row: Row, results: Results, *, machine: str, rounds: int, goals: bool = True) -> str:
    """The section of a row, with its markers; with its goals, unless the sizes were too small for these."""
    results = row.shape(results)
    parts = [
        _marker(row.name),
        f"## {row.title}",
        f"```sh\nmake bench ARGS='--rows {row.name}'\n```",
        row.about.strip(),
        *(_table(table, results) for table in row.tables),
        _goals(row.goals, results) if goals else "",
        f"{machine}. {'One round' if rounds == 1 else f'Medians of {rounds} rounds, taken in turns'}.",
        _marker(f"/{row.name}"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(path: Path, name: str, text: str) -> None:
    """Put the section in the place of the row's last one, or after all sections of other rows."""
    document = path.read_text() if path.exists() else TITLE
    place = _place(document, name)
    before = document[: place.start].rstrip()
    after = document[place.stop :].lstrip()
    path.write_text("\n\n".join(part for part in (before, text.rstrip(), after) if part).rstrip() + "\n")


def _place(document: str, name: str) -> slice:
    own = re.search(rf"{re.escape(_marker(name))}.*?{re.escape(_marker(f'/{name}'))}", document, re.S)
    if own:
        return slice(own.start(), own.end())
    ends = [end.end() for end in END.finditer(document)]
    return slice(max(ends, default=len(document)), max(ends, default=len(document)))


def _marker(name: str) -> str:
    return f"<!-- bench:{name} -->"


def _table(table: Table, results: Results) -> str:
    keys = [column.key for column in table.columns]
    able = [name for name, rounds in results.items() if rounds and any(key in rounds[0] for key in keys)]
    if not able:
        return ""
    ratio_of = table.ratio_of if table.ratio_of in keys else None
    headings = [table.heading, *(column.heading for column in table.columns)]
    ratios = [f"{able[0]} / this"] if ratio_of and len(able) > 1 else []
    lines = [_line([*headings, *ratios]), _line(["---"] * (len(headings) + len(ratios)))]
    for name in able:
        cells = [_cell(results, name, column) for column in table.columns]
        if ratios and ratio_of:
            cells.append(_ratio(results, able[0], name, ratio_of))
        lines.append(_line([name, *cells]))
    return "\n".join(lines)


def _cell(results: Results, name: str, column: Column) -> str:
    try:
        return rounded(column.aggregate(values(results, name, column.key)))
    except KeyError:
        return ""


def _ratio(results: Results, ours: str, theirs: str, key: str) -> str:
    try:
        return rounded(median_ratio(values(results, ours, key), values(results, theirs, key)))
    except (KeyError, ZeroDivisionError):
        return ""


def _goals(goals: Sequence[Goal], results: Results) -> str:
    if not goals:
        return ""
    lines = [_line(["required", "measured", ""]), _line(["---"] * 3)]
    return "\n".join([*lines, *(_line(_goal_cells(goal, results)) for goal in goals)])


def _goal_cells(goal: Goal, results: Results) -> list[str]:
    try:
        value = goal.value(results)
    except KeyError:
        return [goal.text, "", "not measured"]
    return [goal.text, rounded(value), "met" if goal.is_met(value) else "not met"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
