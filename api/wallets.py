"""Wallets, for apps: give coins, see coins, see why."""

from typing import Any

import structlog
from apiflask import APIBlueprint
from flask import Response, g

from api import auth, parameters, schemas
from api.once import Answer, once
from api.openapi import operations
from api.openapi.described import described
from shared import wallet
from shared.clock import iso
from shared.db import transaction
from shared.fields import whole_number
from shared.models import CoinTransaction

log = structlog.get_logger()
blueprint = APIBlueprint("wallets", __name__, url_prefix="/api/razorpay/wallet")
blueprint.before_request(auth.require_app)

MAX_ID = 2**63 - 1


@blueprint.post("/credit/")
@described(operations.CREDIT)
@auth.needs("credit")
def credit() -> Answer | Response:
    """Give coins once per reference; the same reference again answers 200 and gives nothing."""
    given = schemas.body(schemas.CreditIn)
    return once("credit", given, lambda _key, _fingerprint: _credit(given))


def _credit(given: schemas.CreditIn) -> Answer:
    with transaction() as session:
        done = wallet.credit(session, actor=g.actor, **given.model_dump())
    log.info(
        "[WALLET] credited", user_id=done.user_id, coins=done.coins, replayed=done.replayed, actor=g.actor
    )
    data = {
        "user_id": done.user_id,
        "coins": done.coins,
        "reference": given.reference,
        "transaction_id": done.transaction_id,
        "available_coins": done.balance_coins,
        "lifetime_coins": done.lifetime_coins,
    }
    message = "Already credited with this reference" if done.replayed else "Coins credited"
    return {"success": True, "message": message, "data": data}, 200 if done.replayed else 201


@blueprint.get("/")
@described(operations.WALLET)
@auth.needs("read", users=True)
def read() -> dict[str, Any]:
    """A user's coins."""
    with transaction() as session:
        found = wallet.find(session, parameters.user_id())
    data = {
        "user_id": found.user_id,
        "available_coins": found.balance_coins,
        "lifetime_coins": found.lifetime_coins,
        "name": found.name,
        "email": found.email,
        "phone": found.phone,
        "created_at": iso(found.created_at),
    }
    return {"success": True, "data": data}


@blueprint.get("/transactions/")
@described(operations.TRANSACTIONS)
@auth.needs("read", users=True)
def transactions() -> dict[str, Any]:
    """A user's journal, newest first."""
    user_id, limit = parameters.user_id(), parameters.limit()
    before_id = _before_id()
    with transaction() as session:
        wallet.find(session, user_id)
        rows = wallet.transactions(session, user_id, limit=limit + 1, before_id=before_id)
    shown = rows[:limit]
    return {
        "success": True,
        "user_id": user_id,
        "count": len(shown),
        "data": [_line(row) for row in shown],
        "next_cursor": parameters.cursor(shown[-1].id) if len(rows) > limit else None,
    }


def _before_id() -> int | None:
    decoded = parameters.given_cursor()
    if decoded is None:
        return None
    number = whole_number(decoded)
    if number is None or not 0 <= number <= MAX_ID:
        raise parameters.bad_cursor()
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
