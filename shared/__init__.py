"""The payout business. Knows no Flask; the only Celery it knows is "send this name"."""
