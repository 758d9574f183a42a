"""docs/security.md names tests, settings and limits that exist."""

import ast
import re

import pytest

from api import auth, batches
from shared.settings import Settings
from tests.support.paths import ROOT, files

PAGE = (ROOT / "docs" / "security.md").read_text()
THREATS = PAGE.split("\n## Threats\n")[1].split("\n## ")[0]
ROWS = [line.strip("| ").split(" | ") for line in THREATS.splitlines() if line.startswith("| ")][2:]


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """The name of every test."""
    return {
        node.name
        for path in files("tests/**/test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_threat_names_tests_that_exist(row: list[str], tests: set[str]) -> None:
    named = re.findall(r"`(test_\w+)`", row[-1])
    assert named, f"no test shows: {row[0]}"
    for name in named:
        assert name in tests, name


def test_every_setting_on_the_security_page_exists() -> None:
    names = set(re.findall(r"\b([A-Z][A-Z]+_[A-Z_]+)\b", PAGE))
    assert len(names) > 12
    assert names <= {name.upper() for name in Settings.model_fields}


def test_a_revoked_key_works_as_long_as_the_page_says() -> None:
    assert auth.KEY_CACHE_SECONDS == 5 and "works within five seconds" in PAGE


def test_the_proxy_accepts_the_largest_body() -> None:
    limit = re.search(r"client_max_body_size\s+(\d+)k;", PAGE)
    assert limit
    batch = batches.MAX_BODY_FACTOR * Settings.model_fields["max_body_bytes"].default
    webhook = Settings.model_fields["max_webhook_bytes"].default
    assert int(limit[1]) * 1024 > max(batch, webhook)


def test_the_security_page_lists_every_scope() -> None:
    [line] = [line for line in PAGE.splitlines() if line.startswith("| an app's server |")]
    for scope in auth.ALL_SCOPES:
        assert f"`{scope}`" in line
