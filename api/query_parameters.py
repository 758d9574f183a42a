"""Query parameters, and the cursors of paginated lists."""

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
from shared.ids import parse_id
from shared.states import Status
from shared.text.fields import MAX_USER_ID_CHARACTERS, parse_text, parse_whole_number

DEFAULT_LIMIT = 50
MAX_LIMIT = 100


def user_id() -> str:
    """Return `?user_id=`, if the caller may read this user's data. Raises BadRequest, Forbidden."""
    user_id = _required_text("user_id", MAX_USER_ID_CHARACTERS)
    auth.require_own_user(user_id)
    return user_id


def withdrawal_id() -> str:
    """Return `?withdrawal_id=` as sent. Raises BadRequest if it is missing."""
    value = _value("withdrawal_id")
    if not value:
        raise BadRequest("withdrawal_id is required", "Send ?withdrawal_id=<uuid>", code="missing")
    return value


def status() -> Status | None:
    """Return `?status=`, or None. Raises BadRequest."""
    value = _value("status") or None
    if value is None:
        return None
    if value not in Status.__members__.values():
        raise BadRequest("Invalid status", f"Use one of: {', '.join(Status)}", code="invalid_status")
    return Status(value)


def limit() -> int:
    """Return `?limit=`: by default 50, at most 100. Raises BadRequest."""
    value = _value("limit")
    if value is None:
        return DEFAULT_LIMIT
    number = parse_whole_number(value)
    if number is None or number < 1:
        raise BadRequest("Invalid limit", "limit must be a whole number of 1 or more", code="invalid_limit")
    return min(number, MAX_LIMIT)


def decoded_cursor() -> str | None:
    """Return `?cursor=`, decoded, or None. Raises BadRequest."""
    value = _value("cursor")
    if not value:
        return None
    try:
        return base64.b64decode(value.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        raise invalid_cursor() from None


def position() -> tuple[datetime, UUID] | None:
    """Return the row after which a page of a history starts, from `?cursor=`. Raises BadRequest."""
    decoded = decoded_cursor()
    if decoded is None:
        return None
    moment, _, withdrawal_id = decoded.partition("|")
    parsed = parse_id(withdrawal_id)
    try:
        if parsed is not None:
            return from_iso(moment), parsed
    except (ValueError, OverflowError):
        pass
    raise invalid_cursor()


def encode_cursor(*parts: object) -> str:
    """Return an opaque cursor for the next page."""
    return base64.urlsafe_b64encode("|".join(_as_text(part) for part in parts).encode()).decode()


def invalid_cursor() -> BadRequest:
    """Return the error for a cursor that is not ours."""
    return BadRequest("Invalid cursor", "Send next_cursor exactly as you received it", code="invalid_cursor")


def _value(name: str) -> str | None:
    """Return a parameter as sent. Strict decoding: Flask would read invalid UTF-8 as other characters."""
    try:
        pairs = parse_qsl(request.query_string.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest("Invalid query", "The query must be UTF-8", code="bad_characters") from None
    if sum(key == name for key, _ in pairs) > 1:
        # Its value would be ambiguous. Parameters that this view does not read are ignored.
        raise BadRequest(
            "Duplicate field", f"The query has {name} more than once. Send it once", code="duplicate_field"
        )
    return request.args.get(name)


def _as_text(part: object) -> str:
    return (iso(part) or "") if isinstance(part, datetime) else str(part)


def _required_text(name: str, max_characters: int) -> str:
    try:
        value = parse_text(_value(name), name, max_characters)
    except PydanticCustomError as error:
        context: Any = error.context
        raise BadRequest(context["error"], context["details"], code=error.type) from None
    assert value is not None, "parse_text returns None only for optional texts"
    return value
