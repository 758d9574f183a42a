"""Two people must be two: the one rule for whatever one operator proposes and another approves.

Who decides calls it inside the transaction that decides, after locking what is decided on:

    matter = Matter(Permission.COINS, user_id=made.user_id)
    maker = maker_checker.must_be_maker(session, actor, matter)
    checker = maker_checker.must_be_checker(session, actor, matter, maker=made.proposed_by)

Both return the actor as it is to be recorded (`operator:asha`) and lock the operators' rows FOR SHARE: who is
disabled at the same time is disabled before or after the decision, never in the middle. The checker

    is a known (`unknown_operator`), enabled (`operator_disabled`) operator with the role (`role_needed`)
    is not the maker, and has not the same app account, e-mail address or phone (`same_person`)
    is not the beneficiary (`own_wallet`): by name or by what is linked to them, compared with user id, e-mail
      address, phone and name of the wallet, and of all wallets that were paid to the same UPI id. For an
      import this holds for each row of its file (`paid_operators`)
    is not the requester (`own_request`)
    is not the operator whom it is about (`own_account`)
    gave the maker no power, and was given none by them, in the last MAKER_CHECKER_INDEPENDENCE_DAYS
      (`not_independent`): neither proposed or confirmed that the other be added, raised, enabled, invited
      anew, given another e-mail address, linked to a person, or freed of their second factor

and the maker is still an enabled operator with the role (`maker_disabled`) who would not gain by it
(`makers_own`). To propose, they need the role as well: nobody proposes anything for their own wallet or
account. The database refuses the simplest case by itself, maker = checker (the constraints `two_people`).

The first two admins of a fresh system are independent of each other: a shell invites them, and neither stands
as the one who did. Operators to whom one admin gave power are independent of each other.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, Text, cast, func, select, text
from sqlalchemy.orm import Session

from shared import names
from shared.errors import Conflict
from shared.models import AdminProposal, Operator, Wallet, Withdrawal
from shared.names import folded
from shared.roles import NEEDS, Permission, Role
from shared.settings import settings

# Of those who were paid to one UPI id, so many of the newest withdrawals are looked at.
PAID_TO_IT = 1000
# So begin all kinds of proposals about an operator (shared/proposals/kinds.py): each gives somebody power.
ABOUT_OPERATOR = "operator_"

PAID_TO = text("""
    SELECT DISTINCT newest.user_id FROM unnest(CAST(:upi_ids AS text[])) AS asked (upi_id)
    CROSS JOIN LATERAL (
        SELECT user_id FROM withdrawals WHERE lower(upi_id) = lower(asked.upi_id)
        ORDER BY created_at DESC, id DESC LIMIT :most
    ) AS newest
""")


@dataclass(frozen=True, slots=True)
class Matter:
    """What is decided on: the permission that it takes, and whom it would serve."""

    needs: Permission
    user_id: str | None = None  # whose wallet, or whose withdrawal
    upi_id: str | None = None  # who is paid
    requested_by: str | None = None  # an actor: `user:123`, `operator:asha`, `app:quiz`
    operator: str | None = None  # the name of the operator whom it is about
    pays: frozenset[str] = frozenset()  # names of the operators whom a file would pay: `paid_operators`

    @classmethod
    def of(
        cls,
        withdrawal: Withdrawal,
        needs: Permission = Permission.RESOLVE,
        requested_by: str | None = None,
    ) -> "Matter":
        """A decision about a withdrawal."""
        return cls(needs, withdrawal.user_id, withdrawal.upi_id, requested_by)


def must_be_maker(session: Session, actor: str, matter: Matter) -> str:
    """Who may propose it; returns the actor as it is recorded. Raises Conflict with the rule's code."""
    maker = _known(session, actor)
    _must_hold(maker, matter.needs)
    _must_not_gain(session, maker, matter)
    return names.actor_of(maker.name)


def must_be_checker(session: Session, actor: str, matter: Matter, *, maker: str) -> str:
    """Who may approve what `maker` proposed; returns the actor as it is recorded.

    Raises Conflict with the rule's code.
    """
    checker = _known(session, actor, maker)
    _must_hold(checker, matter.needs)
    proposer = _must_be_another(session, checker, maker, matter.needs)
    _must_not_gain(session, checker, matter)
    if _gains(session, proposer, matter):
        raise Conflict("The proposal does not count", f"{maker} would gain by it", code="makers_own")
    _must_be_independent(session, checker, proposer)
    return names.actor_of(checker.name)


