"""Coins. The only writer of `coin_transactions`, and of every balance."""

from dataclasses import dataclass

from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.errors import Conflict, NotFound
from shared.models import CoinTransaction, Wallet, Withdrawal


@dataclass(frozen=True, slots=True)
class Credit:
    """A credit that stands in the journal; `replayed` when it stood there before this call."""

    transaction_id: int
    user_id: str
    coins: int
    balance_coins: int
    lifetime_coins: int
    replayed: bool


# Two parts of the statement that requests a withdrawal (withdrawals/requesting.py). They stand here because
# nobody else writes to these two tables. The first yields no row when the coins are not there.
TAKE_COINS = """
    UPDATE wallets SET balance_coins = balance_coins - :coins, updated_at = now()
    WHERE user_id = :user_id AND balance_coins >= :coins
    RETURNING user_id, balance_coins
"""
WRITE_TAKEN = """
    INSERT INTO coin_transactions (user_id, kind, coins, balance_after, withdrawal_id, actor)
    SELECT taken.user_id, 'withdrawal', -CAST(:coins AS bigint), taken.balance_coins, withdrawal.id, :actor
    FROM taken, withdrawal
    RETURNING id
"""


def refund(session: Session, withdrawal: Withdrawal, reason: str, actor: str) -> int:
    """Give a withdrawal's coins back and return the new balance.

    The caller has just ended the withdrawal in this transaction; the database refuses a second refund,
    and one beside a payout that may still succeed.
    """
    balance = session.execute(
        update(Wallet)
        .where(Wallet.user_id == withdrawal.user_id)
        .values(balance_coins=Wallet.balance_coins + withdrawal.coins_amount, updated_at=func.now())
        .returning(Wallet.balance_coins)
    ).scalar_one()
    session.execute(
        insert(CoinTransaction).values(
            user_id=withdrawal.user_id,
            kind="refund",
            coins=withdrawal.coins_amount,
            balance_after=balance,
            withdrawal_id=withdrawal.id,
            reason=reason,
            actor=actor,
        )
    )
    return balance


def credit(
    session: Session,
    *,
    user_id: str,
    coins: int,
    reference: str,
    actor: str,
    reason: str | None = None,
    **about: str | None,
) -> Credit:
    """Give coins to a user, whose wallet is made if there is none. Once per (user, reference).

    `about` may hold name, email and phone, which replace what was known. Raises Conflict when the
    reference was used for another number of coins; then nothing is changed.
    """
    wallet = _locked_wallet(session, user_id, about)
    before = session.scalar(
        select(CoinTransaction).where(
            CoinTransaction.user_id == user_id,
            CoinTransaction.kind == "credit",
            CoinTransaction.reference == reference,
        )
    )
    if before is not None:
        if before.coins != coins:
            raise Conflict(
                "Reference already used",
                f"This reference credited {before.coins} coins before",
                code="reference_reused",
            )
        return Credit(before.id, user_id, coins, wallet.balance_coins, wallet.lifetime_coins, replayed=True)
    wallet.balance_coins += coins
    wallet.lifetime_coins += coins
    wallet.updated_at = func.now()
    line = CoinTransaction(
        user_id=user_id,
        kind="credit",
        coins=coins,
        balance_after=wallet.balance_coins,
        reference=reference,
        reason=reason,
        actor=actor,
    )
    session.add(line)
    session.flush()
    return Credit(line.id, user_id, coins, line.balance_after, wallet.lifetime_coins, replayed=False)


def find(session: Session, user_id: str) -> Wallet:
    """A user's wallet. Raises NotFound."""
    wallet = session.get(Wallet, user_id)
    if wallet is None:
        raise NotFound("User account not found", "No wallet exists for this user", code="wallet_not_found")
    return wallet


def transactions(
    session: Session, user_id: str, *, limit: int, before_id: int | None = None
) -> list[CoinTransaction]:
    """A user's journal, newest first; `before_id` continues behind an entry."""
    query = select(CoinTransaction).where(CoinTransaction.user_id == user_id)
    if before_id is not None:
        query = query.where(CoinTransaction.id < before_id)
    return list(session.scalars(query.order_by(CoinTransaction.id.desc()).limit(limit)))


def _locked_wallet(session: Session, user_id: str, about: dict[str, str | None]) -> Wallet:
    known = {name: value for name, value in about.items() if value is not None}
    session.execute(upsert(Wallet).values(user_id=user_id).on_conflict_do_nothing())
    wallet = session.get_one(Wallet, user_id, with_for_update=True, populate_existing=True)
    for name, value in known.items():
        setattr(wallet, name, value)
    return wallet
