"""Evidence: who decided what, who may act, who is paid. `payouts check` names a row changed past the rules.

Tables that are only appended to are sealed row by row, as the journal is (`sealing.SOURCES`). Of tables whose
rows change lawfully (a proposal is decided, an operator is disabled) a trigger writes each version of a row
into `evidence`, which is appended to and sealed: what it was (`was`) and what it became (`content`). So
each row must say what its last version says, and each version must begin where the one before ended.

A version holds the columns that its table had then. Only columns that both sides have are compared, so a
later migration may add or drop some. One that writes a column in another type must also write a version of
each row whose `was` is the old content.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

# A session of psql may have set them otherwise, and jsonb has times and bytes as text.
AS_WRITTEN = "SET LOCAL timezone = 'UTC'; SET LOCAL bytea_output = 'hex'"


@dataclass(frozen=True, slots=True)
class Kept:
    """A table whose rows' versions are evidence.

    `never` are the columns that are none, each with the reason. `hashed` are secrets: their SHA-256 stands in
    the version, so that old passwords do not outlive the row.
    """

    table: str
    key: str
    never: Mapping[str, str] = field(default_factory=dict)
    hashed: tuple[str, ...] = ()

    @property
    def content(self) -> str:
        """SQL: what of a row `t` is evidence, as the trigger writes it."""
        return f"evidence_of(to_jsonb(t), '{{{','.join(self.never)}}}', '{{{','.join(self.hashed)}}}')"


FOLLOWING = "how far it has followed, after each turn; money and people depend on none of it"
KEPT = (
    Kept("destinations", "id"),
    Kept("adjustments", "id"),
    Kept("resolutions", "id"),
    Kept("blocks", "id"),
    Kept("block_removals", "id"),
    Kept("admin_proposals", "id"),
    Kept(
        "operators",
        "name",
        never={
            "last_sign_in_at": "changes with each sign-in, which the audit log has",
            "totp_step": "changes with each sign-in; set back, it lets the last code in once more",
            "totp_offered": "a secret that counts for nothing until it becomes totp_secret",
        },
        hashed=("password_hash", "totp_secret"),
    ),
    Kept(
        "app_keys", "prefix", never={"last_used_at": "changes with each minute of use, and decides nothing"}
    ),
    Kept(
        "endpoints",
        "id",
        never={
            **dict.fromkeys(("followed_to", "mark_to", "mark_xid"), FOLLOWING),
            "failing_since": "what its server did last; nobody's word",
        },
    ),
)

# Named columns of a version that differ from the other side's; NULL: none that both have.
DIFFERING = """(SELECT string_agg(key, ', ' ORDER BY key) FROM jsonb_each({one})
                WHERE {other} ? key AND value <> ({other} -> key))"""
FAULTS = """
    WITH versions AS MATERIALIZED
        (SELECT id, of_key, was, content, lag(content) OVER (PARTITION BY of_key ORDER BY id) AS before,
                lead(id) OVER (PARTITION BY of_key ORDER BY id) IS NULL AS is_last
         FROM evidence WHERE of_table = '{table}'),
    rows AS MATERIALIZED (SELECT t.{key}::text AS key, {content} AS content FROM {table} t)
    SELECT of_key AS key, id, 'changed before version ' || id || ': ' || {skipped} AS what FROM versions
    WHERE {skipped} IS NOT NULL
    UNION ALL SELECT of_key, id, 'made anew as version ' || id FROM versions
    WHERE was IS NULL AND before IS NOT NULL
    UNION ALL SELECT of_key, v.id, 'gone since version ' || v.id FROM versions v
    WHERE is_last AND NOT EXISTS (SELECT FROM rows r WHERE r.key = of_key)
    UNION ALL SELECT key, v.id, 'changed since version ' || v.id || ': ' || {now}
    FROM versions v JOIN rows r ON r.key = of_key WHERE is_last AND {now} IS NOT NULL
    UNION ALL SELECT key, 0, 'made past the rules' FROM rows r
    WHERE NOT EXISTS (SELECT FROM versions v WHERE v.of_key = r.key)
    ORDER BY key, id
"""


def faults(connection: Connection) -> Iterator[str]:
    """Each row that is not what its versions say, as the connection's transaction sees it: its table, its
    key, what happened to it and, where it was changed, which columns.
    """
    connection.execute(text(AS_WRITTEN))
    for kept in KEPT:
        for row in connection.execute(text(sql_of(kept))):
            yield f"{kept.table} {row.key} ({row.what})"


def sql_of(kept: Kept) -> str:
    """The question for one table."""
    return FAULTS.format(
        table=kept.table,
        key=kept.key,
        content=kept.content,
        skipped=DIFFERING.format(one="before", other="was"),
        now=DIFFERING.format(one="v.content", other="r.content"),
    )


# Why a table is no evidence. A new table stands here, in KEPT or in `sealing.SOURCES`: a test asks.
NO_EVIDENCE = {
    "wallets": "sums over the journal, which is sealed; the checks compare them",
    "withdrawals": "the sealed events repeat payee, amount and each status; the checks compare them",
    "payout_attempts": "the provider's own list, each night; key and bytes never change (trigger)",
    "webhook_events": "what the provider sent; what it did stands in the sealed events",
    "hints": "webhooks that wait for our own call, whose answer stands in the sealed events",
    "seal_blocks": "the seals: checked by themselves",
    "seal_leaves": "the seals: checked by themselves",
    "day_certificates": "signed, and checked by themselves",
    "switches": "what turns one is in the sealed audit log with both its sides",
    "operator_tokens": "for some hours; who signs in, and what they then do, stands in the audit log",
    "operator_invitations": "links for some days; what one leads to is a version of its operator",
    "operator_recovery_codes": "deleted when there are new ones; each use stands in the audit log",
    "pace": "a moment in time, moved with each call",
    "provider_balances": "what the provider said last",
    "exception_records": "findings: found again each minute or night while they are so",
    "spot_checks": "findings: found again each minute",
    "reconciliation_runs": "can be run again against the provider's books",
    "idempotent_requests": "answers that were given, kept for a day",
    "deliveries": "messages about sealed events, forgotten after some days",
    "emails": "messages about sealed events, forgotten after some days",
    "mail_listeners": FOLLOWING,
    "told_records": "which findings operators were mailed about",
    "counted_days": "sums over sealed events; they can be counted again",
    "day_totals": "sums over sealed events; they can be counted again",
}
