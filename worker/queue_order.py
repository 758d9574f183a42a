"""The order in which a worker reads its queues."""

from kombu.utils.scheduling import round_robin_cycle

from shared.queues.names import SWEEPS, WEBHOOKS

URGENT = (SWEEPS, WEBHOOKS)


class UrgentFirst(round_robin_cycle):
    """Sweeps and webhooks first, because they take milliseconds; the other queues in rotation.

    A thread that pays waits for the rate limit. In plain rotation each webhook would wait behind one such
    thread, and each payout causes two or three webhooks.
    """

    def consume(self, n: int) -> list[str]:
        """Return the first `n` queues, in the order in which to read them."""
        return sorted(self.items, key=lambda queue: queue not in URGENT)[:n]
