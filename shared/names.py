"""Names of people, compared the same way everywhere."""

from unicodedata import normalize

from email_validator import EmailNotValidError, validate_email

from shared.errors import BadRequest

OPERATOR = "operator:"
PHONE_DIGITS = 10  # of a phone in India, without the country's


def folded(text: str) -> str:
    """What two spellings of one name have in common: width, capitals and blanks around it do not count."""
    return normalize("NFKC", normalize("NFKC", text).casefold()).strip()


def operator_of(actor: str) -> str | None:
    """The folded name of the operator who stands in the books as `operator:asha`; None for anybody else."""
    return folded(actor.removeprefix(OPERATOR)) if actor.startswith(OPERATOR) else None


def actor_of(name: str) -> str:
    """How an operator stands in the books."""
    return f"{OPERATOR}{name}"


def phone_of(text: str) -> str | None:
    """The last ten digits of a phone, however it is written; None when it has fewer."""
    digits = "".join(letter for letter in normalize("NFKC", text) if letter.isdecimal())
    return digits[-PHONE_DIGITS:] if len(digits) >= PHONE_DIGITS else None


def clean_email(written: str | None) -> str | None:
    """An e-mail address in its usual spelling; None for none. Raises BadRequest."""
    if not written or not written.strip():
        return None
    try:
        return validate_email(written.strip(), check_deliverability=False).normalized
    except EmailNotValidError as error:
        raise BadRequest("Invalid e-mail address", f"{error}"[:200], code="bad_email") from None
