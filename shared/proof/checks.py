"""`payouts check`: verify every promise against the database in one pass.

Each check is an invariant with a query that returns the ids that violate it. `seal_checks.py` checks the
seals, because SQL cannot follow a chain of hashes. Rows without a seal are counted. All checks read one
snapshot (a repeatable-read transaction), so a running system raises no false alarm.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from shared.db.engines import unbounded_engine
from shared.db.transactions import map_db_errors
from shared.models import one_of
from shared.proof import seal_checks, sealing
from shared.states import LIVE, OPEN

# Which rows of a query's tables a spot check reads (spot_checks.SLICES), always including all rows they are
# compared with.
SliceName = Literal[
    "journals", "credits", "limits", "freezes", "withdrawals", "adjustments", "corrections", "open"
]

# The sweep and the workers have this long before due work counts as forgotten.
OVERDUE_SECONDS = 600

LIVE_STATES = one_of("state", LIVE)
OPEN_STATUSES = one_of("status", OPEN)


@dataclass(frozen=True, slots=True)
class Check:
    """An invariant, the number of its promise (life-of-a-withdrawal.md), and SQL that returns the ids that violate it.

    `slice_name` has no default: a spot check that does not read all compared rows raises false alarms or
    misses faults. None: only `payouts check` runs it, on the whole database.
    """

    promise: int
    invariant: str
    sql: str
    slice_name: SliceName | None


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that failed, and the ids that violate it."""

    check: Check
    ids: list[str]


@dataclass(frozen=True, slots=True)
class Result:
    """The totals (coins and counts) and the findings of one pass."""

    totals: dict[str, int]
    findings: list[Finding]
    on_hold: list[str]  # withdrawal ids
    unread_webhooks: list[str]  # event ids
    unsealed: int  # number of rows without a seal

    @property
    def holds(self) -> bool:
        """True if every check passed."""
        return not self.findings


