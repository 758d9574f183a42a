"""The rules for fields that people send through the API or in a file. Pure: no database, no settings.

If several fields are wrong, the error names the first one in the contract's order.
"""

import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from shared.errors import BadRequest
from shared.text import upi

MAX_USER_ID_CHARACTERS = 500
MAX_REFERENCE_CHARACTERS = 200
MAX_REFERENCE_BYTES = 500  # together with the user it must fit in an index
WHOLE_NUMBER = re.compile(r"(?P<sign>[+-]?)0*(?P<digits>[0-9]+)")
LINE_ENDS = re.compile(r"\r\n|[\r\n\t]")
NOT_ALLOWED = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and halves of a surrogate pair
MAX_DIGITS = 100  # further digits are ignored: the number is too large anyway

UPI_ID_HINT = f"Use a UPI id such as {upi.EXAMPLE}"

# The order in which errors are reported (CONTRACT.md); fields that are not listed come last.
FIELD_ORDER = ("items", "user_id", "amount:missing", "upi_id:missing", "amount", "upi_id", "withdrawal_id")

Model = TypeVar("Model", bound=BaseModel)


def field_error(error: str, details: str, *, code: str, **extra: Any) -> PydanticCustomError:
    """Return the error of one field, with the contract's `error` and `details`."""
    return PydanticCustomError(code, "{error}", {"error": error, "details": details, "extra": extra})


def parse_text(value: Any, name: str, max_characters: int, *, required: bool = True) -> str | None:
    """Check a text; None only if it is not required. Raises the field's error.

    Line breaks in a text that is not required become spaces: it may come from a multi-line input.
    """
    if isinstance(value, str) and len(value) > max_characters:
        details = f"{name} must have at most {max_characters} characters"
        raise field_error(f"Invalid {name}", details, code="too_long")
    if value is None or (isinstance(value, str) and not value.strip()):
        if required:
            raise field_error(
                f"{name} is required",
                f"Send {name} as a string of 1 to {max_characters} characters, not only spaces",
                code="missing",
            )
        return None
    if not isinstance(value, str):
        raise field_error(f"Invalid {name}", f"{name} must be a string", code="wrong_type")
    text: str = value if required else LINE_ENDS.sub(" ", value)
    if NOT_ALLOWED.search(text):
        details = f"{name} contains characters that are not allowed"
        raise field_error(f"Invalid {name}", details, code="bad_characters")
    return text


def parse_whole_number(value: Any) -> int | None:
    """Return a whole number, also from a string of ASCII digits; None for anything else (true, 500.0)."""
    if isinstance(value, str):
        match = WHOLE_NUMBER.fullmatch(value.strip(" "))
        return int(match["sign"] + match["digits"][:MAX_DIGITS]) if match else None
    return value if type(value) is int else None


def parse_amount(value: Any, min_coins: int) -> int:
    """Return the coins to withdraw, at least `min_coins`. The wallet decides whether they are too many."""
    if value is None or value == "":
        raise field_error("amount is required", "Send amount as a whole number of coins", code="missing")
    coins = parse_whole_number(value)
    if coins is None:
        raise field_error(
            "Invalid amount format", "amount must be a whole number of coins", code="invalid_amount"
        )
    if coins < min_coins:
        raise field_error(
            "Withdrawal amount too low",
            f"Minimum withdrawal is {min_coins} coins",
            code="amount_too_low",
            min_amount=min_coins,
        )
    return coins


def parse_upi_id(value: Any) -> str:
    """Return the UPI id without surrounding blanks."""
    if value is None or value == "":
        raise field_error("upi_id is required", UPI_ID_HINT, code="missing", example=upi.EXAMPLE)
    cleaned = upi.normalize(value) if isinstance(value, str) else None
    if cleaned is None and isinstance(value, str) and upi.is_bank_account(value):
        details = "We cannot pay to a bank account (account@IFSC.ifsc.npci). Use a UPI id"
        raise field_error("Invalid UPI ID format", details, code="invalid_upi", example=upi.EXAMPLE)
    if cleaned is None:
        raise field_error("Invalid UPI ID format", UPI_ID_HINT, code="invalid_upi", example=upi.EXAMPLE)
    return cleaned


def parse_reference(value: Any) -> str | None:
    """Return the caller's own id of an operation that must run only once."""
    reference = parse_text(value, "reference", MAX_REFERENCE_CHARACTERS)
    if len((reference or "").encode()) > MAX_REFERENCE_BYTES:
        details = f"reference must have at most {MAX_REFERENCE_BYTES} bytes in UTF-8"
        raise field_error("Invalid reference", details, code="too_long")
    return reference


def printable(name: str) -> str:
    """Return a name from outside in a form that is safe in an error message."""
    return name.encode("ascii", "replace").decode()[:50]


def parse(model: type[Model], item: Any, **context: Any) -> Model:
    """Parse a JSON object as `model`. Raises BadRequest for the first error in the contract's order."""
    if not isinstance(item, dict):
        raise BadRequest("Invalid item", "Each item must be a JSON object", code="wrong_type")
    try:
        return model.model_validate(item, context=context)
    except ValidationError as error:
        raise _first_error(error) from None


def _first_error(error: ValidationError) -> BadRequest:
    first = min(error.errors(), key=_rank)
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        details = f"{printable(name)} is not a known field. Remove it"
        return BadRequest("Unknown field", details, code="unknown_field")
    context = first.get("ctx", {})
    if "error" not in context:  # pydantic's own error: a field's name is not valid text, for instance
        details = "The body contains characters that are not allowed"
        return BadRequest("Invalid body", details, code="bad_characters")
    return BadRequest(context["error"], context["details"], code=first["type"], **context["extra"])


def _rank(error: Any) -> tuple[int, bool]:
    name = str(error["loc"][0]) if error["loc"] else ""
    ranks = [FIELD_ORDER.index(key) for key in (f"{name}:{error['type']}", name) if key in FIELD_ORDER]
    return (ranks[0] if ranks else len(FIELD_ORDER), error["type"] == "extra_forbidden")
