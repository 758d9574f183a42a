"""The truths of `payouts check`, asked each minute of what moved last. Cheap however large the tables are.

The questions are those of checks.py, word for word. Only the tables are smaller: a name that stands before
the question as a CTE hides the table of that name. Each slice holds the newest rows and everything that they
are compared with, so wherever it ends, a healthy row never stands without its other half. Old rows are for
`payouts check`, which reads all; at more than a thousand events a minute this is a sample of them.

A question is one statement and sees one moment, so payouts that go on meanwhile break nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared import exception_records
from shared.checks import CHECKS, Check
from shared.db import transaction
from shared.errors import Unavailable
from shared.models import ExceptionRecord, SpotCheck

BROKEN, SOURCE = "promise_broken", "watch"
MOST_IDS = 20  # in the exception record; `payouts check` names all


@dataclass(frozen=True, slots=True)
class Slice:
    """Which rows a question sees: the CTEs that stand before it, and how many rows they take.

    `whole` names the tables that the question reads as they are, because an index leads it to their few rows.
    """

    ctes: str = ""
    values: Mapping[str, int] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()


# Who moved last. Rows that were planted without an event or an entry are among the newest of their own table.
USERS_MOVED = """
    WITH moved AS MATERIALIZED
        (SELECT user_id FROM (SELECT user_id FROM public.coin_transactions ORDER BY id DESC LIMIT :rows) lines
         UNION SELECT user_id FROM
            (SELECT user_id FROM public.withdrawals ORDER BY created_at DESC, id DESC LIMIT :rows) newest)"""
WALLETS = """
    wallets AS NOT MATERIALIZED
        (SELECT w.* FROM public.wallets w WHERE w.user_id IN (SELECT user_id FROM {}))"""

# Of a long journal the newest lines, with the balance before them as its first line.
JOURNALS = f"""{USERS_MOVED},{WALLETS.format("moved")},
    coin_transactions AS MATERIALIZED
        (SELECT c.id, c.user_id, c.balance_after,
                CASE WHEN c.place > :lines THEN c.balance_after ELSE c.coins END AS coins
         FROM moved CROSS JOIN LATERAL
            (SELECT *, row_number() OVER (ORDER BY id DESC) AS place FROM public.coin_transactions j
             WHERE j.user_id = moved.user_id ORDER BY id DESC LIMIT :lines + 1) c)
"""
# A sum of all credits has no such short cut: who has more than so many is left to `payouts check`.
CREDITS = f"""{USERS_MOVED},
    few AS MATERIALIZED
        (SELECT user_id FROM moved WHERE NOT EXISTS
            (SELECT FROM public.coin_transactions c WHERE c.user_id = moved.user_id AND c.kind = 'credit'
             OFFSET :credits)),{WALLETS.format("few")},
    coin_transactions AS NOT MATERIALIZED
        (SELECT c.* FROM few JOIN public.coin_transactions c ON c.user_id = few.user_id AND c.kind = 'credit')
"""
# What counts in a month was asked for in that month, but for what a clock that was wrong has counted: hence a
# year. Who asked more often than so many times in it is left to `payouts check`.
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
# Whoever is frozen or was lately, and who moved: a flag that nobody's word set is found when coins move.
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
# Each line names its decision, and the decisions have an index for that: only the lines need an end.
ADJUSTMENTS = """
    WITH coin_transactions AS MATERIALIZED
        (SELECT * FROM public.coin_transactions ORDER BY id DESC LIMIT :rows)
"""
SLICES: dict[str, Slice] = {
    "journals": Slice(JOURNALS, {"rows": 300, "lines": 100}),
    "credits": Slice(CREDITS, {"rows": 300, "credits": 1000}),
    "limits": Slice(LIMITS, {"rows": 300, "withdrawals": 1000}),
    "freezes": Slice(FREEZES, {"rows": 300}, whole=frozenset({"blocks"})),
    "withdrawals": Slice(
        WITHDRAWALS, {"events": 1000, "rows": 300}, whole=frozenset({"resolutions", "reviews"})
    ),
    "adjustments": Slice(ADJUSTMENTS, {"rows": 1000}, whole=frozenset({"adjustments"})),
    # Few, and each with an index that leads to it: asked for whole.
    "corrections": Slice(whole=frozenset({"adjustments", "resolutions", "withdrawals", "coin_transactions"})),
    # What is open has an index of its own: it is asked for whole.
    "open": Slice(whole=frozenset({"withdrawals"})),
}

log = structlog.get_logger()


def run() -> int:
    """Ask each truth; how many do not hold. What does not becomes an exception record, until it does again.

    One that the database has no time for keeps the moment at which it was last asked. Raises Unavailable when
    there was time for none.
    """
    broken, missed = 0, 0
    with transaction() as session:
        _forget_old_words(session)
    for check in CHECKS:
        try:
            with transaction() as session:
                broken += bool(_ask(session, check))
        except Unavailable:
            missed += 1
            if missed == len(CHECKS):
                raise
            log.warning("[CHECK] not asked", truth=check.truth)
    return broken


def ask(session: Session, check: Check) -> list[str]:
    """The ids of what moved last for which this does not hold. Raises what the database raises."""
    return [str(one) for one in session.scalars(text(sql_of(check)), dict(slice_of(check).values))]


def sql_of(check: Check) -> str:
    """The question, for the rows that moved last."""
    return slice_of(check).ctes + check.sql


def slice_of(check: Check) -> Slice:
    """The rows that this question is asked of."""
    assert check.of, "what is asked of the whole database has no slice"
    return SLICES[check.of]


def _ask(session: Session, check: Check) -> list[str]:
    ids = ask(session, check)
    _write_down(session, check, ids)
    return ids


def _write_down(session: Session, check: Check, ids: list[str]) -> None:
    told = {"promise": check.promise, "faults": len(ids), "asked_at": func.now()}
    statement = upsert(SpotCheck).values(truth=check.truth, **told)
    session.execute(statement.on_conflict_do_update(index_elements=["truth"], set_=told))
    if not ids:
        exception_records.close_all(
            session, kind=BROKEN, subject=check.truth, resolution="it holds again", actor="system"
        )
        return
    ours = {"promise": check.promise, "faults": len(ids), "ids": ids[:MOST_IDS]}
    exception_records.open_record(
        session, kind=BROKEN, subject=check.truth, source=SOURCE, ours=ours, theirs={}
    )
    log.error("[CHECK] promise broken", promise=check.promise, truth=check.truth, ids=ids[:MOST_IDS])


def _forget_old_words(session: Session) -> None:
    """A truth that has other words since the last release is never asked again under the old ones: its time
    would grow old, and its record would stay open for ever.
    """
    truths = [check.truth for check in CHECKS]
    session.execute(delete(SpotCheck).where(SpotCheck.truth.not_in(truths)))
    open_records = select(ExceptionRecord.subject).where(
        ExceptionRecord.kind == BROKEN, ExceptionRecord.resolved_at.is_(None)
    )
    for subject in session.scalars(open_records.where(ExceptionRecord.subject.not_in(truths))).all():
        words = "it is asked in other words now"
        exception_records.close_all(session, kind=BROKEN, subject=subject, resolution=words, actor="system")
