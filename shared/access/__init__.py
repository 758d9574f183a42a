"""API keys of apps, and idempotency keys of their requests."""
