"""Who acts at a shell proves who they are, may do what their role may in the panel, and stands in the audit log."""

from pathlib import Path

import pyotp
import pytest
from click.testing import CliRunner, Result
from sqlalchemy.exc import DBAPIError

from shared import adjusting, db, operator_tokens, operators, second_factor
from shared.cli import main
from shared.cli.token_file import VARIABLE
from shared.roles import NEEDS, Permission, Role
from tests.integration.panel.person import PASSWORD, add_operator
from tests.shell import invoke, token_of
from tests.world import World

PAUSE = ("pause", "--reason", "bank holiday")
# What changes nothing for people or money, and the programs themselves: nobody is asked who they are.
FREE = {
    "api", "beat", "block list", "block proposals", "certificate-key", "check", "close-day", "demo",
    "endpoints list", "exceptions list", "explain", "flower", "keys list", "mail list", "mail test", "migrate",
    "operator list", "operator sign-in", "operator sign-out", "proposals list", "prove", "review list", "sandbox", "status",
    "verify", "wallet proposals", "webhooks list", "worker",
}  # fmt: skip


@pytest.fixture
def home(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shell of somebody, who has not signed in."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "payouts" / "operator-token"


def payouts(*words: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main, list(words), input=typed)


def log(world: World, action: str) -> list[tuple[str, str, str]]:
    rows = world.sql("SELECT * FROM audit_log WHERE action = :a ORDER BY id", a=action)
    return [(row.operator, row.outcome, row.origin) for row in rows]


def commands() -> dict[str, set[str]]:
    """Each command with its options."""
    found, waiting = {}, [("", main)]
    while waiting:
        words, command = waiting.pop()
        for name, one in getattr(command, "commands", {}).items():
            waiting.append((f"{words} {name}".strip(), one))
        if not hasattr(command, "commands"):
            found[words] = {option for parameter in command.params for option in parameter.opts}
    return found


def test_every_command_that_changes_something_asks_who_runs_it() -> None:
    free = {words for words, options in commands().items() if "--as" not in options}
    assert free == FREE


def test_who_signs_in_acts_in_their_name_until_they_sign_out(world: World, home: Path) -> None:
    add_operator(world, "asha", Role.OPERATOR)
    nobody = payouts(*PAUSE)
    assert nobody.exit_code == 2 and "payouts operator sign-in" in nobody.output
    told = payouts("operator", "sign-in", "ASHA", typed=f"{PASSWORD}\n")
    assert told.exit_code == 0 and "You are asha (operator)" in told.output
    assert home.stat().st_mode & 0o777 == 0o600 and home.read_text().strip() not in told.output
    assert payouts(*PAUSE).exit_code == 0
    assert world.sql("SELECT actor FROM switches WHERE name = 'payouts'")[0].actor == "operator:asha"
    assert log(world, "pause") == [("asha", "asked", "cli"), ("asha", "done", "cli")]
    assert log(world, "paused") == [("asha", "done", "cli")], "what the books write themselves, too"
    other = payouts("resume", "--as", "ravi")
    assert other.exit_code == 2 and "sign-in ravi" in other.output
    assert payouts("operator", "sign-out").exit_code == 0 and not home.exists()
    assert payouts("resume").exit_code == 2
    kept = world.sql("SELECT count(*) AS n FROM operator_tokens")
    assert kept[0].n == 0


@pytest.mark.parametrize(
    ("name", "typed", "known"),
    [("eve", PASSWORD, "unknown"), ("asha", "wrong horse battery", "asha"), ("gone", PASSWORD, "gone")],
)
def test_who_cannot_prove_it_is_nobody(world: World, home: Path, name: str, typed: str, known: str) -> None:
    add_operator(world, "asha", Role.ADMIN)
    add_operator(world, "gone", Role.ADMIN)
    world.sql("UPDATE operators SET disabled_at = now(), disabled_by = 'x' WHERE name = 'gone'")
    told = payouts("operator", "sign-in", name, typed=f"{typed}\n")
    assert told.exit_code == 2 and "wrong" in told.output and not home.exists()
    assert log(world, "sign_in") == [(known, "refused", "cli")]


def test_a_second_factor_is_asked_for_at_a_shell_too(world: World, home: Path) -> None:
    add_operator(world, "asha", Role.ADMIN)
    secret = pyotp.random_base32()
    world.sql("UPDATE operators SET totp_secret = :s", s=secret)
    assert payouts("operator", "sign-in", "asha", typed=f"{PASSWORD}\n\n").exit_code == 2
    code = pyotp.TOTP(secret).now()
    told = payouts("operator", "sign-in", "asha", "--print", typed=f"{PASSWORD}\n{code}\n")
    assert told.exit_code == 0 and not home.exists()
    with db.transaction() as session:
        assert operator_tokens.owner_of(session, told.output.strip()).name == "asha"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "what",
    [
        "UPDATE operators SET role = 'viewer' WHERE name = 'ravi'",
        "UPDATE operators SET disabled_at = now(), disabled_by = 'x' WHERE name = 'ravi'",
        "UPDATE operator_tokens SET expires_at = now()",
        "password",
        "totp",
        "sign out",
    ],
)
def test_a_token_ends_with_what_it_stands_for(world: World, home: Path, what: str) -> None:
    world.operators("asha")
    token = token_of("ravi")
    with db.transaction() as session:
        assert operator_tokens.owner_of(session, token) is not None
        assert operator_tokens.owner_of(session, token + "x") is None
        if what == "password":
            operators.set_password(session, "ravi", "another long password")
        elif what == "totp":
            second_factor.remove(session, operators.locked(session, "ravi"))
        elif what == "sign out":
            operators.end_sessions(session, "ravi")
    if what.startswith("UPDATE"):
        world.sql(what)
    with db.transaction() as session:
        assert operator_tokens.owner_of(session, token) is None
    done = CliRunner().invoke(main, PAUSE, env={VARIABLE: token})
    assert done.exit_code == 2 and world.sql("SELECT FROM switches WHERE NOT is_on") == []


