"""Evidence: who decided what, who may act, who is paid. `payouts check` reports rows changed outside the
rules.

Append-only tables are sealed row by row, like the journal (`sealing.SOURCES`). For tables whose rows may
change (a proposal is decided, an operator is disabled), a trigger writes each version of a row to `evidence`,
which is append-only and sealed: the old content (`was`) and the new one (`content`). So each row must match
its last version, and each version must begin where the previous one ended.

A version holds the columns that its table had at the time. Only columns that both sides have are compared, so
later migrations may add or drop columns. A migration that changes a column's type must also write a version
of each row, with the old content in `was`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

# jsonb stores times and bytes as text, whose form depends on these settings of the session.
SESSION_FORMAT = "SET LOCAL timezone = 'UTC'; SET LOCAL bytea_output = 'hex'"


@dataclass(frozen=True, slots=True)
class VersionedTable:
    """A table of which every row version is kept as evidence.

    `excluded` columns are not part of a version; each has its reason. `hashed` columns are secrets: a version
    holds their SHA-256, so that old passwords do not outlive the row.
    """

    table: str
    key: str
    excluded: Mapping[str, str] = field(default_factory=dict)
    hashed: tuple[str, ...] = ()

    @property
    def content(self) -> str:
        """SQL: the evidence of a row `t`, as the trigger writes it."""
        return f"evidence_of(to_jsonb(t), '{{{','.join(self.excluded)}}}', '{{{','.join(self.hashed)}}}')"


CURSOR = "a cursor that moves with each batch; neither money nor people depend on it"
VERSIONED_TABLES = (
    VersionedTable("destinations", "id"),
    VersionedTable("adjustments", "id"),
    VersionedTable("resolutions", "id"),
    VersionedTable("blocks", "id"),
    VersionedTable("block_removals", "id"),
    VersionedTable("admin_proposals", "id"),
    VersionedTable(
        "operators",
        "name",
        excluded={
            "last_sign_in_at": "changes with each sign-in, which the audit log records",
            "totp_step": "changes with each sign-in; resetting it only lets the last code be used again",
            "totp_offered": "a secret without effect until it becomes totp_secret",
        },
        hashed=("password_hash", "totp_secret"),
    ),
    VersionedTable(
        "app_keys", "prefix", excluded={"last_used_at": "changes with each minute of use and has no effect"}
    ),
    VersionedTable(
        "endpoints",
        "id",
        excluded={
            **dict.fromkeys(("followed_to", "mark_to", "mark_xid"), CURSOR),
            "failing_since": "reflects the server's last answers; no person decides it",
        },
    ),
)

# SQL: the names of the columns that both sides have and that differ, or NULL.
DIFFERING = """(SELECT string_agg(key, ', ' ORDER BY key) FROM jsonb_each({one})
                WHERE {other} ? key AND value <> ({other} -> key))"""
SELECT_FAULTS = """
    WITH versions AS MATERIALIZED
        (SELECT id, of_key, was, content, lag(content) OVER (PARTITION BY of_key ORDER BY id) AS before,
                lead(id) OVER (PARTITION BY of_key ORDER BY id) IS NULL AS is_last
         FROM evidence WHERE of_table = '{table}'),
    rows AS MATERIALIZED (SELECT t.{key}::text AS key, {content} AS content FROM {table} t)
    SELECT of_key AS key, id, 'changed before version ' || id || ': ' || {skipped} AS message FROM versions
    WHERE {skipped} IS NOT NULL
    UNION ALL SELECT of_key, id, 'deleted and recreated as version ' || id FROM versions
    WHERE was IS NULL AND before IS NOT NULL
    UNION ALL SELECT of_key, v.id, 'deleted since version ' || v.id FROM versions v
    WHERE is_last AND NOT EXISTS (SELECT FROM rows r WHERE r.key = of_key)
    UNION ALL SELECT key, v.id, 'changed since version ' || v.id || ': ' || {changed}
    FROM versions v JOIN rows r ON r.key = of_key WHERE is_last AND {changed} IS NOT NULL
    UNION ALL SELECT key, 0, 'created without a version' FROM rows r
    WHERE NOT EXISTS (SELECT FROM versions v WHERE v.of_key = r.key)
    ORDER BY key, id
"""


def faults(connection: Connection) -> Iterator[str]:
    """One message for each row that does not match its versions, as the connection's transaction sees it:
    table, key, what happened and, for a change, which columns.
    """
    connection.execute(text(SESSION_FORMAT))
    for versioned in VERSIONED_TABLES:
        for row in connection.execute(text(faults_sql(versioned))):
            yield f"{versioned.table} {row.key} ({row.message})"


def faults_sql(versioned: VersionedTable) -> str:
    """The query for one table."""
    return SELECT_FAULTS.format(
        table=versioned.table,
        key=versioned.key,
        content=versioned.content,
        skipped=DIFFERING.format(one="before", other="was"),
        changed=DIFFERING.format(one="v.content", other="r.content"),
    )


# Why a table is not evidence. A test requires each table here, in VERSIONED_TABLES or in `sealing.SOURCES`.
NOT_EVIDENCE = {
    "wallets": "sums over the journal, which is sealed; the checks compare them",
    "withdrawals": "the sealed events repeat payee, amount and each status; the checks compare them",
    "payout_attempts": "reconciled each night with the provider; key and body never change (trigger)",
    "webhook_events": "what the provider sent; the sealed events record the effects",
    "hints": "webhooks that wait for our own call; the sealed events record its answer",
    "seal_blocks": "the seals, which have their own check",
    "seal_leaves": "the seals, which have their own check",
    "day_certificates": "signed, with their own check",
    "switches": "the sealed audit log records each change, before and after",
    "operator_tokens": "last some hours; the audit log records sign-ins and actions",
    "operator_invitations": "links that last some days; using one creates a version of its operator",
    "operator_recovery_codes": "deleted when replaced; the audit log records each use",
    "pace": "a moment in time, moved with each call",
    "provider_balances": "the last balance that the provider reported",
    "exception_records": "findings, made again each minute or night while they last",
    "spot_checks": "findings, made again each minute",
    "reconciliation_runs": "can be run again against the provider's statement",
    "idempotent_requests": "responses, kept for a day",
    "deliveries": "messages about sealed events, deleted after some days",
    "emails": "messages about sealed events, deleted after some days",
    "mail_listeners": CURSOR,
    "told_records": "which findings operators were mailed about",
    "counted_days": "sums over sealed events; they can be counted again",
    "day_totals": "sums over sealed events; they can be counted again",
}
