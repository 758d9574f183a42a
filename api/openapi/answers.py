"""What is answered, described: the shapes of good answers, of errors, and of the webhooks that we send.

Each field carries its example; the example of an answer is made of those of its fields (`example`).
"""

from datetime import datetime
from types import UnionType
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, Field

from shared.states import Reason, Status

WITHDRAWAL = UUID("01a208a5-b724-779f-a85a-7688d7fa28bd")
ASKED, PAID = "2026-11-23T14:00:00.123456Z", "2026-11-23T14:00:21.604211Z"
CURSOR = "MjAyNi0xMS0yM1QxNDowMDowMC4xMjM0NTZafDAxYTIwOGE1LWI3MjQtNzc5Zi1hODVhLTc2ODhkN2ZhMjhiZA=="


def _is(example: Any, about: str | None = None, **more: Any) -> Any:
    return Field(description=about, examples=[example], **more)


class Answer(BaseModel):
    """What every good answer begins with. Fields may be added."""

    success: Literal[True] = _is(True)


class Problem(BaseModel):
    """Every error has this shape. Some carry more fields; they are in the examples."""

    success: Literal[False] = _is(False)
    error: str = _is("Bad request", "A short sentence")
    details: str = _is("The request could not be understood", "One more sentence")
    code: str = _is("bad_request", "The word for programs; it does not change")
    request_id: str = _is("01a208a5-a1c5-7c02-9d4c-52f7a1f3b001", "Tell us this one when you ask about it")


class Taken(BaseModel):
    """A withdrawal whose coins have just been taken."""

    withdrawal_id: UUID = _is(WITHDRAWAL)
    amount: int = _is(500, "Coins")
    rupees_amount: float = _is(50.0, "Rupees, with at most two decimals")
    upi_id: str = _is("user@okhdfcbank")
    status: Literal["pending"] = _is("pending")
    remaining_coins: int = _is(4000, "The user's coins after it")
    created_at: datetime = _is(ASKED)


SUBMITTED = (
    "Withdrawal request submitted successfully. "
    "It is paid to your UPI id automatically; you can cancel it within 10 seconds."
)


class Requested(Answer):
    message: str = _is(SUBMITTED)
    data: Taken


class TakenItem(BaseModel):
    """An item of a batch that was taken."""

    index: int = _is(0, "Its place in the list that was sent, from 0")
    success: Literal[True] = _is(True)
    http_status: Literal[201] = _is(201, "What its own request would have been answered with")
    message: str = _is(SUBMITTED, "For the user: what happens next, as a review")
    data: Taken


class RefusedItem(BaseModel):
    """An item of a batch that was refused, or not tried; with the fields of its error."""

    index: int = _is(1)
    success: Literal[False] = _is(False)
    http_status: int = _is(400)
    error: str = _is("amount is required")
    details: str = _is("amount is a whole number of coins")
    code: str = _is("missing")


class Batch(Answer):
    count: int = _is(2)
    accepted: int = _is(1)
    refused: int = _is(1)
    results: list[TakenItem | RefusedItem] = Field(description="One for each item, in their order")


class Withdrawal(BaseModel):
    """A withdrawal as it stands now."""

    id: UUID = _is(WITHDRAWAL)
    amount: int = _is(500, "Coins")
    rupees_amount: float = _is(50.0, "Rupees, with at most two decimals")
    upi_id: str = _is("user@okhdfcbank")
    status: Status = _is("completed")
    status_reason: str | None = _is(
        None, f"Why it waits ({', '.join(Reason)}), or why it failed, as one word"
    )
    status_message: str | None = _is(None, "The same as a sentence for the user")
    expected_by: datetime | None = _is(None, "By when we expect to be past that")
    created_at: datetime = _is(ASKED)
    completed_at: datetime | None = _is(PAID, "When the rupees had arrived")
    admin_notes: str | None = _is(None)
    failure_reason: str | None = _is(None, "Why the coins went back, for a failed one")
    utr: str | None = _is("432511234567", "The bank's reference, for a paid one")


class History(Answer):
    user_id: str = _is("user123")
    count: int = _is(1)
    data: list[Withdrawal]
    next_cursor: str | None = _is(None, "Send it back as `cursor` to go on; null when that was all")


class WithdrawalOfUser(Withdrawal):
    """A withdrawal as it stands now, and whose it is."""

    user_id: str = _is("user123")


