"""Recipients' addresses and names. Apps supply both, so they may contain anything."""

import re
import unicodedata

from email_validator import EmailNotValidError, validate_email

MAX_NAME_CHARACTERS = 60
# A name consists of letters and these; a digit, a slash or a dot inside a word might be read as a link.
JOINERS = frozenset(" '’-")
DOT_INSIDE_WORD = re.compile(r"\.(?! )")


def parse_address(text: str) -> str:
    """The address as servers expect it, its domain in ASCII. Raises ValueError with the reason."""
    try:
        email = validate_email(text.strip(), check_deliverability=False)
    except EmailNotValidError as error:
        raise ValueError(f"not an email address: {error}"[:300]) from None
    return email.ascii_email or f"{email.local_part}@{email.ascii_domain}"


def greeting_name(text: str | None) -> str | None:
    """The name to greet with; None if it does not look like one."""
    name = " ".join(unicodedata.normalize("NFC", text or "").split())
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or DOT_INSIDE_WORD.search(name + " "):
        return None
    is_name = all(
        character in JOINERS or character == "." or unicodedata.category(character)[0] in "LM"
        for character in name
    )
    return name if is_name else None


def one_line(text: str | None, max_characters: int = 200) -> str:
    """Text from others on one line, without unprintable characters."""
    printable = "".join(character if character.isprintable() else " " for character in text or "")
    return " ".join(printable.split())[:max_characters]
