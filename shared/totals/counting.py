"""The one way to count what withdrawals came to in a span of time.

Requests are counted by when they were made, everything else by the event that ended or reversed a withdrawal;
both stand in an index, so a day costs what happened on it, however many withdrawals there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.clock import INDIA
from shared.states import BY_PEOPLE

ASKED, PAID, FAILED, REVERSED, CANCELLED = "asked", "completed", "failed", "reversed", "cancelled"
REJECTED = "rejected"  # failed in the books, and no payment failed: people rejected it or gave its coins back

# Times are kept as steps: each is a sixteenth of an octave longer than the one before (summing.py).
STEPS_PER_OCTAVE = 16

# A withdrawal that moved to an end. `slot`: the hour or day in India, without a zone.
LINES = """
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
COUNT = text(f"{LINES} ORDER BY 1, 2, 3, 4")


@dataclass(frozen=True, slots=True)
class Line:
    """How many withdrawals of one handle came to one thing in one hour or day, and what they come to."""

    slot: datetime  # its beginning, in India
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
    def came_to(self) -> str:
        """What it is to people: no payment failed where they rejected it."""
        return REJECTED if self.what == FAILED and self.reason in BY_PEOPLE else self.what


def count(
    session: Session, since: datetime, until: datetime, *, by: Literal["hour", "day"] = "day"
) -> list[Line]:
    """What happened from `since` to `until` (not included), in slots of an hour or a day in India."""
    return as_lines(session.execute(COUNT, values(since, until, by)).all())


def values(since: datetime, until: datetime, unit: str) -> dict[str, Any]:
    """What `LINES` must be given."""
    return {"since": since, "until": until, "unit": unit, "steps": STEPS_PER_OCTAVE}


def as_lines(rows: Sequence[Any]) -> list[Line]:
    """Rows of `LINES`, or of the kept ones."""
    return [Line(row[0].replace(tzinfo=INDIA), *row[1:]) for row in rows]


def midnight(day: date) -> datetime:
    """When a day begins in India."""
    return datetime.combine(day, time(), INDIA)


def whole_day(day: date) -> tuple[datetime, datetime]:
    """When a day begins in India, and when the next one does."""
    return midnight(day), midnight(day + timedelta(days=1))
