"""Count the outcomes of withdrawals in a period.

Requests count at their creation, everything else at the event that ended or reversed a withdrawal. Both are
indexed, so the cost depends on the period and not on the total number of withdrawals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.clock import INDIA
from shared.states import DECIDED_BY_PEOPLE

# Outcomes, as stored in day_totals.what.
REQUESTED = "asked"
PAID = "completed"
FAILED = "failed"
REVERSED = "reversed"
CANCELLED = "cancelled"
REJECTED = "rejected"  # not stored: failed without a failed payment, because people rejected or refunded it

# Durations are stored as steps on a logarithmic scale, 16 steps per doubling (sums.py).
STEPS_PER_OCTAVE = 16

# `slot` is the hour or day in India, without a time zone.
TOTALS_QUERY = """
    WITH found AS (
        SELECT date_trunc(CAST(:unit AS text), w.created_at AT TIME ZONE interval '05:30') AS slot, w.upi_id,
               'asked' AS what, '' AS reason, w.coins_amount AS coins, w.amount_paise AS paise,
               0 AS fees_paise, 0 AS tax_paise, NULL::integer AS step
        FROM withdrawals w WHERE w.created_at >= :since AND w.created_at < :until
        UNION ALL
        SELECT date_trunc(CAST(:unit AS text), e.created_at AT TIME ZONE interval '05:30'), w.upi_id,
               CASE WHEN e.from_status = 'completed' THEN 'reversed' ELSE e.to_status END,
               CASE WHEN e.to_status = 'failed' THEN e.reason ELSE '' END, w.coins_amount, w.amount_paise,
               coalesce(a.fees_paise, 0), coalesce(a.tax_paise, 0),
               CASE WHEN e.to_status = 'completed' THEN
                   floor(:steps / ln(2) *
                         ln(greatest(1, extract(epoch FROM e.created_at - w.created_at)::float8)))
               END::integer
        FROM withdrawal_events e JOIN withdrawals w ON w.id = e.withdrawal_id
             LEFT JOIN payout_attempts a
                    ON e.to_status = 'completed' AND a.id = CAST(e.data ->> 'attempt_id' AS uuid)
        WHERE e.created_at >= :since AND e.created_at < :until
          AND e.from_status <> e.to_status AND e.to_status IN ('cancelled', 'completed', 'failed')
    ), stepped AS (
        SELECT slot, lower(split_part(upi_id, '@', 2)) AS handle, what, reason, step, count(*) AS number,
               sum(coins) AS coins, sum(paise) AS paise, sum(fees_paise) AS fees_paise,
               sum(tax_paise) AS tax_paise
        FROM found GROUP BY 1, 2, 3, 4, 5
    )
    SELECT slot, handle, what, reason, sum(number)::bigint AS number, sum(coins)::bigint AS coins,
           sum(paise)::bigint AS paise, sum(fees_paise)::bigint AS fees_paise,
           sum(tax_paise)::bigint AS tax_paise,
           coalesce(jsonb_object_agg(step, number) FILTER (WHERE step IS NOT NULL), '{}') AS times
    FROM stepped GROUP BY 1, 2, 3, 4
"""
SELECT_TOTALS = text(f"{TOTALS_QUERY} ORDER BY 1, 2, 3, 4")


@dataclass(frozen=True, slots=True)
class TotalsRow:
    """Number and amounts of withdrawals with one handle, outcome and reason in one hour or day."""

    slot: datetime  # start of the hour or day, in India
    handle: str
    what: str
    reason: str
    number: int
    coins: int
    paise: int
    fees_paise: int = 0
    tax_paise: int = 0
    times: dict[str, int] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """The outcome as people see it: REJECTED instead of FAILED if people decided it."""
        return REJECTED if self.what == FAILED and self.reason in DECIDED_BY_PEOPLE else self.what


def count_totals(
    session: Session, since: datetime, until: datetime, *, by: Literal["hour", "day"] = "day"
) -> list[TotalsRow]:
    """Count everything from `since` to `until` (not included), by hour or day in India."""
    return to_rows(session.execute(SELECT_TOTALS, query_values(since, until, by)).all())


def query_values(since: datetime, until: datetime, unit: str) -> dict[str, Any]:
    """The parameters of `TOTALS_QUERY`."""
    return {"since": since, "until": until, "unit": unit, "steps": STEPS_PER_OCTAVE}


def to_rows(rows: Sequence[Any]) -> list[TotalsRow]:
    """Rows of `TOTALS_QUERY`, or stored ones, as TotalsRow."""
    return [TotalsRow(row[0].replace(tzinfo=INDIA), *row[1:]) for row in rows]


def day_start(day: date) -> datetime:
    """The start of a day in India."""
    return datetime.combine(day, time(), INDIA)


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """The start of a day in India, and the start of the next one."""
    return day_start(day), day_start(day + timedelta(days=1))
