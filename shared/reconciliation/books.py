"""Our side: what the books hold of the payouts that are compared. Reads only."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from shared.reconciliation.comparing import Ours

CHUNK = 2000

OURS = """
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
           ) AS on_peoples_word
    FROM payout_attempts a JOIN withdrawals w ON w.id = a.withdrawal_id
         CROSS JOIN LATERAL (
             SELECT coalesce(sum(coins), 0) AS coins FROM adjustments WHERE withdrawal_id = a.withdrawal_id
         ) taken
         LEFT JOIN coin_transactions r ON r.kind = 'refund' AND r.withdrawal_id = a.withdrawal_id
"""
BY_ATTEMPT, BY_PAYOUT = f"{OURS} WHERE a.id = ANY(:ids)", f"{OURS} WHERE a.payout_id = ANY(:ids)"
MADE = f"{OURS} WHERE a.created_at >= :since AND a.created_at < :until AND a.payout_id IS NOT NULL"
ELSEWHERE = """
    SELECT utr, payout_id FROM payout_attempts
    WHERE created_at >= :since AND state = 'paid' AND utr = ANY(:utrs) AND NOT payout_id = ANY(:payout_ids)
"""

OUTSIDE = """
    SELECT paid_via, count(*) AS number, sum(amount_paise)::bigint AS paise FROM withdrawals
    WHERE paid_via <> 'razorpayx' AND completed_at >= :since AND completed_at < :until
    GROUP BY paid_via ORDER BY paid_via
"""


def of_attempts(connection: Connection, ids: Iterable[UUID]) -> Iterator[Ours]:
    """The attempts with these ids, those that exist."""
    for chunk in _chunks(ids):
        yield from _read(connection, BY_ATTEMPT, {"ids": chunk})


def of_payouts(connection: Connection, payout_ids: Iterable[str]) -> Iterator[Ours]:
    """The attempts that are known to have made these payouts."""
    for chunk in _chunks(payout_ids):
        yield from _read(connection, BY_PAYOUT, {"ids": chunk})


def made_between(connection: Connection, since: datetime, until: datetime) -> Iterator[Ours]:
    """The attempts of that time, by our clock, of which we know a payout."""
    yield from _read(connection, MADE, {"since": since, "until": until})


def paid_elsewhere(
    connection: Connection, utrs: list[str], payout_ids: list[str], since: datetime
) -> list[Row[Any]]:
    """Other paid payouts since then under one of these UTRs: rows of utr and payout_id."""
    values = {"utrs": utrs, "payout_ids": payout_ids, "since": since}
    return list(connection.execute(text(ELSEWHERE), values))


def paid_outside(connection: Connection, since: datetime, until: datetime) -> list[Row[Any]]:
    """What was paid in that time by another way than RazorpayX: rows of paid_via, number and paise."""
    return list(connection.execute(text(OUTSIDE), {"since": since, "until": until}))


def _read(connection: Connection, query: str, values: dict[str, Any]) -> Iterator[Ours]:
    for row in connection.execute(text(query), values):
        yield Ours(**row._mapping)


def _chunks(ids: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(ids)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
