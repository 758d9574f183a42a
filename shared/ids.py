"""Ids: UUIDv7, so that rows written together are stored together in an index (RFC 9562 §5.7)."""

import re
import uuid

import uuid_utils.compat

CANONICAL_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def new_id() -> uuid.UUID:
    """Return a new UUIDv7. Its text has 36 characters: exactly the provider's limit for idempotency keys."""
    return uuid_utils.compat.uuid7()


def attempt_id(withdrawal_id: uuid.UUID, number: int) -> uuid.UUID:
    """Return the id, and so the idempotency key, of a withdrawal's n-th attempt. It is derived, not random:
    if a restored backup has lost an attempt, the next one gets the same key and finds its payout.
    """
    return uuid.uuid5(withdrawal_id, str(number))


def parse_id(text: str) -> uuid.UUID | None:
    """Return the UUID in `text` (36 characters with hyphens), or None if it is not one."""
    return uuid.UUID(text) if isinstance(text, str) and CANONICAL_UUID.fullmatch(text) else None
