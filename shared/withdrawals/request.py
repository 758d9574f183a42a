"""The user's part: request a withdrawal or cancel it. One statement debits the coins and creates the row."""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from psycopg.types.numeric import Int8
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from shared.access.idempotency import KeyReused, raise_if_key_reused
from shared.coins import wallet
from shared.db.statements import Statement
from shared.db.transactions import autocommit, map_db_errors, transaction
from shared.errors import BadRequest, Unavailable
from shared.ids import new_id
from shared.models import CoinTransaction, Wallet, Withdrawal, WithdrawalEvent
from shared.money import coins_to_paise
from shared.queues import messages, soon
from shared.settings import settings
from shared.states import Status
from shared.telemetry import metrics
from shared.withdrawals import queries, request_rules, transitions

log = structlog.get_logger()

# Debit, withdrawal, journal and event as one statement: one round trip, one transaction.
# Each part reads the rows of the part before it, so without the debit nothing is written.
# The event repeats payee and amount: events are sealed, so these are too (proof/checks.py compares them).
# Whether the user was ever paid at this UPI id is queried only if it decides how long the withdrawal waits.
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


class Debited(NamedTuple):
    """What the statement returns."""

    remaining_coins: int
    created_at: datetime
    status_reason: str | None


class ConnectionLost(Exception):
    """The connection was lost during the statement, which may have been committed or not."""


class OutcomeUnknown(Unavailable):
    """The withdrawal may have been created under this id, or not. Check its status before retrying."""

    def __init__(self, withdrawal_id: UUID) -> None:
        super().__init__(
            "Service unavailable",
            "The withdrawal may have been created. Check its status before you retry",
            code="outcome_unknown",
            withdrawal_id=str(withdrawal_id),
        )


@dataclass(frozen=True, slots=True)
class Requested:
    """A withdrawal whose coins have been debited."""

    id: UUID
    coins: int
    amount_paise: int
    upi_id: str
    remaining_coins: int
    created_at: datetime
    status_reason: str | None  # the reason it waits at first
    replayed: bool = False  # an earlier call created it, under the same key


def request(
    *,
    user_id: str,
    coins: int,
    upi_id: str,
    actor: str,
    key: str | None = None,
    fingerprint: str | None = None,
) -> Requested:
    """Debit `coins` and create the withdrawal to `upi_id`; both or neither.

    The caller has validated the input (text/fields.py). Raises BadRequest (no wallet, too few coins, above
    the maximum, refused by `terms`), Unavailable (nothing was debited), OutcomeUnknown.

    With the app's idempotency `key` it runs once: a repeated call returns the first withdrawal. It raises
    KeyReused if the `fingerprint` differs, or the key belongs to another operation (access/idempotency.py).
    """
    withdrawal_id = new_id()
    amount_paise = coins_to_paise(coins, settings().coin_value_paise)
    values = {
        "id": withdrawal_id,
        "user_id": user_id,
        "coins": coins,
        "amount_paise": amount_paise,
        "upi_id": upi_id,
        "actor": actor,
        "idempotency_key": key,
        "fingerprint": fingerprint,
        **request_rules.subjects(upi_id),
    }
    with map_db_errors():
        row = _debit_once(values) if coins <= settings().max_withdrawal_coins else None
    if row is None:
        first = _find_by_key(user_id, key, fingerprint) if key else None
        if first is None:
            raise _refusal(user_id, coins, upi_id)
        return first
    metrics.count_move(Status.PENDING, by=actor)
    log.info("[WITHDRAW] created", withdrawal_id=str(withdrawal_id), user_id=user_id, coins=coins)
    soon.nudge_soon(messages.SWEEP_SENDS, in_seconds=settings().cancel_window_seconds)
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
    """Cancel a pending withdrawal; returns it and the balance after the refund. Runs once for a `key`.

    Raises NotFound, BadRequest (no longer pending), Stale (no longer this `version`), Unavailable.
    """
    with transaction() as session:
        withdrawal = queries.find(session, withdrawal_id, lock=True, of_user=of_user, version=version)
        balance = _balance_after_cancel(session, withdrawal, actor, key)
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
        transitions.transition(
            session, withdrawal, Status.CANCELLED, actor=actor, reason=reason, idempotency_key=key
        )
        balance = wallet.find(session, withdrawal.user_id).balance_coins
    log.info("[CANCEL] cancelled", withdrawal_id=str(withdrawal_id), user_id=withdrawal.user_id)
    return withdrawal, balance


