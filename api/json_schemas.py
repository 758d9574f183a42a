"""JSON Schemas of the request fields: they describe exactly what the API accepts.

schemathesis tests both directions: the API accepts what fits, and refuses what does not.
"""

from typing import Any

from shared.settings import Settings
from shared.states import Status
from shared.text import upi
from shared.text.fields import MAX_REFERENCE_CHARACTERS, MAX_USER_ID_CHARACTERS

# Characters that are not allowed, and blanks, of which a text must not consist alone (Python's str.isspace).
CONTROL = r"\u0000-\u001f\u007f"
CONTROL_IN_LINES = (
    r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f"  # tabs and line breaks are allowed: they become spaces
)
BLANK = r" \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

MAX_REASON_CHARACTERS = 500
MAX_PROFILE_CHARACTERS = 200  # of a user's name, e-mail address and phone
MAX_ITEMS = 500
MAX_CREDIT_COINS = 10**12  # a thousand times India's largest lottery: more is a mistake

Schema = dict[str, Any]


def text(max_characters: int, description: str, example: str) -> Schema:
    """Return the schema of a required text that is not blank."""
    pattern = f"^[^{CONTROL}]*[^{CONTROL}{BLANK}][^{CONTROL}]*$"
    return _documented(
        description, example, type="string", minLength=1, maxLength=max_characters, pattern=pattern
    )


def optional_text(max_characters: int, description: str, example: str) -> Schema:
    """Return the schema of an optional text, which may have line breaks; null and blanks count as absent."""
    pattern = rf"^([^{CONTROL_IN_LINES}]*|[{BLANK}\t\n\u000b\f\r\u001c-\u001f]*)$"
    return _documented(
        description, example, type=["string", "null"], maxLength=max_characters, pattern=pattern
    )


def whole_number(minimum: int, maximum: int, description: str, example: int) -> Schema:
    """Return the schema of a whole number, as a JSON integer or as a string of digits."""
    pattern = rf"^ *\+?0*({digits_between(minimum, maximum)}) *$"
    forms = [
        {"type": "integer", "minimum": minimum, "maximum": maximum},
        {"type": "string", "pattern": pattern, "description": "The same number as a string of digits"},
    ]
    return _documented(description, example, anyOf=forms)


def withdrawal_coins(minimum: int, maximum: int) -> Schema:
    """Return the schema of a withdrawal's amount; the bounds are settings."""
    return whole_number(minimum, maximum, f"Coins to turn into rupees: {minimum} to {maximum}", 500)


def digits_between(minimum: int, maximum: int) -> str:
    """Return a pattern for the numbers from `minimum` (1 or more) to `maximum`, without leading zeros."""
    parts = []
    while minimum <= maximum:
        free = 0  # how many trailing digits may have any value
        while minimum % 10 ** (free + 1) == 0 and minimum + 10 ** (free + 1) <= maximum + 1:
            free += 1
        head, first = divmod(minimum // 10**free, 10)
        last = min(9, first + (maximum + 1 - minimum) // 10**free - 1)
        digit = str(first) if first == last else f"[{first}-{last}]"
        rest = {0: "", 1: "[0-9]"}.get(free, f"[0-9]{{{free}}}")
        parts.append(f"{head or ''}{digit}{rest}")
        minimum += (last - first + 1) * 10**free
    return "|".join(parts)


def _documented(description: str, example: object, **schema: Any) -> Schema:
    return {**schema, "description": description, "examples": [example]}


def _default_of(name: str) -> int:
    default: int = Settings.model_fields[name].default
    return default


USER_ID = text(MAX_USER_ID_CHARACTERS, "Your id for the user", "user123")
UPI_ID = _documented(
    "`name@handle`, 5 to 100 characters; surrounding spaces are ignored",
    upi.EXAMPLE,
    type="string",
    minLength=upi.MIN_CHARACTERS,
    maxLength=upi.MAX_CHARACTERS,
    pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*@[A-Za-z0-9]+$",  # no dot at an end, no two in a row
)
WITHDRAWAL_COINS = withdrawal_coins(_default_of("min_withdrawal_coins"), _default_of("max_withdrawal_coins"))
WITHDRAWAL_ID = _documented(
    "The withdrawal's id", "01a208a5-b724-779f-a85a-7688d7fa28bd", type="string", format="uuid"
)
CANCEL_REASON = optional_text(
    MAX_REASON_CHARACTERS, "Why it is cancelled; stored in `admin_notes`", "Changed my mind"
)
CREDIT_COINS = whole_number(1, MAX_CREDIT_COINS, "Coins to credit", 700)
REFERENCE = text(
    MAX_REFERENCE_CHARACTERS,
    "Your id of the reason for the coins. Each reference is credited once",
    "quiz-42",
)
CREDIT_REASON = optional_text(MAX_REASON_CHARACTERS, "What the coins are for, for people", "Won a quiz")
NAME = optional_text(MAX_PROFILE_CHARACTERS, "The user's name", "Asha Rao")
EMAIL = optional_text(MAX_PROFILE_CHARACTERS, "The user's e-mail address", "asha@example.com")
PHONE = optional_text(MAX_PROFILE_CHARACTERS, "The user's phone number", "+919876543210")
ITEMS = _documented(
    "Withdrawal requests, each as the body of a single request. An invalid item is refused separately",
    [
        {"user_id": "user123", "amount": 500, "upi_id": upi.EXAMPLE},
        {"user_id": "user123", "upi_id": upi.EXAMPLE},
    ],
    type="array",
    minItems=1,
    maxItems=MAX_ITEMS,
)
IDEMPOTENCY_KEY = _documented(
    "Your key for this request, 1 to 255 visible ASCII characters; use a new UUID for each request. "
    "If you retry with the same key and body, you get the first response again",
    "0f8fad5b-d9cb-469f-a165-70867728950e",
    type="string",
    minLength=1,
    maxLength=255,
    pattern="^[!-~]+$",
)
STATUS = {
    "type": "string",
    "anyOf": [
        {"enum": [str(status) for status in Status]},
        {"const": "", "description": "The same as no status"},
    ],
}
LIMIT = {"type": "integer", "minimum": 1, "default": 50}
