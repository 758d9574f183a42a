"""Endpoints' secrets, and the headers of a delivery (Standard Webhooks).

A secret is derived from WEBHOOK_SIGNING_KEY, the endpoint's id and the secret's number (`generation`). No
secret is stored, so a copy of the database can sign nothing.
"""

import base64
from datetime import datetime
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from standardwebhooks import Webhook

from shared.errors import SettingsError
from shared.settings import settings

SECRET_BYTES = 32  # Standard Webhooks allows 24 to 64
PREFIX = "whsec_"


def derive_secret(endpoint_id: UUID, generation: int) -> str:
    """An endpoint's n-th secret, in the format that receivers expect. Raises SettingsError without a key."""
    key = settings().webhook_signing_key
    if key is None:
        raise SettingsError(["WEBHOOK_SIGNING_KEY: is missing (base64 of 32 random bytes)"])
    info = f"coin-payouts webhook {endpoint_id} {generation}".encode()
    derived = HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=None, info=info)
    return PREFIX + base64.b64encode(derived.derive(base64.b64decode(key.get_secret_value()))).decode()


def build_headers(delivery_id: UUID, body: str, secrets: list[str], sent_at: datetime) -> dict[str, str]:
    """The headers for `body`, signed with each of the secrets. `sent_at` is UTC."""
    signatures = [Webhook(secret).sign(str(delivery_id), sent_at, body) for secret in secrets]
    return {
        "webhook-id": str(delivery_id),
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": " ".join(signatures),
        "Content-Type": "application/json",
        "User-Agent": "coin-payouts",
    }
