"""The judge. It knows the provider's own list, our database as plain rows, and the responses that the apps got.

It uses no product code, so that a fault in the product cannot hide itself. Each truth is a function that
yields its violations; `judge` evaluates all of them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.chaos.load import TOO_MANY_COINS, Ledger

Row = dict[str, Any]
DEAD = ("failed", "reversed", "rejected", "cancelled")  # the provider's final statuses without a payment
FINAL = ("completed", "failed", "cancelled")
REFUNDED = ("failed", "cancelled")
COIN_PAISE = 10
CLOCK_SECONDS = 0.25  # the precision of the provider's clock, read over HTTP and converted

TABLES = {
    "wallets": "SELECT user_id, balance_coins FROM wallets",
    "journal": """SELECT user_id, kind, coins, balance_after, withdrawal_id::text, reference,
                         extract(epoch FROM created_at)::float8 AS at FROM coin_transactions ORDER BY id""",
    "withdrawals": """SELECT id::text, user_id, coins_amount, amount_paise, upi_id, status, status_reason,
                             due_at, expected_by, utr, hold, extract(epoch FROM completed_at)::float8 AS completed_at
                      FROM withdrawals ORDER BY id""",
    "attempts": "SELECT id::text, withdrawal_id::text, state, payout_id FROM payout_attempts ORDER BY number",
    "events": """SELECT withdrawal_id::text, from_status, to_status, actor, reason,
                        extract(epoch FROM created_at)::float8 AS at FROM withdrawal_events ORDER BY id""",
    "unread": "SELECT event_id FROM webhook_events WHERE applied_at IS NULL OR outcome = 'poison'",
}


@dataclass
class Facts:
    """Everything that is known at the end. Provider times are Unix seconds of our clock."""

    payouts: list[Row]
    wallets: list[Row]
    journal: list[Row]
    withdrawals: list[Row]
    attempts: list[Row]
    events: list[Row]
    unread: list[Row]
    ledger: Ledger
    owner: dict[str, str] = field(init=False)  # reference (an attempt's id) -> withdrawal
    paid_by: dict[str, list[Row]] = field(init=False)  # withdrawal -> its payouts
    lines: dict[str, list[Row]] = field(init=False)  # withdrawal -> its journal

    def __post_init__(self) -> None:
        self.owner = {row["id"]: row["withdrawal_id"] for row in self.attempts}
        self.paid_by = defaultdict(list)
        self.lines = defaultdict(list)
        for payout in self.payouts:
            self.paid_by[self.owner.get(payout["reference_id"], "nobody")].append(payout)
        for line in self.journal:
            self.lines[line["withdrawal_id"]].append(line)


def gather(
    database_url: str, payouts: list[Row], sim_now: float, our_now: float, speed: float, ledger: Ledger
) -> Facts:
    """Read the database in one snapshot. The provider's clock, in `payouts`, runs `speed` times as fast."""

    def our_time(at: float) -> float:
        return our_now + (at - sim_now) / speed

    for payout in payouts:
        payout["created_at"] = our_time(payout["created_at"])
        payout["history"] = [{**step, "at": our_time(step["at"])} for step in payout["history"]]
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        rows = {name: connection.execute(sql).fetchall() for name, sql in TABLES.items()}
    return Facts(payouts=payouts, ledger=ledger, **rows)


@dataclass(frozen=True)
class Truth:
    """A statement, its promise, and the function that yields its violations."""

    promise: str
    sentence: str
    violations: Callable[[Facts], Iterator[str]]


TRUTHS: list[Truth] = []


def truth(
    promise: str, sentence: str
) -> Callable[[Callable[[Facts], Iterator[str]]], Callable[[Facts], Iterator[str]]]:
    def register(function: Callable[[Facts], Iterator[str]]) -> Callable[[Facts], Iterator[str]]:
        TRUTHS.append(Truth(promise, sentence, function))
        return function

    return register


def judge(facts: Facts) -> dict[Truth, list[str]]:
    """Every truth with its violations; an empty list means that it holds."""
    return {truth: sorted(set(truth.violations(facts))) for truth in TRUTHS}


# --- promise 1: coins are conserved


