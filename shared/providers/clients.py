"""The client of the provider that pays. Only the worker and `payouts reconcile` call a provider."""

from collections.abc import Callable
from functools import cache

from shared.providers.port import ProviderClient
from shared.providers.razorpayx.client import RazorpayXClient
from shared.providers.razorpayx.provider import RazorpayX
from shared.providers.registry import provider
from shared.settings import Settings, settings

CLIENTS: dict[str, Callable[[Settings], ProviderClient]] = {RazorpayX.code: RazorpayXClient}


@cache
def client() -> ProviderClient:
    """Return this process's client, with one connection per thread."""
    return CLIENTS[provider().code](settings())
