"""The database as plain rows, and what must be true of them after every step. Nothing of ours is asked."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.world import World

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
# One flag only says that nobody answers; every other stops coins and rupees until people have decided.
NOTICE = "unanswered"

TABLES = {
    "wallets": "SELECT user_id, balance_coins, is_frozen FROM wallets ORDER BY user_id",
    "journal": "SELECT id, user_id, kind, coins, balance_after, withdrawal_id FROM coin_transactions ORDER BY id",
    "withdrawals": """SELECT id, user_id, coins_amount, amount_paise, upi_id, status, status_reason, review, utr,
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
    """Everything that counts, at one moment."""

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
    def of(cls, world: World) -> "Facts":
        rows = dict(world.sql(EVERYTHING)[0]._mapping)
        for name in ("withdrawals", "attempts"):
            rows[name] = {row["id"]: row for row in rows[name]}
        return cls(**rows)

    def but_for_hints(self) -> tuple[object, ...]:
        """What a webhook may not change by itself."""
        return (self.wallets, self.journal, self.withdrawals, self.attempts, self.resolutions, self.switches)

    def keys(self, withdrawal_id: str) -> list[str]:
        """The idempotency keys of a withdrawal's attempts, oldest first."""
        return [key for key, row in self.attempts.items() if row["withdrawal_id"] == withdrawal_id]

    def balance(self, user_id: str) -> int | None:
        return next((row["balance_coins"] for row in self.wallets if row["user_id"] == user_id), None)

    def refunds(self, withdrawal_id: str) -> int:
        return sum(r["kind"] == "refund" and r["withdrawal_id"] == withdrawal_id for r in self.journal)

    def taken_back(self, withdrawal_id: str) -> int:
        """How many coins people hold that they took again after its refund."""
        return -sum(row["coins"] for row in self.corrections if row["withdrawal_id"] == withdrawal_id)

    def approvals(self, withdrawal_id: str) -> int:
        """How often somebody approved it."""
        return sum((r["withdrawal_id"], r["outcome"]) == (withdrawal_id, "approved") for r in self.reviews)

    def is_blocked(self, withdrawal_id: str) -> bool:
        """Whether only people may move coins or rupees for it."""
        return self.withdrawals[withdrawal_id]["review"] not in (None, NOTICE)


def broken(facts: Facts) -> Iterator[str]:
    """What is wrong with the rows as they stand."""
    running: Counter[str] = Counter()
    for line in facts.journal:
        running[line["user_id"]] += line["coins"]
        if line["balance_after"] != running[line["user_id"]] or line["balance_after"] < 0:
            yield f"journal line {line}"
    for wallet in facts.wallets:
        if wallet["balance_coins"] != running[wallet["user_id"]] or wallet["balance_coins"] < 0:
            yield f"a balance is not its journal: {wallet}"
    taken_back = sum(map(facts.taken_back, facts.withdrawals))
    if taken_back != -sum(line["coins"] for line in facts.journal if line["kind"] == "adjustment"):
        yield "coins were taken back, and no withdrawal says for what"
    credited = sum(line["coins"] for line in facts.journal if line["kind"] == "credit")
    out = sum(r["coins_amount"] for r in facts.withdrawals.values() if r["status"] not in REFUNDED)
    if credited != sum(wallet["balance_coins"] for wallet in facts.wallets) + out + taken_back:
        yield "coins are not conserved"
    told = {event["withdrawal_id"]: event["to_status"] for event in facts.events}
    for key, row in facts.withdrawals.items():
        yield from (f"{fault}: {row}" for fault in _broken_withdrawal(facts, key, row, told.get(key)))


def _broken_withdrawal(facts: Facts, key: str, row: Row, told: str | None) -> Iterator[str]:
    lines = [(line["kind"], line["coins"]) for line in facts.journal if line["withdrawal_id"] == key]
    gave_back = [("refund", row["coins_amount"])] if row["status"] in REFUNDED else []
    if lines != [("withdrawal", -row["coins_amount"]), *gave_back]:
        yield f"its coins moved wrongly, {lines}"
    if facts.taken_back(key) not in (0, row["coins_amount"] if row["status"] == "failed" else 0):
        yield f"{facts.taken_back(key)} of its coins were taken back"
    if row["amount_paise"] != row["coins_amount"] * 10:
        yield "other rupees than coins"
    states = [facts.attempts[attempt]["state"] for attempt in facts.keys(key)]
    live = [state for state in states if state in LIVE]
    if len(live) > 1 or (live and row["status"] in REFUNDED):
        yield f"too many live attempts, {states}"
    if row["status"] == "pending" and states:
        yield "sent while it can be cancelled"
    if row["awaits_approval"] and (states or row["status"] in ("processing", "completed")):
        yield "sent without the approval that it awaits"
    if (row["status"] in OPEN) != row["has_due"] or (row["status"] in OPEN and not row["status_reason"]):
        yield "waits in silence"
    if told != row["status"]:
        yield f"its story ends in {told}"


def broken_moves(before: Facts, after: Facts, decided: set[str]) -> Iterator[str]:
    """What may not have changed between two moments; `decided` are the withdrawals that people just ended."""
    if after.journal[: len(before.journal)] != before.journal:
        yield "the journal was rewritten"
    if after.events[: len(before.events)] != before.events:
        yield "a story was rewritten"
    for key, was in before.withdrawals.items():
        row = after.withdrawals[key]
        if was["status"] != row["status"] and (was["status"], row["status"]) not in MOVES:
            yield f"{key} went from {was['status']} to {row['status']}"
        is_free = was["awaits_approval"] and not row["awaits_approval"]
        if is_free and after.approvals(key) == before.approvals(key):
            yield f"{key} awaited approval, and nobody gave it"
        if before.is_blocked(key) and key not in decided and _moved(before, after, key):
            yield f"{key} needs a person, and moved all the same"
        if before.is_blocked(key) and key not in decided and not after.is_blocked(key):
            yield f"{key} needs a person, and lost its flag"
    for key, was in before.attempts.items():
        if (was["body"], was["number"]) != (after.attempts[key]["body"], after.attempts[key]["number"]):
            yield f"the request of {key} changed"


def _moved(before: Facts, after: Facts, key: str) -> bool:
    """Whether coins came back, a new key was made, or something was sent again."""

    def so_far(facts: Facts) -> tuple[int, int]:
        return facts.refunds(key), sum(facts.attempts[attempt]["sends"] for attempt in facts.keys(key))

    return so_far(before) != so_far(after)


def two_changes(before: Facts, after: Facts) -> list[str]:
    """The withdrawals for which one step wrote more than one move."""
    new = list(itertools.islice(after.events, len(before.events), None))
    moves = Counter(e["withdrawal_id"] for e in new if e["from_status"] not in (None, e["to_status"]))
    return [key for key, times in moves.items() if times > 1]
