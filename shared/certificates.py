"""What is handed out about the books: a signed certificate for a day, and the proof of one withdrawal.

Both lie on the chain of seals (`sealing.py`), and `proofs.py` checks both without a database.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, Row, text

from shared import merkle, proofs, seal_checks, sealing
from shared.clock import INDIA
from shared.db import patient_engine, told_plainly
from shared.errors import BadRequest, Conflict, NotFound, SettingsError
from shared.settings import settings

MAX_BIGINT = 2**63 - 1
# Any number will do, as long as everybody who closes a day takes the same one.
ONE_CLOSER_AT_A_TIME = 0xC105E

log = structlog.get_logger()

# The day's cut through a table: up to the last row that was begun in the day, in the order of the ids. That
# is the order of a user's journal, so no balance is cut in two when two transactions overlap at midnight.
CUT = """
    WITH cut AS (SELECT coalesce(max(id) FILTER (WHERE created_at < :begins), 0) AS before,
                        coalesce(max(id) FILTER (WHERE created_at < :ends), 0) AS until FROM {table})
    SELECT before, until, min(id) AS first_id, max(id) AS last_id, count(id) AS count
    FROM cut LEFT JOIN {table} ON id > before AND id <= until GROUP BY before, until
"""
# Coins and paise as of a cut. Nobody asks a withdrawal's status of today: it is held when it was taken and
# neither refunded nor paid then. By which way it was paid never changes (right_payment, a trigger); what went
# outside RazorpayX is a part of what was paid. A balance is read from the user's last line, so that closing
# says something.
TOTALS = """
    WITH taken AS (
        SELECT -t.coins AS coins, w.amount_paise, r.coins AS refunded,
               w.paid_via <> 'razorpayx' AS is_outside,
               r.coins IS NULL AND e.to_status IS NOT DISTINCT FROM 'completed' AS is_paid
        FROM coin_transactions t JOIN withdrawals w ON w.id = t.withdrawal_id
             LEFT JOIN coin_transactions r
                 ON r.kind = 'refund' AND r.withdrawal_id = t.withdrawal_id AND r.id <= :journal
             LEFT JOIN (SELECT DISTINCT ON (withdrawal_id) withdrawal_id, to_status FROM withdrawal_events
                        WHERE id <= :events ORDER BY withdrawal_id, id DESC) e
                 ON e.withdrawal_id = t.withdrawal_id
        WHERE t.kind = 'withdrawal' AND t.id <= :journal
    ), balances AS (
        SELECT DISTINCT ON (user_id) balance_after FROM coin_transactions
        WHERE id <= :journal ORDER BY user_id, id DESC
    )
    SELECT (SELECT coalesce(sum(coins), 0) FROM coin_transactions
            WHERE kind IN ('credit', 'adjustment') AND id <= :journal) AS credited_coins,
           (SELECT coalesce(sum(balance_after), 0) FROM balances) AS balances_coins,
           (SELECT count(*) FROM balances) AS wallets,
           coalesce(sum(coins) FILTER (WHERE refunded IS NULL AND NOT is_paid), 0) AS held_coins,
           coalesce(sum(amount_paise) FILTER (WHERE refunded IS NULL AND NOT is_paid), 0) AS held_paise,
           count(*) FILTER (WHERE refunded IS NULL AND NOT is_paid) AS held_withdrawals,
           coalesce(sum(coins) FILTER (WHERE is_paid), 0) AS paid_coins,
           coalesce(sum(amount_paise) FILTER (WHERE is_paid), 0) AS paid_paise,
           count(*) FILTER (WHERE is_paid) AS paid_withdrawals,
           coalesce(sum(coins) FILTER (WHERE is_paid AND is_outside), 0) AS outside_coins,
           coalesce(sum(amount_paise) FILTER (WHERE is_paid AND is_outside), 0) AS outside_paise,
           count(*) FILTER (WHERE is_paid AND is_outside) AS outside_withdrawals,
           coalesce(sum(refunded), 0) AS refunded_coins,
           coalesce(sum(amount_paise) FILTER (WHERE refunded IS NOT NULL), 0) AS refunded_paise,
           count(refunded) AS refunded_withdrawals
    FROM taken
"""
WRITE = """
    INSERT INTO day_certificates (number, day, block, body, certificate_hash, signature)
    VALUES (:number, :day, :block, :body, :certificate_hash, :signature)
