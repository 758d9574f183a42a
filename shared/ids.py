"""Ids: UUIDv7, so that rows written together lie together in an index (RFC 9562 §5.7)."""

import uuid

import uuid_utils.compat


def new_id() -> uuid.UUID:
    """A new UUIDv7. As text it is 36 characters: RazorpayX's limit for an idempotency key, to the letter."""
    return uuid_utils.compat.uuid7()


def parse_id(text: str) -> uuid.UUID | None:
    """The UUID written in `text`, or None when it is none."""
    try:
        return uuid.UUID(text)
    except (ValueError, AttributeError, TypeError):
        return None
