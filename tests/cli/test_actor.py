"""Operators at a shell sign in, have the permissions of their role, and are in the audit log."""

from pathlib import Path

import pyotp
import pytest
from click.testing import CliRunner, Result
from sqlalchemy.exc import DBAPIError

from cli import main
from cli.token_file import ENVIRONMENT_VARIABLE
from shared.coins import adjustments
from shared.db.transactions import transaction
from shared.people import operator_tokens, operators, second_factor
from shared.roles import REQUIRED_ROLE, Permission, Role
from tests.api.admin.person import PASSWORD, add_operator
from tests.support.shell import invoke, token_of
from tests.support.world import World

PAUSE = ("pause", "--reason", "bank holiday")
# Processes, and commands that change nothing for people or money: they need no operator.
WITHOUT_OPERATOR = {
    "api", "beat", "block list", "block proposals", "certificate-key", "check", "close-day", "demo",
    "endpoints list", "exceptions list", "explain", "flower", "keys list", "mail list", "mail test", "migrate",
    "operator list", "operator sign-in", "operator sign-out", "proposals list", "prove", "review list", "sandbox", "status",
    "verify", "wallet proposals", "webhooks list", "worker",
}  # fmt: skip


@pytest.fixture
def token_file(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shell in which no operator has signed in; the path of its token file."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    return tmp_path / "payouts" / "operator-token"


def payouts(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), input=typed)


def log(world: World, action: str) -> list[tuple[str, str, str]]:
    rows = world.sql("SELECT * FROM audit_log WHERE action = :a ORDER BY id", a=action)
    return [(row.operator, row.outcome, row.origin) for row in rows]


def commands() -> dict[str, set[str]]:
    """Return each command with its options."""
    options = {}
    pending = [("", main)]
    while pending:
        path, command = pending.pop()
        for name, subcommand in getattr(command, "commands", {}).items():
            pending.append((f"{path} {name}".strip(), subcommand))
        if not hasattr(command, "commands"):
            options[path] = {option for parameter in command.params for option in parameter.opts}
    return options


def test_every_command_that_changes_something_requires_an_operator() -> None:
    free = {path for path, options in commands().items() if "--as" not in options}
    assert free == WITHOUT_OPERATOR


def test_commands_run_as_the_signed_in_operator_until_sign_out(world: World, token_file: Path) -> None:
    add_operator(world, "asha", Role.OPERATOR)
    refused = payouts(*PAUSE)
    assert refused.exit_code == 2 and "payouts operator sign-in" in refused.output
    result = payouts("operator", "sign-in", "ASHA", typed=f"{PASSWORD}\n")
    assert result.exit_code == 0 and "Signed in as asha (operator)" in result.output
    assert token_file.stat().st_mode & 0o777 == 0o600 and token_file.read_text().strip() not in result.output
    assert payouts(*PAUSE).exit_code == 0
    assert world.sql("SELECT actor FROM switches WHERE name = 'payouts'")[0].actor == "operator:asha"
    assert log(world, "pause") == [("asha", "asked", "cli"), ("asha", "done", "cli")]
    assert log(world, "paused") == [("asha", "done", "cli")], "shared code writes its own entry too"
    other = payouts("resume", "--as", "ravi")
    assert other.exit_code == 2 and "sign-in ravi" in other.output
    assert payouts("operator", "sign-out").exit_code == 0 and not token_file.exists()
    assert payouts("resume").exit_code == 2
    tokens = world.sql("SELECT count(*) AS n FROM operator_tokens")
    assert tokens[0].n == 0


@pytest.mark.parametrize(
    ("name", "typed", "known"),
    [("eve", PASSWORD, "unknown"), ("asha", "wrong horse battery", "asha"), ("gone", PASSWORD, "gone")],
)
def test_wrong_credentials_sign_nobody_in(
    world: World, token_file: Path, name: str, typed: str, known: str
) -> None:
    add_operator(world, "asha", Role.ADMIN)
    add_operator(world, "gone", Role.ADMIN)
    world.sql("UPDATE operators SET disabled_at = now(), disabled_by = 'x' WHERE name = 'gone'")
    result = payouts("operator", "sign-in", name, typed=f"{typed}\n")
    assert result.exit_code == 2 and "wrong" in result.output and not token_file.exists()
    assert log(world, "sign_in") == [(known, "refused", "cli")]