class Found(Answer):
    data: WithdrawalOfUser


class Returned(BaseModel):
    """A withdrawal that was taken back."""

    withdrawal_id: UUID = _is(WITHDRAWAL)
    status: Literal["cancelled"] = _is("cancelled")
    refunded_coins: int = _is(500)
    remaining_coins: int = _is(4500, "The user's coins after it")


class Cancelled(Answer):
    message: str = _is("Withdrawal cancelled and coins refunded")
    data: Returned


class Credit(BaseModel):
    """Coins that were given."""

    user_id: str = _is("user123")
    coins: int = _is(700)
    reference: str = _is("quiz-42")
    transaction_id: int = _is(42, "The line of the journal")
    available_coins: int = _is(5200, "The user's coins after it")
    lifetime_coins: int = _is(5700, "All coins that the user was ever given")


class Credited(Answer):
    message: str = _is("Coins credited")
    data: Credit


class Coins(BaseModel):
    """A user's coins."""

    user_id: str = _is("user123")
    available_coins: int = _is(5200)
    lifetime_coins: int = _is(5700, "All coins that the user was ever given")
    name: str | None = _is("Asha Rao")
    email: str | None = _is("asha@example.com")
    phone: str | None = _is("+919876543210")
    created_at: datetime = _is("2026-11-20T09:12:44.800145Z")


class Wallet(Answer):
    data: Coins


class Line(BaseModel):
    """A line of the journal; the balance is the sum of all."""

    id: int = _is(42)
    kind: Literal["credit", "withdrawal", "refund", "adjustment"] = _is("credit")
    coins: int = _is(700, "Negative where coins were taken")
    balance_after: int = _is(5200)
    withdrawal_id: UUID | None = _is(None)
    reference: str | None = _is("quiz-42")
    reason: str | None = _is("Won a quiz")
    created_at: datetime = _is(ASKED)


class Lines(Answer):
    user_id: str = _is("user123")
    count: int = _is(1)
    data: list[Line]
    next_cursor: str | None = _is("NDI=", "Send it back as `cursor` to go on; null when that was all")


class Received(Answer):
    message: Literal["Received", "Received before"] = _is("Received")


class Alive(Answer):
    status: Literal["alive"] = _is("alive")


class Readiness(BaseModel):
    """Whether withdrawals can be taken. Without the broker they can: `degraded`. And without workers."""

    success: bool = _is(True)
    status: Literal["ready", "degraded", "unavailable"] = _is("ready")
    database: Literal["ok", "full", "read_only", "unavailable"] = _is("ok")
    broker: Literal["ok", "full", "read_only", "unavailable"] = _is("ok")
    workers: Literal["ok", "none", "unknown"] = _is("ok", "`none`: nobody has worked some queue for a minute")


class Change(BaseModel):
    """A withdrawal after one change of its status."""

    withdrawal_id: UUID = _is(WITHDRAWAL)
    user_id: str = _is("user123")
    amount: int = _is(500, "Coins")
    rupees_amount: float = _is(50.0)
    upi_id: str = _is("user@okhdfcbank")
    status: Status = _is("completed")
    previous_status: Status | None = _is("processing", "null when it was just asked for")
    sequence: int = _is(3, "Counts this withdrawal's changes from 1: keep the highest, ignore the rest", ge=1)
    failure_reason: str | None = _is(None)
    utr: str | None = _is("432511234567")
    created_at: datetime = _is(ASKED)
    changed_at: datetime = _is(PAID)


class Notice(BaseModel):
    """What your endpoint is sent."""

    type: str = _is("withdrawal.completed", pattern="^withdrawal[.](" + "|".join(Status) + ")$")
    timestamp: datetime = _is(PAID)
    data: Change


def example(model: type[BaseModel], **other: Any) -> dict[str, Any]:
    """An answer of this shape, made of its fields' examples; `other` replaces some."""
    made = {name: _example_of(field) for name, field in model.model_fields.items()}
    return {**made, **other}


def _example_of(field: Any) -> Any:
    if field.examples:
        given = field.examples[0]
        return str(given) if isinstance(given, UUID) else given
    if get_origin(field.annotation) is list:
        item = get_args(field.annotation)[0]
        kinds = get_args(item) if isinstance(item, UnionType) else (item,)
        return [example(kind) for kind in kinds]
    return example(field.annotation)