CHECKS = (
    Check(
        1,
        "every balance equals the sum of its journal entries",
        """SELECT w.user_id FROM wallets w LEFT JOIN
             (SELECT user_id, sum(coins) AS coins FROM coin_transactions GROUP BY user_id) j USING (user_id)
           WHERE w.balance_coins <> coalesce(j.coins, 0)""",
        slice_name="journals",
    ),
    Check(
        1,
        "every journal entry continues the balance of the entry before it",
        """SELECT id::text FROM (SELECT id, coins, balance_after, coalesce(lag(balance_after) OVER
             (PARTITION BY user_id ORDER BY id), 0) AS before FROM coin_transactions) lines
           WHERE balance_after <> before + coins""",
        slice_name="journals",
    ),
    Check(
        1,
        "lifetime coins equal the sum of credits",
        """SELECT w.user_id FROM wallets w LEFT JOIN
             (SELECT user_id, sum(coins) AS coins FROM coin_transactions WHERE kind = 'credit' GROUP BY user_id) j
             USING (user_id) WHERE w.lifetime_coins <> coalesce(j.coins, 0)""",
        slice_name="credits",
    ),
    Check(
        1,
        "every withdrawal debited its coins exactly once",
        """SELECT w.id::text FROM withdrawals w LEFT JOIN coin_transactions j
             ON j.withdrawal_id = w.id AND j.kind = 'withdrawal'
           GROUP BY w.id, w.coins_amount HAVING count(j.id) <> 1 OR min(-j.coins) <> w.coins_amount""",
        slice_name="withdrawals",
    ),
    Check(
        2,
        "no withdrawal has two live payouts",
        f"""SELECT withdrawal_id::text FROM payout_attempts WHERE {LIVE_STATES}
           GROUP BY 1 HAVING count(*) > 1""",
        slice_name="withdrawals",
    ),
    Check(
        2,
        "every completed withdrawal, and no other, has one paid payout or an approved resolution",
        """SELECT w.id::text FROM withdrawals w LEFT JOIN payout_attempts a
             ON a.withdrawal_id = w.id AND a.state = 'paid'
           GROUP BY w.id, w.status HAVING count(a.id) <> CASE WHEN w.status = 'completed' THEN 1 ELSE 0 END
             AND NOT (w.status = 'completed' AND count(a.id) = 0 AND EXISTS
               (SELECT FROM resolutions r WHERE r.withdrawal_id = w.id AND r.decision = 'paid'
                AND r.outcome = 'approved'))""",
        slice_name="withdrawals",
    ),
    Check(
        3,
        "every failed or cancelled withdrawal, and no other, was refunded exactly once",
        """SELECT w.id::text FROM withdrawals w LEFT JOIN coin_transactions j
             ON j.withdrawal_id = w.id AND j.kind = 'refund'
           GROUP BY w.id, w.status, w.coins_amount HAVING count(j.id) <> CASE WHEN w.status IN ('failed', 'cancelled') THEN 1 ELSE 0 END
             OR min(j.coins) <> w.coins_amount""",
        slice_name="withdrawals",
    ),
    Check(
        3,
        "no withdrawal was refunded while a payout could still succeed",
        f"""SELECT a.withdrawal_id::text FROM payout_attempts a JOIN coin_transactions j
             ON j.withdrawal_id = a.withdrawal_id AND j.kind = 'refund' WHERE {LIVE_STATES}""",
        slice_name="withdrawals",
    ),
    Check(
        5,
        "payee and amount match the request",
        """SELECT w.id::text FROM withdrawals w LEFT JOIN withdrawal_events e
             ON e.withdrawal_id = w.id AND e.from_status IS NULL
           WHERE (e.data ->> 'upi_id', e.data ->> 'amount_paise')
             IS DISTINCT FROM (w.upi_id, w.amount_paise::text)""",
        slice_name="withdrawals",
    ),
    Check(
        5,
        "no withdrawal was sent without the approval it needed",
        """SELECT w.id::text FROM withdrawals w WHERE EXISTS
             (SELECT FROM payout_attempts a WHERE a.withdrawal_id = w.id) AND (w.awaits_approval IS NOT NULL
             OR (SELECT count(*) FROM withdrawal_events e WHERE e.withdrawal_id = w.id AND e.data ? 'awaits_approval')
             > (SELECT count(*) FROM reviews r WHERE r.withdrawal_id = w.id AND r.outcome = 'approved'
                AND (r.coins_amount, r.upi_id) = (w.coins_amount, w.upi_id)))""",
        slice_name="withdrawals",
    ),
    Check(
        5,
        "a wallet is frozen only while an active block says so",
        """SELECT w.user_id FROM wallets w LEFT JOIN blocks b
             ON b.kind = 'wallet' AND b.subject = w.user_id AND b.removed_at IS NULL
           WHERE w.is_frozen <> (b.id IS NOT NULL)""",
        slice_name="freezes",
    ),
    Check(
        5,
        "every adjustment matches an approved proposal",
        """SELECT j.id::text FROM coin_transactions j LEFT JOIN adjustments a ON a.id::text = j.reference
             AND a.kind = 'adjustment' AND a.outcome = 'approved' AND (a.user_id, a.coins) = (j.user_id, j.coins)
             AND (NOT a.needs_two OR a.proposed_by <> a.decided_by)
           WHERE j.kind = 'adjustment' AND a.id IS NULL""",
        slice_name="adjustments",
    ),
    Check(
        1,
        "every correction moves a withdrawal's full amount once, approved by two people",
        """SELECT coalesce(a.withdrawal_id, r.withdrawal_id)::text
           FROM (SELECT * FROM adjustments WHERE withdrawal_id IS NOT NULL) a
             FULL JOIN (SELECT * FROM resolutions WHERE decision IN ('give_back', 'take_back') AND outcome = 'approved') r
               ON r.id = a.resolution_id
             LEFT JOIN withdrawals w ON w.id = a.withdrawal_id
           WHERE (a.withdrawal_id, a.user_id, a.coins, a.proposed_by, a.decided_by) IS DISTINCT FROM
               (r.withdrawal_id, w.user_id, CASE r.decision WHEN 'take_back' THEN -w.coins_amount ELSE w.coins_amount END,
                r.proposed_by, r.decided_by)
             OR NOT EXISTS (SELECT FROM coin_transactions j WHERE j.kind = 'adjustment' AND j.reference = a.id::text)
           UNION SELECT w.id::text FROM adjustments a JOIN withdrawals w ON w.id = a.withdrawal_id
           GROUP BY w.id, w.coins_amount HAVING sum(a.coins) NOT IN (0, -w.coins_amount)""",
        slice_name="corrections",
    ),
    Check(
        5,
        "limit counters match withdrawals",
        """SELECT w.user_id FROM wallets w LEFT JOIN withdrawals d ON d.user_id = w.user_id
             AND d.status NOT IN ('failed', 'cancelled')
             AND date_trunc('month', d.counted_on) = date_trunc('month', w.used_on)
           WHERE w.used_on IS NOT NULL GROUP BY w.user_id, w.used_on, w.month_withdrawals, w.month_coins,
             w.day_withdrawals, w.day_coins
           HAVING (w.month_withdrawals, w.month_coins, w.day_withdrawals, w.day_coins) IS DISTINCT FROM
             (count(d.id), coalesce(sum(d.coins_amount), 0), count(d.id) FILTER (WHERE d.counted_on = w.used_on),
              coalesce(sum(d.coins_amount) FILTER (WHERE d.counted_on = w.used_on), 0))""",
        slice_name="limits",
    ),
    Check(
        5,
        "every withdrawal's events form an unbroken chain from its request",
        """SELECT DISTINCT withdrawal_id::text FROM (SELECT withdrawal_id, reason, from_status, lag(to_status) OVER
             (PARTITION BY withdrawal_id ORDER BY id) AS before FROM withdrawal_events) events
           WHERE from_status IS DISTINCT FROM before OR (before IS NULL AND reason <> 'requested')""",
        slice_name="withdrawals",
    ),
    Check(
        5,
        "every withdrawal's last event matches its status",
        """SELECT w.id::text FROM withdrawals w LEFT JOIN LATERAL
             (SELECT to_status FROM withdrawal_events e WHERE e.withdrawal_id = w.id ORDER BY id DESC LIMIT 1) e
             ON true WHERE e.to_status IS DISTINCT FROM w.status""",
        slice_name="withdrawals",
    ),
    Check(
        6,
        f"no withdrawal has been due for more than {OVERDUE_SECONDS} seconds",
        f"""SELECT id::text FROM withdrawals
           WHERE {OPEN_STATUSES} AND due_at < now() - interval '{OVERDUE_SECONDS} seconds'
             AND NOT (status_reason = 'paced' AND trying_since IS NULL AND expected_by >= now())""",
        slice_name="open",
    ),
    Check(
        6,
        "every open withdrawal has a reason, a due time and a promised time",
        f"""SELECT id::text FROM withdrawals
           WHERE {OPEN_STATUSES} AND (status_reason IS NULL OR due_at IS NULL OR expected_by IS NULL)""",
        slice_name="open",
    ),
)

