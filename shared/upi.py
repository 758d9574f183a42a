"""UPI ids as the contract takes them: `name@handle`."""

import re

EXAMPLE = "user@okhdfcbank"
MIN_LENGTH, MAX_LENGTH = 5, 100  # CONTRACT.md; RazorpayX takes 3-100 (razorpayx.md §1.2)

# ASCII only, on purpose: `\w` would let in letters that no bank can route.
_SHAPE = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9]+")

# account@IFSC.ifsc.npci; without the IFSC it is an account all the same (also aadhaar@aadhaar.npci).
_ACCOUNT = re.compile(
    r"[A-Za-z0-9]+@(([A-Za-z]{4}0[A-Za-z0-9]{6}\.)?ifsc|[A-Za-z0-9]+\.iin|aadhaar)\.npci", re.I
)
_WITHIN = re.compile(rf"{_SHAPE.pattern}+(?!://)")  # possessive; `key@https://…` is no UPI id
_HANDLE = re.compile(r"[A-Za-z0-9]{1,64}")


def is_handle(text: str) -> bool:
    """Whether this may stand behind the @ of a UPI id."""
    return _HANDLE.fullmatch(text) is not None


def clean(upi_id: str) -> str | None:
    """The UPI id without surrounding blanks, or None when it is not one."""
    upi_id = upi_id.strip()
    if not MIN_LENGTH <= len(upi_id) <= MAX_LENGTH or not _SHAPE.fullmatch(upi_id):
        return None
    name = upi_id.partition("@")[0]
    # No bank gives such a name; it comes of a slip, and the rupees would come back or reach nobody.
    return None if name.startswith(".") or name.endswith(".") or ".." in name else upi_id


def is_account(text: str) -> bool:
    """Whether this is the UPI form of a bank account, `account@IFSC.ifsc.npci`: no id that we pay to."""
    return _ACCOUNT.fullmatch(text.strip()) is not None


def mask(upi_id: str) -> str:
    """A UPI id that may stand in a log or a list: `as…@okhdfcbank`."""
    name, _, handle = upi_id.partition("@")
    return f"{name[: min(2, len(name) - 1)]}…@{handle}"


def mask_within(text: str) -> str:
    """What somebody wrote, with every UPI id in it masked."""
    return _WITHIN.sub(lambda found: mask(found[0]), text)
