"""The providers that this system supports, and the one that pays."""

from shared.providers.port import Provider
from shared.providers.razorpayx.provider import RazorpayX

PROVIDERS: dict[str, Provider] = {RazorpayX.code: RazorpayX()}


def provider() -> Provider:
    """Return the provider that pays. There is only one, so every attempt belongs to it."""
    return PROVIDERS[RazorpayX.code]
