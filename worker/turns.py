"""In which order a worker looks into its queues."""

from kombu.utils.scheduling import round_robin_cycle

from shared.queues import SWEEPS, WEBHOOKS

URGENT = (SWEEPS, WEBHOOKS)


class UrgentFirst(round_robin_cycle):
    """Sweeps and webhooks first, for they take milliseconds; the other queues in turns.

    A thread that pays waits for the pace. In plain turns each webhook would wait behind one such thread,
    and there are two or three webhooks for each payout.
    """

    def consume(self, n: int) -> list[str]:
        """The first `n` queues, in the order in which they are looked into."""
        return sorted(self.items, key=lambda queue: queue not in URGENT)[:n]
