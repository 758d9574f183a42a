"""Operators: let in, kept out, and what the books keep of it."""

import pyotp
import pytest
from argon2 import PasswordHasher, extract_parameters
from click.testing import Result
from sqlalchemy.exc import DBAPIError

from shared import operators
from tests.shell import invoke
from tests.world import World

PASSWORD = "correct horse battery"


def payouts(*words: str, typed: str = PASSWORD, by: str | None = "asha") -> Result:
    return invoke(*words, by=by, input=typed + "\n", catch_exceptions=False)


@pytest.fixture
def asha(world: World) -> str:
    assert payouts("operator", "add", "asha", "--role", "admin", by=None).exit_code == 0
    return "asha"


def test_a_password_is_read_from_stdin_and_kept_as_a_hash(world: World, asha: str) -> None:
    [row] = world.sql("SELECT * FROM operators")
    assert row.password_hash.startswith("$argon2id$") and PASSWORD not in str(tuple(row))
    assert (row.role, row.created_by.partition(":")[0]) == ("admin", "shell")
    assert operators.sign_in("asha", PASSWORD).name == "asha"
    for name, password in (
        ("asha", "wrong horse battery"),
        ("ravi", PASSWORD),
        ("asha", ""),
        ("asha", "\ud800"),
    ):
        assert operators.sign_in(name, password) is None


def test_an_unknown_name_takes_as_long_as_a_known_one(
    world: World, asha: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that takes long is argon2: in either case one hash is compared, which costs as much, and none is made."""
    operators.sign_in("nobody", "wrong horse battery")  # what nobody's is compared with is made once
    work: list[object] = []
    verify, make = PasswordHasher.verify, PasswordHasher.hash

    def verified(hasher: PasswordHasher, hashed: str, password: str) -> bool:
        work.append((extract_parameters(hashed), password))
        return verify(hasher, hashed, password)

    def made(hasher: PasswordHasher, password: str, **about: int) -> str:
        work.append("made")
        return make(hasher, password, **about)

    monkeypatch.setattr(PasswordHasher, "verify", verified)
    monkeypatch.setattr(PasswordHasher, "hash", made)
    assert operators.sign_in("nobody", "wrong horse battery") is None
    unknown = work.copy()
    work.clear()
    assert operators.sign_in("asha", "wrong horse battery") is None
    assert len(work) == 1 and work == unknown


@pytest.mark.parametrize(
    ("words", "typed", "told"),
    [
        (("add", "Two Words"), PASSWORD, "Invalid name"),
        (("add", ".x"), PASSWORD, "Invalid name"),
        (("add", "a" * 51), PASSWORD, "Invalid name"),
        (("add", "ravi"), "short", "Unusable password"),
        (("add", "ravi"), "ravi" * 4, "Unusable password"),
        (("add", "ravi"), "x" * 201, "Unusable password"),
        (("add", "asha"), PASSWORD, "The name is taken"),
        (("password", "ravi"), PASSWORD, "No such operator"),
        (("password", "asha"), "short", "Unusable password"),
        (("disable", "ravi"), PASSWORD, "No such operator"),
        (("disable", "asha"), PASSWORD, "The last admin"),
        (("enable", "asha"), PASSWORD, "Not disabled"),
        (("role", "asha", "viewer"), PASSWORD, "The last admin"),
        (("totp", "ravi"), PASSWORD, "No such operator"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    world: World, asha: str, words: tuple[str, ...], typed: str, told: str
) -> None:
    done = payouts("operator", *words, typed=typed)
    assert done.exit_code == 1 and told in done.output
    assert len(world.sql("SELECT FROM operators")) == 1
    assert world.sql("SELECT outcome FROM audit_log ORDER BY id DESC LIMIT 1")[0].outcome == "refused"


def test_no_password_stands_on_a_command_line() -> None:
    for word in ("add", "password"):
        told = payouts("operator", word, "--help", by=None).output
        assert "--password" not in told


def test_a_disabled_operator_is_out_and_every_session_over(world: World, asha: str) -> None:
    payouts("operator", "add", "ravi")
    ravi = operators.sign_in("ravi", PASSWORD)
    assert operators.signed_in("ravi", ravi.generation)
    assert payouts("operator", "disable", "ravi", "--as", "asha").exit_code == 0
    assert operators.signed_in("ravi", ravi.generation) is None
    assert operators.sign_in("ravi", PASSWORD) is None
    assert "disabled" in payouts("operator", "list").output
    assert "Disabled already" in payouts("operator", "disable", "ravi").output
    payouts("operator", "enable", "ravi")
    assert operators.signed_in("ravi", ravi.generation) is None
    assert operators.sign_in("ravi", PASSWORD)


def test_a_new_password_ends_the_sessions_under_the_old_one(world: World, asha: str) -> None:
    before = operators.sign_in("asha", PASSWORD)
    payouts("operator", "password", "asha", typed="another long password")
    assert operators.signed_in("asha", before.generation) is None
    assert operators.sign_in("asha", PASSWORD) is None
    assert operators.sign_in("asha", "another long password")


def test_a_second_factor_is_asked_for_and_no_code_works_twice(world: World, asha: str) -> None:
    shown = payouts("operator", "totp", "asha").stdout
    code = pyotp.parse_uri(shown.strip()).now()
    assert operators.sign_in("asha", PASSWORD) is None
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    assert operators.sign_in("asha", PASSWORD, wrong) is None
    assert operators.sign_in("asha", "wrong horse battery", code) is None
    assert operators.sign_in("asha", PASSWORD, f"{code[:3]} {code[3:]}")
    assert operators.sign_in("asha", PASSWORD, code) is None
    payouts("operator", "totp", "asha", "--off")
    assert operators.sign_in("asha", PASSWORD)


def test_what_is_done_at_a_shell_stands_in_the_log(world: World, asha: str) -> None:
    payouts("operator", "role", "asha", "admin", "--as", "root")
    rows = world.sql("SELECT * FROM audit_log ORDER BY id")
    assert [(r.operator, r.address, r.origin, r.action, r.outcome, r.subject) for r in rows] == [
        ("shell", "shell", "cli", "operator_add", "asked", "asha"),
        ("shell", "shell", "cli", "operator_add", "done", "asha"),
        ("root", "shell", "cli", "operator_role", "asked", "asha"),
        ("root", "shell", "cli", "operator_role", "done", "asha"),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET operator = 'me'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "DELETE FROM operators",
        "UPDATE operators SET disabled_at = now()",
        "UPDATE operators SET role = 'king'",
    ],
)
def test_the_database_refuses(world: World, asha: str, statement: str) -> None:
    with pytest.raises(DBAPIError):
        world.sql(statement)
