"""Coins. The only writer of `coin_transactions`, and of every balance."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import case, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared import audit
from shared.errors import BadRequest, Conflict, NotFound
from shared.models import Adjustment, CoinTransaction, Wallet, Withdrawal


@dataclass(frozen=True, slots=True)
class Credit:
    """A credit that stands in the journal; `replayed` when it stood there before this call."""

    transaction_id: int
    user_id: str
    coins: int
    balance_coins: int
    lifetime_coins: int
    replayed: bool


# What counts for the limits stands in the wallet's row: who waits for its lock looks again at what is there
# then, and at nothing else. A day begins at midnight in India, by the database's clock, and never again.
TODAY = "CAST(now() AT TIME ZONE 'Asia/Kolkata' AS date)"
THIS_MONTH = "CAST(date_trunc('month', now() AT TIME ZONE 'Asia/Kolkata') AS date)"
COUNTS = {  # column -> since when it counts, and what a withdrawal adds
    "day_withdrawals": (TODAY, "1"),
    "day_coins": (TODAY, ":coins"),
    "month_withdrawals": (THIS_MONTH, "1"),
    "month_coins": (THIS_MONTH, ":coins"),
}
USED = {name: f"CASE WHEN used_on >= {since} THEN {name} ELSE 0 END" for name, (since, _) in COUNTS.items()}
_ONE_MORE = {name: f"{USED[name]} + {added}" for name, (_, added) in COUNTS.items()}
_MOST = {name: f"coalesce(CAST(:most_{name} AS bigint), {2**63 - 1})" for name in COUNTS}

# Two parts of the statement that requests a withdrawal (withdrawals/requesting.py). They stand here because
# nobody else writes to these two tables. The first yields no row when the coins may not be taken.
TAKE_COINS = f"""
    UPDATE wallets SET balance_coins = balance_coins - :coins, updated_at = now(),
        used_on = greatest(used_on, {TODAY}),
        {", ".join(f"{name} = {sum}" for name, sum in _ONE_MORE.items())}
    WHERE user_id = :user_id AND balance_coins >= :coins AND NOT is_frozen
        AND {" AND ".join(f"{sum} <= {_MOST[name]}" for name, sum in _ONE_MORE.items())}
        AND NOT EXISTS (SELECT FROM blocks WHERE kind = 'upi_id' AND removed_at IS NULL
                        AND subject IN (:upi_subject, :handle_subject))
    RETURNING user_id, balance_coins, used_on
"""
WRITE_TAKEN = """
    INSERT INTO coin_transactions (user_id, kind, coins, balance_after, withdrawal_id, actor)
    SELECT taken.user_id, 'withdrawal', -CAST(:coins AS bigint), taken.balance_coins, withdrawal.id, :actor
    FROM taken, withdrawal
    RETURNING id
"""


def refund(session: Session, withdrawal: Withdrawal, reason: str, actor: str) -> int:
    """Give a withdrawal's coins back and return the new balance. It counts for no limit any more.

    The caller has just ended the withdrawal in this transaction; the database refuses a second refund,
    and one beside a payout that may still succeed.
    """
    balance = session.execute(
        update(Wallet)
        .where(Wallet.user_id == withdrawal.user_id)
        .values(
            balance_coins=Wallet.balance_coins + withdrawal.coins_amount,
            updated_at=func.now(),
            **_less(withdrawal),
        )
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

    `about` may hold name, email and phone, which replace what was known; a credit that stands already
    replaces nothing. Raises Conflict when the reference was used for another number of coins; then nothing
    is changed.
    """
    wallet = _locked_wallet(session, user_id)
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
    _learn(session, wallet, about, actor)
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


def adjust(session: Session, adjustment: Adjustment, actor: str) -> int:
    """Carry out an adjustment that was decided on, once; returns the new balance.

    Raises NotFound (no wallet), BadRequest (more would be taken than there is).
    """
    wallet = find(session, adjustment.user_id, lock=True)
    must_hold(wallet, adjustment.coins)
    wallet.balance_coins += adjustment.coins
    wallet.updated_at = func.now()
    session.add(
        CoinTransaction(
            user_id=wallet.user_id,
            kind="adjustment",
            coins=adjustment.coins,
            balance_after=wallet.balance_coins,
            reference=str(adjustment.id),
            reason=adjustment.reason,
            actor=actor,
        )
    )
    session.flush()
    return wallet.balance_coins


def find(session: Session, user_id: str, *, lock: bool = False) -> Wallet:
    """A user's wallet. Raises NotFound."""
    wallet = session.get(Wallet, user_id, with_for_update=lock, populate_existing=lock)
    if wallet is None:
        raise NotFound("User account not found", "No wallet exists for this user", code="wallet_not_found")
    return wallet


def must_hold(wallet: Wallet, coins: int) -> None:
    """Raises BadRequest when these coins are below zero, and more than there is to take from."""
    if wallet.balance_coins + coins < 0:
        raise BadRequest(
            "Insufficient coin balance",
            f"There are only {wallet.balance_coins} coins to take from",
            code="insufficient_coins",
            available_coins=wallet.balance_coins,
        )


def transactions(
    session: Session, user_id: str, *, limit: int, before_id: int | None = None
) -> list[CoinTransaction]:
    """A user's journal, newest first; `before_id` continues behind an entry."""
    query = select(CoinTransaction).where(CoinTransaction.user_id == user_id)
    if before_id is not None:
        query = query.where(CoinTransaction.id < before_id)
    return list(session.scalars(query.order_by(CoinTransaction.id.desc()).limit(limit)))


def _locked_wallet(session: Session, user_id: str) -> Wallet:
    session.execute(upsert(Wallet).values(user_id=user_id).on_conflict_do_nothing())
    return session.get_one(Wallet, user_id, with_for_update=True, populate_existing=True)


def _learn(session: Session, wallet: Wallet, about: dict[str, str | None], actor: str) -> None:
    """What a new credit says of its user replaces what was known. What is replaced stays in the audit log."""
    news = {name: value for name, value in about.items() if value not in (None, getattr(wallet, name))}
    before = {name: getattr(wallet, name) for name in news}
    for name, value in news.items():
        setattr(wallet, name, value)
    if any(before.values()):
        audit.changed(
            session,
            "contact_changed",
            subject=wallet.user_id,
            actor=actor,
            reason=None,
            before=before,
            after=news,
        )


def _less(withdrawal: Withdrawal) -> dict[str, Any]:
    """What counts for the limits without this withdrawal, while its day and its month still count."""
    if withdrawal.counted_on is None:
        return {}
    same_day = Wallet.used_on == withdrawal.counted_on
    # It counted on that day or before: the day that counts now is never an earlier one.
    next_month = (withdrawal.counted_on.replace(day=1) + timedelta(days=31)).replace(day=1)
    same_month = Wallet.used_on < next_month
    coins = withdrawal.coins_amount
    return {
        "day_withdrawals": Wallet.day_withdrawals - case((same_day, 1), else_=0),
        "day_coins": Wallet.day_coins - case((same_day, coins), else_=0),
        "month_withdrawals": Wallet.month_withdrawals - case((same_month, 1), else_=0),
        "month_coins": Wallet.month_coins - case((same_month, coins), else_=0),
    }
