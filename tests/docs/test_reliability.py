"""Each line of the list of failures has tests that cause it, and docs/reliability.md names exactly these."""

import ast
import re
from collections import defaultdict

import pytest

from tests.support.paths import ROOT, files

PAGE = ROOT / "docs" / "reliability.md"
LINES = range(1, 29)

# Line -> the reason why a part of it is missing. Such a line may have tests for the other parts.
MISSING = {}


def marked() -> dict[int, set[str]]:
    """Line -> the names of the tests that are marked with it."""
    tests = defaultdict(set)
    for path in files("tests/**/test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for line in _lines_of(node) if isinstance(node, ast.FunctionDef) else ():
                tests[line].add(f"{path.relative_to(ROOT)}::{node.name}")
    return dict(tests)


def _lines_of(test: ast.FunctionDef) -> list[int]:
    marks = [mark for mark in test.decorator_list if isinstance(mark, ast.Call)]
    return [
        ast.literal_eval(number)
        for mark in marks
        if ast.unparse(mark.func) == "pytest.mark.failure"
        for number in mark.args
    ]


def table() -> dict[int, tuple[str, list[str]]]:
    """Line -> its description on the page, and the tests that it names."""
    section = PAGE.read_text().split("## The 28 failures")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.*) \| (.*) \|$", section, re.M)
    return {int(line): (description, re.findall(r"`(\w+)`", tests)) for line, description, tests in rows}


MARKED = marked()
TABLE = table()


def names(line: int) -> list[str]:
    return sorted(test.partition("::")[2] for test in MARKED.get(line, ()))


@pytest.mark.parametrize("line", LINES)
def test_every_line_has_a_test_or_a_reason(line: int) -> None:
    assert MARKED.get(line) or line in MISSING, (
        f"mark the tests that cause line {line} with @pytest.mark.failure({line})"
    )


@pytest.mark.parametrize("line", LINES)
def test_the_table_names_exactly_the_tests_of_a_line(line: int) -> None:
    assert sorted(TABLE[line][1]) == names(line), f"docs/reliability.md, line {line}, names other tests"


@pytest.mark.parametrize("line", LINES)
def test_the_table_names_each_missing_part(line: int) -> None:
    reason = MISSING.get(line)
    assert (
        (f"Not here yet: {reason}." in TABLE[line][0]) if reason else ("Not here yet" not in TABLE[line][0])
    )


def test_no_mark_names_a_line_that_does_not_exist() -> None:
    assert set(MARKED) <= set(LINES)
    assert set(TABLE) == set(LINES)


def test_marked_tests_have_unique_names() -> None:
    every = {test for tests in MARKED.values() for test in tests}
    assert len({test.partition("::")[2] for test in every}) == len(every)


def test_every_test_that_the_page_names_exists() -> None:
    code = "".join(path.read_text() for path in files("tests/**/test_*.py"))
    for name in re.findall(r"`(test_\w+)`", PAGE.read_text()):
        assert f"def {name}(" in code, name
