"""`payouts check`: the promises, proved from the database in one pass.

Each check is a question whose every answer is a fault: SQL that returns the ids of what does not add up.
The seals are asked by `seal_checks.py`: no SQL can follow a chain of hashes. What has no seal yet is counted.
All of them see the same moment (one repeatable-read transaction), so a running system gives no false alarm.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from shared import seal_checks, sealing
from shared.db import patient_engine, told_plainly
from shared.models import one_of
from shared.states import LIVE, OPEN

# Which rows a spot check reads of a question's tables (spot_checks.SLICES): always all that are compared.
Rows = Literal[
    "journals", "credits", "limits", "freezes", "withdrawals", "adjustments", "corrections", "open"
]

# A sweep and its workers get this long before due work counts as forgotten.
OVERDUE_SECONDS = 600

LIVE_STATES, OPEN_STATUSES = one_of("state", LIVE), one_of("status", OPEN)


@dataclass(frozen=True, slots=True)
class Check:
    """One question: which promise it is about, what is true when nothing comes back, and the SQL.

    `of` has no default: a spot check that reads other rows than those compared is wrong or blind.
    None: it is asked of the whole database only.
    """

    promise: int
    truth: str
    sql: str
    of: Rows | None


@dataclass(frozen=True, slots=True)
class Finding:
    """A truth that does not hold, and for which ids."""

    check: Check
    ids: list[str]


@dataclass(frozen=True, slots=True)
class Result:
    """What one pass found, and the totals it was found in. Coins and counts."""

    totals: dict[str, int]
    findings: list[Finding]
    needs_a_person: list[str]
    unread_webhooks: list[str]
    unsealed: int  # the newest rows, for which no seal speaks yet

    @property
    def holds(self) -> bool:
        """Whether every promise holds."""
        return not self.findings


CHECKS = (
    Check(
        1,
        "every balance is the sum of its journal",
        """SELECT w.user_id FROM wallets w LEFT JOIN
             (SELECT user_id, sum(coins) AS coins FROM coin_transactions GROUP BY user_id) j USING (user_id)
           WHERE w.balance_coins <> coalesce(j.coins, 0)""",
        of="journals",
    ),
    Check(
        1,
        "every line of the journal continues the one before it",
        """SELECT id::text FROM (SELECT id, coins, balance_after, coalesce(lag(balance_after) OVER
             (PARTITION BY user_id ORDER BY id), 0) AS before FROM coin_transactions) lines
           WHERE balance_after <> before + coins""",
        of="journals",
    ),
    Check(
        1,
        "lifetime coins are the sum of the credits",
        """SELECT w.user_id FROM wallets w LEFT JOIN
             (SELECT user_id, sum(coins) AS coins FROM coin_transactions WHERE kind = 'credit' GROUP BY user_id) j
             USING (user_id) WHERE w.lifetime_coins <> coalesce(j.coins, 0)""",
        of="credits",
    ),
    Check(
        1,
        "every withdrawal took its coins, once",
        """SELECT w.id::text FROM withdrawals w LEFT JOIN coin_transactions j
             ON j.withdrawal_id = w.id AND j.kind = 'withdrawal'
           GROUP BY w.id, w.coins_amount HAVING count(j.id) <> 1 OR min(-j.coins) <> w.coins_amount""",
        of="withdrawals",
    ),
    Check(
        2,
        "no withdrawal has two live payouts",
        f"""SELECT withdrawal_id::text FROM payout_attempts WHERE {LIVE_STATES}
           GROUP BY 1 HAVING count(*) > 1""",
        of="withdrawals",
    ),
    Check(
        2,
        "a completed withdrawal has one paid payout, or two people's word, and only it has one",
        """SELECT w.id::text FROM withdrawals w LEFT JOIN payout_attempts a
             ON a.withdrawal_id = w.id AND a.state = 'paid'
           GROUP BY w.id, w.status HAVING count(a.id) <> CASE WHEN w.status = 'completed' THEN 1 ELSE 0 END
             AND NOT (w.status = 'completed' AND count(a.id) = 0 AND EXISTS
               (SELECT FROM resolutions r WHERE r.withdrawal_id = w.id AND r.decision = 'paid'
                AND r.outcome = 'approved'))""",
        of="withdrawals",
    ),
    Check(
        3,
        "failed and cancelled withdrawals were refunded once, others never",
        """SELECT w.id::text FROM withdrawals w LEFT JOIN coin_transactions j
             ON j.withdrawal_id = w.id AND j.kind = 'refund'
           GROUP BY w.id, w.status, w.coins_amount HAVING count(j.id) <> CASE WHEN w.status IN ('failed', 'cancelled') THEN 1 ELSE 0 END
             OR min(j.coins) <> w.coins_amount""",
        of="withdrawals",
    ),
    Check(
        3,
        "nothing was refunded while a payout may still succeed",
        f"""SELECT a.withdrawal_id::text FROM payout_attempts a JOIN coin_transactions j
             ON j.withdrawal_id = a.withdrawal_id AND j.kind = 'refund' WHERE {LIVE_STATES}""",
        of="withdrawals",
    ),
    Check(
        5,
        "payee and amount are those of the request",
        """SELECT w.id::text FROM withdrawals w LEFT JOIN withdrawal_events e
             ON e.withdrawal_id = w.id AND e.from_status IS NULL
           WHERE (e.data ->> 'upi_id', e.data ->> 'amount_paise')
             IS DISTINCT FROM (w.upi_id, w.amount_paise::text)""",
        of="withdrawals",
    ),
    Check(
        5,
        "nothing that awaited approval was sent without it",
        """SELECT w.id::text FROM withdrawals w WHERE EXISTS
             (SELECT FROM payout_attempts a WHERE a.withdrawal_id = w.id) AND (w.awaits_approval IS NOT NULL
             OR (SELECT count(*) FROM withdrawal_events e WHERE e.withdrawal_id = w.id AND e.data ? 'awaits_approval')
             > (SELECT count(*) FROM reviews r WHERE r.withdrawal_id = w.id AND r.outcome = 'approved'
                AND (r.coins_amount, r.upi_id) = (w.coins_amount, w.upi_id)))""",
        of="withdrawals",
    ),
    Check(
        5,
        "a wallet is frozen exactly while somebody's word says so",
        """SELECT w.user_id FROM wallets w LEFT JOIN blocks b
             ON b.kind = 'wallet' AND b.subject = w.user_id AND b.removed_at IS NULL
           WHERE w.is_frozen <> (b.id IS NOT NULL)""",
        of="freezes",
    ),
    Check(
        5,
        "adjustments are those that people decided on",
        """SELECT j.id::text FROM coin_transactions j LEFT JOIN adjustments a ON a.id::text = j.reference
             AND a.kind = 'adjustment' AND a.outcome = 'approved' AND (a.user_id, a.coins) = (j.user_id, j.coins)
             AND (NOT a.needs_two OR a.proposed_by <> a.decided_by)
           WHERE j.kind = 'adjustment' AND a.id IS NULL""",
        of="adjustments",
    ),
    Check(
        1,
        "coins that people took back for a withdrawal are all of its coins, once, by two people's word",
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
        of="corrections",
    ),
    Check(
        5,
        "what counts for a user's limits is what was asked for and not given back",
        """SELECT w.user_id FROM wallets w LEFT JOIN withdrawals d ON d.user_id = w.user_id
             AND d.status NOT IN ('failed', 'cancelled')
             AND date_trunc('month', d.counted_on) = date_trunc('month', w.used_on)
           WHERE w.used_on IS NOT NULL GROUP BY w.user_id, w.used_on, w.month_withdrawals, w.month_coins,
             w.day_withdrawals, w.day_coins
           HAVING (w.month_withdrawals, w.month_coins, w.day_withdrawals, w.day_coins) IS DISTINCT FROM
             (count(d.id), coalesce(sum(d.coins_amount), 0), count(d.id) FILTER (WHERE d.counted_on = w.used_on),
              coalesce(sum(d.coins_amount) FILTER (WHERE d.counted_on = w.used_on), 0))""",
        of="limits",
    ),
    Check(
        5,
        "the events of every withdrawal are one unbroken story from its request on",
        """SELECT DISTINCT withdrawal_id::text FROM (SELECT withdrawal_id, reason, from_status, lag(to_status) OVER
             (PARTITION BY withdrawal_id ORDER BY id) AS before FROM withdrawal_events) told
           WHERE from_status IS DISTINCT FROM before OR (before IS NULL AND reason <> 'requested')""",
        of="withdrawals",
    ),
    Check(
        5,
        "the last event of every withdrawal tells its status",
        """SELECT w.id::text FROM withdrawals w LEFT JOIN LATERAL
             (SELECT to_status FROM withdrawal_events e WHERE e.withdrawal_id = w.id ORDER BY id DESC LIMIT 1) e
             ON true WHERE e.to_status IS DISTINCT FROM w.status""",
        of="withdrawals",
    ),
    Check(
        6,
        f"nothing due was left lying for {OVERDUE_SECONDS} seconds",
        f"""SELECT id::text FROM withdrawals
           WHERE {OPEN_STATUSES} AND due_at < now() - interval '{OVERDUE_SECONDS} seconds'
             AND NOT (status_reason = 'paced' AND trying_since IS NULL AND expected_by >= now())""",
        of="open",
    ),
    Check(
        6,
        "everything that waits says why and until when",
        f"""SELECT id::text FROM withdrawals
           WHERE {OPEN_STATUSES} AND (status_reason IS NULL OR due_at IS NULL OR expected_by IS NULL)""",
        of="open",
    ),
)

TOTALS = """
    SELECT (SELECT coalesce(sum(coins), 0) FROM coin_transactions WHERE kind IN ('credit', 'adjustment')) AS credited,
           (SELECT coalesce(sum(balance_coins), 0) FROM wallets) AS balances,
           coalesce(sum(coins_amount) FILTER (WHERE status IN ('pending', 'processing')), 0) AS held,
           coalesce(sum(coins_amount) FILTER (WHERE status = 'completed'), 0) AS paid,
           coalesce(sum(coins_amount) FILTER (WHERE status IN ('failed', 'cancelled')), 0) AS refunded,
           count(*) AS withdrawals
    FROM withdrawals
