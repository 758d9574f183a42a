"""docs/operators.md ranks the kinds of exception records as the code does."""

import re

from shared.people import severities
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "operators.md").read_text()


def test_the_severities_match_the_code() -> None:
    text = PAGE.partition("Each kind has a **Severity**")[2].partition("*Do*")[0]
    kinds = {
        word: set(re.findall(r"`([a-z_]+)`", line)) - {word}
        for word, line in re.findall(r"^- `(\w+)`: (.*?)(?=^- |\Z)", text, re.M | re.S)
    }
    assert kinds["critical"] == severities.CRITICAL | {severities.CONTRADICTION}
    assert kinds["notice"] == severities.NOTICE
