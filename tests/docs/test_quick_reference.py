"""docs/quick-reference.md matches the code: routes, codes, limits, commands, settings, simulator UPI ids."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from api import batches, error_responses, query_parameters, schemas
from api import idempotency as once
from api.app import create_app
from cli import main
from sandbox.razorpayx import scenarios
from shared.access import idempotency
from shared.money import grouped
from shared.settings import Settings
from shared.states import FINAL, Status
from shared.text import fields, upi
from tests.support.paths import ROOT, files
from tests.support.world import World

PAGE = (ROOT / "docs" / "quick-reference.md").read_text()
# The errors of the API are in these files and in api/error_responses.py.
API_FILES = {
    str(path.relative_to(ROOT))
    for path in files(
        "api/*.py", "api/openapi", "shared/text/fields.py", "shared/coins/wallet.py",
        "shared/db/transactions.py", "shared/access/idempotency.py", "shared/withdrawals/request.py",
        "shared/withdrawals/queries.py", "shared/withdrawals/request_rules.py",
    )
}  # fmt: skip
STATUSES = {
    "BadRequest": 400, "fault": 400, "NotFound": 404, "Conflict": 409, "Unavailable": 503, "BadToken": 401,
    "TokenExpired": 401,
}  # fmt: skip


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def table(heading: str) -> dict[str, list[str]]:
    """First cell, without its backticks -> the other cells."""
    lines = [line.strip("|").split("|") for line in section(heading).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line] for line in lines[2:]]
    assert len({first for first, *_ in cells}) == len(cells), f"duplicate row under {heading}"
    return {first.strip("`"): rest for first, *rest in cells}


def errors_with_codes() -> Iterator[tuple[str, str, ast.Call]]:
    """(file, code, call) for each error created with `code=` and a string; a number is an HTTP status."""
    for path in files("api", "cli", "shared"):
        for node in ast.walk(ast.parse(path.read_text())):
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg == "code" and isinstance(value, str):
                    yield str(path.relative_to(ROOT)), value, node


def flow_codes() -> Iterator[str]:
    """The codes of a maker_checker.Flow: its defaults, and those of one kind of decision."""
    for path in files("shared"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(getattr(node, "target", None), "id", None) or getattr(node, "arg", None)
            value = getattr(node, "value", None)
            if str(name).endswith("_code") and isinstance(value, ast.Constant):
                yield value.value


def is_api_file(file: str) -> bool:
    """True if the file belongs to the API; the panel does not."""
    return file in API_FILES


CODES = table("Errors")
PANEL_AND_CLI_CODES = set(
    re.findall(r"`(\w+)`", section("Errors").split("Only commands and the panel return")[1])
)


def test_the_endpoint_table_lists_every_route_with_its_scope(world: World) -> None:
    app = create_app()
    routes = {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            if not rule.arguments:  # the files of the documentation page
                needs, users = getattr(view, "needs", None), getattr(view, "accepts_users", False)
                routes[f"{method} {rule.rule}"] = (needs, users)
    shown = {
        route: (needs.strip("`") if needs.startswith("`") else None, users == "yes")
        for route, (needs, users) in table("Endpoints").items()
    }
    assert shown == routes


def test_the_status_table_lists_every_status() -> None:
    shown = table("Statuses")
    assert list(shown) == list(Status)
    assert {status for status, (_, final) in shown.items() if final.startswith("yes")} == FINAL


def test_the_page_lists_every_error_code_and_no_other() -> None:
    of_http = {code for _, _, code in error_responses.HTTP_ERRORS.values()} | {
        error_responses.INTERNAL_ERROR[2],
        "invalid_signature",
    }
    written = {code for _, code, _ in errors_with_codes()} | set(flow_codes()) | of_http
    assert set(CODES) | PANEL_AND_CLI_CODES == written
    assert not set(CODES) & PANEL_AND_CLI_CODES
    assert {code for file, code, _ in errors_with_codes() if is_api_file(file)} | of_http == set(CODES)


def test_the_error_table_has_the_sentences_of_the_code() -> None:
    sentences = defaultdict(set)
    for file, code, call in errors_with_codes():
        if is_api_file(file) and call.args and isinstance(call.args[0], ast.Constant):
            sentences[code].add(call.args[0].value)
    for error, _, code in [*error_responses.HTTP_ERRORS.values(), error_responses.INTERNAL_ERROR]:
        sentences[code].add(error)
    assert len(sentences) > 20
    for code, errors in sentences.items():
        shown = re.escape(CODES[code][1]).replace("…", ".+")
        for error in errors:
            assert re.fullmatch(shown, error), f"{code}: {error}"


def test_each_code_has_its_http_status() -> None:
    expected = {code: {status} for status, (_, _, code) in error_responses.HTTP_ERRORS.items()}
    for file, code, call in errors_with_codes():
        status = STATUSES.get(ast.unparse(call.func))
        if is_api_file(file) and status:
            expected.setdefault(code, set()).add(status)
    assert len(expected) > 20
    for code, statuses in expected.items():
        assert {int(status) for status in CODES[code][0].split(", ")} >= statuses, code


@pytest.mark.parametrize(
    ("code", "status"), [("idempotency_key_reused", 422), ("idempotency_key_running", 409)]
)
def test_the_idempotency_errors_match_their_classes(code: str, status: int) -> None:
    classes = {
        "idempotency_key_reused": idempotency.KeyReused,
        "idempotency_key_running": idempotency.StillRunning,
    }
    assert classes[code]().http_status == status == int(CODES[code][0])
    assert classes[code]().error == CODES[code][1]


def test_the_header_table_lists_the_headers_of_the_api() -> None:
    code = "".join(path.read_text() for path in files("api/*.py"))
    for name in table("Headers"):
        assert f'"{name}"' in code or name == "Content-Type", name
    for name in re.findall(r'"(X-[\w-]+|Idempotency-[\w-]+|Retry-After)"', code):
        assert name in table("Headers") or name in ("X-Content-Type-Options", "X-Razorpay-Signature",
                                                    "X-Razorpay-Event-Id"), name  # fmt: skip


def test_the_limit_table_matches_the_code() -> None:
    assert table("Limits") == {
        "user_id": [f"{fields.MAX_USER_ID_CHARACTERS} characters"],
        "UPI id": [f"{upi.MIN_CHARACTERS} to {upi.MAX_CHARACTERS} characters"],
        "reference": [f"{fields.MAX_REFERENCE_CHARACTERS} characters, {fields.MAX_REFERENCE_BYTES} bytes"],
        "reason of a cancellation": [f"{schemas.MAX_REASON_CHARACTERS} characters"],
        "coins in one credit": [grouped(schemas.MAX_CREDIT_COINS)],
        "items in a batch": [f"{schemas.MAX_ITEMS}"],
        "history and transactions page": [
            f"{query_parameters.DEFAULT_LIMIT}, at most {query_parameters.MAX_LIMIT}"
        ],
        "Idempotency-Key": [
            f"{once.MAX_KEY_CHARACTERS} characters, kept {idempotency.RETENTION_HOURS} hours; a withdrawal's key is kept forever"
        ],
    }


def commands(group: click.Group, before: str = "payouts") -> Iterator[str]:
    for name, command in group.commands.items():
        path = f"{before} {name}"
        if isinstance(command, click.Group):
            yield from commands(command, path)
        else:
            yield path


def test_the_command_table_lists_every_command_and_no_other() -> None:
    shown = {re.match(r"[a-z -]+[a-z]", re.sub(r" [A-Z].*", "", name))[0] for name in table("Commands")}  # type: ignore[index]
    assert shown == set(commands(main))


def test_every_option_in_the_command_table_exists() -> None:
    for name, (description,) in table("Commands").items():
        path = re.sub(r" [A-Z].*", "", name).split()[1:]
        command: click.Command = main
        for part in path:
            assert isinstance(command, click.Group)
            command = command.commands[part]
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", description)) <= known, name


def test_the_example_import_file_prints_the_documented_output(world: World, tmp_path: Path) -> None:
    for user_id in ("user123", "user456"):
        world.credit(user_id, 5000)
    text = section("Import file")
    (tmp_path / "prizes.csv").write_text(re.findall(r"```csv\n(.*?)```", text, re.S)[0])
    [shown] = re.findall(r"```text\n\$ payouts import prizes.csv --dry-run\n(.*?)```", text, re.S)
    done = CliRunner().invoke(main, ["import", str(tmp_path / "prizes.csv"), "--dry-run"])
    assert (done.exit_code, done.output) == (0, shown)


def test_the_settings_table_has_the_defaults_of_the_code() -> None:
    known = Settings.model_fields
    for name, (default, _) in table("Main settings").items():
        assert f"{known[name.lower()].default}" == default, name
    required = {name.upper() for name, field in known.items() if field.is_required()}
    assert set(re.findall(r"`([A-Z_]{6,})`", section("Main settings").split("| setting")[0])) == required
    assert f"{batches.MAX_BODY_FACTOR}" == "8", "the page says eight times"


def test_every_simulator_upi_id_is_a_scenario() -> None:
    for address in table("Simulator UPI ids"):
        assert scenarios.find(address.removesuffix("@sim")), address
