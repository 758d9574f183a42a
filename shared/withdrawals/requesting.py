"""The user's wish: request a withdrawal, or take it back."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from shared import metrics, queues, wallet
from shared.db import one_statement, told_plainly, transaction
from shared.errors import BadRequest, Unavailable
from shared.idempotency import Reused, must_be_free
from shared.ids import new_id
from shared.models import CoinTransaction, Wallet, Withdrawal, WithdrawalEvent
from shared.money import coins_to_paise
from shared.settings import settings
from shared.states import Status
from shared.withdrawals import journey, reading, terms

log = structlog.get_logger()

# Debit, withdrawal, journal and event as one statement: one round trip, one transaction.
# Each part reads the rows of the part before it, so that without the debit there is nothing.
# The event repeats what was asked for: events are sealed, so payee and amount are too (checks.py compares).
# Whether the user was ever paid at this UPI id is asked only where that matters: how long it waits.
REQUEST = text(f"""
    WITH taken AS ({wallet.TAKE_COINS}),
    payee AS (
        SELECT CASE WHEN :new_wait > 0 THEN NOT EXISTS (
            SELECT FROM withdrawals WHERE user_id = :user_id AND lower(upi_id) = :upi_subject
            AND status = '{Status.COMPLETED}') ELSE false END AS is_new
    ),
    withdrawal AS (
        INSERT INTO withdrawals (id, user_id, coins_amount, amount_paise, upi_id, status, status_reason,
                                 due_at, expected_by, not_before, awaits_approval, admin_notes, counted_on,
                                 idempotency_key, request_fingerprint)
        SELECT :id, user_id, :coins, :amount_paise, :upi_id, '{Status.PENDING}',
               CASE WHEN is_new THEN :new_reason ELSE :reason END,
               now() + make_interval(secs => CASE WHEN is_new THEN :new_due ELSE :due END),
               now() + make_interval(secs => CASE WHEN is_new THEN :new_expected ELSE :expected END),
               now() + make_interval(secs => CASE WHEN is_new THEN :new_wait ELSE :wait END),
               :awaits, :admin_notes, used_on, :idempotency_key, :fingerprint
        FROM taken, payee
        RETURNING id, created_at, amount_paise, upi_id, status_reason
    ),
    journal AS ({wallet.WRITE_TAKEN}),
    event AS (
        INSERT INTO withdrawal_events (withdrawal_id, to_status, actor, reason, data)
        SELECT id, '{Status.PENDING}', :actor, 'requested',
               jsonb_strip_nulls(jsonb_build_object(
                   'amount_paise', amount_paise, 'upi_id', upi_id,
                   'awaits_approval', CAST(:awaits AS text)))
        FROM withdrawal
    )
    SELECT taken.balance_coins AS remaining_coins, withdrawal.created_at, withdrawal.status_reason
    FROM taken, withdrawal
