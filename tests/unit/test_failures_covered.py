"""Each line of the list of failures has tests that make it happen, and docs/reliability.md names exactly these."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
LINES = range(1, 29)

# What is not built yet, and whose it is. A line that stands here may have tests for the part that is there.
ELSEWHERE = {}


def marked() -> dict[int, set[str]]:
    """Line -> the names of the tests that are marked with it."""
    found = defaultdict(set)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for line in _lines_of(node) if isinstance(node, ast.FunctionDef) else ():
                found[line].add(f"{path.relative_to(ROOT)}::{node.name}")
    return dict(found)


def _lines_of(test: ast.FunctionDef) -> list[int]:
    marks = [mark for mark in test.decorator_list if isinstance(mark, ast.Call)]
    return [
        ast.literal_eval(number)
        for mark in marks
        if ast.unparse(mark.func) == "pytest.mark.failure"
        for number in mark.args
    ]


def table() -> dict[int, tuple[str, list[str]]]:
    """Line -> what the page says of it, and the tests that it names."""
    section = PAGE.read_text().split("## The 28 failures")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.*) \| (.*) \|$", section, re.M)
    return {int(line): (words, re.findall(r"`(\w+)`", tests)) for line, words, tests in rows}


MARKED, TABLE = marked(), table()


def names(line: int) -> list[str]:
    return sorted(test.partition("::")[2] for test in MARKED.get(line, ()))


@pytest.mark.parametrize("line", LINES)
def test_every_line_has_a_test_or_a_reason(line: int) -> None:
    assert MARKED.get(line) or line in ELSEWHERE, (
        f"mark the tests that make line {line} happen with @pytest.mark.failure({line})"
    )


@pytest.mark.parametrize("line", LINES)
def test_the_table_names_exactly_the_tests_of_a_line(line: int) -> None:
    assert sorted(TABLE[line][1]) == names(line), f"docs/reliability.md, line {line}, names other tests"


@pytest.mark.parametrize("line", LINES)
def test_the_table_says_what_is_not_there_yet_and_whose_it_is(line: int) -> None:
    reason = ELSEWHERE.get(line)
    assert (
        (f"Not here yet: {reason}." in TABLE[line][0]) if reason else ("Not here yet" not in TABLE[line][0])
    )


def test_no_mark_names_a_line_that_does_not_exist() -> None:
    assert set(MARKED) <= set(LINES)
    assert set(TABLE) == set(LINES)


def test_one_name_is_one_test() -> None:
    every = {test for tests in MARKED.values() for test in tests}
    assert len({test.partition("::")[2] for test in every}) == len(every)


def test_every_test_that_the_page_names_exists() -> None:
    code = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", PAGE.read_text()):
        assert f"def {name}(" in code, name