def _debit_once(values: dict[str, Any]) -> Debited | None:
    """Run the statement; None if it debited nothing.

    If the connection is lost, the outcome is unknown, so run it again under the same id: the database accepts
    that only if the first run left nothing. Raises OutcomeUnknown if the second run fails too, and KeyReused.
    """
    try:
        return _debit(values)
    except IntegrityError as error:
        if values["idempotency_key"] is None:
            raise
        raise_if_key_reused(error)
        return None  # an earlier request used this key
    except ConnectionLost:
        log.warning("[WITHDRAW] connection lost, retrying", withdrawal_id=str(values["id"]))
    try:
        return _debit_again(values)
    except (ConnectionLost, DBAPIError, PoolTimeout) as error:
        raise OutcomeUnknown(values["id"]) from error


def _debit_again(values: dict[str, Any]) -> Debited | None:
    try:
        # No row from the second run can mean that the first one debited the coins that are missing now.
        return _debit(values) or _find_debited(values["id"])
    except IntegrityError as error:
        raise_if_key_reused(error)
        return _find_debited(values["id"])


def _debit(values: dict[str, Any]) -> Debited | None:
    terms = request_rules.request_terms(values["coins"])
    statement = _statement(tuple(terms.items()))
    # One type for every amount: for each combination of types, psycopg would prepare the statement again.
    amounts = {"coins": Int8(values["coins"]), "amount_paise": Int8(values["amount_paise"])}
    try:
        row = statement.first(values | amounts)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise ConnectionLost from error
        raise
    return Debited(*row) if row else None


@lru_cache(maxsize=64)
def _statement(terms: tuple[tuple[str, Any], ...]) -> Statement:
    """Return the statement with these terms as literals, which PostgreSQL plans better than parameters.

    There are few: they depend on the settings, and on whether the withdrawal needs approval.
    """
    return Statement(REQUEST.text, dict(terms))


def _find_debited(withdrawal_id: UUID) -> Debited | None:
    query = (
        select(Wallet.balance_coins, Withdrawal.created_at, Withdrawal.status_reason)
        .join(Wallet, Wallet.user_id == Withdrawal.user_id)
        .where(Withdrawal.id == withdrawal_id)
    )
    with autocommit() as connection:
        row = connection.execute(query).one_or_none()
    return Debited(*row) if row else None


def _find_by_key(user_id: str, key: str, fingerprint: str | None) -> Requested | None:
    """Return the withdrawal created under this key, with the balance at that time. Raises KeyReused."""
    query = (
        select(Withdrawal, CoinTransaction.balance_after, WithdrawalEvent.data["awaits_approval"].astext)
        .join(CoinTransaction, CoinTransaction.withdrawal_id == Withdrawal.id)
        .join(WithdrawalEvent, WithdrawalEvent.withdrawal_id == Withdrawal.id)
        .where(CoinTransaction.kind == "withdrawal", WithdrawalEvent.from_status.is_(None))
        .where(Withdrawal.user_id == user_id, Withdrawal.idempotency_key == key)
        .where(func.given_key(Withdrawal.idempotency_key) == func.given_key(key))  # for the index
    )
    with transaction() as session:
        row = session.execute(query).one_or_none()
    if row is None:
        return None
    first, balance_after, awaited_approval = row
    if first.request_fingerprint != fingerprint:
        raise KeyReused
    return Requested(
        first.id,
        first.coins_amount,
        first.amount_paise,
        first.upi_id,
        balance_after,
        first.created_at,
        request_rules.initial_reason(first, awaited_approval),
        replayed=True,
    )


def _balance_after_cancel(
    session: Session, withdrawal: Withdrawal, actor: str, key: str | None
) -> int | None:
    """Return the balance after this actor cancelled it under this key; None if that never happened."""
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


def _refusal(user_id: str, coins: int, upi_id: str) -> BadRequest:
    with transaction() as session:
        wallet_row = session.get(Wallet, user_id)
        refused_terms = request_rules.terms_error(session, wallet_row, coins, upi_id) if wallet_row else None
    # If nothing refuses it now, another withdrawal was refunded after the statement ran.
    balance = None if wallet_row is None else wallet_row.balance_coins
    return balance_error(coins, balance) or refused_terms or _insufficient(coins - 1)


def balance_error(coins: int, balance: int | None) -> BadRequest | None:
    """Return why a wallet with this balance (None: no wallet) cannot pay these coins; None if it can."""
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
        f"The balance is {available:,} coins",
        code="insufficient_coins",
        available_coins=available,
    )
