"""The database as plain rows, and what must hold for them after every step. Uses no product code."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.world import World

Row = dict[str, Any]
OPEN = ("pending", "processing")
REFUNDED = ("failed", "cancelled")
LIVE = ("sending", "throttled", "unknown", "accepted", "paid")
ENDED = ("paid", "refused", "failed", "reversed")
MOVES = {
    ("pending", "processing"),
    ("pending", "cancelled"),
    ("pending", "failed"),
    ("processing", "completed"),
    ("processing", "failed"),
    ("completed", "failed"),
}
# This flag only reports missing answers; every other flag stops coins and rupees until people decide.
NOTICE = "unanswered"

TABLES = {
    "wallets": "SELECT user_id, balance_coins, is_frozen FROM wallets ORDER BY user_id",
    "journal": "SELECT id, user_id, kind, coins, balance_after, withdrawal_id FROM coin_transactions ORDER BY id",
    "withdrawals": """SELECT id, user_id, coins_amount, amount_paise, upi_id, status, status_reason, hold, utr,
                        awaits_approval, due_at IS NOT NULL AS has_due, due_at < now() + interval '5 s' AS is_due,
                        completed_at < now() - interval '8 days' AS is_old
                      FROM withdrawals ORDER BY id""",
    "attempts": """SELECT id, withdrawal_id, number, state, sends, payout_id, md5(request_body) AS body,
                     recheck_at IS NOT NULL AS has_recheck FROM payout_attempts ORDER BY withdrawal_id, number""",
    "events": "SELECT withdrawal_id, from_status, to_status, reason FROM withdrawal_events ORDER BY id",
    "resolutions": "SELECT id, withdrawal_id, decision, proposed_by, outcome FROM resolutions ORDER BY id",
    "corrections": "SELECT withdrawal_id, coins FROM adjustments ORDER BY id",
    "reviews": "SELECT withdrawal_id, outcome, requested_by, decided_by FROM reviews ORDER BY id",
    "switches": "SELECT name, is_on, probe_at IS NOT NULL AS probes FROM switches ORDER BY name",
    "hints": "SELECT attempt_id, withdrawal_id FROM hints WHERE due_at IS NOT NULL ORDER BY attempt_id",
    "waiting_events": "SELECT event_id FROM webhook_events WHERE applied_at IS NULL ORDER BY event_id",
}
EVERYTHING = "SELECT " + ", ".join(
    f"(SELECT coalesce(json_agg(rows), '[]') FROM ({sql}) rows) AS {name}" for name, sql in TABLES.items()
)
EMPTY = """
    SET LOCAL session_replication_role = replica;
    DELETE FROM coin_transactions; DELETE FROM withdrawal_events; DELETE FROM hints; DELETE FROM payout_attempts;
    DELETE FROM reviews; DELETE FROM block_removals; DELETE FROM blocks; DELETE FROM adjustments; DELETE FROM resolutions; DELETE FROM exception_records; DELETE FROM webhook_events;
    DELETE FROM evidence WHERE of_table <> 'operators'; DELETE FROM destinations; DELETE FROM withdrawals; DELETE FROM wallets; DELETE FROM switches;
    INSERT INTO switches (name, is_on, reason, actor) VALUES ('payouts', true, 'installed', 'migration')
"""


@dataclass
class Facts:
    """The state that the rules check, at one moment."""

    wallets: list[Row]
    journal: list[Row]
    withdrawals: dict[str, Row]
    attempts: dict[str, Row]
    events: list[Row]
    resolutions: list[Row]
    corrections: list[Row]
    reviews: list[Row]
    switches: list[Row]
    hints: list[Row]
    waiting_events: list[Row]

    @classmethod
    def read(cls, world: World) -> "Facts":
        rows = dict(world.sql(EVERYTHING)[0]._mapping)
        for name in ("withdrawals", "attempts"):
            rows[name] = {row["id"]: row for row in rows[name]}
        return cls(**rows)

    def without_hints(self) -> tuple[object, ...]:
        """The state that a webhook alone must not change."""
        return (self.wallets, self.journal, self.withdrawals, self.attempts, self.resolutions, self.switches)

    def keys(self, withdrawal_id: str) -> list[str]:
        """The idempotency keys of a withdrawal's attempts, oldest first."""
        return [key for key, row in self.attempts.items() if row["withdrawal_id"] == withdrawal_id]

    def balance(self, user_id: str) -> int | None:
        return next((row["balance_coins"] for row in self.wallets if row["user_id"] == user_id), None)

    def refunds(self, withdrawal_id: str) -> int:
        return sum(r["kind"] == "refund" and r["withdrawal_id"] == withdrawal_id for r in self.journal)

    def taken_back(self, withdrawal_id: str) -> int:
        """How many coins people took back after its refund."""
        return -sum(row["coins"] for row in self.corrections if row["withdrawal_id"] == withdrawal_id)

    def approvals(self, withdrawal_id: str) -> int:
        """How often it was approved."""
        return sum((r["withdrawal_id"], r["outcome"]) == (withdrawal_id, "approved") for r in self.reviews)

    def is_blocked(self, withdrawal_id: str) -> bool:
        """True if only people may move coins or rupees for it."""
        return self.withdrawals[withdrawal_id]["hold"] not in (None, NOTICE)


