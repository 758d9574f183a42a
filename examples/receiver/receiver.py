#!/usr/bin/env python3
"""Receives webhooks from Coin Payouts. It needs `flask` and `standardwebhooks`.

    PAYOUTS_WEBHOOK_SECRETS=whsec_… receiver.py [--port 9000] [--database withdrawals.db]

It verifies, stores, answers, and leaves the work for later. Events may arrive twice and out of order, so it
keeps the highest `sequence` of each withdrawal and ignores the rest. While the secret changes, set both
secrets, separated by a comma.
"""

import argparse
import json
import os
import re
import sqlite3
import sys
from contextlib import closing
from typing import Any

from flask import Flask, Response, request
from standardwebhooks import Webhook, WebhookVerificationError
from werkzeug.serving import run_simple

SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,}=*")  # at least 24 bytes: everyone knows an empty secret
MAX_BODY_BYTES = 64 * 1024

KEEP = """
INSERT INTO withdrawals (id, user_id, sequence, status, event) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET sequence = excluded.sequence, status = excluded.status, event = excluded.event
WHERE excluded.sequence > withdrawals.sequence
"""


def create_app(secrets: list[str], database: str) -> Flask:
    """Return the receiver, which accepts events that one of these secrets signed."""
    keys = [Webhook(secret) for secret in secrets]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS withdrawals"
            " (id TEXT PRIMARY KEY, user_id TEXT, sequence INTEGER, status TEXT, event TEXT)"
        )
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES

    @app.post("/payouts/")
    def receive() -> Response:
        # Verify the raw bytes: JSON that was parsed and written again has another signature.
        event = verified(keys, request.get_data(), dict(request.headers))
        if event is None:
            return Response("bad signature\n", 400)
        if event["type"].startswith("withdrawal.") and keep(database, event["data"]):
            # Here your app queues its own work, such as a push message.
            print(f"{event['type']} {event['data']['withdrawal_id']} {event['data']['sequence']}", flush=True)
        return Response(status=204)  # also for duplicates and unknown types

    return app


def verified(keys: list[Webhook], body: bytes, headers: dict[str, str]) -> dict[str, Any] | None:
    """Return the event if one of the secrets signed it within five minutes of now; otherwise None."""
    for key in keys:
        try:
            event: dict[str, Any] = key.verify(body, headers)
        except (WebhookVerificationError, ValueError):  # ValueError: a signature that is not base64
            continue
        return event
    return None


def keep(database: str, data: dict[str, Any]) -> bool:
    """Store the withdrawal's new state; False if the event is a duplicate or older."""
    row = (data["withdrawal_id"], data["user_id"], data["sequence"], data["status"], json.dumps(data))
    with closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute(KEEP, row).rowcount == 1


def main() -> None:
    """Run until stopped."""
    parser = argparse.ArgumentParser(description="Receives webhooks from Coin Payouts.")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--database", default="withdrawals.db")
    given = parser.parse_args()
    secrets = [secret.strip() for secret in os.environ.get("PAYOUTS_WEBHOOK_SECRETS", "").split(",")]
    if not all(map(SECRET.fullmatch, secrets)):
        sys.exit("Set PAYOUTS_WEBHOOK_SECRETS: `payouts endpoints add URL` shows the secret, once.")
    # A development server; your app has its own.
    run_simple("127.0.0.1", given.port, create_app(secrets, given.database), threaded=True)


if __name__ == "__main__":
    main()