def test_sign_in_at_a_shell_requires_the_second_factor(world: World, token_file: Path) -> None:
    add_operator(world, "asha", Role.ADMIN)
    secret = pyotp.random_base32()
    world.sql("UPDATE operators SET totp_secret = :s", s=secret)
    assert payouts("operator", "sign-in", "asha", typed=f"{PASSWORD}\n\n").exit_code == 2
    code = pyotp.TOTP(secret).now()
    result = payouts("operator", "sign-in", "asha", "--print", typed=f"{PASSWORD}\n{code}\n")
    assert result.exit_code == 0 and not token_file.exists()
    with transaction() as session:
        assert operator_tokens.find_operator(session, result.output.strip()).name == "asha"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE operators SET role = 'viewer' WHERE name = 'ravi'",
        "UPDATE operators SET disabled_at = now(), disabled_by = 'x' WHERE name = 'ravi'",
        "UPDATE operator_tokens SET expires_at = now()",
        "password",
        "totp",
        "sign out",
    ],
)
def test_a_token_ends_with_the_operators_role_password_or_session(
    world: World, token_file: Path, change: str
) -> None:
    world.operators("asha")
    token = token_of("ravi")
    with transaction() as session:
        assert operator_tokens.find_operator(session, token) is not None
        assert operator_tokens.find_operator(session, token + "x") is None
        if change == "password":
            operators.set_password(session, "ravi", "another long password")
        elif change == "totp":
            second_factor.remove(session, operators.lock(session, "ravi"))
        elif change == "sign out":
            operators.end_sessions(session, "ravi")
    if change.startswith("UPDATE"):
        world.sql(change)
    with transaction() as session:
        assert operator_tokens.find_operator(session, token) is None
    done = CliRunner().invoke(main, PAUSE, env={ENVIRONMENT_VARIABLE: token})
    assert done.exit_code == 2 and world.sql("SELECT FROM switches WHERE NOT is_on") == []


def test_a_token_is_valid_for_8_hours_at_most(world: World) -> None:
    token_of("asha", seconds=8 * 3600)
    with pytest.raises(DBAPIError, match="short_lived"):
        token_of("asha", seconds=8 * 3600 + 1)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_a_command_requires_the_same_role_as_the_panel(world: World, token_file: Path, role: Role) -> None:
    world.operators("asha", "ravi")
    world.credit(coins=5000)
    proposal = adjustments.propose("user123", 4000, reason="a lost prize", actor="operator:asha")
    env = {ENVIRONMENT_VARIABLE: token_of("vera", role)}
    result = CliRunner().invoke(main, ["wallet", "approve", str(proposal.id)], env=env)
    assert result.exit_code == 2 and f"vera is {role}; this requires finance" in result.output
    assert log(world, "coins_approve") == [("vera", "asked", "cli"), ("vera", "refused", "cli")]
    assert world.balance() == 5000
    assert set(REQUIRED_ROLE) == set(Permission)


def test_a_refused_command_is_in_the_audit_log_with_its_error_code(world: World, token_file: Path) -> None:
    world.operators("asha")
    result = invoke("exceptions", "take", "4711", by="asha")
    assert result.exit_code == 1
    [asked, refused] = world.sql("SELECT * FROM audit_log WHERE action = 'exception_take' ORDER BY id")
    assert (asked.subject, asked.address, refused.outcome) == ("4711", "shell", "refused")
    assert refused.data["code"] == "exception_not_found" and refused.data["login"]


def test_only_the_first_admin_is_added_without_a_sign_in(
    world: World, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One admin, or two if two are required, who then confirm each other's proposals (test_operators_two_admins.py)."""
    monkeypatch.setenv("ADMIN_SECRET_KEY", "a-key-of-the-tests-of-32-characters")
    world.forget_settings()
    typed = f"{PASSWORD}\n"
    assert payouts("operator", "add", "ravi", typed=typed).exit_code == 1, (
        "the first operator must be an admin"
    )
    assert payouts("operator", "add", "asha", "--role", "admin", typed=typed).exit_code == 0
    assert payouts("operator", "add", "ravi", "--role", "admin", typed=typed).exit_code == 2
    [asha] = world.sql("SELECT * FROM operators")
    assert asha.created_by.startswith("shell:")
    assert log(world, "operator_add")[-2:] == [("shell", "asked", "cli"), ("shell", "done", "cli")]


def test_a_token_file_that_others_can_read_is_refused(world: World, token_file: Path) -> None:
    token_file.parent.mkdir()
    token_file.write_text(token_of("asha"))
    token_file.chmod(0o644)
    result = payouts(*PAUSE)
    assert result.exit_code == 1 and "Other users can read" in result.output
    assert world.sql("SELECT FROM switches WHERE NOT is_on") == []


def test_an_operator_linked_to_a_user_cannot_adjust_their_own_coins(world: World, token_file: Path) -> None:
    world.operators("root", "asha", "ravi")
    world.credit()
    linked = invoke("operator", "link", "ravi", "--user-id", "user123", "--phone", "+919876543210")
    assert linked.exit_code == 0
    result = invoke("wallet", "adjust", "user123", "5", "--reason", "mine", by="ravi")
    assert result.exit_code == 1 and "It is your own" in result.output and world.balance() == 2000
    again = invoke("operator", "link", "asha", "--user-id", "user123")
    assert again.exit_code == 1 and "Another operator has" in again.output
