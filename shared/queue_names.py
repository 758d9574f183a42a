"""The names of the queues, for who needs no more of them: the command line starts quickly without Celery."""

# The sweep has a queue of its own: behind a thousand slow polls it would find nothing for an hour.
# In BACKLOG wait the many of one user, so that PAYOUTS stays short for others (withdrawals/sweeping.py).
PAYOUTS, BACKLOG, WEBHOOKS = "payouts", "backlog", "webhooks"
MAINTENANCE, SWEEPS = "maintenance", "sweeps"
# Apps are told by a process of its own: a server of theirs that is slow must not hold a thread that pays.
NOTIFICATIONS = "notifications"

QUEUES = (SWEEPS, WEBHOOKS, PAYOUTS, MAINTENANCE, BACKLOG)  # what a worker works when it is not told
EVERY_QUEUE = (*QUEUES, NOTIFICATIONS)
