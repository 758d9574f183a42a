"""Spot checks: run the checks of `payouts check` every minute on the newest rows, at a cost that does not
grow.

The queries are exactly those of checks.py. Only the tables are smaller: a CTE before the query hides the
table of the same name. Each slice holds the newest rows and everything that they are compared with, so a
healthy row never lacks its counterpart, wherever the slice ends. `payouts check` covers old rows; at more
than a thousand events a minute, spot checks are a sample.

A query is one statement and sees one moment, so concurrent payouts cause no false alarm.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db.transactions import transaction
from shared.errors import Unavailable
from shared.models import ExceptionRecord, SpotCheck
from shared.people import exception_records
from shared.proof.checks import CHECKS, Check

PROMISE_BROKEN = "promise_broken"  # the kind of the exception records
SOURCE = "watch"
MAX_IDS = 20  # in the exception record; `payouts check` lists all


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows that a query sees: the CTEs to put before it, and their row limits.

    `whole_tables` are the tables that the query reads unsliced, because an index leads it to few rows.
    """

    ctes: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)
    whole_tables: frozenset[str] = frozenset()


# Users with recent activity. Withdrawals that were forged without an event or entry are the newest of their
# table.
USERS_MOVED = """
    WITH moved AS MATERIALIZED
        (SELECT user_id FROM (SELECT user_id FROM public.coin_transactions ORDER BY id DESC LIMIT :rows) lines
         UNION SELECT user_id FROM
            (SELECT user_id FROM public.withdrawals ORDER BY created_at DESC, id DESC LIMIT :rows) newest)"""
WALLETS = """
    wallets AS NOT MATERIALIZED
        (SELECT w.* FROM public.wallets w WHERE w.user_id IN (SELECT user_id FROM {}))"""

# The newest entries of a long journal, preceded by the balance before them.
JOURNALS = f"""{USERS_MOVED},{WALLETS.format("moved")},
    coin_transactions AS MATERIALIZED
        (SELECT c.id, c.user_id, c.balance_after,
                CASE WHEN c.place > :lines THEN c.balance_after ELSE c.coins END AS coins
         FROM moved CROSS JOIN LATERAL
            (SELECT *, row_number() OVER (ORDER BY id DESC) AS place FROM public.coin_transactions j
             WHERE j.user_id = moved.user_id ORDER BY id DESC LIMIT :lines + 1) c)
"""
# The sum of all credits has no such shortcut, so users with more than :credits are left to `payouts check`.
CREDITS = f"""{USERS_MOVED},
    few AS MATERIALIZED
        (SELECT user_id FROM moved WHERE NOT EXISTS
            (SELECT FROM public.coin_transactions c WHERE c.user_id = moved.user_id AND c.kind = 'credit'
             OFFSET :credits)),{WALLETS.format("few")},
    coin_transactions AS NOT MATERIALIZED
        (SELECT c.* FROM few JOIN public.coin_transactions c ON c.user_id = few.user_id AND c.kind = 'credit')
"""
# Withdrawals that count in a month were requested in it, unless the clock was wrong: hence a year of them.
# Users with more than :withdrawals in that year are left to `payouts check`.
LIMITS = f"""{USERS_MOVED},
    since AS MATERIALIZED
        (SELECT user_id, date_trunc('month', used_on::timestamp) - interval '1 year' AS at
         FROM public.wallets WHERE user_id IN (SELECT user_id FROM moved) AND used_on IS NOT NULL),
    few AS MATERIALIZED
        (SELECT user_id, at FROM since WHERE NOT EXISTS
            (SELECT FROM public.withdrawals d WHERE d.user_id = since.user_id AND d.created_at >= since.at
             OFFSET :withdrawals)),{WALLETS.format("few")},
    withdrawals AS NOT MATERIALIZED
        (SELECT d.* FROM few JOIN public.withdrawals d ON d.user_id = few.user_id AND d.created_at >= few.at)
"""
# Users who are or were recently frozen, and users with recent activity: a flag without a block shows up when
# the user's coins move.
FREEZES = f"""{USERS_MOVED},
    named AS MATERIALIZED
        (SELECT user_id FROM moved
         UNION SELECT subject FROM
            (SELECT kind, subject FROM public.blocks ORDER BY id DESC LIMIT :rows) newest
         WHERE kind = 'wallet'
         UNION SELECT subject FROM
            (SELECT subject FROM public.blocks
             WHERE kind = 'wallet' AND removed_at IS NULL LIMIT :rows) frozen),{WALLETS.format("named")}
"""
WITHDRAWALS = """
    WITH moved AS MATERIALIZED
        (SELECT withdrawal_id AS id FROM
            (SELECT withdrawal_id FROM public.withdrawal_events ORDER BY id DESC LIMIT :events) events
         UNION SELECT withdrawal_id FROM
            (SELECT withdrawal_id FROM public.coin_transactions ORDER BY id DESC LIMIT :rows) lines
         WHERE withdrawal_id IS NOT NULL
         UNION SELECT id FROM
            (SELECT id FROM public.withdrawals ORDER BY created_at DESC, id DESC LIMIT :rows) newest
         UNION SELECT withdrawal_id FROM
            (SELECT withdrawal_id FROM public.payout_attempts ORDER BY created_at DESC LIMIT :rows) attempts),
    withdrawals AS NOT MATERIALIZED
        (SELECT w.* FROM moved JOIN public.withdrawals w USING (id)),
    withdrawal_events AS NOT MATERIALIZED
        (SELECT e.* FROM moved JOIN public.withdrawal_events e ON e.withdrawal_id = moved.id),
    payout_attempts AS NOT MATERIALIZED
        (SELECT a.* FROM moved JOIN public.payout_attempts a ON a.withdrawal_id = moved.id),
    coin_transactions AS NOT MATERIALIZED
        (SELECT c.* FROM moved JOIN public.coin_transactions c ON c.withdrawal_id = moved.id
         AND c.kind IN ('withdrawal', 'refund'))
"""
# Each entry names its decision, and decisions are indexed by that name, so only the entries need a limit.
ADJUSTMENTS = """
    WITH coin_transactions AS MATERIALIZED
        (SELECT * FROM public.coin_transactions ORDER BY id DESC LIMIT :rows)
"""
SLICES: dict[str, Slice] = {
    "journals": Slice(JOURNALS, {"rows": 300, "lines": 100}),
    "credits": Slice(CREDITS, {"rows": 300, "credits": 1000}),
    "limits": Slice(LIMITS, {"rows": 300, "withdrawals": 1000}),
    "freezes": Slice(FREEZES, {"rows": 300}, whole_tables=frozenset({"blocks"})),
    "withdrawals": Slice(
        WITHDRAWALS, {"events": 1000, "rows": 300}, whole_tables=frozenset({"resolutions", "reviews"})
    ),
    "adjustments": Slice(ADJUSTMENTS, {"rows": 1000}, whole_tables=frozenset({"adjustments"})),
    # Corrections are few and indexed.
    "corrections": Slice(
        whole_tables=frozenset({"adjustments", "resolutions", "withdrawals", "coin_transactions"})
    ),
    # Open withdrawals have an index of their own.
    "open": Slice(whole_tables=frozenset({"withdrawals"})),
}

