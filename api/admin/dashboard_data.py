"""The dashboard's data, read in one transaction.

Every number comes from the same source as in `payouts status`, `/metrics` and the totals. All queries read
indexes over open rows or the last day, so they cost the same with a million withdrawals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from shared.clock import INDIA
from shared.coins import adjustments
from shared.models import CircuitBreaker
from shared.monitoring import gauge_queries, gauges, overview, watchdog
from shared.monitoring.totals import counts, sums
from shared.monitoring.totals.counts import TotalsRow
from shared.monitoring.totals.sums import WithdrawalTotals
from shared.notifications.mail import mails as mail
from shared.notifications.webhooks import deliveries
from shared.providers.registry import provider
from shared.settings import settings
from shared.withdrawals import circuit_breakers, resolve

HOURS = 24
RATE_MINUTES = 10  # the current rate of payments is measured over this time
MAX_HANDLES = 15


@dataclass(frozen=True, slots=True)
class Facts:
    """The dashboard's data at one moment."""

    now: datetime
    waiting: Sequence[Row[Any]]  # of overview.OPEN_WITHDRAWALS
    unknown: watchdog.UnknownPayouts
    totals: list[TotalsRow]  # of the last HOURS
    last_hour: WithdrawalTotals
    recent: WithdrawalTotals  # of the last RATE_MINUTES
    handles: Sequence[Row[Any]]  # of overview.HANDLE_RESULTS: attempts
    late_seconds: float
    funds: watchdog.Funds
    webhooks: watchdog.WebhookStats
    apps: list[deliveries.EndpointHealth]
    mail: mail.MailHealth | None  # None: mail is off
    paused: list[CircuitBreaker]
    exceptions: dict[str, int]  # by kind, most severe first
    spot_checks: Sequence[Row[Any]]  # of gauge_queries.SPOT_CHECKS: by promise
    decisions: int  # about withdrawals or coins, awaiting a second person
    queue_depths: dict[str, int] | None  # None: the broker does not answer

    @property
    def today(self) -> WithdrawalTotals:
        """Totals since midnight in India, which is less than HOURS ago."""
        midnight = counts.day_start(self.now.astimezone(INDIA).date())
        return sums.total(row for row in self.totals if row.slot >= midnight)

    @property
    def by_hour(self) -> list[tuple[datetime, WithdrawalTotals]]:
        """Totals of every hour, including hours without events."""
        by_slot = sums.group_totals(self.totals, lambda row: row.slot)
        last = self.now.astimezone(INDIA).replace(minute=0, second=0, microsecond=0)
        hours = [last - timedelta(hours=back) for back in range(HOURS, -1, -1)]
        return [(hour, by_slot.get(hour) or WithdrawalTotals()) for hour in hours]

    @property
    def by_handle(self) -> list[tuple[str, WithdrawalTotals]]:
        """Totals of the handles with the most withdrawals, and of all others together."""
        return sums.largest(sums.group_totals(self.totals, lambda row: f"@{row.handle}"), MAX_HANDLES)


def load(session: Session) -> Facts:
    """Query the dashboard's data. Raises Unavailable."""
    now: datetime = session.execute(text("SELECT now()")).scalar_one()
    count = counts.count_totals
    return Facts(
        now=now,
        waiting=session.execute(overview.OPEN_WITHDRAWALS).all(),
        unknown=watchdog.unknown_payouts(session),
        totals=count(session, now - timedelta(hours=HOURS), now, by="hour"),
        last_hour=sums.total(count(session, now - timedelta(hours=1), now)),
        recent=sums.total(count(session, now - timedelta(minutes=RATE_MINUTES), now)),
        handles=overview.handle_results(session, hours=HOURS),
        late_seconds=float(
            session.execute(gauge_queries.LATENESS, {"provider": provider().code}).one().seconds
        ),
        funds=watchdog.funds(session),
        webhooks=watchdog.webhook_stats(session, hours=HOURS),
        apps=deliveries.endpoint_health(session),
        mail=mail.mail_health(session) if settings().smtp_host else None,
        paused=[switch for switch in circuit_breakers.all_breakers(session) if not switch.is_on],
        exceptions={kind: number for kind, number, _ in session.execute(overview.OPEN_EXCEPTIONS)},
        spot_checks=session.execute(gauge_queries.SPOT_CHECKS).all(),
        decisions=resolve.count_open(session) + adjustments.count_open(session),
        queue_depths=_queue_depths(),
    )


def _queue_depths() -> dict[str, int] | None:
    try:
        return {name: int(depth) for (name,), depth in gauges.query_broker()[gauges.QUEUE_MESSAGES]}
    except redis.RedisError:
        return None
