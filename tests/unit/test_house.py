"""House rules. Each failure names the right way."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared import models
from shared.starting import DELETED_FROM

ROOT = Path(__file__).parents[2]
PRODUCT = sorted(path for part in ("api", "worker", "shared") for path in (ROOT / part).rglob("*.py"))
FILE_LINES = 300
LOCKS = ("requirements.lock", "requirements-simulator.lock", "requirements-dev.lock")
OBSERVED = "requirements-observed.lock"


def test_the_layers_hold() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"A module imports from its own layer or below (DESIGN §3).\n{done.stdout}"


def test_what_belongs_together_runs_in_one_process(request: pytest.FixtureRequest) -> None:
    """A pytest that is newer than pytest-xdist forgets the groups of conftest.py: every system starts twice."""
    if hasattr(request.config, "workerinput"):
        assert request.node.nodeid.endswith("@tests/unit/test_house.py"), "no group: see pyproject.toml"


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_room(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    if "migrations/versions" not in str(path):
        assert lines <= FILE_LINES, f"{path.name} has {lines} lines: which room in it wants its own door?"


def test_a_limit_is_kept_whatever_postgresql_plans() -> None:
    for path in PRODUCT:
        source = path.read_text()
        plain = re.findall(r"\bIN\s*\(\s*SELECT\b[^()]*(?:\([^()]*\)[^()]*)*\bLIMIT\b", source, re.I)
        assert not plain, (
            f"{path.name}: select the rows in a MATERIALIZED CTE (db.locked_once says why): {plain}"
        )


def test_only_the_wallet_writes_coins() -> None:
    for path in PRODUCT:
        writes = re.findall(
            r"INSERT INTO coin_transactions|UPDATE wallets|insert\(CoinTransaction|update\(Wallet\)",
            path.read_text(),
        )
        if path.name != "wallet.py" and "migrations" not in str(path):
            assert not writes, f"{path.name} writes {writes}: coins move in shared/wallet.py only"


def test_only_the_journey_moves_a_withdrawal() -> None:
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            moved = [
                t
                for t in targets
                if isinstance(t, ast.Attribute)
                and t.attr == "status"
                and ast.unparse(t) == "withdrawal.status"
            ]
            assert not moved or path.name == "journey.py", (
                f"{path.name}:{node.lineno} moves a withdrawal past journey.move"
            )


def test_no_call_to_the_provider_inside_a_transaction() -> None:
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.With) and "transaction()" in ast.unparse(node.items[0].context_expr):
                assert ".perform(" not in ast.unparse(node), (
                    f"{path.name}:{node.lineno} holds a transaction across the wire"
                )


def test_the_simulator_shares_no_code_with_what_it_tests() -> None:
    for path in (ROOT / "sandbox" / "razorpayx").rglob("*.py"):
        found = re.findall(r"^\s*(?:from|import) (api|worker|shared)\b", path.read_text(), re.M)
        assert not found, f"{path.name} imports {found}: a simulator that shares our errors cannot show them"


def test_a_start_asks_for_the_right_to_delete_wherever_the_code_deletes() -> None:
    code = "".join(path.read_text() for path in PRODUCT if "migrations" not in str(path))
    # Not `broker.delete(key)`: that is Redis.
    tables = {getattr(models, name).__tablename__ for name in re.findall(r"(?<!\.)\bdelete\((\w+)\)", code)}
    assert tables | set(re.findall(r"DELETE FROM (\w+)", code)) <= set(DELETED_FROM)


def test_no_work_at_import_time() -> None:
    """Importing reads no setting and opens no connection: it works with an empty environment."""
    modules = [
        str(path.relative_to(ROOT))[:-3].replace("/", ".")
        for path in PRODUCT
        if "migrations" not in str(path)
    ]
    code = "import importlib; [importlib.import_module(m) for m in %r]" % [
        m.removesuffix(".__init__") for m in modules
    ]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_locks_have_hashes_and_name_no_index() -> None:
    for name in (*LOCKS, OBSERVED):
        text = (ROOT / name).read_text()
        assert text.count("==") <= text.count("--hash=")
        assert not re.search(r"index-url|find-links|https?://", text)


def test_all_locks_choose_the_same_versions() -> None:
    def versions(name: str) -> set[str]:
        return set(re.findall(r"^([\w.\[\]-]+==\S+)", (ROOT / name).read_text(), re.M))

    smaller, larger, largest = map(versions, LOCKS)
    assert smaller <= larger <= largest
    assert smaller <= versions(OBSERVED) <= largest


def test_the_npm_lock_has_hashes_and_names_no_registry() -> None:
    react = ROOT / "examples" / "react"
    text = (react / "package-lock.json").read_text()
    packages = {name: one for name, one in json.loads(text)["packages"].items() if name}
    assert packages and all(one["integrity"].startswith("sha512-") for one in packages.values())
    assert "resolved" not in text and "registry" not in text, "npm install, with examples/react/.npmrc"
    wanted = json.loads((react / "package.json").read_text())
    versions = [*wanted["dependencies"].values(), *wanted["devDependencies"].values()]
    assert all(re.fullmatch(r"[0-9.]+", version) for version in versions), "exact versions"
