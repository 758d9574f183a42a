"""Two people must be two: each way in which they are not, and what the database refuses by itself."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from shared import db, maker_checker, names, proposals
from shared.errors import Conflict
from shared.maker_checker import Matter
from shared.proposals import kinds
from shared.roles import Permission
from tests.world import World

ASHA, RAVI = "operator:asha", "operator:ravi"
COINS, OPERATORS = Permission.COINS, Permission.OPERATORS
OF_USER = Matter(COINS, user_id="user123")


@dataclass(frozen=True)
class Case:
    """What differs from two people who may: of the maker, of the checker, of the wallet, of what it is about."""

    asha: dict[str, Any] = field(default_factory=dict)
    ravi: dict[str, Any] = field(default_factory=dict)
    wallet: dict[str, Any] = field(default_factory=dict)
    matter: Matter = OF_USER
    checker: str = RAVI
    maker: str = ASHA


ADDED_BY_ASHA, ADDED_BY_RAVI = {"added_by": "operator:asha"}, {"added_by": "operator:Ravi"}
LONG_AGO = {"created_at": "2020-01-01"}
OF_OPERATOR = Matter(OPERATORS, operator="Ravi")

REFUSED = {
    "nobody of that name": ("unknown_operator", Case(checker="operator:eve")),
    "an app": ("unknown_operator", Case(checker="app:ravi")),
    "disabled": ("operator_disabled", Case(ravi={"disabled_at": "2020-01-01", "disabled_by": "x"})),
    "another role": ("role_needed", Case(ravi={"role": "operator"})),
    "the maker": ("same_person", Case(checker=ASHA)),
    "the maker, spelt otherwise": ("same_person", Case(checker=ASHA, maker="operator: \uff21sha ")),
    "the maker, by another name with the same phone": (
        "same_person",
        Case(asha={"phone": "9876543210"}, ravi={"phone": "+91 98765 43210"}),
    ),
    "a maker who is nobody": ("maker_disabled", Case(maker="operator:eve")),
    "a maker who is out": ("maker_disabled", Case(asha={"disabled_at": "2020-01-01", "disabled_by": "x"})),
    "a maker whose role was lowered": ("maker_disabled", Case(asha={"role": "operator"})),
    "a maker who gains": ("makers_own", Case(asha={"user_id": "user123"})),
    "the user, by name": ("own_wallet", Case(matter=Matter(COINS, user_id="\uff32AVI"))),
    "the user, by their account": ("own_wallet", Case(ravi={"user_id": "user123"})),
    "the user, by e-mail": (
        "own_wallet",
        Case(ravi={"email": "R@x.example"}, wallet={"email": "r@x.example"}),
    ),
    "the user, by phone": (
        "own_wallet",
        Case(ravi={"phone": "98765 43210"}, wallet={"phone": "+919876543210"}),
    ),
    "the user, whose wallet has their name": ("own_wallet", Case(wallet={"name": "Ravi "})),
    "the user of another wallet that the same UPI id paid": (
        "own_wallet",
        Case(ravi={"user_id": "friend"}, matter=Matter(COINS, user_id="user123", upi_id="F@okaxis")),
    ),
    "the requester": ("own_request", Case(matter=Matter(COINS, requested_by="operator:RAVI"))),
    "the requester, as a user": (
        "own_request",
        Case(ravi={"user_id": "u7"}, matter=Matter(COINS, requested_by="user:u7")),
    ),
    "whom it is about": ("own_account", Case(matter=OF_OPERATOR)),
    "whom the maker added": ("not_independent", Case(ravi=ADDED_BY_ASHA)),
    "who added the maker": ("not_independent", Case(asha=ADDED_BY_RAVI)),
    "whom the maker let in": ("not_independent", Case(ravi={"confirmed_by": "operator:asha"})),
    "who let the maker in": ("not_independent", Case(asha={"confirmed_by": "operator:ravi"})),
}
ALLOWED = {
    "two people": Case(),
    "added by the other long ago": Case(
        asha={**ADDED_BY_RAVI, **LONG_AGO},
        ravi={**ADDED_BY_ASHA, **LONG_AGO, "confirmed_by": "operator:asha"},
    ),
    "asked for by an app": Case(matter=Matter(COINS, user_id="user123", requested_by="app:ravi")),
    "both added by one": Case(asha={"added_by": "operator:root"}, ravi={"added_by": "operator:root"}),
}


def arrange(world: World, case: Case) -> None:
    world.credit()
    world.credit("friend")
    world.request("friend", upi_id="f@okaxis")
    for name, about in (("asha", case.asha), ("ravi", case.ravi)):
        world.operators(name, **about)
    for column, value in case.wallet.items():
        world.sql(f"UPDATE wallets SET {column} = :v WHERE user_id = 'user123'", v=value)


@pytest.mark.parametrize(("code", "case"), REFUSED.values(), ids=REFUSED)
def test_who_is_not_a_second_person(world: World, code: str, case: Case) -> None:
    arrange(world, case)
    with db.transaction() as session, pytest.raises(Conflict) as told:
        maker_checker.must_be_checker(session, case.checker, case.matter, maker=case.maker)
    assert told.value.code == code
    with db.transaction() as session:
        why = maker_checker.refusal(session, case.checker, case.matter, maker=case.maker)
    assert why == f"{told.value.error}: {told.value.details}"


@pytest.mark.parametrize("case", ALLOWED.values(), ids=ALLOWED)
def test_who_is_a_second_person(world: World, case: Case) -> None:
    arrange(world, case)
    with db.transaction() as session:
        assert maker_checker.must_be_checker(session, "operator: RAVI", case.matter, maker=case.maker) == RAVI


@pytest.mark.parametrize(
    ("code", "ravi", "matter"),
    [
        ("unknown_operator", None, Matter(COINS)),
        ("operator_disabled", {"disabled_at": "2020-01-01", "disabled_by": "x"}, Matter(COINS)),
        ("role_needed", {"role": "viewer"}, Matter(COINS)),
        ("own_wallet", {"user_id": "user123"}, Matter(COINS, user_id="user123")),
        ("own_account", {}, OF_OPERATOR),
    ],
)
def test_who_may_not_even_propose(
    world: World, code: str, ravi: dict[str, Any] | None, matter: Matter
) -> None:
    arrange(world, Case(ravi=ravi or {}))
    actor = RAVI if ravi is not None else "operator:eve"
    with db.transaction() as session, pytest.raises(Conflict) as told:
        maker_checker.must_be_maker(session, actor, matter)
    assert told.value.code == code


def test_nobody_is_disabled_in_the_middle_of_a_decision(world: World) -> None:
    world.operators("asha", "ravi")
    with db.transaction() as session:
        maker_checker.must_be_checker(session, RAVI, Matter(COINS), maker=ASHA)
        for name in ("asha", "ravi"):
            with pytest.raises(DBAPIError, match="lock"):
                world.sql(f"SELECT FROM operators WHERE name = '{name}' FOR UPDATE NOWAIT")


@pytest.mark.parametrize(
    ("days", "code"), [("30", "not_independent"), ("0.5", "not_independent"), ("0", None)]
)
def test_for_how_long_they_are_not_independent_is_a_setting(
    world: World, monkeypatch: pytest.MonkeyPatch, days: str, code: str | None
) -> None:
    world.operators("asha")
    world.operators("ravi", added_by=ASHA)
    monkeypatch.setenv("MAKER_CHECKER_INDEPENDENCE_DAYS", days)
    world.forget_settings()
    with db.transaction() as session:
        why = maker_checker.refusal(session, RAVI, Matter(COINS), maker=ASHA)
    assert (why is not None) == (code is not None)


GIVEN = {
    kinds.ROLE: {"role": "admin"},
    kinds.PASSWORD: {},
    kinds.TOTP: {},
    kinds.ENABLE: {},
    kinds.EMAIL: {"email": "ravi@example.com"},
    kinds.LINK: {"user_id": "u7", "email": None, "phone": None},
    kinds.ADD: {"role": "finance", "email": None},
}


@pytest.mark.parametrize("kind", GIVEN)
def test_who_gave_an_operator_power_lately_is_not_independent_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Asha proposes it, Gita confirms it; Hans has nothing to do with it."""
    for name, value in (("SECOND_ADMIN_REQUIRED", "on"), ("ADMIN_SECRET_KEY", "k" * 32)):
        monkeypatch.setenv(name, value)
    world.forget_settings()
    world.operators("asha", "gita", "hans")
    if kind != kinds.ADD:
        out = {"disabled_at": "2020-01-01", "disabled_by": "x"} if kind == kinds.ENABLE else {}
        world.operators("ravi", role="finance", totp_secret="JBSWY3DPEHPK3PXP", **LONG_AGO, **out)
    made = proposals.propose(proposals.KINDS[kind], "ravi", GIVEN[kind], reason="x", actor=ASHA).proposal
    if kind not in (kinds.ADD, kinds.ENABLE):
        assert set(independent_of_ravi()) == {"asha", "gita", "hans"}, "a proposal gives nothing yet"
    proposals.confirm(made.id, shown=made.fingerprint, actor="operator:gita")
    assert independent_of_ravi() == ["hans"]
    world.broken_on_purpose = True  # as seals see it: only the clock is moved
    world.sql_without_rules(
        "UPDATE admin_proposals SET proposed_at = now() - interval '31 days',"
        " decided_at = now() - interval '31 days'"
    )
    world.sql("UPDATE operators SET created_at = '2020-01-01' WHERE name = 'ravi'")
    assert independent_of_ravi() == ["asha", "gita", "hans"]


