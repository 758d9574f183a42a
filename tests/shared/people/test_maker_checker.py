"""Maker and checker must be two independent people: each reason why they are not, and the database's own rules."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from shared import proposals
from shared.db.transactions import transaction
from shared.errors import Conflict
from shared.people import eligibility
from shared.people.eligibility import Subject
from shared.proposals import kinds
from shared.roles import Permission
from shared.text import names
from tests.support.world import World

ASHA = "operator:asha"
RAVI = "operator:ravi"
COINS = Permission.COINS
OPERATORS = Permission.OPERATORS
OF_USER = Subject(COINS, user_id="user123")


@dataclass(frozen=True)
class Case:
    """What differs from an allowed case: in the maker, the checker, the wallet or the subject."""

    asha: dict[str, Any] = field(default_factory=dict)
    ravi: dict[str, Any] = field(default_factory=dict)
    wallet: dict[str, Any] = field(default_factory=dict)
    subject: Subject = OF_USER
    checker: str = RAVI
    maker: str = ASHA


ADDED_BY_ASHA = {"added_by": "operator:asha"}
ADDED_BY_RAVI = {"added_by": "operator:Ravi"}
LONG_AGO = {"created_at": "2020-01-01"}
OF_OPERATOR = Subject(OPERATORS, operator="Ravi")

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
    "the user, by name": ("own_wallet", Case(subject=Subject(COINS, user_id="\uff32AVI"))),
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
        Case(ravi={"user_id": "friend"}, subject=Subject(COINS, user_id="user123", upi_id="F@okaxis")),
    ),
    "the requester": ("own_request", Case(subject=Subject(COINS, requested_by="operator:RAVI"))),
    "the requester, as a user": (
        "own_request",
        Case(ravi={"user_id": "u7"}, subject=Subject(COINS, requested_by="user:u7")),
    ),
    "whom it is about": ("own_account", Case(subject=OF_OPERATOR)),
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
    "asked for by an app": Case(subject=Subject(COINS, user_id="user123", requested_by="app:ravi")),
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
def test_an_ineligible_checker_is_refused_with_a_reason(world: World, code: str, case: Case) -> None:
    arrange(world, case)
    with transaction() as session, pytest.raises(Conflict) as refusal:
        eligibility.require_checker(session, case.checker, case.subject, maker=case.maker)
    assert refusal.value.code == code
    with transaction() as session:
        why = eligibility.why_not_eligible(session, case.checker, case.subject, maker=case.maker)
    assert why == f"{refusal.value.error}: {refusal.value.details}"


@pytest.mark.parametrize("case", ALLOWED.values(), ids=ALLOWED)
def test_an_eligible_checker_is_accepted(world: World, case: Case) -> None:
    arrange(world, case)
    with transaction() as session:
        assert eligibility.require_checker(session, "operator: RAVI", case.subject, maker=case.maker) == RAVI


@pytest.mark.parametrize(
    ("code", "ravi", "subject"),
    [
        ("unknown_operator", None, Subject(COINS)),
        ("operator_disabled", {"disabled_at": "2020-01-01", "disabled_by": "x"}, Subject(COINS)),
        ("role_needed", {"role": "viewer"}, Subject(COINS)),
        ("own_wallet", {"user_id": "user123"}, Subject(COINS, user_id="user123")),
        ("own_account", {}, OF_OPERATOR),
    ],
)
def test_an_ineligible_maker_is_refused(
    world: World, code: str, ravi: dict[str, Any] | None, subject: Subject
) -> None:
    arrange(world, Case(ravi=ravi or {}))
    actor = RAVI if ravi is not None else "operator:eve"
    with transaction() as session, pytest.raises(Conflict) as refusal:
        eligibility.require_maker(session, actor, subject)
    assert refusal.value.code == code


def test_maker_and_checker_are_locked_during_a_decision(world: World) -> None:
    world.operators("asha", "ravi")
    with transaction() as session:
        eligibility.require_checker(session, RAVI, Subject(COINS), maker=ASHA)
        for name in ("asha", "ravi"):
            with pytest.raises(DBAPIError, match="lock"):
                world.sql(f"SELECT FROM operators WHERE name = '{name}' FOR UPDATE NOWAIT")


@pytest.mark.parametrize(
    ("days", "code"), [("30", "not_independent"), ("0.5", "not_independent"), ("0", None)]
)
def test_the_period_without_independence_is_a_setting(
    world: World, monkeypatch: pytest.MonkeyPatch, days: str, code: str | None
) -> None:
    world.operators("asha")
    world.operators("ravi", added_by=ASHA)
    monkeypatch.setenv("MAKER_CHECKER_INDEPENDENCE_DAYS", days)
    world.forget_settings()
    with transaction() as session:
        why = eligibility.why_not_eligible(session, RAVI, Subject(COINS), maker=ASHA)
    assert (why is not None) == (code is not None)


WANTED = {
    kinds.ROLE: {"role": "admin"},
    kinds.PASSWORD: {},
    kinds.TOTP: {},
    kinds.ENABLE: {},
    kinds.EMAIL: {"email": "ravi@example.com"},
    kinds.LINK: {"user_id": "u7", "email": None, "phone": None},
    kinds.ADD: {"role": "finance", "email": None},
}


@pytest.mark.parametrize("kind", WANTED)
def test_people_who_recently_gave_an_operator_power_are_not_independent_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Asha proposes it and Gita confirms it; Hans takes no part."""
    for name, value in (("SECOND_ADMIN_REQUIRED", "on"), ("ADMIN_SECRET_KEY", "k" * 32)):
        monkeypatch.setenv(name, value)
    world.forget_settings()
    world.operators("asha", "gita", "hans")
    if kind != kinds.ADD:
        disabled = {"disabled_at": "2020-01-01", "disabled_by": "x"} if kind == kinds.ENABLE else {}
        world.operators("ravi", role="finance", totp_secret="JBSWY3DPEHPK3PXP", **LONG_AGO, **disabled)
    proposal = proposals.propose(proposals.KINDS[kind], "ravi", WANTED[kind], reason="x", actor=ASHA).proposal
    if kind not in (kinds.ADD, kinds.ENABLE):
        assert set(independent_of_ravi()) == {"asha", "gita", "hans"}, "a proposal alone gives no power"
    proposals.confirm(proposal.id, shown=proposal.fingerprint, actor="operator:gita")
    assert independent_of_ravi() == ["hans"]
    world.broken_on_purpose = True  # the seals report it, though only the time is moved
    world.sql_without_rules(
        "UPDATE admin_proposals SET proposed_at = now() - interval '31 days',"
        " decided_at = now() - interval '31 days'"
    )
    world.sql("UPDATE operators SET created_at = '2020-01-01' WHERE name = 'ravi'")
    assert independent_of_ravi() == ["asha", "gita", "hans"]