"""
# The withdrawal's user leads to the journal by an index that is there.
ROWS = f"""
    SELECT r.source, r.text, l.block, l.position, l.salt FROM (
        SELECT 'journal' AS source, id, {sealing.BOOKS[0].row_text} AS text FROM coin_transactions
        WHERE user_id = :user_id AND withdrawal_id = :id
        UNION ALL
        SELECT 'events', id, {sealing.BOOKS[1].row_text} FROM withdrawal_events WHERE withdrawal_id = :id
    ) r LEFT JOIN seal_leaves l ON l.source = r.source AND l.row_id = r.id
    ORDER BY l.block, l.position
"""
HASHES = "SELECT leaf_hash FROM seal_leaves WHERE block = :block ORDER BY position"
COVERING = "SELECT * FROM day_certificates WHERE block >= :block ORDER BY number LIMIT 1"


def close_day(day: date | None = None) -> dict[str, Any]:
    """The signed certificate of `day` in India, by default yesterday. Made once, and the same ever after.

    Raises Conflict (the day is not over, the books do not add up), BadRequest (there is nothing to certify),
    SettingsError (no key), Unavailable.
    """
    with told_plainly(), _alone() as outside:
        day = _over(outside.execute(text("SELECT now()")).scalar_one(), day)
        asked = text("SELECT * FROM day_certificates WHERE day = :day")
        if made := outside.execute(asked, {"day": day}).one_or_none():
            return _told(made)
        key = settings().certificate_key
        if key is None:
            raise SettingsError(["CERTIFICATE_KEY: is missing; `payouts certificate-key` makes one"])
        sealing.seal_everything()
        with _one_moment() as connection:
            _sign(connection, day, key.get_secret_value())
        made = outside.execute(asked, {"day": day}).one()
    log.info("[SEAL] day closed", day=str(day), block=made.block, certificate=made.certificate_hash.hex())
    return _told(made)


def prove(withdrawal_id: UUID) -> dict[str, Any]:
    """The proof of a withdrawal: its rows, and how they lead to a certificate or to the head of the chain.

    Of other users' rows it holds salted hashes alone. Raises NotFound, Conflict (not sealed, or not as it was
    sealed), Unavailable.
    """
    sealing.seal()
    with told_plainly(), _one_moment() as connection:
        user_id = connection.scalar(
            text("SELECT user_id FROM withdrawals WHERE id = :id"), {"id": withdrawal_id}
        )
        if user_id is None:
            raise NotFound("Withdrawal not found", "No withdrawal has this id", code="withdrawal_not_found")
        rows = list(connection.execute(text(ROWS), {"id": withdrawal_id, "user_id": user_id}))
        if any(row.block is None for row in rows):
            raise Conflict("Not sealed yet", "Ask again in a minute", code="not_sealed")
        told = {"type": proofs.PROOF, "withdrawal_id": str(withdrawal_id), "user_id": user_id}
        proof = {**told, "leaves": _leaves(connection, rows), **_way_on(connection, rows)}
    return _as_a_stranger_sees_it(proof)


def _over(now: datetime, day: date | None) -> date:
    """The day to close. It can be when the last transaction that began in it has surely ended."""
    day = day or now.astimezone(INDIA).date() - timedelta(days=1)
    over_at = _bounds(day)[1] + timedelta(seconds=sealing.LATE_SECONDS)
    if now < over_at:
        raise Conflict(
            "The day is not over", f"{day} can be closed from {over_at:%F %H:%M} IST", code="day_open"
        )
    return day


def _bounds(day: date) -> tuple[datetime, datetime]:
    begins = datetime.combine(day, time(), INDIA)
    return begins, begins + timedelta(days=1)


def _sign(connection: Connection, day: date, secret: str) -> None:
    """Nothing is signed that does not add up at this very moment."""
    faults = seal_checks.verify(connection)
    if faults:
        names = "; ".join(fault.name for fault in faults[:5])
        raise Conflict(
            "Nothing was signed", f"{len(faults)} things are not as sealed: {names}", code="unsound"
        )
    head = connection.execute(text(f"{sealing.BLOCKS} ORDER BY number DESC LIMIT 1")).one_or_none()
    if head is None:
        raise BadRequest("Nothing to certify", "There is no entry yet", code="nothing_sealed")
    last = connection.execute(
        text("SELECT * FROM day_certificates ORDER BY number DESC LIMIT 1")
    ).one_or_none()
    key = proofs.private_key(secret)
    body = {
        **_books(connection, day),
        "type": proofs.CERTIFICATE,
        "version": proofs.VERSION,
        "chain": {"block": head.number, "hash": head.block_hash.hex()},
        "previous": (last.certificate_hash if last else proofs.NOTHING_BEFORE).hex(),
        "public_key": proofs.public_text(key),
    }
    signed = proofs.canonical(body)
    made = {
        "number": last.number + 1 if last else 1,
        "day": day,
        "block": head.number,
        "body": signed.decode(),
        "certificate_hash": proofs.hash_of(body),
        "signature": key.sign(signed),
    }
    connection.execute(text(WRITE), made)


def _books(connection: Connection, day: date) -> dict[str, Any]:
    """The day in numbers: its rows, and the totals as of its begin and its end."""
    begins, ends = _bounds(day)
    cuts = {
        source.word: connection.execute(
            text(CUT.format(table=source.table)), {"begins": begins, "ends": ends}
        ).one()
        for source in sealing.BOOKS
    }
    if not any(cut.until for cut in cuts.values()):
        # Zeros of a time before the books began prove nothing, and would be the chain's first link for ever.
        raise BadRequest(
            "Nothing to certify", f"The first entry was written after {day}", code="nothing_sealed"
        )
    opening = _totals(connection, cuts["journal"].before, cuts["events"].before)
    closing = _totals(connection, cuts["journal"].until, cuts["events"].until)
    for totals in (opening, closing):
        if totals["difference_coins"]:
            raise Conflict("Nothing was signed", f"The books do not close to zero: {totals}", code="unsound")
    rows = {
        word: {"first_id": cut.first_id, "last_id": cut.last_id, "count": cut.count}
        for word, cut in cuts.items()
    }
    return {
        "day": str(day),
        "begins_at": begins.isoformat(),
        "ends_at": ends.isoformat(),
        **rows,
        "opening": opening,
        "closing": closing,
    }


def _totals(connection: Connection, journal: int, events: int) -> dict[str, int]:
    row = connection.execute(text(TOTALS), {"journal": journal, "events": events}).one()
    totals = {name: int(value) for name, value in row._mapping.items()}
    given = totals["balances_coins"] + totals["held_coins"] + totals["paid_coins"]
    return {**totals, "difference_coins": totals["credited_coins"] - given}


def _told(made: Row[Any]) -> dict[str, Any]:
    return {
        "certificate": json.loads(made.body),
        "signature": base64.b64encode(made.signature).decode(),
    }


def _leaves(connection: Connection, rows: list[Row[Any]]) -> list[dict[str, Any]]:
    hashes = {
        block: list(connection.execute(text(HASHES), {"block": block}).scalars())
        for block in {row.block for row in rows}
    }
    return [
        {
            "row": row.text,
            "salt": row.salt.hex(),
            "block": row.block,
            "position": row.position,
            "path": [beside.hex() for beside in merkle.path(hashes[row.block], row.position)],
        }
        for row in rows
    ]


def _way_on(connection: Connection, rows: list[Row[Any]]) -> dict[str, Any]:
    """The blocks from the first that is needed to the certificate that covers all, or else to the head."""
    first, last = min(row.block for row in rows), max(row.block for row in rows)
    covering = connection.execute(text(COVERING), {"block": last}).one_or_none()
    query = text(f"{sealing.BLOCKS} WHERE number BETWEEN :first AND :last ORDER BY number")
    bounds = {"first": first, "last": covering.block if covering else MAX_BIGINT}
    blocks = [sealing.header(block) for block in connection.execute(query, bounds)]
    return {"blocks": blocks, "certificate": _told(covering) if covering else None}


def _as_a_stranger_sees_it(proof: dict[str, Any]) -> dict[str, Any]:
    """No proof is handed out that would not convince."""
    certificate = proof["certificate"]
    try:
        proofs.verify(json.dumps(proof), certificate["certificate"]["public_key"] if certificate else None)
    except proofs.NotProven as error:
        raise Conflict(
            "The seals do not hold", f"{error.details}; `payouts check` tells more", code="unsound"
        ) from None
    return proof


@contextmanager
def _alone() -> Iterator[Connection]:
    """A connection that closes days alone. A transaction would see only what was before it had the lock."""
    with patient_engine().connect() as plain:
        connection = plain.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(f"SELECT pg_advisory_lock({ONE_CLOSER_AT_A_TIME})"))
        yield connection  # the lock goes with the connection


@contextmanager
def _one_moment() -> Iterator[Connection]:
    with patient_engine().connect() as plain:
        connection = plain.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection
