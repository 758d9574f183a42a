"""Rival: the floor. A loop written by hand that pays on our own tables, with their triggers and events.

python -m bench.rivals.loop    reads DATABASE_URL and the RAZORPAYX settings; ends when its input does

It claims twenty withdrawals of known payees, commits, sends them side by side, and records them together; a
second thread applies webhooks, a hundred at once. Plain psycopg and http.client. It has no pace, pauses,
blocks, approvals, retries, look-ups, metrics or log, and trusts every webhook: it shows what the tables, the
wire and Python cost. `payouts check` holds after it.
"""

import base64
import hashlib
import http.client
import json
import os
import sys
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.types.json import Jsonb

CLAIMED_AT_ONCE = 20
APPLIED_AT_ONCE = 100
PAUSE_SECONDS = 0.01  # when there is nothing to do
CALL_SECONDS = 20

DUE = """
    SELECT w.id, w.amount_paise, d.fund_account_id
    FROM withdrawals w JOIN destinations d USING (user_id, upi_id)
    WHERE w.status = 'pending' AND w.due_at <= now() AND d.ended_at IS NULL
    ORDER BY w.due_at LIMIT %s FOR UPDATE OF w SKIP LOCKED
"""
BEGIN_ATTEMPTS = """
    INSERT INTO payout_attempts (id, withdrawal_id, number, request_body, state, sends, sent_as, last_sent_at)
    SELECT id, withdrawal_id, 1, body, 'sending', 1, %s, now()
    FROM unnest(%s::uuid[], %s::uuid[], %s::bytea[]) AS claimed (id, withdrawal_id, body)
"""
CLAIM = """
    UPDATE withdrawals SET status = 'processing', status_reason = 'sending', trying_since = now(),
        due_at = now() + interval '80 seconds', version = version + 1, updated_at = now()
    WHERE id = ANY(%s)
"""
# A webhook may have come first: then the answer changes nothing.
RECORD = """
    WITH reply AS (SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::jsonb[], %s::jsonb[])
                   AS r (id, payout_id, status, details, data)),
    accepted AS (
        UPDATE payout_attempts a SET state = 'accepted', payout_id = reply.payout_id,
            provider_status = reply.status, status_details = reply.details, answered_at = now()
        FROM reply WHERE a.id = reply.id AND state = 'sending'
        RETURNING a.withdrawal_id, reply.data),
    waits AS (
        UPDATE withdrawals w SET status_reason = 'bank_processing', due_at = now() + interval '60 seconds',
            version = version + 1, updated_at = now()
        FROM accepted WHERE w.id = accepted.withdrawal_id)
    INSERT INTO withdrawal_events (withdrawal_id, from_status, to_status, actor, reason, data)
    SELECT withdrawal_id, 'processing', 'processing', 'reply', 'payout_processing', data FROM accepted
"""
UNAPPLIED = """
    SELECT event_id, body FROM webhook_events WHERE applied_at IS NULL
    ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED
"""
PAY_ATTEMPTS = """
    UPDATE payout_attempts a SET state = 'paid', payout_id = r.payout_id, provider_status = 'processed',
        utr = r.utr, fees_paise = r.fees, tax_paise = r.tax, answered_at = now()
    FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::bigint[], %s::bigint[])
        AS r (id, payout_id, utr, fees, tax)
    WHERE a.id = r.id AND state IN ('sending', 'accepted')
"""
PAY = """
    WITH report AS (SELECT * FROM unnest(%s::uuid[], %s::text[], %s::jsonb[]) AS r (attempt_id, utr, data)),
    paid AS (
        UPDATE withdrawals w SET status = 'completed', status_reason = NULL, due_at = NULL,
            expected_by = NULL, trying_since = NULL, utr = report.utr, completed_at = now(),
            updated_at = now(), version = version + 1, paid_via = 'razorpayx'
        FROM report JOIN payout_attempts a ON a.id = report.attempt_id
        WHERE w.id = a.withdrawal_id AND w.status = 'processing'
        RETURNING w.id, report.data)
    INSERT INTO withdrawal_events (withdrawal_id, from_status, to_status, actor, reason, data)
    SELECT id, 'processing', 'completed', 'webhook', 'paid', data FROM paid
"""
APPLIED = """
    UPDATE webhook_events e SET applied_at = now(), outcome = r.outcome, reference_id = r.reference_id
    FROM unnest(%s::text[], %s::text[], %s::text[]) AS r (event_id, outcome, reference_id)
    WHERE e.event_id = r.event_id
"""
CLAIMED = """
    INSERT INTO withdrawal_events (withdrawal_id, from_status, to_status, actor, reason, data)
    SELECT withdrawal_id, 'pending', 'processing', 'worker', 'claimed', data
    FROM unnest(%s::uuid[], %s::jsonb[]) AS claimed (withdrawal_id, data)
"""
_local = threading.local()
_writing = threading.Lock()  # both threads write the same rows, and each takes several in no order


