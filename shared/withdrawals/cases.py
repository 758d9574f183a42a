"""A withdrawal under its lock, with what decides its next step; read for a whole batch in one round trip."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, func, select
from sqlalchemy.orm import Session

from shared.db import batches
from shared.db.batches import Query, any_of, columns, value
from shared.models import Block, Destination, PayoutAttempt, Wallet, Withdrawal
from shared.providers.registry import provider
from shared.states import UNSETTLED, ReviewReason
from shared.withdrawals import circuit_breakers

IDS = any_of("ids", Uuid)


@dataclass(slots=True)
class Case:
    """A locked withdrawal, its unsettled attempt if it has one, and its payee."""

    withdrawal: Withdrawal
    attempt: PayoutAttempt | None  # the one that still needs work; there is at most one
    fund_account_id: str | None  # the payee as the provider knows them; None if it does not
    user_name: str | None
    forbidden: ReviewReason | None  # why they must not be paid: blocked or frozen since the request


UNSETTLED_ATTEMPTS = Query(
    select(*columns(PayoutAttempt)).where(
        PayoutAttempt.withdrawal_id == IDS, PayoutAttempt.state.in_(UNSETTLED)
    )
)
_subject = func.lower(Withdrawal.upi_id)
_handle = func.concat("@", func.split_part(_subject, "@", 2))
IS_BLOCKED = (
    select(Block.id)
    .where(Block.kind == "upi_id", Block.removed_at.is_(None), Block.subject.in_((_subject, _handle)))
    .exists()
)
PAYEES = Query(
    select(Withdrawal.id, Destination.fund_account_id, Wallet.name, Wallet.is_frozen, IS_BLOCKED)
    .join(Wallet, Wallet.user_id == Withdrawal.user_id)
    .outerjoin(
        Destination,
        (Destination.user_id == Withdrawal.user_id)
        & (Destination.upi_id == Withdrawal.upi_id)
        & (Destination.known_to == value("known_to"))
        & Destination.ended_at.is_(None),
    )
    .where(Withdrawal.id == IDS)
)


def read_cases(
    session: Session,
    locked: tuple[str, dict[str, Any]],
    ids: Sequence[UUID],
    *more: tuple[str, dict[str, Any]],
) -> tuple[list[Case], list[list[tuple[Any, ...]]]]:
    """Run the query that locks withdrawals among `ids`, and read their cases; also run `more` queries.

    Returns the cases in the order of `ids`, and the rows of `more`.
    """
    known_to = provider().identity()
    withdrawals, attempts, payees, breakers, *others = batches.read(
        session,
        locked,
        UNSETTLED_ATTEMPTS(ids=ids),
        PAYEES(ids=ids, known_to=known_to),
        circuit_breakers.READ_NOT_CLOSED(),
        *more,
    )
    circuit_breakers.remember(session, breakers)
    rows = {row.id: row for row in batches.attach(session, Withdrawal, withdrawals)}
    unsettled = {row.withdrawal_id: row for row in batches.attach(session, PayoutAttempt, attempts)}
    payee_of = {payee[0]: payee[1:] for payee in payees}
    return [
        _case(rows[key], unsettled.get(key), *payee_of[key]) for key in dict.fromkeys(ids) if key in rows
    ], others


def _case(
    withdrawal: Withdrawal,
    attempt: PayoutAttempt | None,
    fund_account_id: str | None,
    user_name: str | None,
    is_frozen: bool,
    is_blocked: bool,
) -> Case:
    forbidden = None
    if is_frozen:
        forbidden = ReviewReason.WALLET_FROZEN
    elif is_blocked:
        forbidden = ReviewReason.UPI_BLOCKED
    return Case(withdrawal, attempt, fund_account_id, user_name, forbidden)
