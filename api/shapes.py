"""What the values in a request may be, as JSON Schema: exactly what is taken, and no more.

schemathesis holds the two against each other: what fits here is taken, and what does not fit is refused.
"""

from typing import Any

from shared import upi
from shared.fields import MAX_REFERENCE, MAX_USER_ID
from shared.settings import Settings
from shared.states import Status

# Characters that no text has, and those that alone make no text (Python's str.isspace, without the former).
CONTROL = r"\u0000-\u001f\u007f"
CONTROL_IN_LINES = (
    r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f"  # a tab and the ends of lines become blanks
)
BLANK = r" \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

MAX_REASON, MAX_ABOUT = 500, 200
MAX_ITEMS = 500
MAX_CREDIT_COINS = 10**12  # a thousand times India's largest lottery; beyond it is a mistake

Schema = dict[str, Any]


def text(longest: int, about: str, example: str) -> Schema:
    """A text that must be there and say something."""
    something = f"^[^{CONTROL}]*[^{CONTROL}{BLANK}][^{CONTROL}]*$"
    return _told(about, example, type="string", minLength=1, maxLength=longest, pattern=something)


def optional_text(longest: int, about: str, example: str) -> Schema:
    """A text that need not be there; null, and blanks of any kind, are as good as none. It may have lines."""
    either = rf"^([^{CONTROL_IN_LINES}]*|[{BLANK}\t\n\u000b\f\r\u001c-\u001f]*)$"
    return _told(about, example, type=["string", "null"], maxLength=longest, pattern=either)


def whole_number(least: int, most: int, about: str, example: int) -> Schema:
    """A whole number, as a JSON number without a point or as a text of digits."""
    digits = rf"^ *\+?0*({digits_between(least, most)}) *$"
    ways = [
        {"type": "integer", "minimum": least, "maximum": most},
        {"type": "string", "pattern": digits, "description": "The same number as a text of digits"},
    ]
    return _told(about, example, anyOf=ways)


def withdrawal_coins(least: int, most: int) -> Schema:
    """How many coins one withdrawal may have; the bounds are settings."""
    return whole_number(least, most, f"Coins to turn into rupees: {least} to {most}", 500)


def digits_between(least: int, most: int) -> str:
    """A pattern for the numbers from `least` (1 or more) to `most`, without zeros before them."""
    parts = []
    while least <= most:
        free = 0  # how many digits at the end may be anything
        while least % 10 ** (free + 1) == 0 and least + 10 ** (free + 1) <= most + 1:
            free += 1
        head, first = divmod(least // 10**free, 10)
        last = min(9, first + (most + 1 - least) // 10**free - 1)
        digit = str(first) if first == last else f"[{first}-{last}]"
        rest = {0: "", 1: "[0-9]"}.get(free, f"[0-9]{{{free}}}")
        parts.append(f"{head or ''}{digit}{rest}")
        least += (last - first + 1) * 10**free
    return "|".join(parts)


def _told(about: str, example: object, **schema: Any) -> Schema:
    return {**schema, "description": about, "examples": [example]}


def _bound(name: str) -> int:
    bound: int = Settings.model_fields[name].default
    return bound


USER_ID = text(MAX_USER_ID, "Your id of the user", "user123")
UPI_ID = _told(
    "`name@handle`, 5 to 100 characters; blanks around it are ignored",
    upi.EXAMPLE,
    type="string",
    minLength=upi.MIN_LENGTH,
    maxLength=upi.MAX_LENGTH,
    pattern="^[A-Za-z0-9._-]+@[A-Za-z0-9]+$",
)
WITHDRAWAL_COINS = withdrawal_coins(_bound("min_withdrawal_coins"), _bound("max_withdrawal_coins"))
WITHDRAWAL_ID = _told(
    "The withdrawal's id", "01a208a5-b724-779f-a85a-7688d7fa28bd", type="string", format="uuid"
)
CANCEL_REASON = optional_text(MAX_REASON, "Why; kept in `admin_notes`", "Changed my mind")
CREDIT_COINS = whole_number(1, MAX_CREDIT_COINS, "Coins to give", 700)
REFERENCE = text(MAX_REFERENCE, "Your own id of what the coins are for: it is credited once", "quiz-42")
CREDIT_REASON = optional_text(MAX_REASON, "What the coins are for, in words", "Won a quiz")
NAME = optional_text(MAX_ABOUT, "The user's name", "Asha Rao")
EMAIL = optional_text(MAX_ABOUT, "The user's e-mail address", "asha@example.com")
PHONE = optional_text(MAX_ABOUT, "The user's telephone number", "+919876543210")
ITEMS = _told(
    "Wishes, each as the body of its own request would be. What is none is refused for itself",
    [
        {"user_id": "user123", "amount": 500, "upi_id": upi.EXAMPLE},
        {"user_id": "user123", "upi_id": upi.EXAMPLE},
    ],
    type="array",
    minItems=1,
    maxItems=MAX_ITEMS,
)
IDEMPOTENCY_KEY = _told(
    "Your own key for this wish, 1 to 255 visible ASCII characters; a new UUID for each wish is best. "
    "Sent again with the same body, it gets the first answer again",
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
        {"const": "", "description": "As good as none"},
    ],
}
LIMIT = {"type": "integer", "minimum": 1, "default": 50}