def main() -> None:
    """Pay and apply webhooks until the input ends."""
    stopped = threading.Event()
    threads = [threading.Thread(target=run, args=(stopped,)) for run in (_pay, _apply)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stopped.set()
    for thread in threads:
        thread.join()


def _pay(stopped: threading.Event) -> None:
    account = os.environ["RAZORPAYX_ACCOUNT_NUMBER"]
    sent_as = f"{os.environ['RAZORPAYX_KEY_ID']}@{os.environ['RAZORPAYX_BASE_URL']}"
    with _connect() as connection, ThreadPoolExecutor(CLAIMED_AT_ONCE) as threads:
        while not stopped.is_set():
            claimed = _claim(connection, account, sent_as)
            if claimed:
                _record(connection, list(threads.map(_send, claimed)))
            else:
                stopped.wait(PAUSE_SECONDS)


def _claim(connection: psycopg.Connection[Any], account: str, sent_as: str) -> list[tuple[uuid.UUID, bytes]]:
    with connection.transaction():
        rows = connection.execute(DUE, [CLAIMED_AT_ONCE]).fetchall()
        if not rows:
            return []
        attempts = [uuid.uuid4() for _ in rows]
        bodies = [
            _body(account, str(attempt), amount_paise, fund_account)
            for attempt, (_, amount_paise, fund_account) in zip(attempts, rows, strict=True)
        ]
        ids = [row[0] for row in rows]
        evidence = [
            Jsonb(
                {"attempt_id": str(attempt), "number": 1, "request_sha256": hashlib.sha256(body).hexdigest()}
            )
            for attempt, body in zip(attempts, bodies, strict=True)
        ]
        with connection.pipeline():
            connection.execute(BEGIN_ATTEMPTS, [sent_as, attempts, ids, bodies])
            connection.execute(CLAIM, [ids])
            connection.execute(CLAIMED, [ids, evidence])
    return list(zip(attempts, bodies, strict=True))


def _body(account: str, reference_id: str, amount_paise: int, fund_account_id: str) -> bytes:
    return json.dumps(
        {
            "account_number": account, "fund_account_id": fund_account_id, "amount": amount_paise,
            "currency": "INR", "mode": "UPI", "purpose": "payout", "queue_if_low_balance": True,
            "reference_id": reference_id,
        }
    ).encode()  # fmt: skip


def _send(claimed: tuple[uuid.UUID, bytes]) -> dict[str, Any]:
    attempt, body = claimed
    if not hasattr(_local, "wire"):
        url = urlsplit(os.environ["RAZORPAYX_BASE_URL"])
        _local.wire = http.client.HTTPConnection(url.hostname or "", url.port, timeout=CALL_SECONDS)
        pair = f"{os.environ['RAZORPAYX_KEY_ID']}:{os.environ['RAZORPAYX_KEY_SECRET']}"
        _local.authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    headers = {
        "Content-Type": "application/json",
        "Authorization": _local.authorization,
        "X-Payout-Idempotency": str(attempt),
    }
    _local.wire.request("POST", "/v1/payouts", body, headers)
    answer = _local.wire.getresponse()
    content = answer.read()
    assert answer.status == http.client.OK, content
    return dict(json.loads(content))


def _record(connection: psycopg.Connection[Any], payouts: Sequence[dict[str, Any]]) -> None:
    attempts = [uuid.UUID(payout["reference_id"]) for payout in payouts]
    details = [Jsonb(payout["status_details"]) for payout in payouts]
    data = [
        Jsonb({"attempt_id": payout["reference_id"], "payout_id": payout["id"]} | _status(payout))
        for payout in payouts
    ]
    payout_ids = [payout["id"] for payout in payouts]
    statuses = [payout["status"] for payout in payouts]
    with _writing:
        connection.execute(RECORD, [attempts, payout_ids, statuses, details, data])


def _status(payout: dict[str, Any]) -> dict[str, Any]:
    return {"provider_status": payout["status"], "details": payout["status_details"]}


def _apply(stopped: threading.Event) -> None:
    with _connect() as connection:
        while not stopped.is_set():
            if not _apply_some(connection):
                stopped.wait(PAUSE_SECONDS)


def _apply_some(connection: psycopg.Connection[Any]) -> bool:
    with _writing, connection.transaction():
        rows = connection.execute(UNAPPLIED, [APPLIED_AT_ONCE]).fetchall()
        if not rows:
            return False
        events = [(event_id, json.loads(body)) for event_id, body in rows]
        payouts = [event["payload"]["payout"]["entity"] for _, event in events]
        processed = {
            payout["reference_id"]: payout
            for (_, event), payout in zip(events, payouts, strict=True)
            if event["event"] == "payout.processed"
        }
        with connection.pipeline():
            if processed:
                _complete(connection, list(processed.values()))
            references = [payout["reference_id"] for payout in payouts]
            outcomes = ["pay" if event["event"] == "payout.processed" else "repeat" for _, event in events]
            connection.execute(APPLIED, [[key for key, _ in events], outcomes, references])
    return True


def _complete(connection: psycopg.Connection[Any], payouts: Sequence[dict[str, Any]]) -> None:
    attempts = [uuid.UUID(payout["reference_id"]) for payout in payouts]
    utrs = [None if payout["utr"] == "null" else payout["utr"] for payout in payouts]
    fees = [payout["fees"] for payout in payouts]
    taxes = [payout["tax"] for payout in payouts]
    data = [
        Jsonb({"attempt_id": payout["reference_id"], "payout_id": payout["id"]} | _status(payout))
        for payout in payouts
    ]
    connection.execute(PAY_ATTEMPTS, [attempts, [p["id"] for p in payouts], utrs, fees, taxes])
    connection.execute(PAY, [attempts, utrs, data])


def _connect() -> psycopg.Connection[Any]:
    # Prepared at the first use: there are few statements, and each runs often.
    connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=0)
    connection.execute("SET timezone TO 'UTC'")
    return connection


if __name__ == "__main__":
    main()
