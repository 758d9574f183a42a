"""Eligibility: which operators may be the maker and the checker of a decision.

A decision calls these inside its transaction, after it has locked what the decision is about:

    subject = Subject(Permission.COINS, user_id=proposal.user_id)
    maker = eligibility.require_maker(session, actor, subject)
    checker = eligibility.require_checker(session, actor, subject, maker=proposal.proposed_by)

Both return the actor as it is recorded (`operator:asha`), and lock the operators' rows FOR SHARE, so an
operator cannot be disabled during the decision. The checker

    is a known (`unknown_operator`), enabled (`operator_disabled`) operator with the role (`role_needed`)
    is not the maker, and does not share an app account, e-mail address or phone with them (`same_person`)
    is not the beneficiary (`own_wallet`): their name and contact details do not match the user id, e-mail
      address, phone or name of the wallet, or of any wallet that was paid to the same UPI id. For an import,
      this holds for each row of its file (`paid_operators`)
    is not the requester (`own_request`)
    is not the operator whom it is about (`own_account`)
    is independent of the maker (`not_independent`): in the last MAKER_CHECKER_INDEPENDENCE_DAYS, neither
      added the other, nor proposed or confirmed a change of the other's account (role, enabling,
      invitation, e-mail address, identity, second factor)

and the maker is still an enabled operator with the role (`maker_disabled`) who does not benefit
(`makers_own`). A proposal needs the role too, and no operator may propose anything for their own wallet or
account. The database itself refuses maker = checker (the constraints `two_people`).

The first two admins of a new system are independent of each other: a shell invites both, so neither added the
other. Operators whom the same admin added are independent of each other.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, Text, cast, func, select, text
from sqlalchemy.orm import Session

from shared.errors import Conflict
from shared.models import AdminProposal, Operator, Wallet, Withdrawal
from shared.roles import REQUIRED_ROLE, Permission, Role
from shared.settings import settings
from shared.text import names
from shared.text.names import fold

NEWEST_WITHDRAWALS = 1000  # how many withdrawals to a UPI id are searched for its users
# The prefix of all kinds of proposals about an operator (shared/proposals/kinds.py).
OPERATOR_KINDS_PREFIX = "operator_"

USERS_PAID_AT = text("""
    SELECT DISTINCT newest.user_id FROM unnest(CAST(:upi_ids AS text[])) AS payees (upi_id)
    CROSS JOIN LATERAL (
        SELECT user_id FROM withdrawals WHERE lower(upi_id) = lower(payees.upi_id)
        ORDER BY created_at DESC, id DESC LIMIT :newest
    ) AS newest
""")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a decision is about: the permission it needs, and who would benefit."""

    needs: Permission
    user_id: str | None = None  # the owner of the wallet or withdrawal
    upi_id: str | None = None  # the payee
    requested_by: str | None = None  # an actor: `user:123`, `operator:asha`, `app:quiz`
    operator: str | None = None  # the operator whom it is about
    paid_operators: frozenset[str] = frozenset()  # the operators whom a file would pay

    @classmethod
    def of_withdrawal(
        cls,
        withdrawal: Withdrawal,
        needs: Permission = Permission.RESOLVE,
        requested_by: str | None = None,
    ) -> "Subject":
        """Return the subject of a decision about a withdrawal."""
        return cls(needs, withdrawal.user_id, withdrawal.upi_id, requested_by)


def require_maker(session: Session, actor: str, subject: Subject) -> str:
    """Require an eligible maker; returns the actor as recorded. Raises Conflict with the rule's code."""
    maker = _lock_operators(session, actor)
    _check_permission(maker, subject.needs)
    _check_no_benefit(session, maker, subject)
    return names.actor_of(maker.name)


def require_checker(session: Session, actor: str, subject: Subject, *, maker: str) -> str:
    """Require an eligible checker of what `maker` proposed; returns the actor as it is recorded.

    Raises Conflict with the rule's code.
    """
    checker = _lock_operators(session, actor, maker)
    _check_permission(checker, subject.needs)
    proposer = _check_other_person(session, checker, maker, subject.needs)
    _check_no_benefit(session, checker, subject)
    if _benefits(session, proposer, subject):
        raise Conflict("The proposal is not valid", f"{maker} would benefit from it", code="makers_own")
    _check_independence(session, checker, proposer)
    return names.actor_of(checker.name)