def independent_of_ravi() -> list[str]:
    """The operators whose proposals Ravi may approve, and who may approve his."""
    with transaction() as session:
        independent = []
        for name in ("asha", "gita", "hans"):
            other = names.actor_of(name)
            his = eligibility.why_not_eligible(session, RAVI, Subject(COINS), maker=other)
            theirs = eligibility.why_not_eligible(session, other, Subject(COINS), maker=RAVI)
            assert (his is None) == (theirs is None)
            independent += [] if his else [name]
        return independent


def test_every_kind_of_proposal_about_an_operator_counts_as_giving_power() -> None:
    about = {name for name, kind in proposals.KINDS.items() if kind.is_about_operator}
    assert about == {name for name in proposals.KINDS if name.startswith(eligibility.OPERATOR_KINDS_PREFIX)}
    assert about == set(WANTED), "the test above must cover each"


def test_the_first_two_admins_and_two_operators_they_add_can_work_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest team: two first admins, and two more people if others are to move coins."""
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
        proposal = proposals.propose(add, name, wanted, reason="x", actor=ASHA).proposal
        proposals.confirm(proposal.id, shown=proposal.fingerprint, actor=RAVI)
    with transaction() as session:
        for checker, maker in ((RAVI, ASHA), (ASHA, RAVI), ("operator:fay", "operator:finn")):
            assert eligibility.why_not_eligible(session, checker, Subject(COINS), maker=maker) is None
        for checker, maker in ((ASHA, "operator:fay"), ("operator:fay", RAVI)):
            assert eligibility.why_not_eligible(session, checker, Subject(COINS), maker=maker)


@pytest.mark.parametrize(
    ("column", "first", "second"),
    [
        ("user_id", "u7", "u7"),
        ("email", "a@x.example", "A@X.example"),
        ("phone", "+919876543210", "+919876543210"),
    ],
)
def test_a_user_id_email_or_phone_is_linked_to_one_operator_only(
    world: World, column: str, first: str, second: str
) -> None:
    world.operators("asha", **{column: first})
    with pytest.raises(DBAPIError, match=f"uq_operators_{column}"):
        world.operators("ravi", **{column: second})


def test_the_database_accepts_only_folded_operator_names(world: World) -> None:
    for name in ("Asha", "asha ", "\uff41sha"):
        with pytest.raises(DBAPIError, match="ck_operators_name"):
            world.operators(name)
    assert names.fold(" \uff21SHA ") == "asha" and names.phone_digits("+91 98765-43210") == "9876543210"


GAINS = {name: case for name, (code, case) in REFUSED.items() if code == "own_wallet"}


@pytest.mark.parametrize("case", [*GAINS.values(), Case()], ids=[*GAINS, "nobody"])
def test_an_import_pays_the_same_operators_as_a_single_withdrawal(world: World, case: Case) -> None:
    arrange(world, case)
    users = {f"other{n}" for n in range(10)} | {str(case.subject.user_id)}
    upi_ids = {"other@okaxis"} | ({case.subject.upi_id} if case.subject.upi_id else set())
    with transaction() as session:
        paid = eligibility.paid_operators(session, users, upi_ids)
    assert paid == ({"ravi"} if case in GAINS.values() else set())
