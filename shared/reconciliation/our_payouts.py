"""Our side of a reconciliation: the attempts to compare. Reads only."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from shared.reconciliation.diff import OurAttempt
from shared.states import PaidVia

CHUNK_ROWS = 2000

SELECT_ATTEMPTS = """
    SELECT a.id AS attempt_id, a.withdrawal_id, a.state, a.payout_id, w.amount_paise, a.utr,
           w.utr AS withdrawal_utr, a.fees_paise, a.tax_paise, w.status,
           r.id IS NOT NULL AND taken.coins = 0 AS is_refunded,
           taken.coins < 0 AND a.number = (
               SELECT min(p.number) FROM payout_attempts p
               WHERE p.withdrawal_id = w.id AND p.state <> 'paid' AND p.provider_status = 'processed'
           ) AS is_taken_back,
           a.sent_as, a.last_sent_at, w.paid_via, a.unconfirmed, a.provider_status,
           w.status = 'completed' AND NOT EXISTS (
               SELECT FROM payout_attempts p WHERE p.withdrawal_id = w.id AND p.state = 'paid'
           ) AS is_paid_by_decision
    FROM payout_attempts a JOIN withdrawals w ON w.id = a.withdrawal_id
         CROSS JOIN LATERAL (
             SELECT coalesce(sum(coins), 0) AS coins FROM adjustments WHERE withdrawal_id = a.withdrawal_id
         ) taken
         LEFT JOIN coin_transactions r ON r.kind = 'refund' AND r.withdrawal_id = a.withdrawal_id
"""
SELECT_BY_ATTEMPT = f"{SELECT_ATTEMPTS} WHERE a.id = ANY(:ids)"
SELECT_BY_PAYOUT = f"{SELECT_ATTEMPTS} WHERE a.payout_id = ANY(:ids)"
SELECT_CREATED = (
    f"{SELECT_ATTEMPTS} WHERE a.created_at >= :since AND a.created_at < :until AND a.payout_id IS NOT NULL"
)
SELECT_PAID_WITH_UTRS = """
    SELECT utr, payout_id FROM payout_attempts
    WHERE created_at >= :since AND state = 'paid' AND utr = ANY(:utrs) AND NOT payout_id = ANY(:payout_ids)
"""

SELECT_PAID_OUTSIDE = f"""
    SELECT paid_via, count(*) AS number, sum(amount_paise)::bigint AS paise FROM withdrawals
    WHERE paid_via <> '{PaidVia.PROVIDER}' AND completed_at >= :since AND completed_at < :until
    GROUP BY paid_via ORDER BY paid_via
"""


def by_attempt_ids(connection: Connection, ids: Iterable[UUID]) -> Iterator[OurAttempt]:
    """The existing attempts with these ids."""
    for chunk in _chunks(ids):
        yield from _read(connection, SELECT_BY_ATTEMPT, {"ids": chunk})


def by_payout_ids(connection: Connection, payout_ids: Iterable[str]) -> Iterator[OurAttempt]:
    """The attempts that created these payouts."""
    for chunk in _chunks(payout_ids):
        yield from _read(connection, SELECT_BY_PAYOUT, {"ids": chunk})


def created_between(connection: Connection, since: datetime, until: datetime) -> Iterator[OurAttempt]:
    """The attempts created in this period, by our clock, that have a payout id."""
    yield from _read(connection, SELECT_CREATED, {"since": since, "until": until})


def paid_with_utrs(
    connection: Connection, utrs: list[str], payout_ids: list[str], since: datetime
) -> list[Row[Any]]:
    """Paid payouts since `since` with one of these UTRs, except `payout_ids`: rows of utr and payout_id."""
    values = {"utrs": utrs, "payout_ids": payout_ids, "since": since}
    return list(connection.execute(text(SELECT_PAID_WITH_UTRS), values))


def paid_outside(connection: Connection, since: datetime, until: datetime) -> list[Row[Any]]:
    """Withdrawals paid in this period outside the provider: rows of paid_via, number and paise."""
    return list(connection.execute(text(SELECT_PAID_OUTSIDE), {"since": since, "until": until}))


def _read(connection: Connection, query: str, values: dict[str, Any]) -> Iterator[OurAttempt]:
    for row in connection.execute(text(query), values):
        yield OurAttempt(**row._mapping)


def _chunks(ids: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(ids)
    while chunk := list(islice(remaining, CHUNK_ROWS)):
        yield chunk
