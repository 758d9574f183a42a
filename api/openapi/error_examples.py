"""An example of each error of each operation. Most are made by the code that parses requests, from a bad one.

Errors that depend on the database are written out here; a test provokes each and compares them
(tests/api/openapi/test_document.py).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flask import Flask

from api import idempotency, query_parameters, schemas
from api.json_schemas import MAX_ITEMS
from api.user_tokens import TokenExpired
from shared.access.idempotency import KeyReused, StillRunning
from shared.clock import from_iso
from shared.errors import BadRequest, Conflict, NotFound, PayoutsError
from shared.settings import Settings
from shared.text import fields
from shared.withdrawals import request_rules
from shared.withdrawals.request_rules import Usage

Errors = tuple[PayoutsError, ...]

VALID_WITHDRAWAL = {"user_id": "user123", "amount": 500, "upi_id": "user@okhdfcbank"}
VALID_CREDIT = {"user_id": "user123", "coins": 700, "reference": "quiz-42"}

NO_WALLET = "User account not found", "No wallet exists for this user"
NO_WITHDRAWAL = NotFound("Withdrawal not found", "No withdrawal has this id", code="withdrawal_not_found")
MISSING_KEY = BadRequest(
    "Idempotency-Key is required",
    "Send an Idempotency-Key. Without one, a retried batch would pay everyone twice",
    code="missing",
)
BAD_SIGNATURE = BadRequest(
    "Invalid signature", "The body is not signed with our webhook secret", code="invalid_signature"
)


def withdraw_errors() -> Errors:
    """In the contract's order: a response has the first that applies."""
    min_coins = Settings.model_fields["min_withdrawal_coins"].default
    max_coins = Settings.model_fields["max_withdrawal_coins"].default
    bodies: list[dict[str, Any]] = [
        {},
        {"user_id": "user123"},
        {"user_id": "user123", "amount": 500},
        {**VALID_WITHDRAWAL, "amount": "abc"},
        {**VALID_WITHDRAWAL, "amount": min_coins - 1},
        {**VALID_WITHDRAWAL, "upi_id": "invalid-upi"},
    ]
    return (
        *_body_errors(schemas.WithdrawIn, bodies, min_withdrawal_coins=min_coins),
        BadRequest(*NO_WALLET, code="wallet_not_found", available_coins=0),
        BadRequest(
            "Insufficient coin balance",
            "The balance is 120 coins",
            code="insufficient_coins",
            available_coins=120,
        ),
        BadRequest(
            "Withdrawal amount too high",
            f"Maximum withdrawal is {max_coins} coins",
            code="amount_too_high",
            max_amount=max_coins,
        ),
        request_rules.wallet_frozen_error(),
        request_rules.upi_blocked_error(),
        *_limit_errors(),
        *_body_errors(
            schemas.WithdrawIn, [{**VALID_WITHDRAWAL, "note": "x"}], min_withdrawal_coins=min_coins
        ),
    )


def _limit_errors() -> Iterator[BadRequest]:
    used = Usage(2, 700, 9, 4500, from_iso("2026-11-24T18:30:00Z"), from_iso("2026-11-30T18:30:00Z"))
    for limits in ({"max_day_coins": 1000}, {"max_month_withdrawals": 9}, {"max_day_coins": 100_000}):
        error = request_rules.limit_error(used, 500, {**limits})
        assert error, "each of these limits is exceeded, or was a moment ago"
        yield error


def batch_errors() -> Errors:
    """Errors of the whole batch; those of items are in its results."""
    bodies: list[dict[str, Any]] = [{}, {"items": "x"}, {"items": [1] * (MAX_ITEMS + 1)}]
    return MISSING_KEY, _invalid_key_error(), *_body_errors(schemas.BatchIn, bodies), KeyReused()


def history_errors() -> Errors:
    """Errors of the four parameters."""
    return (
        _query_error(query_parameters.user_id, {}),
        _query_error(query_parameters.status, {"status": "paid"}),
        _query_error(query_parameters.limit, {"limit": "0"}),
        _query_error(query_parameters.position, {"cursor": "x"}),
    )


def status_errors() -> Errors:
    """Errors of the parameter, and for an unknown object."""
    return _query_error(query_parameters.withdrawal_id, {}), NO_WITHDRAWAL


def cancel_errors() -> Errors:
    """Errors of the body, and of the withdrawal."""
    bodies: list[dict[str, Any]] = [{}, {"withdrawal_id": 5}]
    return (
        *_body_errors(schemas.CancelIn, bodies),
        NO_WITHDRAWAL,
        BadRequest(
            "Cannot cancel withdrawal with status: completed",
            "Only a pending withdrawal can be cancelled",
            code="cannot_cancel",
            current_status="completed",
        ),
    )


def credit_errors() -> Errors:
    """Errors of the body, and for a reused reference."""
    bodies: list[dict[str, Any]] = [
        {},
        {"user_id": "user123"},
        {**VALID_CREDIT, "coins": 0},
        {"user_id": "user123", "coins": 700},
        {**VALID_CREDIT, "reference": 5},
    ]
    return (
        *_body_errors(schemas.CreditIn, bodies),
        Conflict(
            "Reference already used", "This reference was used to credit 500 coins", code="reference_reused"
        ),
    )


def wallet_errors() -> Errors:
    """Errors of the parameter, and for an unknown object."""
    return _query_error(query_parameters.user_id, {}), NotFound(*NO_WALLET, code="wallet_not_found")


def transactions_errors() -> Errors:
    """Errors of the three parameters, and for an unknown wallet."""
    return (
        *wallet_errors(),
        _query_error(query_parameters.limit, {"limit": "0"}),
        _query_error(query_parameters.position, {"cursor": "x"}),
    )


def token_errors() -> Errors:
    """Errors of a user token."""
    return (
        TokenExpired(
            "Authentication required", "The token has expired. Fetch a new one", code="token_expired"
        ),
    )


def webhook_errors() -> Errors:
    """The error for a request that the provider did not sign."""
    return (BAD_SIGNATURE,)


def key_errors() -> Errors:
    """Errors of the Idempotency-Key."""
    return _invalid_key_error(), KeyReused(), StillRunning()


def _body_errors(model: type[schemas.Body], bodies: Iterable[dict[str, Any]], **context: Any) -> Errors:
    return tuple(_raised_by(lambda body=body: fields.parse(model, body, **context)) for body in bodies)  # type: ignore[misc]


def _query_error(parse: Callable[[], object], query: dict[str, str]) -> PayoutsError:
    with Flask("example").test_request_context(query_string=query):
        return _raised_by(parse)


def _invalid_key_error() -> PayoutsError:
    with Flask("example").test_request_context(headers={idempotency.KEY_HEADER: "two words"}):
        return _raised_by(idempotency.request_key)


def _raised_by(parse: Callable[[], object]) -> PayoutsError:
    try:
        parse()
    except PayoutsError as error:
        return error
    raise AssertionError("the example of a bad request was accepted")
