"""The names of the queues, for who needs no more of them: the command line starts quickly without Celery."""

# Behind a thousand slow polls nothing else should wait for an hour: they have a queue of their own, and so
# has the sweep. MAINTENANCE holds only what beat sends by the clock.
# In BACKLOG wait the many of one user, so that PAYOUTS stays short for others (withdrawals/sweeping.py).
PAYOUTS, BACKLOG, WEBHOOKS = "payouts", "backlog", "webhooks"
POLLS, MAINTENANCE, SWEEPS = "polls", "maintenance", "sweeps"
# Apps are told by a process of its own: a server of theirs that is slow must not hold a thread that pays.
NOTIFICATIONS = "notifications"

QUEUES = (SWEEPS, WEBHOOKS, PAYOUTS, POLLS, MAINTENANCE, BACKLOG)  # what a worker works when it is not told
EVERY_QUEUE = (*QUEUES, NOTIFICATIONS)
