"""Names, phones and e-mail addresses of people, normalized the same way everywhere."""

from unicodedata import normalize

from email_validator import EmailNotValidError, validate_email

from shared.errors import BadRequest

OPERATOR = "operator:"
PHONE_DIGITS = 10  # of a phone number in India, without the country code


def fold(text: str) -> str:
    """Normalize a name for comparison: width, case and surrounding blanks do not matter."""
    return normalize("NFKC", normalize("NFKC", text).casefold()).strip()


def operator_of(actor: str) -> str | None:
    """Return the folded name of the operator in an actor such as `operator:asha`; None for other actors."""
    return fold(actor.removeprefix(OPERATOR)) if actor.startswith(OPERATOR) else None


def actor_of(name: str) -> str:
    """Return the actor under which an operator's actions are recorded."""
    return f"{OPERATOR}{name}"


def phone_digits(text: str) -> str | None:
    """Return the last ten digits of a phone number in any notation; None if it has fewer."""
    digits = "".join(char for char in normalize("NFKC", text) if char.isdecimal())
    return digits[-PHONE_DIGITS:] if len(digits) >= PHONE_DIGITS else None


def normalize_email(text: str | None) -> str | None:
    """Return an e-mail address in its normal form; None if empty. Raises BadRequest."""
    if not text or not text.strip():
        return None
    try:
        return validate_email(text.strip(), check_deliverability=False).normalized
    except EmailNotValidError as error:
        raise BadRequest("Invalid e-mail address", f"{error}"[:200], code="bad_email") from None