def independent_of_ravi() -> list[str]:
    """Whose proposals he may approve, and who may approve his."""
    with db.transaction() as session:
        found = []
        for name in ("asha", "gita", "hans"):
            other = names.actor_of(name)
            his = maker_checker.refusal(session, RAVI, Matter(COINS), maker=other)
            theirs = maker_checker.refusal(session, other, Matter(COINS), maker=RAVI)
            assert (his is None) == (theirs is None)
            found += [] if his else [name]
        return found


def test_every_kind_about_an_operator_counts_as_giving_power() -> None:
    about = {word for word, kind in proposals.KINDS.items() if kind.is_about_operator}
    assert about == {word for word in proposals.KINDS if word.startswith(maker_checker.ABOUT_OPERATOR)}
    assert about == set(GIVEN), "each is in the test above"


def test_the_first_two_admins_and_two_whom_they_let_in_can_work_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least that a team needs: two of the first admins; and two more people when others shall move coins."""
    for name, value in (("SECOND_ADMIN_REQUIRED", "on"), ("ADMIN_SECRET_KEY", "k" * 32)):
        monkeypatch.setenv(name, value)
    world.forget_settings()
    add = proposals.KINDS[kinds.ADD]
    for name, actor in (("asha", "shell:root"), ("ravi", ASHA)):
        proposals.propose(add, name, {"role": "admin", "email": None}, reason="first", actor=actor)
    proposals.propose(proposals.KINDS[kinds.PASSWORD], "ravi", {}, reason="lost", actor=ASHA)
    world.sql("UPDATE operators SET password_hash = 'none'")
    for name in ("fay", "finn"):
        wanted = {"role": "finance", "email": None}
        made = proposals.propose(add, name, wanted, reason="x", actor=ASHA).proposal
        proposals.confirm(made.id, shown=made.fingerprint, actor=RAVI)
    with db.transaction() as session:
        for checker, maker in ((RAVI, ASHA), (ASHA, RAVI), ("operator:fay", "operator:finn")):
            assert maker_checker.refusal(session, checker, Matter(COINS), maker=maker) is None
        for checker, maker in ((ASHA, "operator:fay"), ("operator:fay", RAVI)):
            assert maker_checker.refusal(session, checker, Matter(COINS), maker=maker)


@pytest.mark.parametrize(
    ("column", "one", "other"),
    [
        ("user_id", "u7", "u7"),
        ("email", "a@x.example", "A@X.example"),
        ("phone", "+919876543210", "+919876543210"),
    ],
)
def test_what_is_linked_to_one_operator_is_not_linked_to_another(
    world: World, column: str, one: str, other: str
) -> None:
    world.operators("asha", **{column: one})
    with pytest.raises(DBAPIError, match=f"uq_operators_{column}"):
        world.operators("ravi", **{column: other})


def test_names_in_the_database_are_folded(world: World) -> None:
    for name in ("Asha", "asha ", "\uff41sha"):
        with pytest.raises(DBAPIError, match="ck_operators_name"):
            world.operators(name)
    assert names.folded(" \uff21SHA ") == "asha" and names.phone_of("+91 98765-43210") == "9876543210"


GAINS = {name: case for name, (code, case) in REFUSED.items() if code == "own_wallet"}


@pytest.mark.parametrize("case", [*GAINS.values(), Case()], ids=[*GAINS, "nobody"])
def test_a_file_pays_whom_one_withdrawal_would_pay(world: World, case: Case) -> None:
    arrange(world, case)
    users = {f"other{n}" for n in range(10)} | {str(case.matter.user_id)}
    upi_ids = {"other@okaxis"} | ({case.matter.upi_id} if case.matter.upi_id else set())
    with db.transaction() as session:
        paid = maker_checker.paid_operators(session, users, upi_ids)
    assert paid == ({"ravi"} if case in GAINS.values() else set())