def must_be_independent(session: Session, actor: str, matter: Matter) -> str:
    """Who may say yes to what no operator proposed, such as a withdrawal before it is sent.

    Returns the actor as it is recorded. Raises Conflict with the rule's code.
    """
    other = names.operator_of(matter.requested_by or "")
    checker = _known(session, actor, matter.requested_by or "")
    _must_hold(checker, matter.needs)
    _must_not_gain(session, checker, matter)
    if other is not None and (requester := session.get(Operator, other)) is not None:
        _must_be_independent(session, checker, requester)
    return names.actor_of(checker.name)


def paid_operators(session: Session, user_ids: set[str], upi_ids: set[str]) -> set[str]:
    """Names of the operators who would gain if these users were paid, at these UPI ids.

    It is `own_wallet` for many payments at once: give it a file some hundred rows at a time.
    """
    wallets = _wallets(session, user_ids | _paid_to(session, upi_ids))
    words = {folded(user_id) for user_id in user_ids}.union(*(_of_wallet(wallet) for wallet in wallets))
    return {operator.name for operator in session.scalars(select(Operator)) if _identity(operator) & words}


def must_hold(session: Session, actor: str, needs: Permission) -> str:
    """Who may do what one operator does alone, such as reject; returns the actor as it is recorded.

    Raises Conflict with the rule's code.
    """
    operator = _known(session, actor)
    _must_hold(operator, needs)
    return names.actor_of(operator.name)


def lacks(session: Session, actor: str, needs: Permission) -> str | None:
    """For a page: why this operator may not do alone what needs this; None when they may."""
    try:
        must_hold(session, actor, needs)
    except Conflict as error:
        return f"{error.error}: {error.details}"
    return None


def refusal(session: Session, actor: str, matter: Matter, *, maker: str | None = None) -> str | None:
    """For a page: why this operator may not approve it (with no `maker`: propose it); None when they may."""
    try:
        if maker is None:
            must_be_maker(session, actor, matter)
        else:
            must_be_checker(session, actor, matter, maker=maker)
    except Conflict as error:
        return f"{error.error}: {error.details}"
    return None


def _known(session: Session, actor: str, *others: str) -> Operator:
    """The operator who stands in the books as `actor`. All who are named are locked, by name."""
    wanted = sorted({name for one in (actor, *others) if (name := names.operator_of(one)) is not None})
    query = select(Operator).where(Operator.name.in_(wanted)).order_by(Operator.name)
    locked = session.scalars(query.with_for_update(read=True).execution_options(populate_existing=True))
    found = {operator.name: operator for operator in locked}
    # Names in the table are folded already: its check allows no other.
    operator = found.get(names.operator_of(actor) or "")
    if operator is None:
        raise Conflict("Not an operator", f"There is no operator {actor[:60]}", code="unknown_operator")
    return operator


def _must_hold(operator: Operator, needs: Permission) -> None:
    if operator.disabled_at is not None:
        raise Conflict("Disabled", f"{operator.name} was disabled", code="operator_disabled")
    if not Role(operator.role).may(NEEDS[needs]):
        raise Conflict(
            "Your role may not do that",
            f"{operator.name} is {operator.role}; it takes {NEEDS[needs]}",
            code="role_needed",
        )


def _must_be_another(session: Session, checker: Operator, maker: str, needs: Permission) -> Operator:
    """The maker, who is another person than the checker and may still propose it."""
    name = names.operator_of(maker)
    if name == checker.name:
        raise Conflict("A second person is needed", f"{maker} proposed it", code="same_person")
    proposer = session.get(Operator, name) if name is not None else None
    if proposer is None or proposer.disabled_at is not None:
        raise Conflict(
            "The proposal does not count",
            f"{maker} is not an enabled operator: reject it, then propose it anew",
            code="maker_disabled",
        )
    if not Role(proposer.role).may(NEEDS[needs]):
        raise Conflict(
            "The proposal does not count",
            f"{maker} is {proposer.role} now; it takes {NEEDS[needs]}: reject it, then propose it anew",
            code="maker_disabled",
        )
    if _about(checker) & _about(proposer):
        raise Conflict(
            "A second person is needed",
            f"{checker.name} and {proposer.name} have the same app account, e-mail address or phone",
            code="same_person",
        )
    return proposer


