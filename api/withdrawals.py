"""Withdrawals: the four endpoints of CONTRACT.md."""

from typing import Any

import structlog
from apiflask import APIBlueprint
from flask import Response, current_app, g

from api import auth, json_schemas, query_parameters, rate_limits, schemas
from api.idempotency import ViewResponse, idempotent, replay_headers
from api.openapi import error_examples, links, response_bodies
from api.openapi.descriptions import LIMIT, USER_ID, Parameter, cursor, documented
from shared import withdrawals
from shared.clock import iso
from shared.db.transactions import transaction
from shared.errors import NotFound
from shared.ids import parse_id
from shared.models import Withdrawal
from shared.money import paise_to_rupees
from shared.states import Reason, status_message
from shared.withdrawals.request import Requested

log = structlog.get_logger()
blueprint = APIBlueprint("withdrawals", __name__, url_prefix="/api/razorpay/withdraw")
blueprint.before_request(auth.require_access)

SUBMITTED = "Withdrawal request submitted successfully. "
# What happens next, by the reason for which it waits.
PAID_AUTOMATICALLY = "It is paid to your UPI id automatically. You can cancel it within {seconds:g} seconds."
NEXT_STEPS = {
    Reason.AWAITING_REVIEW: "It is reviewed by an admin before it is paid. You can cancel it until then.",
    Reason.NEW_UPI_ID: (
        "It is your first to this UPI id, so it waits {hours:g} hours and is then paid automatically. "
        "You can cancel it until then."
    ),
}


@blueprint.post("/")
@blueprint.doc("Request a withdrawal", operation_id="request_withdrawal")
@blueprint.input(schemas.WithdrawIn, arg_name="body")
@blueprint.output(
    response_bodies.Requested, 201, "The coins are debited; the rupees follow", links=links.REQUESTED
)
@documented(errors=error_examples.withdraw_errors, is_idempotent=True)
@auth.needs("withdraw", users=True)
@rate_limits.counts_user
def request_withdrawal(body: schemas.WithdrawIn) -> ViewResponse | Response:
    """Debit the user's coins now and pay the rupees later."""
    auth.require_own_user(body.user_id)
    rate_limits.count_for_user(body.user_id)
    return idempotent("withdraw", body, lambda key, fingerprint: _request(body, key, fingerprint))


def _request(body: schemas.WithdrawIn, key: str | None, fingerprint: str | None) -> ViewResponse:
    withdrawal = create(body, key, fingerprint)
    return {"success": True, **describe(withdrawal)}, 201, replay_headers(withdrawal.replayed)


def create(body: schemas.WithdrawIn, key: str | None, fingerprint: str | None) -> Requested:
    """Create a withdrawal, once per key, which has a fingerprint. Raises BadRequest, Unavailable."""
    return withdrawals.request(
        user_id=body.user_id,
        coins=body.amount,
        upi_id=body.upi_id,
        actor=g.actor,
        key=key,
        fingerprint=fingerprint,
    )


def describe(withdrawal: Requested) -> dict[str, Any]:
    """Return the response fields of a new withdrawal: the message with the next step, and the data."""
    settings = current_app.config["SETTINGS"]
    message = SUBMITTED + NEXT_STEPS.get(withdrawal.status_reason, PAID_AUTOMATICALLY)  # type: ignore[call-overload]
    message = message.format(seconds=settings.cancel_window_seconds, hours=settings.new_upi_wait_hours)
    data = {
        "withdrawal_id": str(withdrawal.id),
        "amount": withdrawal.coins,
        "rupees_amount": paise_to_rupees(withdrawal.amount_paise),
        "upi_id": withdrawal.upi_id,
        "status": "pending",
        "remaining_coins": withdrawal.remaining_coins,
        "created_at": iso(withdrawal.created_at),
    }
    return {"message": message, "data": data}