""")


class ConnectionLost(Exception):
    """The connection broke under the statement: it may have been done, or not."""


class OutcomeUnknown(Unavailable):
    """The withdrawal may have been made, under the id told, or not. Ask for it before asking again."""

    def __init__(self, withdrawal_id: UUID) -> None:
        super().__init__(
            "Service unavailable",
            "The withdrawal may have been made; ask for its status before you send it again",
            code="outcome_unknown",
            withdrawal_id=str(withdrawal_id),
        )


@dataclass(frozen=True, slots=True)
class Requested:
    """A withdrawal whose coins have been taken."""

    id: UUID
    coins: int
    amount_paise: int
    upi_id: str
    remaining_coins: int
    created_at: datetime
    status_reason: str | None  # why it waited at first
    replayed: bool = False  # it was made before this call, under the same key


def request(
    *,
    user_id: str,
    coins: int,
    upi_id: str,
    actor: str,
    key: str | None = None,
    fingerprint: str | None = None,
) -> Requested:
    """Take `coins` from the user and promise them rupees at `upi_id`; both or neither.

    The input has been checked (fields.py) but for what only the wallet can tell. Raises BadRequest
    (no wallet, too few coins, above the maximum, what `terms` refuses), Unavailable (nothing was taken),
    OutcomeUnknown.

    Under a `key` of the app's own it is done once: the first with this key is returned again, or Reused is
    raised when its `fingerprint` was another, or the key belongs to another operation (idempotency.py).
    """
    withdrawal_id, amount_paise = new_id(), coins_to_paise(coins, settings().coin_value_paise)
    values = {
        "id": withdrawal_id,
        "user_id": user_id,
        "coins": coins,
        "amount_paise": amount_paise,
        "upi_id": upi_id,
        "actor": actor,
        "idempotency_key": key,
        "fingerprint": fingerprint,
        **terms.of(coins, upi_id),
    }
    with told_plainly():
        row = _taken_once(values) if coins <= settings().max_withdrawal_coins else None
    if row is None:
        first = _asked_before(user_id, key, fingerprint) if key else None
        if first is None:
            raise _why_not(user_id, coins, upi_id)
        return first
    metrics.moved(Status.PENDING, by=actor)
    log.info("[WITHDRAW] created", withdrawal_id=str(withdrawal_id), user_id=user_id, coins=coins)
    queues.nudge_sweep(in_seconds=settings().cancel_window_seconds)
    return Requested(
        withdrawal_id, coins, amount_paise, upi_id, row.remaining_coins, row.created_at, row.status_reason
    )


def cancel(
    withdrawal_id: UUID,
    *,
    reason: str,
    actor: str,
    key: str | None = None,
    of_user: str | None = None,
    version: int | None = None,
) -> tuple[Withdrawal, int]:
    """Take a pending withdrawal back; returns it and the balance that this left. Once under a `key`.

    Raises NotFound, BadRequest (not pending any more), Stale (not this `version` any more), Unavailable.
    """
    with transaction() as session:
        withdrawal = reading.find(session, withdrawal_id, lock=True, of_user=of_user, version=version)
        balance = _left_by_cancelling(session, withdrawal, actor, key)
        if balance is not None:
            return withdrawal, balance
        if withdrawal.status != Status.PENDING:
            raise BadRequest(
                f"Cannot cancel withdrawal with status: {withdrawal.status}",
                "Only a pending withdrawal can be cancelled",
                code="cannot_cancel",
                current_status=withdrawal.status,
            )
        withdrawal.admin_notes = f"Cancelled: {reason}"
        journey.move(session, withdrawal, Status.CANCELLED, actor=actor, reason=reason, idempotency_key=key)
        balance = wallet.find(session, withdrawal.user_id).balance_coins
    log.info("[CANCEL] cancelled", withdrawal_id=str(withdrawal_id), user_id=withdrawal.user_id)
    return withdrawal, balance


def _taken_once(values: dict[str, Any]) -> Any:
    """Run the statement. Where a connection breaks under it, its end is not known: it is run again under
    its id, which the database accepts only if the first run left nothing. Raises OutcomeUnknown when that
    breaks too, and Reused.
    """
    try:
        return _take(values)
    except IntegrityError as error:
        if values["idempotency_key"] is None:
            raise
        must_be_free(error)
        return None  # somebody was here with this key
    except ConnectionLost:
        log.warning("[WITHDRAW] connection lost, asking again", withdrawal_id=str(values["id"]))
    try:
        return _take_again(values)
    except (ConnectionLost, DBAPIError, PoolTimeout) as error:
        raise OutcomeUnknown(values["id"]) from error


def _take_again(values: dict[str, Any]) -> Any:
    try:
        # No row the second time may mean that the first run has taken the coins that are missing now.
        return _take(values) or _already_taken(values["id"])
    except IntegrityError as error:
        must_be_free(error)
        return _already_taken(values["id"])


def _take(values: dict[str, Any]) -> Any:
    with one_statement() as connection:
        try:
            return connection.execute(REQUEST, values).one_or_none()
        except DBAPIError as error:
            if error.connection_invalidated:
                raise ConnectionLost from error
            raise


def _already_taken(withdrawal_id: UUID) -> Any:
    query = (
        select(Withdrawal.created_at, Withdrawal.status_reason, Wallet.balance_coins.label("remaining_coins"))
        .join(Wallet, Wallet.user_id == Withdrawal.user_id)
        .where(Withdrawal.id == withdrawal_id)
    )
    with one_statement() as connection:
        return connection.execute(query).one_or_none()


def _asked_before(user_id: str, key: str, fingerprint: str | None) -> Requested | None:
    """The withdrawal that was made under this key, with the balance that it left then. Raises Reused."""
    query = (
        select(Withdrawal, CoinTransaction.balance_after, WithdrawalEvent.data["awaits_approval"].astext)
        .join(CoinTransaction, CoinTransaction.withdrawal_id == Withdrawal.id)
        .join(WithdrawalEvent, WithdrawalEvent.withdrawal_id == Withdrawal.id)
        .where(CoinTransaction.kind == "withdrawal", WithdrawalEvent.from_status.is_(None))
        .where(Withdrawal.user_id == user_id, Withdrawal.idempotency_key == key)
    )
    with transaction() as session:
        found = session.execute(query).one_or_none()
    if found is None:
        return None
    first, left, awaited = found
    if first.request_fingerprint != fingerprint:
        raise Reused
    return Requested(
        first.id,
        first.coins_amount,
        first.amount_paise,
        first.upi_id,
        left,
        first.created_at,
        terms.first_reason(first, awaited),
        replayed=True,
    )


def _left_by_cancelling(session: Session, withdrawal: Withdrawal, actor: str, key: str | None) -> int | None:
    """The balance after this caller cancelled it under this key; None when that was never done."""
    if key is None or withdrawal.status != Status.CANCELLED:
        return None
    query = (
        select(CoinTransaction.balance_after)
        .join(WithdrawalEvent, WithdrawalEvent.withdrawal_id == CoinTransaction.withdrawal_id)
        .where(CoinTransaction.withdrawal_id == withdrawal.id, CoinTransaction.kind == "refund")
        .where(WithdrawalEvent.to_status == Status.CANCELLED, WithdrawalEvent.actor == actor)
        .where(WithdrawalEvent.data["idempotency_key"].astext == key)
    )
    return session.scalar(query.limit(1))


def _why_not(user_id: str, coins: int, upi_id: str) -> BadRequest:
    with transaction() as session:
        wallet_row = session.get(Wallet, user_id)
        ours = terms.refusal(session, wallet_row, coins, upi_id) if wallet_row else None
    # Another withdrawal may have just given its coins back; what counted was the moment of asking.
    balance = None if wallet_row is None else wallet_row.balance_coins
    return refusal(coins, balance) or ours or _insufficient(coins - 1)


def refusal(coins: int, balance: int | None) -> BadRequest | None:
    """Why a wallet that holds so many coins, or no wallet, does not give these; None when it does."""
    if balance is None:
        return BadRequest(
            "User account not found",
            "No wallet exists for this user",
            code="wallet_not_found",
            available_coins=0,
        )
    maximum = settings().max_withdrawal_coins
    if coins > balance:
        return _insufficient(balance)
    if coins > maximum:
        return BadRequest(
            "Withdrawal amount too high",
            f"Maximum withdrawal is {maximum} coins",
            code="amount_too_high",
            max_amount=maximum,
        )
    return None


def _insufficient(available: int) -> BadRequest:
    return BadRequest(
        "Insufficient coin balance",
        f"This needs more coins than the {available} that you have",
        code="insufficient_coins",
        available_coins=available,
    )
