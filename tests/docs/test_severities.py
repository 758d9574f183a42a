"""docs/operators.md ranks the kinds of exception records as the code does."""

import re
from pathlib import Path

from shared import severities

PAGE = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()


def test_the_severities_are_those_of_the_code() -> None:
    told = PAGE.partition("Each kind has a **Severity**")[2].partition("*Do*")[0]
    kinds = {
        word: set(re.findall(r"`([a-z_]+)`", line)) - {word}
        for word, line in re.findall(r"^- `(\w+)`: (.*?)(?=^- |\Z)", told, re.M | re.S)
    }
    assert kinds["critical"] == severities.CRITICAL | {severities.CONTRADICTION}
    assert kinds["notice"] == severities.NOTICE
