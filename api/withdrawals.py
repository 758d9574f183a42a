"""Withdrawals, for apps: the four endpoints of CONTRACT.md."""

from typing import Any

import structlog
from apiflask import APIBlueprint
from flask import Response, current_app, g

from api import auth, parameters, rates, schemas
from api.once import Answer, once, replayed
from api.openapi import operations
from api.openapi.described import described
from shared import withdrawals
from shared.clock import iso
from shared.db import transaction
from shared.errors import NotFound
from shared.ids import parse_id
from shared.models import Withdrawal
from shared.money import paise_to_rupees
from shared.states import Reason, sentence
from shared.withdrawals.requesting import Requested

log = structlog.get_logger()
blueprint = APIBlueprint("withdrawals", __name__, url_prefix="/api/razorpay/withdraw")
blueprint.before_request(auth.require_app)

SUBMITTED = "Withdrawal request submitted successfully. "
# What happens next, by what it waits for.
PAID = "It is paid to your UPI id automatically; you can cancel it within {seconds:g} seconds."
NEXT = {
    Reason.AWAITING_REVIEW: "It is reviewed by an admin before it is paid; you can cancel it until then.",
    Reason.NEW_UPI_ID: (
        "It is your first to this UPI id, so it waits {hours:g} hours and is then paid automatically; "
        "you can cancel it until then."
    ),
}


@blueprint.post("/")
@described(operations.WITHDRAW)
@auth.needs("withdraw", users=True)
def request_withdrawal() -> Answer | Response:
    """Take coins, promise rupees."""
    settings = current_app.config["SETTINGS"]
    given = schemas.body(schemas.WithdrawIn, min_withdrawal_coins=settings.min_withdrawal_coins)
    auth.only_for(given.user_id)
    rates.of_user(given.user_id)
    return once("withdraw", given, lambda key, fingerprint: _request(given, key, fingerprint))


def _request(given: schemas.WithdrawIn, key: str | None, fingerprint: str) -> Answer:
    made = taken(given, key, fingerprint)
    return {"success": True, **told(made)}, 201, replayed(made.replayed)


def taken(given: schemas.WithdrawIn, key: str | None, fingerprint: str) -> Requested:
    """Take the coins, once under a key. Raises BadRequest, Unavailable."""
    return withdrawals.request(
        user_id=given.user_id,
        coins=given.amount,
        upi_id=given.upi_id,
        actor=g.actor,
        key=key,
        fingerprint=fingerprint if key else None,
    )


def told(made: Requested) -> dict[str, Any]:
    """What the app is told of its withdrawal: what happens next, and the facts."""
    settings = current_app.config["SETTINGS"]
    words = SUBMITTED + NEXT.get(made.status_reason, PAID)  # type: ignore[call-overload]
    message = words.format(seconds=settings.cancel_window_seconds, hours=settings.new_upi_wait_hours)
    data = {
        "withdrawal_id": str(made.id),
        "amount": made.coins,
        "rupees_amount": paise_to_rupees(made.amount_paise),
        "upi_id": made.upi_id,
        "status": "pending",
        "remaining_coins": made.remaining_coins,
        "created_at": iso(made.created_at),
    }
    return {"message": message, "data": data}


@blueprint.get("/history/")
@described(operations.HISTORY)
@auth.needs("read", users=True)
def history() -> dict[str, Any]:
    """A user's withdrawals, newest first."""
    user_id = parameters.user_id()
    with transaction() as session:
        page = withdrawals.history(
            session,
            user_id,
            status=parameters.status(),
            limit=parameters.limit(),
            after=parameters.position(),
        )
    log.info("[HISTORY] read", user_id=user_id, count=len(page.withdrawals))
    return {
        "success": True,
        "user_id": user_id,
        "count": len(page.withdrawals),
        "data": [item(withdrawal) for withdrawal in page.withdrawals],
        "next_cursor": parameters.cursor(*page.next) if page.next else None,
    }


@blueprint.get("/status/")
@described(operations.STATUS)
@auth.needs("read", users=True)
def status() -> dict[str, Any]:
    """One withdrawal."""
    withdrawal_id = parse_id(parameters.withdrawal_id())
    if withdrawal_id is None:
        raise _unknown()
    with transaction() as session:
        withdrawal = withdrawals.find(session, withdrawal_id, of_user=g.caller.user_id)
    log.info("[DETAILS] read", withdrawal_id=str(withdrawal.id), status=withdrawal.status)
    return {"success": True, "data": {**item(withdrawal), "user_id": withdrawal.user_id}}


@blueprint.post("/cancel/")
@described(operations.CANCEL)
@auth.needs("withdraw", users=True)
def cancel() -> Answer | Response:
    """Take a pending withdrawal back."""
    given = schemas.body(schemas.CancelIn)
    return once("cancel", given, lambda key, _: _cancel(given, key))


def _cancel(given: schemas.CancelIn, key: str | None) -> Answer:
    withdrawal_id = parse_id(given.withdrawal_id)
    if withdrawal_id is None:
        raise _unknown()
    reason = given.reason or schemas.DEFAULT_CANCEL_REASON
    withdrawal, balance = withdrawals.cancel(
        withdrawal_id, reason=reason, actor=g.actor, key=key, of_user=g.caller.user_id
    )
    data = {
        "withdrawal_id": str(withdrawal.id),
        "status": withdrawal.status,
        "refunded_coins": withdrawal.coins_amount,
        "remaining_coins": balance,
    }
    return {"success": True, "message": "Withdrawal cancelled and coins refunded", "data": data}, 200


def item(withdrawal: Withdrawal) -> dict[str, Any]:
    """A withdrawal as clients see it."""
    return {
        "id": str(withdrawal.id),
        "amount": withdrawal.coins_amount,
        "rupees_amount": paise_to_rupees(withdrawal.amount_paise),
        "upi_id": withdrawal.upi_id,
        "status": withdrawal.status,
        "status_reason": withdrawal.status_reason,
        "status_message": sentence(withdrawal.status_reason),
        "expected_by": iso(withdrawal.expected_by),
        "created_at": iso(withdrawal.created_at),
        "completed_at": iso(withdrawal.completed_at),
        "admin_notes": withdrawal.admin_notes,
        "failure_reason": withdrawal.failure_reason,
        "utr": withdrawal.utr,
    }


def _unknown() -> NotFound:
    return NotFound("Withdrawal not found", "No withdrawal has this id", code="withdrawal_not_found")
