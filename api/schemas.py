"""What callers may send. Several things wrong: the first in the contract's order is told."""

import re
from typing import Annotated, Any, TypeVar

from flask import request
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError
from werkzeug.exceptions import BadRequest as HTTPBadRequest
from werkzeug.exceptions import LengthRequired, UnsupportedMediaType

from api import shapes
from api.shapes import MAX_ABOUT, MAX_CREDIT_COINS, MAX_ITEMS, MAX_REASON, MAX_REFERENCE, MAX_USER_ID
from shared import upi
from shared.errors import BadRequest

MAX_REFERENCE_BYTES = 500  # together with the user it must fit in an index
WHOLE_NUMBER = re.compile(r"(?P<sign>[+-]?)0*(?P<digits>[0-9]+)")
MAX_DIGITS = 100  # more of them change nothing: it is too much already
DEFAULT_CANCEL_REASON = "User requested cancellation"

# The order in which faults are told (CONTRACT.md); a fault that is not listed comes last.
ORDER = ("items", "user_id", "amount:missing", "upi_id:missing", "amount", "upi_id", "withdrawal_id")


def fault(error: str, details: str = "", *, code: str, **extra: Any) -> PydanticCustomError:
    """A fault of one field, in the contract's words."""
    return PydanticCustomError(code, "{error}", {"error": error, "details": details or error, "extra": extra})


def text(value: Any, name: str, longest: int, *, required: bool = True) -> str | None:
    """A text that can be stored and written out again; None only where it is not required."""
    if isinstance(value, str) and len(value) > longest:
        raise fault(f"Invalid {name}", f"{name} may have at most {longest} characters", code="too_long")
    if value is None or (isinstance(value, str) and not value.strip()):
        if required:
            raise fault(f"{name} is required", code="missing")
        return None
    if not isinstance(value, str):
        raise fault(f"Invalid {name}", f"{name} must be a text", code="wrong_type")
    if any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) <= 0xDFFF for letter in value):
        raise fault(f"Invalid {name}", f"{name} has characters that no text has", code="bad_characters")
    return value


def whole_number(value: Any) -> int | None:
    """A whole number, also as a text of ASCII digits; None for everything else, true and 500.0 included."""
    if isinstance(value, str):
        found = WHOLE_NUMBER.fullmatch(value.strip(" "))
        return int(found["sign"] + found["digits"][:MAX_DIGITS]) if found else None
    return value if type(value) is int else None


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
        if value is None or value == "":
            raise fault("amount is required", code="missing")
        coins = whole_number(value)
        if coins is None:
            raise fault(
                "Invalid amount format", "amount must be a whole number of coins", code="invalid_amount"
            )
        least = (info.context or {})["min_withdrawal_coins"]
        if coins < least:
            raise fault(
                "Withdrawal amount too low",
                f"Minimum withdrawal is {least} coins",
                code="amount_too_low",
                min_amount=least,
            )
        return coins

    @field_validator("upi_id", mode="before")
    @classmethod
    def _upi_id(cls, value: Any) -> str:
        if value is None or value == "":
            raise fault("upi_id is required", code="missing", example=upi.EXAMPLE)
        cleaned = upi.clean(value) if isinstance(value, str) else None
        if cleaned is None:
            raise fault(
                "Invalid UPI ID format",
                f"A UPI id looks like {upi.EXAMPLE}",
                code="invalid_upi",
                example=upi.EXAMPLE,
            )
        return cleaned


class CancelIn(Body):
    """A wish to take a pending withdrawal back."""

    withdrawal_id: Annotated[str, WithJsonSchema(shapes.WITHDRAWAL_ID)] = Field(None, validate_default=True)
    reason: Annotated[str | None, WithJsonSchema(shapes.CANCEL_REASON)] = None

    @field_validator("withdrawal_id", mode="before")
    @classmethod
    def _withdrawal_id(cls, value: Any) -> Any:
        if value is None or value == "":
            raise fault("withdrawal_id is required", code="missing")
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
            raise fault("coins is required", code="missing")
        coins = whole_number(value)
        if coins is None or not 1 <= coins <= MAX_CREDIT_COINS:
            raise fault(
                "Invalid coins",
                f"coins must be a whole number from 1 to {MAX_CREDIT_COINS}",
                code="invalid_coins",
            )
        return coins

    @field_validator("reference", mode="before")
    @classmethod
    def _reference(cls, value: Any) -> Any:
        reference = text(value, "reference", MAX_REFERENCE)
        if len((reference or "").encode()) > MAX_REFERENCE_BYTES:
            raise fault(
                "Invalid reference", f"reference may have {MAX_REFERENCE_BYTES} bytes", code="too_long"
            )
        return reference

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
            raise fault("items is required", code="missing")
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
    """The request's JSON body as `model`. Raises BadRequest, and HTTP 400, 413, 415."""
    if not request.is_json:
        raise UnsupportedMediaType
    _arrived_whole()
    try:
        given = request.get_json()
    except RecursionError:  # brackets in brackets in brackets: JSON, but nothing that anybody means
        raise HTTPBadRequest from None
    if not isinstance(given, dict):
        raise HTTPBadRequest
    return parsed(model, given, **context)


def parsed(model: type[Model], given: Any, **context: Any) -> Model:
    """What was given, as `model`. Raises BadRequest."""
    if not isinstance(given, dict):
        raise BadRequest("Invalid item", "Each item is a JSON object", code="wrong_type")
    try:
        return model.model_validate(given, context=context)
    except ValidationError as error:
        raise _first(error) from None


def _arrived_whole() -> None:
    """Refuse a body that was cut on its way: what is left of it may still read as an order to pay."""
    arrived = len(request.get_data())
    if request.content_length is None and arrived:
        raise LengthRequired  # chunked: where it was cut cannot be told
    if request.content_length is not None and arrived != request.content_length:
        raise HTTPBadRequest


def _first(error: ValidationError) -> BadRequest:
    first = min(error.errors(), key=_rank)
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        shown = name.encode("ascii", "replace").decode()[:50]
        return BadRequest("Unknown field", f"There is no field {shown}", code="unknown_field")
    told = first.get("ctx", {})
    if "error" not in told:  # pydantic's own words: a field's name is no text, for instance
        return BadRequest("Invalid body", "The body has something that no text has", code="bad_characters")
    return BadRequest(told["error"], told["details"], code=first["type"], **told["extra"])


def _rank(found: Any) -> tuple[int, bool]:
    name = str(found["loc"][0]) if found["loc"] else ""
    places = [ORDER.index(key) for key in (f"{name}:{found['type']}", name) if key in ORDER]
    return (places[0] if places else len(ORDER), found["type"] == "extra_forbidden")