@truth("1", "every balance is the sum of its journal, never negative, line after line")
def _balances(facts: Facts) -> Iterator[str]:
    running: Counter[str] = Counter()
    for line in facts.journal:
        running[line["user_id"]] += line["coins"]
        if line["balance_after"] != running[line["user_id"]] or line["balance_after"] < 0:
            yield line["user_id"]
    for wallet in facts.wallets:
        if wallet["balance_coins"] != running[wallet["user_id"]] or wallet["balance_coins"] < 0:
            yield wallet["user_id"]


@truth("1", "credited = balances + withdrawals that were not refunded")
def _conserved(facts: Facts) -> Iterator[str]:
    credited = sum(line["coins"] for line in facts.journal if line["kind"] in ("credit", "adjustment"))
    balances = sum(wallet["balance_coins"] for wallet in facts.wallets)
    out = sum(row["coins_amount"] for row in facts.withdrawals if row["status"] not in REFUNDED)
    if credited != balances + out:
        yield f"{credited} credited, {balances} in wallets, {out} out"


@truth("1", "each user got every credit that their app sent, once")
def _credits(facts: Facts) -> Iterator[str]:
    got: Counter[str] = Counter()
    for line in facts.journal:
        got[line["user_id"]] += line["coins"] if line["kind"] == "credit" else 0
    for user_id in got.keys() | facts.ledger.credited.keys():
        if got[user_id] != facts.ledger.credited.get(user_id, 0):
            yield user_id


@truth("1", "every withdrawal took its coins, once")
def _taken(facts: Facts) -> Iterator[str]:
    for row in facts.withdrawals:
        taken = [line["coins"] for line in facts.lines[row["id"]] if line["kind"] == "withdrawal"]
        if taken != [-row["coins_amount"]] or row["amount_paise"] != row["coins_amount"] * COIN_PAISE:
            yield row["id"]


# --- promise 2: at most one live payout


@truth("2", "no withdrawal ever had two live payouts at the provider at one time")
def _one_live(facts: Facts) -> Iterator[str]:
    for withdrawal_id, payouts in facts.paid_by.items():
        lives = sorted((payout["created_at"], died_at(payout)) for payout in payouts)
        if any(later[0] < earlier[1] for earlier, later in pairwise(lives)):
            yield withdrawal_id


@truth("2", "every payout at the provider is for a withdrawal of ours, of its amount, to its UPI id")
def _known(facts: Facts) -> Iterator[str]:
    rows = {row["id"]: row for row in facts.withdrawals}
    for payout in facts.payouts:
        row = rows.get(facts.owner.get(payout["reference_id"], "nobody"))
        if row is None or (row["amount_paise"], row["upi_id"]) != (payout["amount"], payout["vpa"]):
            yield payout["id"]


@truth("2", "no idempotency key made two payouts")
def _one_per_key(facts: Facts) -> Iterator[str]:
    keys = Counter(payout["idempotency_key"] for payout in facts.payouts)
    yield from (key for key, times in keys.items() if times > 1)


# --- promise 3: a refund at most once, and never while a payout could still succeed


@truth("3", "failed and cancelled withdrawals were refunded once and in full, others never")
def _refunds(facts: Facts) -> Iterator[str]:
    for row in facts.withdrawals:
        refunds = [line["coins"] for line in facts.lines[row["id"]] if line["kind"] == "refund"]
        if refunds != ([row["coins_amount"]] if row["status"] in REFUNDED else []):
            yield row["id"]


@truth("3", "nothing was refunded before the provider had ended every payout of it")
def _refunded_late_enough(facts: Facts) -> Iterator[str]:
    for row in facts.withdrawals:
        end_times = [died_at(payout) for payout in facts.paid_by.get(row["id"], [])]
        for entry in facts.lines[row["id"]]:
            if entry["kind"] == "refund" and any(entry["at"] < end - CLOCK_SECONDS for end in end_times):
                yield row["id"]


@truth("3", "completed exactly where the provider processed one payout, under its UTR")
def _completed(facts: Facts) -> Iterator[str]:
    for row in facts.withdrawals:
        paid = [
            payout["utr"] for payout in facts.paid_by.get(row["id"], []) if payout["status"] == "processed"
        ]
        if len(paid) != (row["status"] == "completed") or (paid and row["utr"] not in (paid[0], None)):
            yield row["id"]


