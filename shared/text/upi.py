"""UPI ids as the contract accepts them: `name@handle`."""

import re

EXAMPLE = "user@okhdfcbank"
MIN_CHARACTERS = 5  # CONTRACT.md; the provider accepts 3-100 (provider reference §1.2)
MAX_CHARACTERS = 100

# ASCII only, on purpose: `\w` would allow letters that no bank can route.
_SHAPE = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9]+")

# account@IFSC.ifsc.npci, also without the IFSC, and aadhaar@aadhaar.npci.
_ACCOUNT = re.compile(
    r"[A-Za-z0-9]+@(([A-Za-z]{4}0[A-Za-z0-9]{6}\.)?ifsc|[A-Za-z0-9]+\.iin|aadhaar)\.npci", re.I
)
_WITHIN = re.compile(rf"{_SHAPE.pattern}+(?!://)")  # possessive; `key@https://…` is no UPI id
_HANDLE = re.compile(r"[A-Za-z0-9]{1,64}")


def is_handle(text: str) -> bool:
    """True if `text` can be the handle of a UPI id, the part after the @."""
    return _HANDLE.fullmatch(text) is not None


def normalize(upi_id: str) -> str | None:
    """Return the UPI id without surrounding blanks, or None if it is not valid."""
    upi_id = upi_id.strip()
    if not MIN_CHARACTERS <= len(upi_id) <= MAX_CHARACTERS or not _SHAPE.fullmatch(upi_id):
        return None
    name = upi_id.partition("@")[0]
    # No bank issues such a name: it is a typing error, and the payment would bounce.
    return None if name.startswith(".") or name.endswith(".") or ".." in name else upi_id


def is_bank_account(text: str) -> bool:
    """True if this is the UPI form of a bank account, `account@IFSC.ifsc.npci`, to which we do not pay."""
    return _ACCOUNT.fullmatch(text.strip()) is not None


def mask(upi_id: str) -> str:
    """Mask a UPI id for logs and lists: `as…@okhdfcbank`."""
    name, _, handle = upi_id.partition("@")
    return f"{name[: min(2, len(name) - 1)]}…@{handle}"


def mask_all(text: str) -> str:
    """Mask every UPI id in a text."""
    return _WITHIN.sub(lambda match: mask(match[0]), text)
