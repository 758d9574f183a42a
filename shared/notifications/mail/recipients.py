"""Whom a mail goes to, and what is no address. Names and addresses come from apps, and may be anything."""

import re
import unicodedata

from email_validator import EmailNotValidError, validate_email

MAX_NAME = 60
# A name is letters and what joins them; with digits, slashes or a dot inside it could be read as a link.
JOINERS = frozenset(" '’-")
BEFORE_DOT = re.compile(r"\.(?! )")


def address_of(written: str) -> str:
    """The address as it goes to a server, the domain in ASCII. Raises ValueError that says why it is none."""
    try:
        found = validate_email(written.strip(), check_deliverability=False)
    except EmailNotValidError as error:
        raise ValueError(f"no address: {error}"[:300]) from None
    return found.ascii_email or f"{found.local_part}@{found.ascii_domain}"


def name_of(written: str | None) -> str | None:
    """The name as a mail may greet it, or None when it had better not."""
    name = " ".join(unicodedata.normalize("NFC", written or "").split())
    if not 0 < len(name) <= MAX_NAME or BEFORE_DOT.search(name + " "):
        return None
    is_name = all(sign in JOINERS or sign == "." or unicodedata.category(sign)[0] in "LM" for sign in name)
    return name if is_name else None


def one_line(text: str | None, most: int = 200) -> str:
    """What people wrote, as one line without signs that cannot be seen."""
    seen = "".join(sign if sign.isprintable() else " " for sign in text or "")
    return " ".join(seen.split())[:most]