def require_independent(session: Session, actor: str, subject: Subject) -> str:
    """Require an eligible approver of what no operator proposed, such as a withdrawal before it is sent.

    Returns the actor as it is recorded. Raises Conflict with the rule's code.
    """
    requester_name = names.operator_of(subject.requested_by or "")
    checker = _lock_operators(session, actor, subject.requested_by or "")
    _check_permission(checker, subject.needs)
    _check_no_benefit(session, checker, subject)
    if requester_name is not None and (requester := session.get(Operator, requester_name)) is not None:
        _check_independence(session, checker, requester)
    return names.actor_of(checker.name)


def paid_operators(session: Session, user_ids: set[str], upi_ids: set[str]) -> set[str]:
    """Return the names of the operators who would benefit if these users were paid at these UPI ids.

    It is the rule `own_wallet` for many payments at once: pass a file a few hundred rows at a time.
    """
    wallets = _wallets(session, user_ids | _users_paid_at(session, upi_ids))
    paid = {fold(user_id) for user_id in user_ids}.union(*(_wallet_identity(wallet) for wallet in wallets))
    return {operator.name for operator in session.scalars(select(Operator)) if _identity(operator) & paid}


def require_permission(session: Session, actor: str, needs: Permission) -> str:
    """Require the permission for what one operator may do alone, such as reject; returns the actor as
    recorded.

    Raises Conflict with the rule's code.
    """
    operator = _lock_operators(session, actor)
    _check_permission(operator, needs)
    return names.actor_of(operator.name)


def why_not_eligible(
    session: Session, actor: str, subject: Subject, *, maker: str | None = None
) -> str | None:
    """Return why this operator may not approve it (without a `maker`: propose it); None if they may."""
    try:
        if maker is None:
            require_maker(session, actor, subject)
        else:
            require_checker(session, actor, subject, maker=maker)
    except Conflict as error:
        return f"{error.error}: {error.details}"
    return None


def _lock_operators(session: Session, actor: str, *others: str) -> Operator:
    """Lock the operators behind these actors, ordered by name; returns the one behind `actor`."""
    wanted = sorted({name for person in (actor, *others) if (name := names.operator_of(person)) is not None})
    query = select(Operator).where(Operator.name.in_(wanted)).order_by(Operator.name)
    rows = session.scalars(query.with_for_update(read=True).execution_options(populate_existing=True))
    locked = {operator.name: operator for operator in rows}
    # Names in the table are folded already: a constraint allows no others.
    operator = locked.get(names.operator_of(actor) or "")
    if operator is None:
        raise Conflict("Not an operator", f"There is no operator {actor[:60]}", code="unknown_operator")
    return operator


def _check_permission(operator: Operator, needs: Permission) -> None:
    if operator.disabled_at is not None:
        raise Conflict("Disabled", f"{operator.name} is disabled", code="operator_disabled")
    if not Role(operator.role).may(REQUIRED_ROLE[needs]):
        raise Conflict(
            "Your role may not do that",
            f"{operator.name} is {operator.role}; this needs {REQUIRED_ROLE[needs]}",
            code="role_needed",
        )


def _check_other_person(session: Session, checker: Operator, maker: str, needs: Permission) -> Operator:
    """Require that the maker is not the checker and may still propose it; returns the maker."""
    name = names.operator_of(maker)
    if name == checker.name:
        raise Conflict("A second person is needed", f"{maker} proposed it", code="same_person")
    proposer = session.get(Operator, name) if name is not None else None
    if proposer is None or proposer.disabled_at is not None:
        raise Conflict(
            "The proposal is not valid",
            f"{maker} is not an enabled operator. Reject it and propose it again",
            code="maker_disabled",
        )
    role = REQUIRED_ROLE[needs]
    if not Role(proposer.role).may(role):
        raise Conflict(
            "The proposal is not valid",
            f"{maker} is {proposer.role} now, and this needs {role}. Reject it and propose it again",
            code="maker_disabled",
        )
    if _contact_identity(checker) & _contact_identity(proposer):
        raise Conflict(
            "A second person is needed",
            f"{checker.name} and {proposer.name} have the same app account, e-mail address or phone",
            code="same_person",
        )
    return proposer


