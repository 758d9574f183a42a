"""Models of the responses, errors and webhooks that we send, for the document.

Each field has an example; the example of a response is built from those of its fields (`example`).
"""

from datetime import datetime
from types import UnionType
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, Field

from shared.states import Reason, Status

WITHDRAWAL = UUID("01a208a5-b724-779f-a85a-7688d7fa28bd")
REQUESTED_AT = "2026-11-23T14:00:00.123456Z"
PAID_AT = "2026-11-23T14:00:21.604211Z"
CURSOR = "MjAyNi0xMS0yM1QxNDowMDowMC4xMjM0NTZafDAxYTIwOGE1LWI3MjQtNzc5Zi1hODVhLTc2ODhkN2ZhMjhiZA=="


def _field(example: Any, description: str | None = None, **constraints: Any) -> Any:
    return Field(description=description, examples=[example], **constraints)


class Answer(BaseModel):
    """The base of all successful responses. Fields may be added."""

    success: Literal[True] = _field(True)


class Problem(BaseModel):
    """The format of all errors. Some have more fields, as the examples show."""

    success: Literal[False] = _field(False)
    error: str = _field("Bad request", "What is wrong, in a short sentence")
    details: str = _field("The request could not be understood", "An explanation, or what to do")
    code: str = _field("bad_request", "A stable code for programs")
    request_id: str = _field("01a208a5-a1c5-7c02-9d4c-52f7a1f3b001", "Quote it when you contact us")


class Taken(BaseModel):
    """A new withdrawal, whose coins are debited."""

    withdrawal_id: UUID = _field(WITHDRAWAL)
    amount: int = _field(500, "Coins")
    rupees_amount: float = _field(50.0, "Rupees, with at most two decimals")
    upi_id: str = _field("user@okhdfcbank")
    status: Literal["pending"] = _field("pending")
    remaining_coins: int = _field(4000, "The user's balance afterwards")
    created_at: datetime = _field(REQUESTED_AT)


SUBMITTED = (
    "Withdrawal request submitted successfully. "
    "It is paid to your UPI id automatically. You can cancel it within 10 seconds."
)


class Requested(Answer):
    message: str = _field(SUBMITTED)
    data: Taken


class TakenItem(BaseModel):
    """An accepted item of a batch."""

    index: int = _field(0, "Its position in the request, from 0")
    success: Literal[True] = _field(True)
    http_status: Literal[201] = _field(201, "The status that a single request would have")
    message: str = _field(SUBMITTED, "For the user: what happens next, such as a review")
    data: Taken


class RefusedItem(BaseModel):
    """A refused item of a batch, or one that was not tried, with the fields of its error."""

    index: int = _field(1)
    success: Literal[False] = _field(False)
    http_status: int = _field(400)
    error: str = _field("amount is required")
    details: str = _field("Send amount as a whole number of coins")
    code: str = _field("missing")


class Batch(Answer):
    count: int = _field(2)
    accepted: int = _field(1)
    refused: int = _field(1)
    results: list[TakenItem | RefusedItem] = Field(description="A result for each item, in order")


class Withdrawal(BaseModel):
    """A withdrawal's current state."""

    id: UUID = _field(WITHDRAWAL)
    amount: int = _field(500, "Coins")
    rupees_amount: float = _field(50.0, "Rupees, with at most two decimals")
    upi_id: str = _field("user@okhdfcbank")
    status: Status = _field("completed")
    status_reason: str | None = _field(
        None, f"Why it is waiting ({', '.join(Reason)}), or why it failed, as a code"
    )
    status_message: str | None = _field(None, "The same, as a sentence for the user")
    expected_by: datetime | None = _field(None, "When we expect the wait to end")
    created_at: datetime = _field(REQUESTED_AT)
    completed_at: datetime | None = _field(PAID_AT, "When the rupees arrived")
    admin_notes: str | None = _field(None)
    failure_reason: str | None = _field(None, "If it failed: why the coins were refunded")
    utr: str | None = _field("432511234567", "If it was paid: the bank's reference")


class History(Answer):
    user_id: str = _field("user123")
    count: int = _field(1)
    data: list[Withdrawal]
    next_cursor: str | None = _field(None, "Send it as `cursor` for the next page; null on the last page")


class WithdrawalOfUser(Withdrawal):
    """A withdrawal's current state, and its user."""

    user_id: str = _field("user123")


class Found(Answer):
    data: WithdrawalOfUser


