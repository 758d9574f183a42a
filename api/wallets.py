"""Wallets: credit coins, read a wallet, read its journal."""

from typing import Any

import structlog
from apiflask import APIBlueprint
from flask import Response, g

from api import auth, query_parameters, schemas
from api.idempotency import ViewResponse, idempotent
from api.openapi import error_examples, links, response_bodies
from api.openapi.descriptions import LIMIT, USER_ID, cursor, documented, success
from shared.clock import iso
from shared.coins import wallet
from shared.db.transactions import transaction
from shared.models import CoinTransaction
from shared.text.fields import parse_whole_number

log = structlog.get_logger()
blueprint = APIBlueprint("wallets", __name__, url_prefix="/api/razorpay/wallet")
blueprint.before_request(auth.require_access)

MAX_ID = 2**63 - 1
CREDITED_BEFORE = "Already credited with this reference"


@blueprint.post("/credit/")
@blueprint.doc("Credit coins", operation_id="credit")
@blueprint.input(schemas.CreditIn, arg_name="body")
@blueprint.output(response_bodies.Credited, 201, "The coins are credited", links=links.CREDITED)
@documented(
    also=(success(200, response_bodies.Credited, "They were credited before", message=CREDITED_BEFORE),),
    errors=error_examples.credit_errors,
    is_idempotent=True,
)
@auth.needs("credit")
def credit(body: schemas.CreditIn) -> ViewResponse | Response:
    """Credit coins once per reference. The same reference again returns 200 and credits nothing."""
    return idempotent("credit", body, lambda _key, _fingerprint: _credit(body))


def _credit(body: schemas.CreditIn) -> ViewResponse:
    with transaction() as session:
        credit = wallet.credit(session, actor=g.actor, **body.model_dump())
    log.info(
        "[WALLET] credited",
        user_id=credit.user_id,
        coins=credit.coins,
        replayed=credit.replayed,
        actor=g.actor,
    )
    data = {
        "user_id": credit.user_id,
        "coins": credit.coins,
        "reference": body.reference,
        "transaction_id": credit.transaction_id,
        "available_coins": credit.balance_coins,
        "lifetime_coins": credit.lifetime_coins,
    }
    message = CREDITED_BEFORE if credit.replayed else "Coins credited"
    return {"success": True, "message": message, "data": data}, 200 if credit.replayed else 201


@blueprint.get("/")
@blueprint.doc("Get a user's wallet", operation_id="read")
@blueprint.output(response_bodies.Wallet, 200, "The user's wallet")
@documented(USER_ID, errors=error_examples.wallet_errors)
@auth.needs("read", users=True)
def read() -> dict[str, Any]:
    """A user's wallet."""
    with transaction() as session:
        row = wallet.find(session, query_parameters.user_id())
    data = {
        "user_id": row.user_id,
        "available_coins": row.balance_coins,
        "lifetime_coins": row.lifetime_coins,
        "name": row.name,
        "email": row.email,
        "phone": row.phone,
        "created_at": iso(row.created_at),
    }
    return {"success": True, "data": data}


@blueprint.get("/transactions/")
@blueprint.doc("List a wallet's journal", operation_id="transactions")
@blueprint.output(response_bodies.Lines, 200, "Newest first", links=links.TRANSACTIONS)
@documented(USER_ID, LIMIT, cursor("transactions", "NDI="), errors=error_examples.transactions_errors)
@auth.needs("read", users=True)
def transactions() -> dict[str, Any]:
    """A wallet's journal, newest first."""
    user_id = query_parameters.user_id()
    limit = query_parameters.limit()
    before_id = _before_id()
    with transaction() as session:
        wallet.find(session, user_id)
        rows = wallet.transactions(session, user_id, limit=limit + 1, before_id=before_id)
    page = rows[:limit]
    return {
        "success": True,
        "user_id": user_id,
        "count": len(page),
        "data": [_line(row) for row in page],
        "next_cursor": query_parameters.encode_cursor(page[-1].id) if len(rows) > limit else None,
    }


def _before_id() -> int | None:
    decoded = query_parameters.decoded_cursor()
    if decoded is None:
        return None
    number = parse_whole_number(decoded)
    if number is None or not 0 <= number <= MAX_ID:
        raise query_parameters.invalid_cursor()
    return number


def _line(row: CoinTransaction) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "coins": row.coins,
        "balance_after": row.balance_after,
        "withdrawal_id": str(row.withdrawal_id) if row.withdrawal_id else None,
        "reference": row.reference,
        "reason": row.reason,
        "created_at": iso(row.created_at),
    }
