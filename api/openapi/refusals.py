"""Every refusal that a view knows, as the code words it: what reads a request is asked to read a bad one.

What only the database can tell is written out here; a test provokes each and compares
(tests/integration/test_openapi.py).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flask import Flask

from api import once, parameters, schemas
from api.shapes import MAX_ITEMS
from api.user_tokens import TokenExpired
from shared import fields
from shared.clock import from_iso
from shared.errors import BadRequest, Conflict, NotFound, PayoutsError
from shared.idempotency import Reused, StillRunning
from shared.settings import Settings
from shared.withdrawals import terms
from shared.withdrawals.terms import Usage

Refusals = tuple[PayoutsError, ...]

GOOD = {"user_id": "user123", "amount": 500, "upi_id": "user@okhdfcbank"}
CREDIT = {"user_id": "user123", "coins": 700, "reference": "quiz-42"}

NO_WALLET = "User account not found", "No wallet exists for this user"
NO_WITHDRAWAL = NotFound("Withdrawal not found", "No withdrawal has this id", code="withdrawal_not_found")
KEY_IS_MISSING = BadRequest(
    "Idempotency-Key is required",
    "A batch that was not answered is sent again; without a key that would pay everybody twice",
    code="missing",
)
BAD_SIGNATURE = BadRequest(
    "Invalid signature", "The body is not signed by a secret of ours", code="invalid_signature"
)


def of_withdraw() -> Refusals:
    """In the contract's order; the first that is wrong is told."""
    least, most = (Settings.model_fields[f"{end}_withdrawal_coins"].default for end in ("min", "max"))
    bodies: list[dict[str, Any]] = [
        {},
        {"user_id": "user123"},
        {"user_id": "user123", "amount": 500},
        {**GOOD, "amount": "abc"},
        {**GOOD, "amount": least - 1},
        {**GOOD, "upi_id": "invalid-upi"},
    ]
    return (
        *_by_bodies(schemas.WithdrawIn, bodies, min_withdrawal_coins=least),
        BadRequest(*NO_WALLET, code="wallet_not_found", available_coins=0),
        BadRequest(
            "Insufficient coin balance",
            "This needs more coins than the 120 that you have",
            code="insufficient_coins",
            available_coins=120,
        ),
        BadRequest(
            "Withdrawal amount too high",
            f"Maximum withdrawal is {most} coins",
            code="amount_too_high",
            max_amount=most,
        ),
        terms.frozen(),
        terms.blocked(),
        *_of_limits(),
        *_by_bodies(schemas.WithdrawIn, [{**GOOD, "note": "x"}], min_withdrawal_coins=least),
    )


def _of_limits() -> Iterator[BadRequest]:
    used = Usage(2, 700, 9, 4500, from_iso("2026-11-24T18:30:00Z"), from_iso("2026-11-30T18:30:00Z"))
    for most in ({"most_day_coins": 1000}, {"most_month_withdrawals": 9}, {"most_day_coins": 100_000}):
        refusal = terms.over(used, 500, {**most})
        assert refusal, "each of them is over, or was"
        yield refusal


def of_batch() -> Refusals:
    """Those of the whole batch; those of its items are in its results."""
    bodies: list[dict[str, Any]] = [{}, {"items": "x"}, {"items": [1] * (MAX_ITEMS + 1)}]
    return KEY_IS_MISSING, _bad_key(), *_by_bodies(schemas.BatchIn, bodies), Reused()


def of_history() -> Refusals:
    """Of the four parameters."""
    return (
        _by_query(parameters.user_id, {}),
        _by_query(parameters.status, {"status": "paid"}),
        _by_query(parameters.limit, {"limit": "0"}),
        _by_query(parameters.position, {"cursor": "x"}),
    )


def of_status() -> Refusals:
    """Of the one parameter, and what it may not find."""
    return _by_query(parameters.withdrawal_id, {}), NO_WITHDRAWAL


def of_cancel() -> Refusals:
    """Of the body, and of the withdrawal."""
    bodies: list[dict[str, Any]] = [{}, {"withdrawal_id": 5}]
    return (
        *_by_bodies(schemas.CancelIn, bodies),
        NO_WITHDRAWAL,
        BadRequest(
            "Cannot cancel withdrawal with status: completed",
            "Only a pending withdrawal can be cancelled",
            code="cannot_cancel",
            current_status="completed",
        ),
    )


def of_credit() -> Refusals:
    """Of the body, and of what was credited before."""
    bodies: list[dict[str, Any]] = [
        {},
        {"user_id": "user123"},
        {**CREDIT, "coins": 0},
        {"user_id": "user123", "coins": 700},
        {**CREDIT, "reference": 5},
    ]
    return (
        *_by_bodies(schemas.CreditIn, bodies),
        Conflict(
            "Reference already used", "This reference credited 500 coins before", code="reference_reused"
        ),
    )


def of_wallet() -> Refusals:
    """Of the one parameter, and what it may not find."""
    return _by_query(parameters.user_id, {}), NotFound(*NO_WALLET, code="wallet_not_found")


def of_transactions() -> Refusals:
    """Of the three parameters, and what they may not find."""
    return (
        *of_wallet(),
        _by_query(parameters.limit, {"limit": "0"}),
        _by_query(parameters.position, {"cursor": "x"}),
    )


def of_token() -> Refusals:
    """Of a user's token."""
    return (
        TokenExpired(
            "Authentication required", "The token has expired; fetch a new one", code="token_expired"
        ),
    )


def of_webhook() -> Refusals:
    """Of whoever is not RazorpayX."""
    return (BAD_SIGNATURE,)


def of_key() -> Refusals:
    """Of the Idempotency-Key."""
    return _bad_key(), Reused(), StillRunning()


def _by_bodies(model: type[schemas.Body], bodies: Iterable[dict[str, Any]], **context: Any) -> Refusals:
    return tuple(_refusal(lambda body=body: fields.parsed(model, body, **context)) for body in bodies)  # type: ignore[misc]


def _by_query(read: Callable[[], object], query: dict[str, str]) -> PayoutsError:
    with Flask("nobody").test_request_context(query_string=query):
        return _refusal(read)


def _bad_key() -> PayoutsError:
    with Flask("nobody").test_request_context(headers={once.HEADER: "two words"}):
        return _refusal(once.given_key)


def _refusal(read: Callable[[], object]) -> PayoutsError:
    try:
        read()
    except PayoutsError as refusal:
        return refusal
    raise AssertionError("an example of what is refused was taken")
