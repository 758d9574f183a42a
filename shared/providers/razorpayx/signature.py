"""The signature of RazorpayX's webhooks: hex HMAC-SHA256 of the raw body (razorpayx.md §5.3)."""

import hmac
from collections.abc import Iterable


def is_signed(body: bytes, signature: str | None, secrets: Iterable[str]) -> bool:
    """True if one of `secrets` (current, previous) signed exactly these bytes."""
    if not signature or not signature.isascii():
        return False
    given_signature = signature.strip().lower()
    # Every secret is tried, so that the time does not reveal which one matched.
    matches = [
        hmac.compare_digest(hmac.digest(secret.encode(), body, "sha256").hex(), given_signature)
        for secret in secrets
    ]
    return any(matches)
