"""Operators: let in, kept out, and what the books keep of it."""

import pyotp
import pytest
from argon2 import PasswordHasher, extract_parameters
from click.testing import Result
from sqlalchemy.exc import DBAPIError

from shared import operators, second_factor
from shared.db import transaction
from shared.errors import BadRequest, Conflict, NotFound
from tests.shell import invoke
from tests.world import World, forget_settings

PASSWORD = "correct horse battery"


def payouts(*words: str, by: str | None = "asha") -> Result:
    return invoke(*words, by=by, catch_exceptions=False)


@pytest.fixture(autouse=True)
def with_a_panel(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_SECRET_KEY", "a-key-of-the-tests-of-32-characters")
    forget_settings()


def invited(name: str, *words: str, by: str | None = "asha") -> str:
    """The token of the link that a command shows."""
    done = payouts("operator", "add", name, *words, by=by)
    assert done.exit_code == 0, done.output
    return done.stdout.strip().partition("?token=")[2]


@pytest.fixture
def asha(world: World) -> str:
    operators.accept_invitation(invited("asha", "--role", "admin", by=None), PASSWORD)
    return "asha"


def test_a_password_is_its_owners_and_kept_as_a_hash(world: World, asha: str) -> None:
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


def test_a_link_works_once_and_only_the_newest(world: World, asha: str) -> None:
    first = invited("ravi")
    assert operators.sign_in("ravi", PASSWORD) is None
    newest = payouts("operator", "password", "ravi").stdout.strip().partition("?token=")[2]
    for forged in (first, newest[:-1] + "0", newest[:36], "", "\ud800", newest.upper()):
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
def test_a_link_that_should_not_work_does_not(
    world: World, asha: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = invited("ravi")
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
    ("words", "told"),
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
def test_what_cannot_be_done_is_a_sentence(
    world: World, asha: str, words: tuple[str, ...], told: str
) -> None:
    done = payouts("operator", *words)
    assert done.exit_code == 1 and told in done.output
    assert len(world.sql("SELECT FROM operators")) == 1
    assert world.sql("SELECT outcome FROM audit_log ORDER BY id DESC LIMIT 1")[0].outcome == "refused"


def test_a_disabled_operator_is_out_and_every_session_over(world: World, asha: str) -> None:
    operators.accept_invitation(invited("ravi"), PASSWORD)
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
    link = payouts("operator", "password", "asha").stdout.strip()
    assert operators.sign_in("asha", PASSWORD), "the old one works until there is a new one"
    before = operators.sign_in("asha", PASSWORD)
    operators.accept_invitation(link.partition("?token=")[2], "another long password")
    assert operators.signed_in("asha", before.generation) is None
    assert operators.sign_in("asha", PASSWORD) is None
    assert operators.sign_in("asha", "another long password")


def enrolled(name: str) -> tuple[pyotp.TOTP, list[str]]:
    """Their app, and their recovery codes. The code that turned it on counts as of long ago."""
    with transaction() as session:
        operator = operators.locked(session, name)
        offer = second_factor.offer(session, operator)
        app = pyotp.TOTP(offer.secret)
        codes = second_factor.enrol(session, operator, app.now(), offer.mark)
        operator.totp_step = 0
    return app, codes


def test_a_second_factor_is_asked_for_and_no_code_works_twice(world: World, asha: str) -> None:
    app, _ = enrolled("asha")
    code = app.now()
    assert operators.sign_in("asha", PASSWORD) is None
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    assert operators.sign_in("asha", PASSWORD, wrong) is None
    assert operators.sign_in("asha", "wrong horse battery", code) is None
    assert operators.sign_in("asha", PASSWORD, f"{code[:3]} {code[3:]}")
    assert operators.sign_in("asha", PASSWORD, code) is None
    assert not operators.prove("asha", code), "nor where a code is asked for again"
    payouts("operator", "totp", "asha", "--off")
    assert operators.sign_in("asha", PASSWORD)


def test_the_code_that_turns_it_on_works_once(world: World, asha: str) -> None:
    with transaction() as session:
        operator = operators.locked(session, "asha")
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
    invited("ravi")
    with transaction() as session:
        operators.link(session, "asha", user_id="u7", email=None, phone=None)
    with pytest.raises(Conflict) as told, transaction() as session:
        operators.link(session, "ravi", user_id="u7", email=None, phone=None)
    assert told.value.code == "linked_already"


def test_an_offer_is_one_sessions_and_lasts_for_minutes(
    world: World, asha: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction() as session:
        operator = operators.locked(session, "asha")
        seen = second_factor.offer(session, operator)
        again = second_factor.offer(session, operator, seen.mark)
        assert again.secret == seen.secret and not again.is_new, "a page may be loaded again before the code"
        owners = second_factor.offer(session, operator)
        assert owners.is_new and owners.secret != seen.secret, "another session's is no other's to know"
        for secret, mark in ((seen.secret, seen.mark), (owners.secret, seen.mark), (owners.secret, "")):
            with pytest.raises(Conflict):
                second_factor.enrol(session, operator, pyotp.TOTP(secret).now(), mark)
        monkeypatch.setattr(second_factor, "OFFERED_SECONDS", 0)
        with pytest.raises(Conflict):
            second_factor.enrol(session, operator, pyotp.TOTP(owners.secret).now(), owners.mark)
        assert second_factor.offer(session, operator, owners.mark).secret != owners.secret


@pytest.mark.parametrize("what", ["password", "invitation", "signed out", "disabled", "reset"])
def test_what_ends_sessions_ends_the_offer_of_a_second_factor(world: World, asha: str, what: str) -> None:
    token = invited("ravi")
    with transaction() as session:
        seen = second_factor.offer(session, operators.locked(session, "ravi"))
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
            second_factor.remove(session, operators.locked(session, "ravi"))
    [ravi] = world.sql("SELECT generation, totp_offered FROM operators WHERE name = 'ravi'")
    assert (ravi.generation, ravi.totp_offered) == (2, None)
    with transaction() as session:
        operator = operators.locked(session, "ravi")
        assert second_factor.offer(session, operator, seen.mark).secret != seen.secret


def test_each_recovery_code_works_once_and_new_ones_replace_all(world: World, asha: str) -> None:
    _, codes = enrolled("asha")
    assert len(set(codes)) == second_factor.RECOVERY_CODES
    stored = str(world.sql("SELECT * FROM operator_recovery_codes"))
    assert not [code for code in codes if code in stored or code.replace("-", "") in stored]
    assert operators.sign_in("asha", PASSWORD, codes[0].upper())
    assert operators.sign_in("asha", PASSWORD, codes[0]) is None
    assert operators.prove("asha", f" {codes[1]} ") and not operators.prove("asha", codes[1])
    with transaction() as session:
        assert second_factor.codes_left(session, "asha") == second_factor.RECOVERY_CODES - 2
        second_factor.renew_codes(session, operators.locked(session, "asha"))
    assert operators.sign_in("asha", PASSWORD, codes[2]) is None


def test_what_is_done_at_a_shell_stands_in_the_log(world: World, asha: str) -> None:
    payouts("operator", "role", "asha", "admin", "--as", "root")
    rows = world.sql("SELECT * FROM audit_log ORDER BY id")
    told = [(r.operator, r.address, r.action, r.outcome) for r in rows if r.subject == "asha"]
    assert told[:3] == [
        ("shell", "shell", "operator_add", "asked"),
        ("shell", "books", "operator_add_confirmed", "done"),
        ("shell", "shell", "operator_add", "done"),
    ]
    assert told[3:] == [
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
def test_the_database_refuses(world: World, asha: str, statement: str) -> None:
    with pytest.raises(DBAPIError):
        world.sql(statement)
