"""Operators: invitations, sign-in, second factor, sessions, and the audit log of changes."""

import pyotp
import pytest
from argon2 import PasswordHasher, extract_parameters
from click.testing import Result
from sqlalchemy.exc import DBAPIError

from shared.db.transactions import transaction
from shared.errors import BadRequest, Conflict, NotFound
from shared.people import operators, second_factor
from tests.support.shell import invoke
from tests.support.world import World, forget_settings

PASSWORD = "correct horse battery"


def payouts(*arguments: str, by: str | None = "asha") -> Result:
    return invoke(*arguments, by=by, catch_exceptions=False)


@pytest.fixture(autouse=True)
def enable_panel(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_SECRET_KEY", "a-key-of-the-tests-of-32-characters")
    forget_settings()


def invite(name: str, *options: str, by: str | None = "asha") -> str:
    """Add an operator; returns the token of the invitation link that the command prints."""
    done = payouts("operator", "add", name, *options, by=by)
    assert done.exit_code == 0, done.output
    return done.stdout.strip().partition("?token=")[2]


@pytest.fixture
def asha(world: World) -> str:
    operators.accept_invitation(invite("asha", "--role", "admin", by=None), PASSWORD)
    return "asha"


def test_a_password_works_only_for_its_owner_and_is_stored_as_a_hash(world: World, asha: str) -> None:
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


def test_only_the_newest_invitation_link_works_and_only_once(world: World, asha: str) -> None:
    first = invite("ravi")
    assert operators.sign_in("ravi", PASSWORD) is None
    newest = payouts("operator", "password", "ravi").stdout.strip().partition("?token=")[2]
    other_end = "1" if newest.endswith("0") else "0"
    for forged in (first, newest[:-1] + other_end, newest[:36], "", "\ud800", newest.upper()):
        with pytest.raises(NotFound):
            operators.accept_invitation(forged, PASSWORD)
    for weak in ("short", "ravi" * 4, "x" * 201, "\ud800" * 12):
        with pytest.raises(BadRequest):
            operators.accept_invitation(newest, weak)
    operators.accept_invitation(newest, PASSWORD)
    assert operators.sign_in("ravi", PASSWORD)
    with pytest.raises(NotFound):
        operators.accept_invitation(newest, PASSWORD)
    assert newest not in str([world.sql(f"SELECT * FROM {t}") for t in ("operator_invitations", "audit_log")])


@pytest.mark.parametrize("what", ["expired", "disabled", "another key", "e-mail", "linked", "password"])
def test_an_expired_or_outdated_invitation_link_does_not_work(
    world: World, asha: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = invite("ravi")
    if what == "expired":
        world.sql("UPDATE operator_invitations SET expires_at = now()")
    if what == "disabled":
        payouts("operator", "disable", "ravi")
    with transaction() as session:
        if what == "e-mail":
            operators.set_email(session, "ravi", "ravi@example.com")
        if what == "linked":
            operators.link(session, "ravi", user_id="ravi7", email=None, phone=None)
        if what == "password":
            operators.set_password(session, "ravi", "another long password")
    if what == "another key":
        monkeypatch.setenv("ADMIN_SECRET_KEY", "another-key-of-the-tests-32-characters")
        forget_settings()
    with pytest.raises(NotFound):
        operators.accept_invitation(token, PASSWORD)


def test_signing_in_takes_as_long_with_an_unknown_name_as_with_a_known_one(
    world: World, asha: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only argon2 takes long: either name compares one hash with the same parameters and creates none."""
    operators.sign_in("nobody", "wrong horse battery")  # creates the hash for unknown names
    calls: list[object] = []
    verify = PasswordHasher.verify
    create = PasswordHasher.hash

    def recorded_verify(hasher: PasswordHasher, hashed: str, password: str) -> bool:
        calls.append((extract_parameters(hashed), password))
        return verify(hasher, hashed, password)

    def recorded_hash(hasher: PasswordHasher, password: str, **about: int) -> str:
        calls.append("created")
        return create(hasher, password, **about)

    monkeypatch.setattr(PasswordHasher, "verify", recorded_verify)
    monkeypatch.setattr(PasswordHasher, "hash", recorded_hash)
    assert operators.sign_in("nobody", "wrong horse battery") is None
    unknown = calls.copy()
    calls.clear()
    assert operators.sign_in("asha", "wrong horse battery") is None
    assert len(calls) == 1 and calls == unknown


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("add", "Two Words"), "Invalid name"),
        (("add", ".x"), "Invalid name"),
        (("add", "a" * 51), "Invalid name"),
        (("add", "ravi", "--email", "nowhere"), "Invalid e-mail address"),
        (("add", "ravi", "--reason", " "), "A reason is required"),
        (("add", "asha"), "The name is taken"),
        (("password", "ravi"), "No such operator"),
        (("link", "ravi", "--email", "a@example.com"), "No such operator"),
        (("link", "asha", "--email", "nowhere"), "Invalid e-mail address"),
        (("disable", "ravi"), "No such operator"),
        (("disable", "asha"), "The last admin"),
        (("enable", "asha"), "Not disabled"),
        (("role", "asha", "viewer"), "The last admin"),
        (("role", "ravi", "viewer"), "No such operator"),
        (("totp", "ravi", "--off"), "No such operator"),
        (("totp", "asha", "--off"), "No second factor"),
    ],
)
def test_an_impossible_operator_command_is_refused_with_a_plain_error(
    world: World, asha: str, arguments: tuple[str, ...], error: str
) -> None:
    done = payouts("operator", *arguments)
    assert done.exit_code == 1 and error in done.output
    assert len(world.sql("SELECT FROM operators")) == 1
    assert world.sql("SELECT outcome FROM audit_log ORDER BY id DESC LIMIT 1")[0].outcome == "refused"


def test_a_disabled_operator_cannot_sign_in_and_their_sessions_end(world: World, asha: str) -> None:
    operators.accept_invitation(invite("ravi"), PASSWORD)
    ravi = operators.sign_in("ravi", PASSWORD)
    assert operators.session_operator("ravi", ravi.generation)
    assert payouts("operator", "disable", "ravi", "--as", "asha").exit_code == 0
    assert operators.session_operator("ravi", ravi.generation) is None
    assert operators.sign_in("ravi", PASSWORD) is None
    assert "disabled" in payouts("operator", "list").output
    assert "Already disabled" in payouts("operator", "disable", "ravi").output
    payouts("operator", "enable", "ravi")
    assert operators.session_operator("ravi", ravi.generation) is None
    assert operators.sign_in("ravi", PASSWORD)


def test_a_new_password_ends_the_sessions_under_the_old_one(world: World, asha: str) -> None:
    before = operators.sign_in("asha", PASSWORD)
    link = payouts("operator", "password", "asha").stdout.strip()
    assert operators.sign_in("asha", PASSWORD), "the old password works until a new one is set"
    before = operators.sign_in("asha", PASSWORD)
    operators.accept_invitation(link.partition("?token=")[2], "another long password")
    assert operators.session_operator("asha", before.generation) is None
    assert operators.sign_in("asha", PASSWORD) is None
    assert operators.sign_in("asha", "another long password")


def enrol(name: str) -> tuple[pyotp.TOTP, list[str]]:
    """Enable the second factor; returns the app and the recovery codes. The code that enabled it counts as old."""
    with transaction() as session:
        operator = operators.lock(session, name)
        offer = second_factor.offer(session, operator)
        app = pyotp.TOTP(offer.secret)
        codes = second_factor.enrol(session, operator, app.now(), offer.mark)
        operator.totp_step = 0
    return app, codes


def test_a_second_factor_is_required_and_no_code_works_twice(world: World, asha: str) -> None:
    app, _ = enrol("asha")
    code = app.now()
    assert operators.sign_in("asha", PASSWORD) is None
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    assert operators.sign_in("asha", PASSWORD, wrong) is None
    assert operators.sign_in("asha", "wrong horse battery", code) is None
    assert operators.sign_in("asha", PASSWORD, f"{code[:3]} {code[3:]}")
    assert operators.sign_in("asha", PASSWORD, code) is None
    assert not operators.verify_code("asha", code), "nor where a code is required again"
    payouts("operator", "totp", "asha", "--off")
    assert operators.sign_in("asha", PASSWORD)


def test_the_code_that_enables_the_second_factor_works_once(world: World, asha: str) -> None:
    with transaction() as session:
        operator = operators.lock(session, "asha")
        offer = second_factor.offer(session, operator)
        app = pyotp.TOTP(offer.secret)
        with pytest.raises(BadRequest):
            wrong = "000000" if app.now() != "000000" else "111111"
            second_factor.enrol(session, operator, wrong, offer.mark)
        code = app.now()
        second_factor.enrol(session, operator, code, offer.mark)
        with pytest.raises(Conflict):
            second_factor.enrol(session, operator, code, offer.mark)
    assert operators.sign_in("asha", PASSWORD, code) is None


def test_one_person_is_linked_to_one_operator(world: World, asha: str) -> None:
    invite("ravi")
    with transaction() as session:
        operators.link(session, "asha", user_id="u7", email=None, phone=None)
    with pytest.raises(Conflict) as refusal, transaction() as session:
        operators.link(session, "ravi", user_id="u7", email=None, phone=None)
    assert refusal.value.code == "linked_already"


def test_an_offer_of_a_second_factor_belongs_to_one_session_and_expires(
    world: World, asha: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction() as session:
        operator = operators.lock(session, "asha")
        seen = second_factor.offer(session, operator)
        again = second_factor.offer(session, operator, seen.mark)
        assert again.secret == seen.secret and not again.is_new, "a reload shows the same offer"
        own = second_factor.offer(session, operator)
        assert own.is_new and own.secret != seen.secret, "another session gets its own offer"
        for secret, mark in ((seen.secret, seen.mark), (own.secret, seen.mark), (own.secret, "")):
            with pytest.raises(Conflict):
                second_factor.enrol(session, operator, pyotp.TOTP(secret).now(), mark)
        monkeypatch.setattr(second_factor, "OFFER_SECONDS", 0)
        with pytest.raises(Conflict):
            second_factor.enrol(session, operator, pyotp.TOTP(own.secret).now(), own.mark)
        assert second_factor.offer(session, operator, own.mark).secret != own.secret


@pytest.mark.parametrize("what", ["password", "invitation", "signed out", "disabled", "reset"])
def test_ending_the_sessions_also_ends_the_offer_of_a_second_factor(
    world: World, asha: str, what: str
) -> None:
    token = invite("ravi")
    with transaction() as session:
        seen = second_factor.offer(session, operators.lock(session, "ravi"))
    if what == "invitation":
        operators.accept_invitation(token, PASSWORD)
    with transaction() as session:
        if what == "password":
            operators.set_password(session, "ravi", PASSWORD)
        if what == "signed out":
            operators.end_sessions(session, "ravi")
        if what == "disabled":
            operators.disable(session, "ravi", actor="operator:asha")
        if what == "reset":
            second_factor.remove(session, operators.lock(session, "ravi"))
    [ravi] = world.sql("SELECT generation, totp_offered FROM operators WHERE name = 'ravi'")
    assert (ravi.generation, ravi.totp_offered) == (2, None)
    with transaction() as session:
        operator = operators.lock(session, "ravi")
        assert second_factor.offer(session, operator, seen.mark).secret != seen.secret


def test_each_recovery_code_works_once_and_new_ones_replace_all(world: World, asha: str) -> None:
    _, codes = enrol("asha")
    assert len(set(codes)) == second_factor.RECOVERY_CODES
    stored = str(world.sql("SELECT * FROM operator_recovery_codes"))
    assert not [code for code in codes if code in stored or code.replace("-", "") in stored]
    assert operators.sign_in("asha", PASSWORD, codes[0].upper())
    assert operators.sign_in("asha", PASSWORD, codes[0]) is None
    assert operators.verify_code("asha", f" {codes[1]} ") and not operators.verify_code("asha", codes[1])
    with transaction() as session:
        assert second_factor.recovery_codes_left(session, "asha") == second_factor.RECOVERY_CODES - 2
        second_factor.renew_recovery_codes(session, operators.lock(session, "asha"))
    assert operators.sign_in("asha", PASSWORD, codes[2]) is None


def test_shell_commands_are_written_to_the_audit_log(world: World, asha: str) -> None:
    payouts("operator", "role", "asha", "admin", "--as", "root")
    rows = world.sql("SELECT * FROM audit_log ORDER BY id")
    lines = [(r.operator, r.address, r.action, r.outcome) for r in rows if r.subject == "asha"]
    assert lines[:3] == [
        ("shell", "shell", "operator_add", "asked"),
        ("shell", "books", "operator_add_confirmed", "done"),
        ("shell", "shell", "operator_add", "done"),
    ]
    assert lines[3:] == [
        ("root", "shell", "operator_role", "asked"),
        ("root", "books", "operator_role_lowered", "done"),
        ("root", "shell", "operator_role", "done"),
    ]
    assert rows[1].data["after"]["alone"] is True


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET operator = 'me'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "DELETE FROM operators",
        "UPDATE operators SET disabled_at = now()",
        "UPDATE operators SET role = 'king'",
        "DELETE FROM admin_proposals",
        "UPDATE admin_proposals SET wanted = '{}'",
        "UPDATE admin_proposals SET decided_by = 'operator:somebody'",
        "DELETE FROM operator_invitations",
    ],
)
def test_the_database_refuses_forbidden_changes_of_operators_and_the_log(
    world: World, asha: str, statement: str
) -> None:
    with pytest.raises(DBAPIError):
        world.sql(statement)
