"""What callers may ask for in the address: query parameters, and cursors for going on."""

import base64
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from flask import request
from pydantic_core import PydanticCustomError

from api import auth
from shared.clock import from_iso, iso
from shared.errors import BadRequest
from shared.fields import MAX_USER_ID, text, whole_number
from shared.ids import parse_id
from shared.states import Status

DEFAULT_LIMIT, MAX_LIMIT = 50, 100


def user_id() -> str:
    """`?user_id=`, of whom the caller may know. Raises BadRequest, Forbidden."""
    user_id = _parameter("user_id", MAX_USER_ID)
    auth.only_for(user_id)
    return user_id


def withdrawal_id() -> str:
    """`?withdrawal_id=`, whatever it is. Raises BadRequest when there is none."""
    given = _given("withdrawal_id")
    if not given:
        raise BadRequest("withdrawal_id is required", "Send ?withdrawal_id=<uuid>", code="missing")
    return given


def status() -> Status | None:
    """`?status=`, one of the five. Raises BadRequest."""
    given = _given("status") or None
    if given is None:
        return None
    if given not in Status.__members__.values():
        words = ", ".join(Status)
        raise BadRequest("Invalid status", f"status is one of {words}", code="invalid_status")
    return Status(given)


def limit() -> int:
    """`?limit=`: 50 unless told, at most 100. Raises BadRequest."""
    given = _given("limit")
    if given is None:
        return DEFAULT_LIMIT
    number = whole_number(given)
    if number is None or number < 1:
        raise BadRequest("Invalid limit", "limit must be a whole number from 1", code="invalid_limit")
    return min(number, MAX_LIMIT)


def given_cursor() -> str | None:
    """`?cursor=`, decoded. Raises BadRequest."""
    given = _given("cursor")
    if not given:
        return None
    try:
        return base64.b64decode(given.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        raise bad_cursor() from None


def position() -> tuple[datetime, UUID] | None:
    """`?cursor=` of a history: behind which row to go on. Raises BadRequest."""
    decoded = given_cursor()
    if decoded is None:
        return None
    moment, _, withdrawal_id = decoded.partition("|")
    parsed = parse_id(withdrawal_id)
    try:
        if parsed is not None:
            return from_iso(moment), parsed
    except (ValueError, OverflowError):
        pass
    raise bad_cursor()


def cursor(*parts: object) -> str:
    """An opaque cursor, to be sent back as it is."""
    return base64.urlsafe_b64encode("|".join(_written(part) for part in parts).encode()).decode()


def bad_cursor() -> BadRequest:
    """The error for a cursor that we did not make."""
    return BadRequest("Invalid cursor", "Send next_cursor as you received it", code="invalid_cursor")


def _given(name: str) -> str | None:
    """The parameter as it was sent. Bytes that are no UTF-8 would be read as other signs: `%ff` as `%FF`."""
    try:
        given = parse_qsl(request.query_string.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest("Invalid query", "The query is not UTF-8", code="bad_characters") from None
    if sum(one == name for one, _ in given) > 1:
        # It means two things, as a body's field would; names that nobody here reads are passed over.
        raise BadRequest(
            "Field stands twice", f"The query has {name} twice; send it once", code="duplicate_field"
        )
    return request.args.get(name)


def _written(part: object) -> str:
    return (iso(part) or "") if isinstance(part, datetime) else str(part)


def _parameter(name: str, longest: int) -> str:
    try:
        value = text(_given(name), name, longest)
    except PydanticCustomError as error:
        told: Any = error.context
        raise BadRequest(told["error"], told["details"], code=error.type) from None
    assert value is not None, "a required text is a text"
    return value