class Returned(BaseModel):
    """A cancelled withdrawal."""

    withdrawal_id: UUID = _field(WITHDRAWAL)
    status: Literal["cancelled"] = _field("cancelled")
    refunded_coins: int = _field(500)
    remaining_coins: int = _field(4500, "The user's balance afterwards")


class Cancelled(Answer):
    message: str = _field("Withdrawal cancelled and coins refunded")
    data: Returned


class Credit(BaseModel):
    """Credited coins."""

    user_id: str = _field("user123")
    coins: int = _field(700)
    reference: str = _field("quiz-42")
    transaction_id: int = _field(42, "Id of the journal line")
    available_coins: int = _field(5200, "The user's balance afterwards")
    lifetime_coins: int = _field(5700, "All coins ever credited to the user")


class Credited(Answer):
    message: str = _field("Coins credited")
    data: Credit


class Coins(BaseModel):
    """A user's wallet."""

    user_id: str = _field("user123")
    available_coins: int = _field(5200)
    lifetime_coins: int = _field(5700, "All coins ever credited to the user")
    name: str | None = _field("Asha Rao")
    email: str | None = _field("asha@example.com")
    phone: str | None = _field("+919876543210")
    created_at: datetime = _field("2026-11-20T09:12:44.800145Z")


class Wallet(Answer):
    data: Coins


class Line(BaseModel):
    """A line of the journal; the balance is the sum of all lines."""

    id: int = _field(42)
    kind: Literal["credit", "withdrawal", "refund", "adjustment"] = _field("credit")
    coins: int = _field(700, "Negative for debits")
    balance_after: int = _field(5200)
    withdrawal_id: UUID | None = _field(None)
    reference: str | None = _field("quiz-42")
    reason: str | None = _field("Won a quiz")
    created_at: datetime = _field(REQUESTED_AT)


class Lines(Answer):
    user_id: str = _field("user123")
    count: int = _field(1)
    data: list[Line]
    next_cursor: str | None = _field("NDI=", "Send it as `cursor` for the next page; null on the last page")


class Received(Answer):
    message: Literal["Received", "Received before"] = _field("Received")


class Alive(Answer):
    status: Literal["alive"] = _field("alive")


class Readiness(BaseModel):
    """Whether withdrawals can be requested. Without the broker (`degraded`) or workers they can."""

    success: bool = _field(True)
    status: Literal["ready", "degraded", "unavailable"] = _field("ready")
    database: Literal["ok", "full", "read_only", "unavailable"] = _field("ok")
    broker: Literal["ok", "full", "read_only", "unavailable"] = _field("ok")
    workers: Literal["ok", "none", "unknown"] = _field("ok", "`none`: a queue has had no worker for a minute")


class Change(BaseModel):
    """A withdrawal after a change of its status."""

    withdrawal_id: UUID = _field(WITHDRAWAL)
    user_id: str = _field("user123")
    amount: int = _field(500, "Coins")
    rupees_amount: float = _field(50.0)
    upi_id: str = _field("user@okhdfcbank")
    status: Status = _field("completed")
    previous_status: Status | None = _field("processing", "null for a new withdrawal")
    sequence: int = _field(3, "Number of the change, from 1: ignore events with a lower one", ge=1)
    failure_reason: str | None = _field(None)
    utr: str | None = _field("432511234567")
    created_at: datetime = _field(REQUESTED_AT)
    changed_at: datetime = _field(PAID_AT)


class Notice(BaseModel):
    """A webhook to your endpoint."""

    type: str = _field("withdrawal.completed", pattern="^withdrawal[.](" + "|".join(Status) + ")$")
    timestamp: datetime = _field(PAID_AT)
    data: Change


def model_named(name: str) -> type[BaseModel]:
    """Return the model with this name."""
    found: type[BaseModel] = globals()[name]
    return found


def example(model: type[BaseModel], **overrides: Any) -> dict[str, Any]:
    """Return an example of this model, built from its fields' examples; `overrides` replaces some."""
    built = {name: _field_example(field) for name, field in model.model_fields.items()}
    return {**built, **overrides}


def _field_example(field: Any) -> Any:
    if field.examples:
        value = field.examples[0]
        return str(value) if isinstance(value, UUID) else value
    if get_origin(field.annotation) is list:
        item = get_args(field.annotation)[0]
        models = get_args(item) if isinstance(item, UnionType) else (item,)
        return [example(item_model) for item_model in models]
    return example(field.annotation)
