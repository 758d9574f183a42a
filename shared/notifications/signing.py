"""Endpoints' secrets, and the headers that a delivery goes out with (Standard Webhooks).

A secret is derived from WEBHOOK_SIGNING_KEY, the endpoint's id and the number of the secret. So a copy of the
database signs nothing, and there is nothing to keep: it can be shown whenever it is needed.
"""

import base64
from datetime import datetime
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from standardwebhooks import Webhook

from shared.errors import SettingsError
from shared.settings import settings

SECRET_BYTES = 32  # the format allows 24 to 64
MARK = "whsec_"


def secret_of(endpoint_id: UUID, generation: int) -> str:
    """An endpoint's n-th secret, as receivers take it. Raises SettingsError without a key."""
    key = settings().webhook_signing_key
    if key is None:
        raise SettingsError(["WEBHOOK_SIGNING_KEY: is missing (base64 of 32 random bytes)"])
    info = f"coin-payouts webhook {endpoint_id} {generation}".encode()
    derived = HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=None, info=info)
    return MARK + base64.b64encode(derived.derive(base64.b64decode(key.get_secret_value()))).decode()


def headers(delivery_id: UUID, body: str, secrets: list[str], at: datetime) -> dict[str, str]:
    """What goes with `body`, signed with each of the secrets. `at` is UTC."""
    signatures = [Webhook(secret).sign(str(delivery_id), at, body) for secret in secrets]
    return {
        "webhook-id": str(delivery_id),
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
        "Content-Type": "application/json",
        "User-Agent": "coin-payouts",
    }
