"""docs/quick-reference.md says what the code says: routes, codes, limits, commands, settings, simulator's UPI ids."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from api import batches, once, parameters, problems, schemas
from api.app import create_app
from sandbox.razorpayx import scenarios
from shared import fields, idempotency, upi
from shared.cli import main
from shared.settings import Settings
from shared.states import FINAL, Status
from tests.world import World

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "quick-reference.md").read_text()
# What the API answers with is written in these, and in problems.WORDS.
OF_THE_API = ("api", "shared/fields.py", "shared/wallet.py", "shared/db.py", "shared/idempotency.py",
              "shared/withdrawals/requesting.py", "shared/withdrawals/reading.py",
              "shared/withdrawals/terms.py")  # fmt: skip
OF_THE_PANEL = "api/admin/"  # its pages are for people
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
    assert len({first for first, *_ in cells}) == len(cells), f"a row twice under {heading}"
    return {first.strip("`"): rest for first, *rest in cells}


def told() -> Iterator[tuple[str, str, ast.Call]]:
    """(file, code, call) for each error that is made with `code=` and a word; a number is an HTTP status."""
    for part in ("api", "shared"):
        for path in sorted((ROOT / part).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                for word in node.keywords if isinstance(node, ast.Call) else ():
                    value = word.value.value if isinstance(word.value, ast.Constant) else None
                    if word.arg == "code" and isinstance(value, str):
                        yield str(path.relative_to(ROOT)), value, node


def by_api(file: str) -> bool:
    return file.startswith(OF_THE_API) and not file.startswith(OF_THE_PANEL)


CODES = table("Errors")
OTHERS = set(re.findall(r"`(\w+)`", section("Errors").split("Only commands and the panel say")[1]))


def test_every_route_is_in_the_table_with_who_may_use_it(world: World) -> None:
    app = create_app()
    routes = {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            if not rule.arguments:  # the files of a page
                needs, users = getattr(view, "needs", None), getattr(view, "lets_users_in", False)
                routes[f"{method} {rule.rule}"] = (needs, users)
    shown = {
        route: (needs.strip("`") if needs.startswith("`") else None, users == "yes")
        for route, (needs, users) in table("Endpoints").items()
    }
    assert shown == routes


def test_every_status_is_in_the_table() -> None:
    shown = table("Statuses")
    assert list(shown) == list(Status)
    assert {status for status, (_, final) in shown.items() if final.startswith("yes")} == FINAL


def test_every_code_of_the_code_is_on_the_page_and_no_other() -> None:
    of_http = {code for _, _, code in problems.WORDS.values()} | {problems.INTERNAL[2], "invalid_signature"}
    written = {code for _, code, _ in told()} | of_http
    assert set(CODES) | OTHERS == written
    assert not set(CODES) & OTHERS
    assert {code for file, code, _ in told() if by_api(file)} | of_http == set(CODES)


def test_errors_are_told_in_the_words_of_the_code() -> None:
    sentences = defaultdict(set)
    for file, code, call in told():
        if by_api(file) and call.args and isinstance(call.args[0], ast.Constant):
            sentences[code].add(call.args[0].value)
    for error, _, code in [*problems.WORDS.values(), problems.INTERNAL]:
        sentences[code].add(error)
    assert len(sentences) > 20
    for code, errors in sentences.items():
        shown = re.escape(CODES[code][1]).replace("…", ".+")
        for error in errors:
            assert re.fullmatch(shown, error), f"{code}: {error}"


def test_each_code_has_its_http_status() -> None:
    expected = {code: {status} for status, (_, _, code) in problems.WORDS.items()}
    for file, code, call in told():
        status = STATUSES.get(ast.unparse(call.func))
        if by_api(file) and status:
            expected.setdefault(code, set()).add(status)
    assert len(expected) > 20
    for code, statuses in expected.items():
        assert {int(status) for status in CODES[code][0].split(", ")} >= statuses, code


@pytest.mark.parametrize(
    ("code", "status"), [("idempotency_key_reused", 422), ("idempotency_key_running", 409)]
)
def test_errors_with_a_class_of_their_own(code: str, status: int) -> None:
    made = {"idempotency_key_reused": idempotency.Reused, "idempotency_key_running": idempotency.StillRunning}
    assert made[code]().http_status == status == int(CODES[code][0])
    assert made[code]().error == CODES[code][1]


def test_every_header_is_one_that_the_code_knows() -> None:
    code = "".join(path.read_text() for path in (ROOT / "api").glob("*.py"))
    for name in table("Headers"):
        assert f'"{name}"' in code or name == "Content-Type", name
    for name in re.findall(r'"(X-[\w-]+|Idempotency-[\w-]+|Retry-After)"', code):
        assert name in table("Headers") or name in ("X-Content-Type-Options", "X-Razorpay-Signature",
                                                    "X-Razorpay-Event-Id"), name  # fmt: skip


def test_the_limits_are_those_of_the_code() -> None:
    assert table("Limits") == {
        "user_id": [f"{fields.MAX_USER_ID} characters"],
        "UPI id": [f"{upi.MIN_LENGTH} to {upi.MAX_LENGTH} characters"],
        "reference": [f"{fields.MAX_REFERENCE} characters, {fields.MAX_REFERENCE_BYTES} bytes"],
        "reason of a cancellation": [f"{schemas.MAX_REASON} characters"],
        "coins in one credit": [f"{schemas.MAX_CREDIT_COINS:,}"],
        "items in a batch": [f"{schemas.MAX_ITEMS}"],
        "history and journal page": [f"{parameters.DEFAULT_LIMIT}, at most {parameters.MAX_LIMIT}"],
        "Idempotency-Key": [
            f"{once.MAX_KEY} characters, kept {idempotency.KEPT_HOURS} hours; a withdrawal's own for ever"
        ],
    }


def commands(group: click.Group, before: str = "payouts") -> Iterator[str]:
    for name, command in group.commands.items():
        words = f"{before} {name}"
        if isinstance(command, click.Group):
            yield from commands(command, words)
        else:
            yield words


def test_every_command_is_in_the_table_and_no_other() -> None:
    shown = {re.match(r"[a-z -]+[a-z]", re.sub(r" [A-Z].*", "", name))[0] for name in table("Commands")}  # type: ignore[index]
    assert shown == set(commands(main))


def test_the_options_that_the_table_names_exist() -> None:
    for name, (what,) in table("Commands").items():
        words = re.sub(r" [A-Z].*", "", name).split()[1:]
        command: click.Command = main
        for word in words:
            assert isinstance(command, click.Group)
            command = command.commands[word]
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", what)) <= known, name


def test_the_file_of_an_import_is_taken_as_the_page_says(world: World, tmp_path: Path) -> None:
    for user_id in ("user123", "user456"):
        world.credit(user_id, 5000)
    text = section("The file of an import")
    (tmp_path / "prizes.csv").write_text(re.findall(r"```csv\n(.*?)```", text, re.S)[0])
    [shown] = re.findall(r"```text\n\$ payouts import prizes.csv --dry-run\n(.*?)```", text, re.S)
    done = CliRunner().invoke(main, ["import", str(tmp_path / "prizes.csv"), "--dry-run"])
    assert (done.exit_code, done.output) == (0, shown)


def test_the_settings_exist_and_have_the_default_that_is_shown() -> None:
    known = Settings.model_fields
    for name, (default, _) in table("Settings that matter").items():
        assert f"{known[name.lower()].default}" == default, name
    required = {name.upper() for name, field in known.items() if field.is_required()}
    assert (
        set(re.findall(r"`([A-Z_]{6,})`", section("Settings that matter").split("| setting")[0])) == required
    )
    assert f"{batches.BODY_TIMES}" == "8", "the page says eight times"


def test_the_simulators_upi_ids_are_scenarios_of_it() -> None:
    for address in table("The simulator's UPI ids"):
        assert scenarios.find(address.removesuffix("@sim")), address
