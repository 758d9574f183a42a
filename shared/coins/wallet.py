"""Wallets and their journal: the only module that writes `coin_transactions` and balances."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import case, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db.batches import require_alone
from shared.errors import BadRequest, Conflict, NotFound
from shared.models import Adjustment, CoinTransaction, Wallet, Withdrawal
from shared.people import audit


@dataclass(frozen=True, slots=True)
class Credit:
    """A credit in the journal; `replayed` if an earlier call wrote it."""

    transaction_id: int
    user_id: str
    coins: int
    balance_coins: int
    lifetime_coins: int
    replayed: bool


# The counters for the limits are columns of the wallet's row, because a statement that waits for the row's
# lock re-reads that row and nothing else. A day begins at midnight in India by the database's clock, and only
# once.
TODAY = "CAST(now() AT TIME ZONE 'Asia/Kolkata' AS date)"
THIS_MONTH = "CAST(date_trunc('month', now() AT TIME ZONE 'Asia/Kolkata') AS date)"
COUNTERS = {  # column -> the day from which it counts, and what a withdrawal adds
    "day_withdrawals": (TODAY, "1"),
    "day_coins": (TODAY, ":coins"),
    "month_withdrawals": (THIS_MONTH, "1"),
    "month_coins": (THIS_MONTH, ":coins"),
}
COUNTED = {
    name: f"CASE WHEN used_on >= {since} THEN {name} ELSE 0 END" for name, (since, _) in COUNTERS.items()
}
_INCREASED = {name: f"{COUNTED[name]} + {added}" for name, (_, added) in COUNTERS.items()}
_MAXIMUM = {name: f"coalesce(CAST(:max_{name} AS bigint), {2**63 - 1})" for name in COUNTERS}

# Two parts of the statement that requests a withdrawal (withdrawals/request.py). They are here because only
# this module writes to these two tables. The first returns no row if the coins may not be debited.
TAKE_COINS = f"""
    UPDATE wallets SET balance_coins = balance_coins - :coins, updated_at = now(),
        used_on = greatest(used_on, {TODAY}),
        {", ".join(f"{name} = {sum}" for name, sum in _INCREASED.items())}
    WHERE user_id = :user_id AND balance_coins >= :coins AND NOT is_frozen
        AND {" AND ".join(f"{sum} <= {_MAXIMUM[name]}" for name, sum in _INCREASED.items())}
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
    """Refund a withdrawal's coins and return the new balance. It no longer counts towards the limits.

    The caller has just ended the withdrawal in this transaction. The database refuses a second refund, and a
    refund while a payout may still succeed.
    """
    require_alone(session)
    balance = session.execute(
        update(Wallet)
        .where(Wallet.user_id == withdrawal.user_id)
        .values(
            balance_coins=Wallet.balance_coins + withdrawal.coins_amount,
            updated_at=func.now(),
            **_counters_without(withdrawal),
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
    **contact: str | None,
) -> Credit:
    """Credit coins to a user, once per (user, reference); create the wallet if there is none.

    `contact` may hold name, email and phone, which replace the stored ones; a replayed credit replaces
    nothing. Raises Conflict if the reference was used for another number of coins; then nothing changes.
    """
    wallet = _locked_wallet(session, user_id)
    earlier = session.scalar(
        select(CoinTransaction).where(
            CoinTransaction.user_id == user_id,
            CoinTransaction.kind == "credit",
            CoinTransaction.reference == reference,
        )
    )
    if earlier is not None:
        if earlier.coins != coins:
            raise Conflict(
                "Reference already used",
                f"This reference was used to credit {earlier.coins:,} coins",
                code="reference_reused",
            )
        return Credit(earlier.id, user_id, coins, wallet.balance_coins, wallet.lifetime_coins, replayed=True)
    _update_contact(session, wallet, contact, actor)
    wallet.balance_coins += coins
    wallet.lifetime_coins += coins
    wallet.updated_at = func.now()
    entry = CoinTransaction(
        user_id=user_id,
        kind="credit",
        coins=coins,
        balance_after=wallet.balance_coins,
        reference=reference,
        reason=reason,
        actor=actor,
    )
    session.add(entry)
    session.flush()
    return Credit(entry.id, user_id, coins, entry.balance_after, wallet.lifetime_coins, replayed=False)


def adjust(session: Session, adjustment: Adjustment, actor: str) -> int:
    """Carry out an approved adjustment, once; returns the new balance.

    Raises NotFound (no wallet), BadRequest (the balance is too low).
    """
    wallet = find(session, adjustment.user_id, lock=True)
    require_balance(wallet, adjustment.coins)
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
    """Return a user's wallet. Raises NotFound."""
    if lock:
        require_alone(session)
    wallet = session.get(Wallet, user_id, with_for_update=lock, populate_existing=lock)
    if wallet is None:
        raise NotFound("User account not found", "No wallet exists for this user", code="wallet_not_found")
    return wallet


def require_balance(wallet: Wallet, coins: int) -> None:
    """Refuse a debit (negative `coins`) that exceeds the balance. Raises BadRequest."""
    if wallet.balance_coins + coins < 0:
        raise BadRequest(
            "Insufficient coin balance",
            f"The balance is {wallet.balance_coins:,} coins",
            code="insufficient_coins",
            available_coins=wallet.balance_coins,
        )


def transactions(
    session: Session, user_id: str, *, limit: int, before_id: int | None = None
) -> list[CoinTransaction]:
    """Return a user's journal, newest first; `before_id` continues after an entry."""
    query = select(CoinTransaction).where(CoinTransaction.user_id == user_id)
    if before_id is not None:
        query = query.where(CoinTransaction.id < before_id)
    return list(session.scalars(query.order_by(CoinTransaction.id.desc()).limit(limit)))


def _locked_wallet(session: Session, user_id: str) -> Wallet:
    session.execute(upsert(Wallet).values(user_id=user_id).on_conflict_do_nothing())
    return session.get_one(Wallet, user_id, with_for_update=True, populate_existing=True)


def _update_contact(session: Session, wallet: Wallet, contact: dict[str, str | None], actor: str) -> None:
    """Replace the user's contact details by those of a new credit; the audit log keeps the old ones."""
    changes = {name: value for name, value in contact.items() if value not in (None, getattr(wallet, name))}
    before = {name: getattr(wallet, name) for name in changes}
    for name, value in changes.items():
        setattr(wallet, name, value)
    if any(before.values()):
        audit.record_change(
            session,
            "contact_changed",
            subject=wallet.user_id,
            actor=actor,
            reason=None,
            before=before,
            after=changes,
        )


def _counters_without(withdrawal: Withdrawal) -> dict[str, Any]:
    """Return the limit counters without this withdrawal, where its day and month still count."""
    if withdrawal.counted_on is None:
        return {}
    same_day = Wallet.used_on == withdrawal.counted_on
    # `used_on` never moves back, so it is the day of the withdrawal or a later one.
    next_month = (withdrawal.counted_on.replace(day=1) + timedelta(days=31)).replace(day=1)
    same_month = Wallet.used_on < next_month
    coins = withdrawal.coins_amount
    return {
        "day_withdrawals": Wallet.day_withdrawals - case((same_day, 1), else_=0),
        "day_coins": Wallet.day_coins - case((same_day, coins), else_=0),
        "month_withdrawals": Wallet.month_withdrawals - case((same_month, 1), else_=0),
        "month_coins": Wallet.month_coins - case((same_month, coins), else_=0),
    }
