"""What callers may send. Several things wrong: the first in the contract's order is told."""

import json
from typing import Annotated, Any, TypeVar

from flask import request
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator
from werkzeug.exceptions import LengthRequired, UnsupportedMediaType

from api import shapes
from api.shapes import MAX_ABOUT, MAX_CREDIT_COINS, MAX_ITEMS, MAX_REASON
from shared import fields
from shared.errors import BadRequest
from shared.fields import MAX_USER_ID, fault, text, whole_number

DEFAULT_CANCEL_REASON = "User requested cancellation"
COINS = f"coins must be a whole number from 1 to {MAX_CREDIT_COINS}"


def _required(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """A field that is looked at even when it is missing has to be sent; its default says nothing."""
    for described in schema["properties"].values():
        described.pop("default", None)
    schema["required"] = [name for name, field in model.model_fields.items() if field.validate_default]


class Body(BaseModel):
    """What every body has in common: a field that we do not know is an error, not a silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_required)


class WithdrawIn(Body):
    """A wish to turn coins into rupees."""

    user_id: Annotated[str, WithJsonSchema(shapes.USER_ID)] = Field(None, validate_default=True)
    amount: Annotated[int, WithJsonSchema(shapes.WITHDRAWAL_COINS)] = Field(None, validate_default=True)
    upi_id: Annotated[str, WithJsonSchema(shapes.UPI_ID)] = Field(None, validate_default=True)

    @field_validator("user_id", mode="before")
    @classmethod
    def _user_id(cls, value: Any) -> Any:
        return text(value, "user_id", MAX_USER_ID)

    @field_validator("amount", mode="before")
    @classmethod
    def _amount(cls, value: Any, info: ValidationInfo) -> int:
        return fields.amount(value, (info.context or {})["min_withdrawal_coins"])

    @field_validator("upi_id", mode="before")
    @classmethod
    def _upi_id(cls, value: Any) -> str:
        return fields.upi_id(value)


class CancelIn(Body):
    """A wish to take a pending withdrawal back."""

    withdrawal_id: Annotated[str, WithJsonSchema(shapes.WITHDRAWAL_ID)] = Field(None, validate_default=True)
    reason: Annotated[str | None, WithJsonSchema(shapes.CANCEL_REASON)] = None

    @field_validator("withdrawal_id", mode="before")
    @classmethod
    def _withdrawal_id(cls, value: Any) -> Any:
        if value is None or value == "":
            raise fault(
                "withdrawal_id is required",
                "withdrawal_id is the id that it was answered with",
                code="missing",
            )
        if not isinstance(value, str):
            raise fault("Invalid withdrawal_id", "withdrawal_id must be a text", code="wrong_type")
        return value.encode("utf-8", "replace").decode()  # whatever else it is, it is no id of ours: 404

    @field_validator("reason", mode="before")
    @classmethod
    def _reason(cls, value: Any) -> Any:
        return text(value, "reason", MAX_REASON, required=False)


class CreditIn(Body):
    """Coins for a user."""

    user_id: Annotated[str, WithJsonSchema(shapes.USER_ID)] = Field(None, validate_default=True)
    coins: Annotated[int, WithJsonSchema(shapes.CREDIT_COINS)] = Field(None, validate_default=True)
    reference: Annotated[str, WithJsonSchema(shapes.REFERENCE)] = Field(None, validate_default=True)
    reason: Annotated[str | None, WithJsonSchema(shapes.CREDIT_REASON)] = None
    name: Annotated[str | None, WithJsonSchema(shapes.NAME)] = None
    email: Annotated[str | None, WithJsonSchema(shapes.EMAIL)] = None
    phone: Annotated[str | None, WithJsonSchema(shapes.PHONE)] = None

    @field_validator("user_id", mode="before")
    @classmethod
    def _user_id(cls, value: Any) -> Any:
        return text(value, "user_id", MAX_USER_ID)

    @field_validator("coins", mode="before")
    @classmethod
    def _coins(cls, value: Any) -> int:
        if value is None or value == "":
            raise fault("coins is required", COINS, code="missing")
        coins = whole_number(value)
        if coins is None or not 1 <= coins <= MAX_CREDIT_COINS:
            raise fault("Invalid coins", COINS, code="invalid_coins")
        return coins

    @field_validator("reference", mode="before")
    @classmethod
    def _reference(cls, value: Any) -> Any:
        return fields.reference(value)

    @field_validator("reason", "name", "email", "phone", mode="before")
    @classmethod
    def _about(cls, value: Any, info: ValidationInfo) -> Any:
        longest = MAX_REASON if info.field_name == "reason" else MAX_ABOUT
        return text(value, info.field_name or "field", longest, required=False)


class BatchIn(Body):
    """Many wishes; each is looked at for itself (api/batches.py)."""

    items: Annotated[list[Any], WithJsonSchema(shapes.ITEMS)] = Field(None, validate_default=True)

    @field_validator("items", mode="before")
    @classmethod
    def _items(cls, value: Any) -> Any:
        if value is None:
            raise fault("items is required", f"A batch has 1 to {MAX_ITEMS} items", code="missing")
        if not isinstance(value, list):
            raise fault("Invalid items", "items must be a list", code="wrong_type")
        if not 1 <= len(value) <= MAX_ITEMS:
            raise fault(
                "Invalid number of items",
                f"A batch has 1 to {MAX_ITEMS} items",
                code="bad_number_of_items",
                max_items=MAX_ITEMS,
            )
        return value


Model = TypeVar("Model", bound=Body)


def body(model: type[Model], **context: Any) -> Model:
    """The request's JSON body as `model`. Raises BadRequest, and HTTP 411, 413, 415."""
    if not request.is_json:
        raise UnsupportedMediaType
    _arrived_whole()
    try:
        given = json.loads(request.get_data(), object_pairs_hook=_each_once)
    except (ValueError, RecursionError):  # brackets in brackets: JSON, but nothing that anybody means
        raise no_object() from None
    if not isinstance(given, dict):
        raise no_object()
    return fields.parsed(model, given, **context)


def no_object() -> BadRequest:
    """What is said of a body that cannot be read as a JSON object."""
    return BadRequest("Bad request", "Send a JSON object as the body", code="bad_request")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. With a name twice it means two things, and who saw it before us may have read the other."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            words = f"The body has {fields.shown(name)} twice; send it once"
            raise BadRequest("Field stands twice", words, code="duplicate_field")
        made[name] = value
    return made


def _arrived_whole() -> None:
    """Refuse a body that was cut on its way: what is left of it may still read as an order to pay."""
    arrived = len(request.get_data())
    if request.content_length is None and arrived:
        raise LengthRequired  # chunked: where it was cut cannot be told
    if request.content_length is not None and arrived != request.content_length:
        raise BadRequest("Bad request", "The body did not arrive whole", code="bad_request")
