"""The rules for what people send, whether by the API or in a file. Pure: no database, no settings.

Several things wrong: the first in the contract's order is told.
"""

import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from shared import upi
from shared.errors import BadRequest

MAX_USER_ID, MAX_REFERENCE = 500, 200
MAX_REFERENCE_BYTES = 500  # together with the user it must fit in an index
WHOLE_NUMBER = re.compile(r"(?P<sign>[+-]?)0*(?P<digits>[0-9]+)")
LINE_ENDS = re.compile(r"\r\n|[\r\n\t]")
MAX_DIGITS = 100  # more of them change nothing: it is too much already

LOOKS_LIKE = f"A UPI id looks like {upi.EXAMPLE}"

# The order in which faults are told (CONTRACT.md); a fault that is not listed comes last.
ORDER = ("items", "user_id", "amount:missing", "upi_id:missing", "amount", "upi_id", "withdrawal_id")

Model = TypeVar("Model", bound=BaseModel)


def fault(error: str, details: str, *, code: str, **extra: Any) -> PydanticCustomError:
    """A fault of one field, in the contract's words: a short sentence and one more."""
    return PydanticCustomError(code, "{error}", {"error": error, "details": details, "extra": extra})


def text(value: Any, name: str, longest: int, *, required: bool = True) -> str | None:
    """A text that can be stored and written out again; None only where it is not required.

    One that is not required may come from a field of many lines: it becomes one line.
    """
    if isinstance(value, str) and len(value) > longest:
        raise fault(f"Invalid {name}", f"{name} may have at most {longest} characters", code="too_long")
    if value is None or (isinstance(value, str) and not value.strip()):
        if required:
            raise fault(
                f"{name} is required",
                f"{name} is a text of 1 to {longest} characters, not of blanks alone",
                code="missing",
            )
        return None
    if not isinstance(value, str):
        raise fault(f"Invalid {name}", f"{name} must be a text", code="wrong_type")
    given: str = value if required else LINE_ENDS.sub(" ", value)
    if any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) <= 0xDFFF for letter in given):
        raise fault(f"Invalid {name}", f"{name} has characters that no text has", code="bad_characters")
    return given


def whole_number(value: Any) -> int | None:
    """A whole number, also as a text of ASCII digits; None for everything else, true and 500.0 included."""
    if isinstance(value, str):
        found = WHOLE_NUMBER.fullmatch(value.strip(" "))
        return int(found["sign"] + found["digits"][:MAX_DIGITS]) if found else None
    return value if type(value) is int else None


def amount(value: Any, least: int) -> int:
    """How many coins are to be withdrawn, `least` or more. What is too much only the wallet can tell."""
    if value is None or value == "":
        raise fault("amount is required", "amount is a whole number of coins", code="missing")
    coins = whole_number(value)
    if coins is None:
        raise fault("Invalid amount format", "amount must be a whole number of coins", code="invalid_amount")
    if coins < least:
        raise fault(
            "Withdrawal amount too low",
            f"Minimum withdrawal is {least} coins",
            code="amount_too_low",
            min_amount=least,
        )
    return coins


def upi_id(value: Any) -> str:
    """Where the rupees go, without surrounding blanks."""
    if value is None or value == "":
        raise fault("upi_id is required", LOOKS_LIKE, code="missing", example=upi.EXAMPLE)
    cleaned = upi.clean(value) if isinstance(value, str) else None
    if cleaned is None and isinstance(value, str) and upi.is_account(value):
        words = "This names a bank account (account@IFSC.ifsc.npci), which we cannot pay to; use a UPI id"
        raise fault("Invalid UPI ID format", words, code="invalid_upi", example=upi.EXAMPLE)
    if cleaned is None:
        raise fault("Invalid UPI ID format", LOOKS_LIKE, code="invalid_upi", example=upi.EXAMPLE)
    return cleaned


def reference(value: Any) -> str | None:
    """The caller's own word for what is done once."""
    given = text(value, "reference", MAX_REFERENCE)
    if len((given or "").encode()) > MAX_REFERENCE_BYTES:
        raise fault("Invalid reference", f"reference may have {MAX_REFERENCE_BYTES} bytes", code="too_long")
    return given


def shown(name: str) -> str:
    """A name that somebody else chose, as it may stand in a sentence."""
    return name.encode("ascii", "replace").decode()[:50]


def parsed(model: type[Model], given: Any, **context: Any) -> Model:
    """What was given, as `model`. Raises BadRequest: the first fault in the contract's order."""
    if not isinstance(given, dict):
        raise BadRequest("Invalid item", "Each item is a JSON object", code="wrong_type")
    try:
        return model.model_validate(given, context=context)
    except ValidationError as error:
        raise _first(error) from None


def _first(error: ValidationError) -> BadRequest:
    first = min(error.errors(), key=_rank)
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return BadRequest("Unknown field", f"There is no field {shown(name)}", code="unknown_field")
    told = first.get("ctx", {})
    if "error" not in told:  # pydantic's own words: a field's name is no text, for instance
        return BadRequest("Invalid body", "The body has something that no text has", code="bad_characters")
    return BadRequest(told["error"], told["details"], code=first["type"], **told["extra"])


def _rank(found: Any) -> tuple[int, bool]:
    name = str(found["loc"][0]) if found["loc"] else ""
    places = [ORDER.index(key) for key in (f"{name}:{found['type']}", name) if key in ORDER]
    return (places[0] if places else len(ORDER), found["type"] == "extra_forbidden")