def test_a_token_lives_for_hours_at_most(world: World) -> None:
    token_of("asha", seconds=8 * 3600)
    with pytest.raises(DBAPIError, match="short_lived"):
        token_of("asha", seconds=8 * 3600 + 1)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_the_shell_asks_the_panels_table_what_a_role_may(world: World, home: Path, role: Role) -> None:
    world.operators("asha", "ravi")
    world.credit(coins=5000)
    proposal = adjusting.propose("user123", 4000, reason="a lost prize", actor="operator:asha")
    env = {VARIABLE: token_of("vera", role)}
    told = CliRunner().invoke(main, ["wallet", "approve", str(proposal.id)], env=env)
    assert told.exit_code == 2 and f"vera is {role}; this takes finance" in told.output
    assert log(world, "coins_approve") == [("vera", "asked", "cli"), ("vera", "refused", "cli")]
    assert world.balance() == 5000
    assert set(NEEDS) == set(Permission)


def test_an_act_that_is_refused_stands_in_the_log_with_its_code(world: World, home: Path) -> None:
    world.operators("asha")
    told = invoke("exceptions", "take", "4711", by="asha")
    assert told.exit_code == 1
    [asked, refused] = world.sql("SELECT * FROM audit_log WHERE action = 'exception_take' ORDER BY id")
    assert (asked.subject, asked.address, refused.outcome) == ("4711", "shell", "refused")
    assert refused.data["code"] == "exception_not_found" and refused.data["login"]


def test_only_the_first_admin_needs_nobody(world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One, where one suffices; else two, who then confirm each other's proposals (test_two_admins.py)."""
    monkeypatch.setenv("ADMIN_SECRET_KEY", "a-key-of-the-tests-of-32-characters")
    world.forget_settings()
    typed = f"{PASSWORD}\n"
    assert payouts("operator", "add", "ravi", typed=typed).exit_code == 1, "the first is an admin"
    assert payouts("operator", "add", "asha", "--role", "admin", typed=typed).exit_code == 0
    assert payouts("operator", "add", "ravi", "--role", "admin", typed=typed).exit_code == 2
    [asha] = world.sql("SELECT * FROM operators")
    assert asha.created_by.startswith("shell:")
    assert log(world, "operator_add")[-2:] == [("shell", "asked", "cli"), ("shell", "done", "cli")]


def test_a_token_that_others_can_read_counts_for_nothing(world: World, home: Path) -> None:
    home.parent.mkdir()
    home.write_text(token_of("asha"))
    home.chmod(0o644)
    told = payouts(*PAUSE)
    assert told.exit_code == 1 and "Others can read" in told.output
    assert world.sql("SELECT FROM switches WHERE NOT is_on") == []


def test_who_an_operator_is_beside_their_name(world: World, home: Path) -> None:
    world.operators("root", "asha", "ravi")
    world.credit()
    linked = invoke("operator", "link", "ravi", "--user-id", "user123", "--phone", "+919876543210")
    assert linked.exit_code == 0
    told = invoke("wallet", "adjust", "user123", "5", "--reason", "mine", by="ravi")
    assert told.exit_code == 1 and "It is your own" in told.output and world.balance() == 2000
    again = invoke("operator", "link", "asha", "--user-id", "user123")
    assert again.exit_code == 1 and "another operator's" in again.output
