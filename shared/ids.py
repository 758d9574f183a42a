"""Ids: UUIDv7, so that rows written together lie together in an index (RFC 9562 §5.7)."""

import re
import uuid

import uuid_utils.compat

USUAL = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def new_id() -> uuid.UUID:
    """A new UUIDv7. As text it is 36 characters: RazorpayX's limit for an idempotency key, to the letter."""
    return uuid_utils.compat.uuid7()


def attempt_id(withdrawal_id: uuid.UUID, number: int) -> uuid.UUID:
    """The id, and so the idempotency key, of a withdrawal's n-th attempt. Always the same one: should the
    database lose an attempt (a restored backup), the next try meets the payout that the lost one made.
    """
    return uuid.uuid5(withdrawal_id, str(number))


def parse_id(text: str) -> uuid.UUID | None:
    """The UUID written in `text` in the usual way, or None when it is none."""
    return uuid.UUID(text) if isinstance(text, str) and USUAL.fullmatch(text) else None