SELECT_TOTALS = """
    SELECT (SELECT coalesce(sum(coins), 0) FROM coin_transactions WHERE kind IN ('credit', 'adjustment')) AS credited,
           (SELECT coalesce(sum(balance_coins), 0) FROM wallets) AS balances,
           coalesce(sum(coins_amount) FILTER (WHERE status IN ('pending', 'processing')), 0) AS held,
           coalesce(sum(coins_amount) FILTER (WHERE status = 'completed'), 0) AS paid,
           coalesce(sum(coins_amount) FILTER (WHERE status IN ('failed', 'cancelled')), 0) AS refunded,
           count(*) AS withdrawals
    FROM withdrawals
"""
COINS_CONSERVED = Check(1, "credited = balances + held + paid", "the totals", slice_name=None)
SEAL_CHECKS = tuple(Check(5, invariant, "the seals", slice_name=None) for invariant in seal_checks.INVARIANTS)
ALL_CHECKS = (*CHECKS, COINS_CONSERVED, *SEAL_CHECKS)


def run(heads: Iterable[tuple[int, str]] = ()) -> Result:
    """Run every check on one snapshot. `heads` are block numbers and hashes that were kept outside this
    database. Raises Unavailable.
    """
    with map_db_errors(), unbounded_engine().connect() as connection:
        return run_on(connection, heads)


def run_on(connection: Connection, heads: Iterable[tuple[int, str]] = ()) -> Result:
    """Run every check on a connection that is in no transaction."""
    connection = connection.execution_options(isolation_level="REPEATABLE READ")
    totals = {
        name: int(value) for name, value in connection.execute(text(SELECT_TOTALS)).one()._mapping.items()
    }
    findings = [finding for check in CHECKS if (finding := _run_check(connection, check))]
    on_hold = list(
        connection.execute(text("SELECT id::text FROM withdrawals WHERE hold IS NOT NULL")).scalars()
    )
    unread = "SELECT event_id FROM webhook_events WHERE outcome IN ('poison', 'unreadable', 'unmatched')"
    unread_webhooks = list(connection.execute(text(unread)).scalars())
    findings += _check_seals(connection, heads)
    unsealed = sealing.count_unsealed(connection)
    if totals["credited"] != totals["balances"] + totals["held"] + totals["paid"]:
        findings.append(Finding(COINS_CONSERVED, [str(totals)]))
    return Result(totals, findings, on_hold, unread_webhooks, unsealed)


def _run_check(connection: Connection, check: Check) -> Finding | None:
    ids: list[Any] = list(connection.execute(text(check.sql)).scalars())
    return Finding(check, [str(violating_id) for violating_id in ids]) if ids else None


def _check_seals(connection: Connection, heads: Iterable[tuple[int, str]]) -> list[Finding]:
    faults = [
        *seal_checks.check_seals(connection),
        *seal_checks.check_evidence(connection),
        *seal_checks.check_heads(connection, heads),
    ]
    messages = {
        check: [fault.message for fault in faults if fault.invariant == check.invariant]
        for check in SEAL_CHECKS
    }
    return [Finding(check, failed) for check, failed in messages.items() if failed]