def _check_no_benefit(session: Session, operator: Operator, subject: Subject) -> None:
    if subject.operator is not None and fold(subject.operator) == operator.name:
        raise Conflict("It is your own", "It is about your own account", code="own_account")
    if subject.requested_by is not None:
        kind, _, name = subject.requested_by.partition(":")
        if kind in ("operator", "user") and fold(name) in _identity(operator):
            raise Conflict(
                "It is your own", "You requested it. Another operator must decide", code="own_request"
            )
    if _benefits(session, operator, subject):
        raise Conflict(
            "It is your own", "The coins are yours. Another operator must decide", code="own_wallet"
        )


def _benefits(session: Session, operator: Operator, subject: Subject) -> bool:
    """True if this operator would benefit, as far as names, addresses and phones show."""
    if subject.operator is not None and fold(subject.operator) == operator.name:
        return True
    if operator.name in subject.paid_operators:
        return True
    identity = _identity(operator)
    user_ids = _beneficiaries(session, subject)
    if any(fold(user_id) in identity for user_id in user_ids):
        return True
    return any(_wallet_identity(wallet) & identity for wallet in _wallets(session, user_ids))


def _beneficiaries(session: Session, subject: Subject) -> set[str]:
    """Return the user whom it is about, and all users who were recently paid to the same UPI id."""
    user_ids = {subject.user_id} if subject.user_id is not None else set()
    return user_ids | _users_paid_at(session, {subject.upi_id} if subject.upi_id is not None else set())


def _users_paid_at(session: Session, upi_ids: set[str]) -> set[str]:
    """Return the users who were recently paid to one of these UPI ids."""
    if not upi_ids:
        return set()
    return set(session.scalars(USERS_PAID_AT, {"upi_ids": list(upi_ids), "newest": NEWEST_WITHDRAWALS}))


def _wallets(session: Session, user_ids: set[str]) -> list[Wallet]:
    # One parameter, however many ids there are.
    wanted = func.unnest(cast(list(user_ids), ARRAY(Text)))
    return list(session.scalars(select(Wallet).where(Wallet.user_id.in_(select(wanted)))))


def _check_independence(session: Session, one: Operator, other: Operator) -> None:
    days = settings().maker_checker_independence_days
    since = session.scalars(select(func.now() - timedelta(days=days))).one()
    for sponsor, operator in ((one, other), (other, one)):
        if sponsor.name in _sponsors(session, operator, since):
            raise Conflict(
                "They are not independent",
                f"{sponsor.name} added {operator.name}, or proposed or confirmed a change of their account, "
                f"less than {days:g} days ago. Another operator must decide",
                code="not_independent",
            )


def _sponsors(session: Session, operator: Operator, since: datetime) -> set[str]:
    """Return the operators who added this one since then, or proposed or confirmed a change to them."""
    actors = {operator.created_by, operator.confirmed_by} if operator.created_at > since else set()
    proposals = (
        select(AdminProposal)
        .where(
            AdminProposal.subject == operator.name,
            AdminProposal.kind.startswith(OPERATOR_KINDS_PREFIX, autoescape=True),
        )
        .where(AdminProposal.outcome == "confirmed", AdminProposal.decided_at > since)
    )
    for proposal in session.scalars(proposals):
        # A proposal without a second person has only its maker; for the first two admins, that is
        # FIRST_ADMINS.
        actors |= {proposal.proposed_by} if proposal.alone else {proposal.proposed_by, proposal.decided_by}
    return {name for actor in actors if actor and (name := names.operator_of(actor)) is not None}


def _identity(operator: Operator) -> set[str]:
    """Return everything by which an operator is known, folded."""
    return {operator.name} | _contact_identity(operator)


def _contact_identity(operator: Operator) -> set[str]:
    return _folded_identity(operator.user_id, operator.email, phone=operator.phone)


def _wallet_identity(wallet: Wallet) -> set[str]:
    return _folded_identity(wallet.user_id, wallet.email, wallet.phone, wallet.name, phone=wallet.phone)


def _folded_identity(*values: str | None, phone: str | None) -> set[str]:
    digits = names.phone_digits(phone) if phone else None
    return {fold(value) for value in values if value and fold(value)} | ({digits} if digits else set())