"""
CONSERVED = Check(1, "credited = balances + held + paid", "the totals", of=None)
SEALED = tuple(Check(5, truth, "the seals", of=None) for truth in seal_checks.TRUTHS)
EVERY = (*CHECKS, CONSERVED, *SEALED)


def run(heads: Iterable[tuple[int, str]] = ()) -> Result:
    """Ask every question at one moment. `heads` are blocks of the seals, by number and hash, that somebody
    kept elsewhere. Raises Unavailable.
    """
    with told_plainly(), patient_engine().connect() as plain:
        connection = plain.execution_options(isolation_level="REPEATABLE READ")
        totals = {name: int(value) for name, value in connection.execute(text(TOTALS)).one()._mapping.items()}
        findings = [finding for check in CHECKS if (finding := _ask(connection, check))]
        flagged = connection.execute(
            text("SELECT id::text FROM withdrawals WHERE review IS NOT NULL")
        ).scalars()
        needs_a_person = list(flagged)
        odd = "SELECT event_id FROM webhook_events WHERE outcome IN ('poison', 'unreadable', 'unmatched')"
        unread_webhooks = list(connection.execute(text(odd)).scalars())
        findings += _seals(connection, heads)
        unsealed = sealing.waiting(connection)
    if totals["credited"] != totals["balances"] + totals["held"] + totals["paid"]:
        findings.append(Finding(CONSERVED, [str(totals)]))
    return Result(totals, findings, needs_a_person, unread_webhooks, unsealed)


def _ask(connection: Connection, check: Check) -> Finding | None:
    rows: list[Any] = list(connection.execute(text(check.sql)).scalars())
    return Finding(check, [str(row) for row in rows]) if rows else None


def _seals(connection: Connection, heads: Iterable[tuple[int, str]]) -> list[Finding]:
    faults = [
        *seal_checks.verify(connection),
        *seal_checks.kept(connection),
        *seal_checks.against(connection, heads),
    ]
    names = {check: [fault.name for fault in faults if fault.truth == check.truth] for check in SEALED}
    return [Finding(check, told) for check, told in names.items() if told]
