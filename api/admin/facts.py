"""What the front page is made of, read in one transaction.

Nothing is counted here: each number comes from where `payouts status`, `/metrics` and the totals have it too.
All of it is read along indexes over what is open or of the last day: it costs the same among a million
withdrawals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from shared import adjusting, gauge_questions, gauges, overview, switches, watching
from shared.clock import INDIA
from shared.models import Switch
from shared.notifications import keeping
from shared.notifications.mail import keeping as mail
from shared.settings import settings
from shared.totals import counting, summing
from shared.totals.counting import Line
from shared.totals.summing import Sum
from shared.withdrawals import resolving

HOURS = 24
PACE_MINUTES = 10
MOST_HANDLES = 15


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read, in one transaction."""

    now: datetime
    waiting: Sequence[Row[Any]]  # of overview.WAITING
    unknown: watching.Unknown
    lines: list[Line]  # of HOURS
    last_hour: Sum
    just_now: Sum  # of PACE_MINUTES
    handles: Sequence[Row[Any]]  # of overview.HANDLES: attempts
    late_seconds: float
    money: watching.Money
    webhooks: watching.Webhooks
    apps: list[keeping.Standing]
    mail: mail.Standing | None  # None: it is off
    off: list[Switch]
    exceptions: dict[str, int]  # by kind, the worst first
    checked: Sequence[Row[Any]]  # of gauge_questions.CHECKED: spot checks, by promise
    decisions: int  # that wait for a second person, about withdrawals or coins
    depths: dict[str, int] | None  # None: the broker does not answer

    @property
    def today(self) -> Sum:
        """Since midnight in India, which is less than HOURS ago."""
        midnight = counting.midnight(self.now.astimezone(INDIA).date())
        return summing.total(line for line in self.lines if line.slot >= midnight)

    @property
    def by_hour(self) -> list[tuple[datetime, Sum]]:
        """The hours, also those in which nothing happened."""
        sums = summing.summed(self.lines, lambda line: line.slot)
        last = self.now.astimezone(INDIA).replace(minute=0, second=0, microsecond=0)
        hours = [last - timedelta(hours=back) for back in range(HOURS, -1, -1)]
        return [(hour, sums.get(hour) or Sum()) for hour in hours]

    @property
    def by_handle(self) -> list[tuple[str, Sum]]:
        """The handles with the most withdrawals that ended, and all others together."""
        return summing.top(summing.summed(self.lines, lambda line: f"@{line.handle}"), MOST_HANDLES)


def look(session: Session) -> Facts:
    """Read it. Raises Unavailable."""
    now: datetime = session.execute(text("SELECT now()")).scalar_one()
    count = counting.count
    return Facts(
        now=now,
        waiting=session.execute(overview.WAITING).all(),
        unknown=watching.unknown(session),
        lines=count(session, now - timedelta(hours=HOURS), now, by="hour"),
        last_hour=summing.total(count(session, now - timedelta(hours=1), now)),
        just_now=summing.total(count(session, now - timedelta(minutes=PACE_MINUTES), now)),
        handles=overview.handles(session, hours=HOURS),
        late_seconds=float(session.execute(gauge_questions.LATENESS).one().seconds),
        money=watching.money(session),
        webhooks=watching.webhooks(session, hours=HOURS),
        apps=keeping.standings(session),
        mail=mail.standing(session) if settings().smtp_host else None,
        off=[switch for switch in switches.listing(session) if not switch.is_on],
        exceptions={kind: number for kind, number, _ in session.execute(overview.EXCEPTIONS)},
        checked=session.execute(gauge_questions.CHECKED).all(),
        decisions=resolving.number_waiting(session) + adjusting.number_waiting(session),
        depths=_depths(),
    )


def _depths() -> dict[str, int] | None:
    try:
        return {name: int(depth) for (name,), depth in gauges.messages()[gauges.QUEUE]}
    except redis.RedisError:
        return None