@truth("3", "where the coins went back, no payout lives")
def _nothing_lives(facts: Facts) -> Iterator[str]:
    for row in facts.withdrawals:
        if row["status"] in REFUNDED:
            alive = (payout["status"] not in DEAD for payout in facts.paid_by.get(row["id"], []))
            yield from [row["id"]] * any(alive)


# --- the responses that the apps got


@truth("told", "every withdrawal that an app was told about exists as told")
def _as_told(facts: Facts) -> Iterator[str]:
    rows = {row["id"]: (row["user_id"], row["coins_amount"], row["upi_id"]) for row in facts.withdrawals}
    for request in facts.ledger.requests:
        if request.withdrawal_id and rows.get(request.withdrawal_id) != (
            request.user_id,
            request.coins,
            request.upi_id,
        ):
            yield request.withdrawal_id


@truth("told", "no withdrawal exists that nobody asked for, and none more often than it was asked for")
def _as_asked(facts: Facts) -> Iterator[str]:
    surplus = Counter((row["user_id"], row["coins_amount"]) for row in facts.withdrawals)
    for request in facts.ledger.requests:
        surplus[request.user_id, request.coins] -= request.unknown + (request.withdrawal_id is not None)
    yield from (f"{user_id}, {coins} coins" for (user_id, coins), more in surplus.items() if more > 0)


@truth("told", "only what a wallet did not hold was refused")
def _refused(facts: Facts) -> Iterator[str]:
    for request in facts.ledger.requests:
        if request.refused != (request.coins >= TOO_MANY_COINS):
            yield f"{request.user_id}, {request.coins} coins"


@truth("told", "what was cancelled by its user is cancelled, and was never at the provider")
def _cancelled(facts: Facts) -> Iterator[str]:
    statuses = {row["id"]: row["status"] for row in facts.withdrawals}
    cancelled_by_users = {request.withdrawal_id for request in facts.ledger.requests if request.cancelled}
    for withdrawal_id in cancelled_by_users | {
        key for key, status in statuses.items() if status == "cancelled"
    }:
        if statuses.get(withdrawal_id or "") != "cancelled" or facts.paid_by.get(withdrawal_id or ""):
            yield str(withdrawal_id)


# --- promises 5 and 6


@truth("5", "the events of every withdrawal are one unbroken story that ends in its status")
def _story(facts: Facts) -> Iterator[str]:
    status: dict[str, str | None] = {}
    for event in facts.events:
        if event["from_status"] != status.get(event["withdrawal_id"]):
            yield event["withdrawal_id"]
        status[event["withdrawal_id"]] = event["to_status"]
    yield from (row["id"] for row in facts.withdrawals if status.get(row["id"]) != row["status"])


@truth("6", "every withdrawal is final, and none waits for a person")
def _final(facts: Facts) -> Iterator[str]:
    for row in facts.withdrawals:
        if row["status"] not in FINAL or row["hold"] is not None:
            yield f"{row['id']} ({row['status']}, {row['status_reason']}, {row['hold']})"


@truth("6", "whatever waits says why and until when")
def _says_why(facts: Facts) -> Iterator[str]:
    for row in facts.withdrawals:
        if row["status"] not in FINAL and None in (row["status_reason"], row["due_at"], row["expected_by"]):
            yield row["id"]


@truth("6", "every webhook that was taken was applied")
def _webhooks(facts: Facts) -> Iterator[str]:
    yield from (row["event_id"] for row in facts.unread)


def died_at(payout: Row) -> float:
    """When the provider ended this payout without a payment; infinity for a live one."""
    if payout["status"] not in DEAD:
        return float("inf")
    return min(step["at"] for step in payout["history"] if step["status"] in DEAD)


def unknown_to_apps(facts: Facts) -> tuple[int, int]:
    """Of the calls without a response: how many created a withdrawal, and how many did not."""
    unknown = sum(request.unknown for request in facts.ledger.requests)
    created = len(facts.withdrawals) - facts.ledger.accepted
    return created, unknown - created