def _must_not_gain(session: Session, operator: Operator, matter: Matter) -> None:
    if matter.operator is not None and folded(matter.operator) == operator.name:
        raise Conflict("It is your own", "It is about your own account", code="own_account")
    if matter.requested_by is not None:
        kind, _, who = matter.requested_by.partition(":")
        if kind in ("operator", "user") and folded(who) in _identity(operator):
            raise Conflict(
                "It is your own", "Somebody else must decide: you asked for it", code="own_request"
            )
    if _gains(session, operator, matter):
        raise Conflict("It is your own", "Somebody else must decide: the coins are yours", code="own_wallet")


def _gains(session: Session, operator: Operator, matter: Matter) -> bool:
    """Whether it serves this operator, as far as names, addresses and phones tell."""
    if matter.operator is not None and folded(matter.operator) == operator.name:
        return True
    if operator.name in matter.pays:
        return True
    theirs = _identity(operator)
    user_ids = _beneficiaries(session, matter)
    if any(folded(user_id) in theirs for user_id in user_ids):
        return True
    return any(_of_wallet(wallet) & theirs for wallet in _wallets(session, user_ids))


def _beneficiaries(session: Session, matter: Matter) -> set[str]:
    """The user whom it is about, and all who were paid to the same UPI id lately."""
    found = {matter.user_id} if matter.user_id is not None else set()
    return found | _paid_to(session, {matter.upi_id} if matter.upi_id is not None else set())


def _paid_to(session: Session, upi_ids: set[str]) -> set[str]:
    """The users who were paid to one of these UPI ids lately."""
    if not upi_ids:
        return set()
    return set(session.scalars(PAID_TO, {"upi_ids": list(upi_ids), "most": PAID_TO_IT}))


def _wallets(session: Session, user_ids: set[str]) -> list[Wallet]:
    # One parameter, however many they are.
    wanted = func.unnest(cast(list(user_ids), ARRAY(Text)))
    return list(session.scalars(select(Wallet).where(Wallet.user_id.in_(select(wanted)))))


def _must_be_independent(session: Session, one: Operator, other: Operator) -> None:
    days = settings().maker_checker_independence_days
    since = session.scalars(select(func.now() - timedelta(days=days))).one()
    for giver, given in ((one, other), (other, one)):
        if giver.name in _gave_power(session, given, since):
            raise Conflict(
                "They are not independent",
                f"{giver.name} added {given.name}, or proposed or confirmed a change of their account, "
                f"less than {days:g} days ago: somebody else must decide",
                code="not_independent",
            )


def _gave_power(session: Session, operator: Operator, since: datetime) -> set[str]:
    """The operators who added this one since then, or had a change of their account carried out."""
    actors = {operator.created_by, operator.confirmed_by} if operator.created_at > since else set()
    about = (
        select(AdminProposal)
        .where(
            AdminProposal.subject == operator.name,
            AdminProposal.kind.startswith(ABOUT_OPERATOR, autoescape=True),
        )
        .where(AdminProposal.outcome == "confirmed", AdminProposal.decided_at > since)
    )
    for made in session.scalars(about):
        # One who was alone is its proposer; for the first two admins that is nobody (FIRST_ADMINS).
        actors |= {made.proposed_by} if made.alone else {made.proposed_by, made.decided_by}
    return {name for actor in actors if actor and (name := names.operator_of(actor)) is not None}


def _identity(operator: Operator) -> set[str]:
    """All that an operator is known by, folded."""
    return {operator.name} | _about(operator)


def _about(operator: Operator) -> set[str]:
    return _known_by(operator.user_id, operator.email, phone=operator.phone)


def _of_wallet(wallet: Wallet) -> set[str]:
    return _known_by(wallet.user_id, wallet.email, wallet.phone, wallet.name, phone=wallet.phone)


def _known_by(*words: str | None, phone: str | None) -> set[str]:
    digits = names.phone_of(phone) if phone else None
    return {folded(word) for word in words if word and folded(word)} | ({digits} if digits else set())
