"""Request bodies. If several fields are wrong, the error names the first one in the contract's order."""

import json
from typing import Annotated, Any, TypeVar

from flask import Request, request
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator
from werkzeug.exceptions import ClientDisconnected, LengthRequired, UnsupportedMediaType

from api import bodies, json_schemas
from api.json_schemas import MAX_CREDIT_COINS, MAX_ITEMS, MAX_PROFILE_CHARACTERS, MAX_REASON_CHARACTERS
from shared.errors import BadRequest
from shared.text import fields
from shared.text.fields import MAX_USER_ID_CHARACTERS, field_error, parse_text, parse_whole_number

JSON_TYPE = "application/json"
DEFAULT_CANCEL_REASON = "User requested cancellation"
COINS_RULE = f"coins must be a whole number from 1 to {MAX_CREDIT_COINS}"


def _mark_required(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Mark fields that are validated even if missing as required, without their placeholder default."""
    for field_schema in schema["properties"].values():
        field_schema.pop("default", None)
    schema["required"] = [name for name, field in model.model_fields.items() if field.validate_default]


class Body(BaseModel):
    """The base of all request bodies: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_mark_required)


class WithdrawIn(Body):
    """A request to turn coins into rupees."""

    user_id: Annotated[str, WithJsonSchema(json_schemas.USER_ID)] = Field(None, validate_default=True)
    amount: Annotated[int, WithJsonSchema(json_schemas.WITHDRAWAL_COINS)] = Field(None, validate_default=True)
    upi_id: Annotated[str, WithJsonSchema(json_schemas.UPI_ID)] = Field(None, validate_default=True)

    @field_validator("user_id", mode="before")
    @classmethod
    def _user_id(cls, value: Any) -> Any:
        return parse_text(value, "user_id", MAX_USER_ID_CHARACTERS)

    @field_validator("amount", mode="before")
    @classmethod
    def _amount(cls, value: Any, info: ValidationInfo) -> int:
        return fields.parse_amount(value, (info.context or {})["min_withdrawal_coins"])

    @field_validator("upi_id", mode="before")
    @classmethod
    def _upi_id(cls, value: Any) -> str:
        return fields.parse_upi_id(value)


class CancelIn(Body):
    """A request to cancel a pending withdrawal."""

    withdrawal_id: Annotated[str, WithJsonSchema(json_schemas.WITHDRAWAL_ID)] = Field(
        None, validate_default=True
    )
    reason: Annotated[str | None, WithJsonSchema(json_schemas.CANCEL_REASON)] = None

    @field_validator("withdrawal_id", mode="before")
    @classmethod
    def _withdrawal_id(cls, value: Any) -> Any:
        if value is None or value == "":
            raise field_error(
                "withdrawal_id is required",
                "Send the withdrawal_id from the response to the withdrawal request",
                code="missing",
            )
        if not isinstance(value, str):
            raise field_error("Invalid withdrawal_id", "withdrawal_id must be a string", code="wrong_type")
        return value.encode("utf-8", "replace").decode()  # any other string is an unknown id: 404

    @field_validator("reason", mode="before")
    @classmethod
    def _reason(cls, value: Any) -> Any:
        return parse_text(value, "reason", MAX_REASON_CHARACTERS, required=False)


class CreditIn(Body):
    """A credit of coins for a user."""

    user_id: Annotated[str, WithJsonSchema(json_schemas.USER_ID)] = Field(None, validate_default=True)
    coins: Annotated[int, WithJsonSchema(json_schemas.CREDIT_COINS)] = Field(None, validate_default=True)
    reference: Annotated[str, WithJsonSchema(json_schemas.REFERENCE)] = Field(None, validate_default=True)
    reason: Annotated[str | None, WithJsonSchema(json_schemas.CREDIT_REASON)] = None
    name: Annotated[str | None, WithJsonSchema(json_schemas.NAME)] = None
    email: Annotated[str | None, WithJsonSchema(json_schemas.EMAIL)] = None
    phone: Annotated[str | None, WithJsonSchema(json_schemas.PHONE)] = None

    @field_validator("user_id", mode="before")
    @classmethod
    def _user_id(cls, value: Any) -> Any:
        return parse_text(value, "user_id", MAX_USER_ID_CHARACTERS)

    @field_validator("coins", mode="before")
    @classmethod
    def _coins(cls, value: Any) -> int:
        if value is None or value == "":
            raise field_error("coins is required", COINS_RULE, code="missing")
        coins = parse_whole_number(value)
        if coins is None or not 1 <= coins <= MAX_CREDIT_COINS:
            raise field_error("Invalid coins", COINS_RULE, code="invalid_coins")
        return coins

    @field_validator("reference", mode="before")
    @classmethod
    def _reference(cls, value: Any) -> Any:
        return fields.parse_reference(value)

    @field_validator("reason", "name", "email", "phone", mode="before")
    @classmethod
    def _about(cls, value: Any, info: ValidationInfo) -> Any:
        max_characters = MAX_REASON_CHARACTERS if info.field_name == "reason" else MAX_PROFILE_CHARACTERS
        return parse_text(value, info.field_name or "field", max_characters, required=False)


class BatchIn(Body):
    """Many withdrawal requests; each is validated separately (api/batches.py)."""

    items: Annotated[list[Any], WithJsonSchema(json_schemas.ITEMS)] = Field(None, validate_default=True)

    @field_validator("items", mode="before")
    @classmethod
    def _items(cls, value: Any) -> Any:
        if value is None:
            raise field_error("items is required", f"Send 1 to {MAX_ITEMS} items", code="missing")
        if not isinstance(value, list):
            raise field_error("Invalid items", "items must be a list", code="wrong_type")
        if not 1 <= len(value) <= MAX_ITEMS:
            raise field_error(
                "Invalid number of items",
                f"Send 1 to {MAX_ITEMS} items",
                code="bad_number_of_items",
                max_items=MAX_ITEMS,
            )
        return value


Model = TypeVar("Model", bound=Body)


def parse_body(model: type[Model], **context: Any) -> Model:
    """Parse the request's JSON body as `model`. Raises BadRequest, and HTTP 411, 413, 415."""
    http = request._get_current_object()  # type: ignore[attr-defined]  # each use of a proxy looks it up
    if http.environ.get("CONTENT_TYPE") != JSON_TYPE and not http.is_json:
        raise UnsupportedMediaType
    body = _whole_body(http)
    try:
        data = json.loads(body, object_pairs_hook=_reject_duplicates)
    except (ValueError, RecursionError):  # RecursionError: JSON that is nested too deeply
        raise not_an_object() from None
    if not isinstance(data, dict):
        raise not_an_object()
    return fields.parse(model, data, **context)


def not_an_object() -> BadRequest:
    """Return the error for a body that is not a JSON object."""
    return BadRequest("Bad request", "Send a JSON object as the body", code="bad_request")


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; a duplicate name is ambiguous: a proxy before us may have read the other value."""
    data: dict[str, Any] = {}
    for name, value in pairs:
        if name in data:
            details = f"The body has {fields.printable(name)} more than once. Send it once"
            raise BadRequest("Duplicate field", details, code="duplicate_field")
        data[name] = value
    return data


def _whole_body(http: Request) -> bytes:
    """Return the body. Refuse a truncated one: what arrived of it may still parse as a valid request.

    Raises BadRequest, and HTTP 411, 413.
    """
    try:
        body = bodies.read(http)
    except ClientDisconnected:
        raise BadRequest("Bad request", "The body is incomplete. Send it again", code="bad_request") from None
    if body and http.content_length is None:
        raise LengthRequired  # chunked: a truncated body cannot be detected
    return body
