"""Issue signed day certificates and withdrawal proofs.

Both build on the chain of seals (`sealing.py`). `proofs.py` verifies both without a database.
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

from shared.clock import INDIA
from shared.db.engines import unbounded_engine
from shared.db.transactions import map_db_errors
from shared.errors import BadRequest, Conflict, NotFound, SettingsError
from shared.proof import merkle, proofs, seal_checks, sealing
from shared.settings import settings
from shared.states import PaidVia

MAX_BIGINT = 2**63 - 1
CLOSE_DAY_LOCK_KEY = 0xC105E  # arbitrary, but the same for every process that closes a day

log = structlog.get_logger()

# A day ends at its last row, in id order. A user's journal has the same order, so overlapping transactions at
# midnight never split a balance.
SELECT_CUT = """
    WITH cut AS (SELECT coalesce(max(id) FILTER (WHERE created_at < :begins), 0) AS before,
                        coalesce(max(id) FILTER (WHERE created_at < :ends), 0) AS until FROM {table})
    SELECT before, until, min(id) AS first_id, max(id) AS last_id, count(id) AS count
    FROM cut LEFT JOIN {table} ON id > before AND id <= until GROUP BY before, until
"""
# Coins and paise as of a cut. A withdrawal's status of today does not count: it is held if it was debited and
# neither refunded nor paid by then. How it was paid never changes (trigger right_payment); payments outside
# the provider are part of the paid total. Balances come from each user's last entry, which makes the sum a
# real check.
SELECT_TOTALS = f"""
    WITH taken AS (
        SELECT -t.coins AS coins, w.amount_paise, r.coins AS refunded,
               w.paid_via <> '{PaidVia.PROVIDER}' AS is_outside,
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
INSERT_CERTIFICATE = """
    INSERT INTO day_certificates (number, day, block, body, certificate_hash, signature)
    VALUES (:number, :day, :block, :body, :certificate_hash, :signature)
"""
# The user id is a condition because the journal is indexed by user.
SELECT_ROWS = f"""
    SELECT r.source, r.text, l.block, l.position, l.salt FROM (
        SELECT 'journal' AS source, id, {sealing.LEDGER_SOURCES[0].row_text} AS text FROM coin_transactions
        WHERE user_id = :user_id AND withdrawal_id = :id
        UNION ALL
        SELECT 'events', id, {sealing.LEDGER_SOURCES[1].row_text} FROM withdrawal_events WHERE withdrawal_id = :id
    ) r LEFT JOIN seal_leaves l ON l.source = r.source AND l.row_id = r.id
    ORDER BY l.block, l.position
"""
SELECT_LEAF_HASHES = "SELECT leaf_hash FROM seal_leaves WHERE block = :block ORDER BY position"
SELECT_COVERING_CERTIFICATE = "SELECT * FROM day_certificates WHERE block >= :block ORDER BY number LIMIT 1"


def close_day(day: date | None = None) -> dict[str, Any]:
    """The signed certificate of `day` in India, by default yesterday. It is created once and never changes.

    Raises Conflict (the day is not over, the totals do not balance), BadRequest (nothing to certify),
    SettingsError (no key), Unavailable.
    """
    with map_db_errors(), _close_day_lock() as locked:
        day = _closable_day(locked.execute(text("SELECT now()")).scalar_one(), day)
        query = text("SELECT * FROM day_certificates WHERE day = :day")
        if row := locked.execute(query, {"day": day}).one_or_none():
            return _certificate(row)
        key = settings().certificate_key
        if key is None:
            raise SettingsError(["CERTIFICATE_KEY: is missing; create one with `payouts certificate-key`"])
        sealing.seal_everything()
        with _snapshot() as connection:
            _sign(connection, day, key.get_secret_value())
        row = locked.execute(query, {"day": day}).one()
    log.info("[SEAL] day closed", day=str(day), block=row.block, certificate=row.certificate_hash.hex())
    return _certificate(row)


def prove(withdrawal_id: UUID) -> dict[str, Any]:
    """The proof of a withdrawal: its rows, and the path from them to a certificate or to the head of the
    chain.

    It contains only salted hashes of other users' rows. Raises NotFound, Conflict (not sealed, or changed
    since it was sealed), Unavailable.
    """
    sealing.seal()
    with map_db_errors(), _snapshot() as connection:
        user_id = connection.scalar(
            text("SELECT user_id FROM withdrawals WHERE id = :id"), {"id": withdrawal_id}
        )
        if user_id is None:
            raise NotFound("Withdrawal not found", "No withdrawal has this id", code="withdrawal_not_found")
        rows = list(connection.execute(text(SELECT_ROWS), {"id": withdrawal_id, "user_id": user_id}))
        if any(row.block is None for row in rows):
            raise Conflict("Not sealed yet", "Please retry in a minute", code="not_sealed")
        subject = {"type": proofs.PROOF_TYPE, "withdrawal_id": str(withdrawal_id), "user_id": user_id}
        proof = {**subject, "leaves": _leaves(connection, rows), **_chain(connection, rows)}
    return _self_verified(proof)


def _closable_day(now: datetime, day: date | None) -> date:
    """The day to close. A day can be closed once every transaction that began in it must have ended."""
    day = day or now.astimezone(INDIA).date() - timedelta(days=1)
    closable_at = _bounds(day)[1] + timedelta(seconds=sealing.LATE_SECONDS)
    if now < closable_at:
        raise Conflict(
            "The day is not over", f"{day} can be closed from {closable_at:%F %H:%M} IST", code="day_open"
        )
    return day


def _bounds(day: date) -> tuple[datetime, datetime]:
    begins_at = datetime.combine(day, time(), INDIA)
    return begins_at, begins_at + timedelta(days=1)


def _sign(connection: Connection, day: date, secret: str) -> None:
    """Sign the day, but only if all seals and totals hold in this snapshot."""
    faults = seal_checks.check_seals(connection)
    if faults:
        examples = "; ".join(fault.message for fault in faults[:5])
        raise Conflict(
            "Nothing was signed", f"{len(faults)} items do not match their seal: {examples}", code="unsound"
        )
    head = connection.execute(text(f"{sealing.SELECT_BLOCKS} ORDER BY number DESC LIMIT 1")).one_or_none()
    if head is None:
        raise BadRequest("Nothing to certify", "There are no entries yet", code="nothing_sealed")
    last = connection.execute(
        text("SELECT * FROM day_certificates ORDER BY number DESC LIMIT 1")
    ).one_or_none()
    key = proofs.private_key(secret)
    body = {
        **_day_totals(connection, day),
        "type": proofs.CERTIFICATE_TYPE,
        "version": proofs.VERSION,
        "chain": {"block": head.number, "hash": head.block_hash.hex()},
        "previous": (last.certificate_hash if last else proofs.NO_PREVIOUS_HASH).hex(),
        "public_key": proofs.public_key_text(key),
    }
    signed = proofs.canonical_json(body)
    certificate = {
        "number": last.number + 1 if last else 1,
        "day": day,
        "block": head.number,
        "body": signed.decode(),
        "certificate_hash": proofs.document_hash(body),
        "signature": key.sign(signed),
    }
    connection.execute(text(INSERT_CERTIFICATE), certificate)


def _day_totals(connection: Connection, day: date) -> dict[str, Any]:
    """The day's rows, and the totals at its beginning and its end."""
    begins_at, ends_at = _bounds(day)
    cuts = {
        source.name: connection.execute(
            text(SELECT_CUT.format(table=source.table)), {"begins": begins_at, "ends": ends_at}
        ).one()
        for source in sealing.LEDGER_SOURCES
    }
    if not any(cut.until for cut in cuts.values()):
        # Zeros from before the first entry prove nothing, and would be the chain's first link for ever.
        raise BadRequest(
            "Nothing to certify", f"The first entry was written after {day}", code="nothing_sealed"
        )
    opening = _totals(connection, cuts["journal"].before, cuts["events"].before)
    closing = _totals(connection, cuts["journal"].until, cuts["events"].until)
    for totals in (opening, closing):
        if totals["difference_coins"]:
            raise Conflict("Nothing was signed", f"The totals do not balance: {totals}", code="unsound")
    rows = {
        source: {"first_id": cut.first_id, "last_id": cut.last_id, "count": cut.count}
        for source, cut in cuts.items()
    }
    return {
        "day": str(day),
        "begins_at": begins_at.isoformat(),
        "ends_at": ends_at.isoformat(),
        **rows,
        "opening": opening,
        "closing": closing,
    }


def _totals(connection: Connection, journal: int, events: int) -> dict[str, int]:
    row = connection.execute(text(SELECT_TOTALS), {"journal": journal, "events": events}).one()
    totals = {name: int(value) for name, value in row._mapping.items()}
    accounted_for = totals["balances_coins"] + totals["held_coins"] + totals["paid_coins"]
    return {**totals, "difference_coins": totals["credited_coins"] - accounted_for}


def _certificate(row: Row[Any]) -> dict[str, Any]:
    return {"certificate": json.loads(row.body), "signature": base64.b64encode(row.signature).decode()}


def _leaves(connection: Connection, rows: list[Row[Any]]) -> list[dict[str, Any]]:
    hashes = {
        block: list(connection.execute(text(SELECT_LEAF_HASHES), {"block": block}).scalars())
        for block in {row.block for row in rows}
    }
    return [
        {
            "row": row.text,
            "salt": row.salt.hex(),
            "block": row.block,
            "position": row.position,
            "path": [sibling.hex() for sibling in merkle.path(hashes[row.block], row.position)],
        }
        for row in rows
    ]


def _chain(connection: Connection, rows: list[Row[Any]]) -> dict[str, Any]:
    """The blocks from the first that holds a row to the certificate that covers all, or else to the head."""
    first = min(row.block for row in rows)
    last = max(row.block for row in rows)
    covering = connection.execute(text(SELECT_COVERING_CERTIFICATE), {"block": last}).one_or_none()
    query = text(f"{sealing.SELECT_BLOCKS} WHERE number BETWEEN :first AND :last ORDER BY number")
    bounds = {"first": first, "last": covering.block if covering else MAX_BIGINT}
    blocks = [sealing.header(block) for block in connection.execute(query, bounds)]
    return {"blocks": blocks, "certificate": _certificate(covering) if covering else None}


def _self_verified(proof: dict[str, Any]) -> dict[str, Any]:
    """The proof, verified as a recipient would. An invalid proof is never issued."""
    certificate = proof["certificate"]
    try:
        proofs.verify(json.dumps(proof), certificate["certificate"]["public_key"] if certificate else None)
    except proofs.NotProven as error:
        raise Conflict(
            "The seals are not intact", f"{error.details}; run `payouts check` for details", code="unsound"
        ) from None
    return proof


@contextmanager
def _close_day_lock() -> Iterator[Connection]:
    """A connection that holds the lock for closing days. It autocommits, because a transaction would not see
    certificates that were created while it waited for the lock.
    """
    with unbounded_engine().connect() as raw_connection:
        connection = raw_connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(f"SELECT pg_advisory_lock({CLOSE_DAY_LOCK_KEY})"))
        yield connection  # the lock ends with the connection


@contextmanager
def _snapshot() -> Iterator[Connection]:
    with unbounded_engine().connect() as raw_connection:
        connection = raw_connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection
