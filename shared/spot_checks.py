"""The truths of `payouts check`, asked each minute of what moved last. Cheap however large the tables are.

The questions are those of checks.py, word for word. Only the tables are smaller: a name that stands before
the question as a CTE hides the table of that name, and holds the rows of the last few hundred withdrawals or
users. So a fault is seen within a minute of its making; old rows are for `payouts check`, which reads all.
"""

import structlog
from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared import exception_records
from shared.checks import CHECKS, Check
from shared.db import transaction
from shared.errors import Unavailable
from shared.models import SpotCheck

# So many of the last events and journal lines say who moved: some hundred withdrawals and users.
# The journal of somebody with more than so many lines is not read: that is for `payouts check`.
LAST_EVENTS, LAST_LINES, MOST_LINES = 1000, 300, 1000
BROKEN, SOURCE = "promise_broken", "watch"
MOST_IDS = 20  # in the exception record; `payouts check` names all

OF_USERS = """
    WITH moved AS MATERIALIZED
        (SELECT DISTINCT user_id FROM
            (SELECT user_id FROM public.coin_transactions ORDER BY id DESC LIMIT :rows) last
         WHERE NOT EXISTS
            (SELECT FROM public.coin_transactions c WHERE c.user_id = last.user_id OFFSET :lines)),
    wallets AS NOT MATERIALIZED
        (SELECT w.* FROM public.wallets w WHERE w.user_id IN (SELECT user_id FROM moved)),
    coin_transactions AS MATERIALIZED
        (SELECT c.* FROM moved CROSS JOIN LATERAL
            (SELECT * FROM public.coin_transactions c WHERE c.user_id = moved.user_id
             ORDER BY id DESC LIMIT :lines) c)
"""
OF_WITHDRAWALS = """
    WITH moved AS MATERIALIZED
        (SELECT DISTINCT withdrawal_id AS id FROM
            (SELECT withdrawal_id FROM public.withdrawal_events ORDER BY id DESC LIMIT :rows) last),
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
# What is open has an index of its own: it is asked for whole.
ROWS = {"users": OF_USERS, "withdrawals": OF_WITHDRAWALS, "open": ""}
VALUES: dict[str, dict[str, int]] = {
    "users": {"rows": LAST_LINES, "lines": MOST_LINES},
    "withdrawals": {"rows": LAST_EVENTS},
    "open": {},
}

log = structlog.get_logger()


def run() -> int:
    """Ask each truth; how many do not hold. What does not becomes an exception record, until it does again.

    One that the database has no time for keeps the moment at which it was last asked. Raises Unavailable when
    there was time for none.
    """
    broken, missed = 0, 0
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


def sql_of(check: Check) -> str:
    """The question, for the rows that moved last."""
    return ROWS[check.of] + check.sql


def _ask(session: Session, check: Check) -> list[str]:
    ids = [str(one) for one in session.scalars(text(sql_of(check)), VALUES[check.of])]
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