@blueprint.get("/history/")
@blueprint.doc("List a user's withdrawals", operation_id="history")
@blueprint.output(
    response_bodies.History, 200, "Newest first; empty for an unknown user", links=links.HISTORY
)
@documented(
    USER_ID,
    Parameter("status", json_schemas.STATUS, "Only withdrawals with this status", "completed"),
    LIMIT,
    cursor("history", response_bodies.CURSOR),
    errors=error_examples.history_errors,
)
@auth.needs("read", users=True)
def history() -> dict[str, Any]:
    """A user's withdrawals, newest first."""
    user_id = query_parameters.user_id()
    with transaction() as session:
        page = withdrawals.history(
            session,
            user_id,
            status=query_parameters.status(),
            limit=query_parameters.limit(),
            after=query_parameters.position(),
        )
    log.info("[HISTORY] read", user_id=user_id, count=len(page.withdrawals))
    return {
        "success": True,
        "user_id": user_id,
        "count": len(page.withdrawals),
        "data": [item(withdrawal) for withdrawal in page.withdrawals],
        "next_cursor": query_parameters.encode_cursor(*page.next) if page.next else None,
    }


@blueprint.get("/status/")
@blueprint.doc("Get a withdrawal", operation_id="status")
@blueprint.output(response_bodies.Found, 200, "Its current state", links=links.STATUS)
@documented(
    Parameter(
        "withdrawal_id",
        json_schemas.WITHDRAWAL_ID,
        "The withdrawal's id",
        str(response_bodies.WITHDRAWAL),
        required=True,
    ),
    errors=error_examples.status_errors,
)
@auth.needs("read", users=True)
def status() -> dict[str, Any]:
    """A withdrawal's current state."""
    withdrawal_id = parse_id(query_parameters.withdrawal_id())
    if withdrawal_id is None:
        raise _not_found()
    with transaction() as session:
        withdrawal = withdrawals.find(session, withdrawal_id, of_user=g.caller.user_id)
    log.info("[DETAILS] read", withdrawal_id=str(withdrawal.id), status=withdrawal.status)
    return {"success": True, "data": {**item(withdrawal), "user_id": withdrawal.user_id}}


@blueprint.post("/cancel/")
@blueprint.doc("Cancel a withdrawal", operation_id="cancel")
@blueprint.input(schemas.CancelIn, arg_name="body")
@blueprint.output(
    response_bodies.Cancelled, 200, "It will not be paid; the coins are refunded", links=links.CANCELLED
)
@documented(errors=error_examples.cancel_errors, is_idempotent=True)
@auth.needs("withdraw", users=True)
def cancel(body: schemas.CancelIn) -> ViewResponse | Response:
    """Cancel a pending withdrawal and refund its coins."""
    return idempotent("cancel", body, lambda key, _: _cancel(body, key))


def _cancel(body: schemas.CancelIn, key: str | None) -> ViewResponse:
    withdrawal_id = parse_id(body.withdrawal_id)
    if withdrawal_id is None:
        raise _not_found()
    reason = body.reason or schemas.DEFAULT_CANCEL_REASON
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
    """Return the fields of a withdrawal that clients see."""
    return {
        "id": str(withdrawal.id),
        "amount": withdrawal.coins_amount,
        "rupees_amount": paise_to_rupees(withdrawal.amount_paise),
        "upi_id": withdrawal.upi_id,
        "status": withdrawal.status,
        "status_reason": withdrawal.status_reason,
        "status_message": status_message(withdrawal.status_reason),
        "expected_by": iso(withdrawal.expected_by),
        "created_at": iso(withdrawal.created_at),
        "completed_at": iso(withdrawal.completed_at),
        "admin_notes": withdrawal.admin_notes,
        "failure_reason": withdrawal.failure_reason,
        "utr": withdrawal.utr,
    }


def _not_found() -> NotFound:
    return NotFound("Withdrawal not found", "No withdrawal has this id", code="withdrawal_not_found")
