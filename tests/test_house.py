"""House rules. Each failure message says what to do instead."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from shared import models
from shared.db.startup import TABLES_WITH_DELETES
from tests.support.paths import ROOT, files

PRODUCT = files("api", "cli", "worker", "shared")
LOCKS = ("requirements.lock", "requirements-simulator.lock", "requirements-dev.lock")
OBSERVED = "requirements-observed.lock"
BENCH = "requirements-bench.lock"


def test_no_import_breaks_the_layers() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"A module imports from its own layer or below (DESIGN §3).\n{done.stdout}"


def test_every_package_has_a_contract_that_orders_all_of_its_modules() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    ordered = {
        name for contract in contracts if contract.get("exhaustive") for name in contract["containers"]
    }
    packages = {path.parent.relative_to(ROOT).as_posix() for path in PRODUCT if path.name == "__init__.py"}
    packages = {name.replace("/", ".") for name in packages if "migrations" not in name}
    assert packages <= ordered, f"pyproject.toml, [tool.importlinter]: {packages - ordered}"


def test_a_modules_tests_are_found_from_its_path() -> None:
    """api/idempotency.py has tests/api/test_idempotency.py, or several files with a topic: test_idempotency_race.py."""
    for path in files(
        "tests/api", "tests/bench", "tests/cli", "tests/sandbox", "tests/shared", "tests/worker"
    ):
        if path.name.startswith("test_"):
            directory = ROOT / path.relative_to(ROOT / "tests").parent
            modules = [directory.name, *(entry.stem for entry in directory.iterdir())]
            subject = path.stem.removeprefix("test_")
            assert any(f"{subject}_".startswith(f"{module}_") for module in modules), (
                f"{path.relative_to(ROOT)}: name it test_MODULE.py or test_MODULE_TOPIC.py"
            )


def test_each_group_of_tests_runs_in_one_process(request: pytest.FixtureRequest) -> None:
    """A pytest newer than pytest-xdist ignores the groups of conftest.py, and every system starts twice."""
    if hasattr(request.config, "workerinput"):
        assert request.node.nodeid.endswith("@tests/test_house.py"), "no group: see pyproject.toml"


def test_a_subquery_with_a_limit_is_materialized() -> None:
    for path in PRODUCT:
        source = path.read_text()
        plain = re.findall(r"\bIN\s*\(\s*SELECT\b[^()]*(?:\([^()]*\)[^()]*)*\bLIMIT\b", source, re.I)
        assert not plain, (
            f"{path.name}: select the rows in a MATERIALIZED CTE (select_locked_once in shared/db/transactions.py says why): {plain}"
        )


def test_only_the_wallet_writes_coins() -> None:
    for path in PRODUCT:
        writes = re.findall(
            r"INSERT INTO coin_transactions|UPDATE wallets|insert\(CoinTransaction|update\(Wallet\)",
            path.read_text(),
        )
        if path not in files("shared/coins/wallet.py") and "migrations" not in str(path):
            assert not writes, f"{path.name} writes {writes}: coins move in shared/coins/wallet.py only"


def test_only_transitions_changes_the_status_of_a_withdrawal() -> None:
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
            assert not moved or path in files("shared/withdrawals/transitions.py"), (
                f"{path.name}:{node.lineno} sets the status: call transitions.transition"
            )


def test_no_call_to_the_provider_inside_a_transaction() -> None:
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.With) and "transaction()" in ast.unparse(node.items[0].context_expr):
                assert ".perform(" not in ast.unparse(node), (
                    f"{path.name}:{node.lineno} calls the provider inside a transaction: commit first"
                )


def test_the_simulator_shares_no_code_with_what_it_tests() -> None:
    for path in files("sandbox/razorpayx"):
        imports = re.findall(r"^\s*(?:from|import) (api|cli|worker|shared)\b", path.read_text(), re.M)
        assert not imports, f"{path.name} imports {imports}: a simulator with our errors cannot show them"


def test_startup_checks_the_delete_right_for_each_table_with_deletes() -> None:
    code = "".join(path.read_text() for path in PRODUCT if "migrations" not in str(path))
    # Not `broker.delete(key)`: that is Redis.
    tables = {getattr(models, name).__tablename__ for name in re.findall(r"(?<!\.)\bdelete\((\w+)\)", code)}
    assert tables | set(re.findall(r"DELETE FROM (\w+)", code)) <= set(TABLES_WITH_DELETES)


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


def test_docker_gets_every_file_that_the_image_copies() -> None:
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.M)
    copied = re.findall(r"^COPY (?!--from)([^$\s]\S*) ", (ROOT / "Dockerfile").read_text(), re.M)
    assert {"api", "cli", "shared", "worker"} <= set(copied) <= set(allowed)


def test_the_locks_have_hashes_and_name_no_index() -> None:
    for name in (*LOCKS, OBSERVED, BENCH):
        text = (ROOT / name).read_text()
        assert text.count("==") <= text.count("--hash=")
        assert not re.search(r"index-url|find-links|https?://", text)


def test_all_locks_choose_the_same_versions() -> None:
    def versions(name: str) -> set[str]:
        return set(re.findall(r"^([\w.\[\]-]+==\S+)", (ROOT / name).read_text(), re.M))

    smaller, larger, largest = map(versions, LOCKS)
    assert smaller <= larger <= largest
    assert smaller <= versions(OBSERVED) <= largest
    names = {version.partition("==")[0] for version in largest}
    assert not {version for version in versions(BENCH) - largest if version.partition("==")[0] in names}


def test_the_npm_lock_has_hashes_and_names_no_registry() -> None:
    react = ROOT / "examples" / "react"
    text = (react / "package-lock.json").read_text()
    packages = {name: package for name, package in json.loads(text)["packages"].items() if name}
    assert packages and all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert "resolved" not in text and "registry" not in text, "run npm install with examples/react/.npmrc"
    manifest = json.loads((react / "package.json").read_text())
    versions = [*manifest["dependencies"].values(), *manifest["devDependencies"].values()]
    assert all(re.fullmatch(r"[0-9.]+", version) for version in versions), "give exact versions"