def find_faults(facts: Facts) -> Iterator[str]:
    """The faults in the current rows."""
    running: Counter[str] = Counter()
    for entry in facts.journal:
        running[entry["user_id"]] += entry["coins"]
        if entry["balance_after"] != running[entry["user_id"]] or entry["balance_after"] < 0:
            yield f"journal entry {entry}"
    for wallet in facts.wallets:
        if wallet["balance_coins"] != running[wallet["user_id"]] or wallet["balance_coins"] < 0:
            yield f"a balance differs from its journal: {wallet}"
    taken_back = sum(map(facts.taken_back, facts.withdrawals))
    if taken_back != -sum(entry["coins"] for entry in facts.journal if entry["kind"] == "adjustment"):
        yield "coins were taken back without a withdrawal"
    credited = sum(entry["coins"] for entry in facts.journal if entry["kind"] == "credit")
    coins_out = sum(r["coins_amount"] for r in facts.withdrawals.values() if r["status"] not in REFUNDED)
    if credited != sum(wallet["balance_coins"] for wallet in facts.wallets) + coins_out + taken_back:
        yield "coins are not conserved"
    last_status = {event["withdrawal_id"]: event["to_status"] for event in facts.events}
    for key, row in facts.withdrawals.items():
        yield from (f"{fault}: {row}" for fault in _withdrawal_faults(facts, key, row, last_status.get(key)))


def _withdrawal_faults(facts: Facts, key: str, row: Row, last_status: str | None) -> Iterator[str]:
    entries = [(line["kind"], line["coins"]) for line in facts.journal if line["withdrawal_id"] == key]
    refunds = [("refund", row["coins_amount"])] if row["status"] in REFUNDED else []
    if entries != [("withdrawal", -row["coins_amount"]), *refunds]:
        yield f"wrong coin movements {entries}"
    if facts.taken_back(key) not in (0, row["coins_amount"] if row["status"] == "failed" else 0):
        yield f"{facts.taken_back(key)} of its coins were taken back"
    if row["amount_paise"] != row["coins_amount"] * 10:
        yield "rupees differ from coins"
    states = [facts.attempts[attempt]["state"] for attempt in facts.keys(key)]
    live = [state for state in states if state in LIVE]
    if len(live) > 1 or (live and row["status"] in REFUNDED):
        yield f"too many live attempts, {states}"
    if row["status"] == "pending" and states:
        yield "sent while it can be cancelled"
    if row["awaits_approval"] and (states or row["status"] in ("processing", "completed")):
        yield "sent without the approval that it awaits"
    if (row["status"] in OPEN) != row["has_due"] or (row["status"] in OPEN and not row["status_reason"]):
        yield "waits without a reason or a due time"
    if last_status != row["status"]:
        yield f"its last event is {last_status}"


def find_forbidden_changes(before: Facts, after: Facts, decided: set[str]) -> Iterator[str]:
    """Forbidden changes between two moments; `decided` are the withdrawals that people just decided."""
    if after.journal[: len(before.journal)] != before.journal:
        yield "the journal was rewritten"
    if after.events[: len(before.events)] != before.events:
        yield "events were rewritten"
    for key, was in before.withdrawals.items():
        row = after.withdrawals[key]
        if was["status"] != row["status"] and (was["status"], row["status"]) not in MOVES:
            yield f"{key} went from {was['status']} to {row['status']}"
        is_free = was["awaits_approval"] and not row["awaits_approval"]
        if is_free and after.approvals(key) == before.approvals(key):
            yield f"{key} no longer awaits approval, but no one approved it"
        if before.is_blocked(key) and key not in decided and _moved(before, after, key):
            yield f"{key} is on hold, but it moved"
        if before.is_blocked(key) and key not in decided and not after.is_blocked(key):
            yield f"{key} is on hold, but it lost its flag"
    for key, was in before.attempts.items():
        if (was["body"], was["number"]) != (after.attempts[key]["body"], after.attempts[key]["number"]):
            yield f"the request of {key} changed"


def _moved(before: Facts, after: Facts, key: str) -> bool:
    """True if there was a refund, a new attempt or another send."""

    def counts(facts: Facts) -> tuple[int, int]:
        return facts.refunds(key), sum(facts.attempts[attempt]["sends"] for attempt in facts.keys(key))

    return counts(before) != counts(after)


def moved_twice(before: Facts, after: Facts) -> list[str]:
    """The withdrawals for which one step wrote more than one status change."""
    new_events = list(itertools.islice(after.events, len(before.events), None))
    moves = Counter(e["withdrawal_id"] for e in new_events if e["from_status"] not in (None, e["to_status"]))
    return [key for key, count in moves.items() if count > 1]