log = structlog.get_logger()


def run() -> int:
    """Run each check and return how many failed. A failed check opens an exception record, which is closed
    when the check passes again.

    A check that the database cannot run keeps its last time. Raises Unavailable if none could run.
    """
    failed = 0
    skipped = 0
    with transaction() as session:
        _delete_renamed(session)
    for check in CHECKS:
        try:
            with transaction() as session:
                failed += bool(_run_check(session, check))
        except Unavailable:
            skipped += 1
            if skipped == len(CHECKS):
                raise
            log.warning("[CHECK] skipped", check=check.invariant)
    return failed


def failing_ids(session: Session, check: Check) -> list[str]:
    """The ids among the newest rows that violate this check. Raises database errors as they are."""
    ids = session.scalars(text(slice_sql(check)), dict(check_slice(check).limits))
    return [str(violating_id) for violating_id in ids]


def slice_sql(check: Check) -> str:
    """The check's query, restricted to its slice."""
    return check_slice(check).ctes + check.sql


def check_slice(check: Check) -> Slice:
    """The rows that this check reads."""
    assert check.slice_name, "a check of the whole database has no slice"
    return SLICES[check.slice_name]


def _run_check(session: Session, check: Check) -> list[str]:
    ids = failing_ids(session, check)
    _record_result(session, check, ids)
    return ids


def _record_result(session: Session, check: Check, ids: list[str]) -> None:
    result = {"promise": check.promise, "faults": len(ids), "asked_at": func.now()}
    statement = upsert(SpotCheck).values(truth=check.invariant, **result)
    session.execute(statement.on_conflict_do_update(index_elements=["truth"], set_=result))
    if not ids:
        resolution = "the check passes again"
        exception_records.close_all(
            session, kind=PROMISE_BROKEN, subject=check.invariant, resolution=resolution, actor="system"
        )
        return
    ours = {"promise": check.promise, "faults": len(ids), "ids": ids[:MAX_IDS]}
    exception_records.open_record(
        session, kind=PROMISE_BROKEN, subject=check.invariant, source=SOURCE, ours=ours, theirs={}
    )
    log.error("[CHECK] check failed", promise=check.promise, check=check.invariant, ids=ids[:MAX_IDS])


def _delete_renamed(session: Session) -> None:
    """Delete results of checks that a release renamed or removed, and close their records: they never run
    again, so their times would grow old and their records would stay open for ever.
    """
    current = [check.invariant for check in CHECKS]
    session.execute(delete(SpotCheck).where(SpotCheck.truth.not_in(current)))
    open_records = select(ExceptionRecord.subject).where(
        ExceptionRecord.kind == PROMISE_BROKEN, ExceptionRecord.resolved_at.is_(None)
    )
    resolution = "the check was renamed or removed"
    for subject in session.scalars(open_records.where(ExceptionRecord.subject.not_in(current))).all():
        exception_records.close_all(
            session, kind=PROMISE_BROKEN, subject=subject, resolution=resolution, actor="system"
        )
