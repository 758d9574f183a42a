"""The names of the queues, without an import of Celery: so the command line starts quickly."""

PAYOUTS = "payouts"
BACKLOG = "backlog"  # the rest of a user's many payouts, so that PAYOUTS stays short (withdrawals/sweep.py)
WEBHOOKS = "webhooks"
POLLS = "polls"  # separate, or everything else would wait behind a thousand slow polls
MAINTENANCE = "maintenance"  # only what beat sends on schedule
SWEEPS = "sweeps"
NOTIFICATIONS = "notifications"  # for its own process: an app's slow server must not occupy a payout thread

QUEUES = (SWEEPS, WEBHOOKS, PAYOUTS, POLLS, MAINTENANCE, BACKLOG)  # a worker's default
EVERY_QUEUE = (*QUEUES, NOTIFICATIONS)
