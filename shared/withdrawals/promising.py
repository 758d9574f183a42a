"""By when a withdrawal that waits for its turn at the pace is expected.

All workers together make PAYOUTS_PER_SECOND calls and no more, so in a burst what is due waits. It is told so
(`paced`), with a time that counts the calls that go before it:

- the calls of those before it in its own queue (a user's first few, or the backlog): one for a payee whom
  RazorpayX knows; three for a new one (contact, fund account, payout); what was begun goes first;
- workers take from the queues in turns, so for each message before it one of the other queue, at most three
  calls each, and one poll, as long as there are any;
- the calls that workers are about to make.

A quarter is added, and a minute. While payouts are paused it is not less than a pause gets.

Later arrivals may still overtake it. So a promise that is nearly over is made anew, as long as others stand
before it in its queue *and* the pace is kept, which is measured. What is stuck has nobody before it in the
end; and where nothing moves the pace is not kept: both become overdue.
"""

from typing import Any

from sqlalchemy import text

from shared import pace
from shared.db import transaction
from shared.settings import settings
from shared.states import WAITING, Reason

# What has waited so long after its time waits for its turn, and is told so.
AFTER_SECONDS, AT_ONCE = 5, 5000
SPARE_SECONDS, MARGIN = 60, 1.25
NEW_PAYEE_CALLS = 3  # contact, fund account, payout
RENEW_SECONDS = 60  # before its end a promise may be made anew
KEPT = 0.5  # the pace is kept while at least this part of it is used

# MATERIALIZED: the planner, told of few rows before a burst, would count anew for each of them.
# Nothing is ordered or counted while there is nobody to tell.
TELL = text("""
    WITH off AS MATERIALIZED (SELECT name FROM switches WHERE NOT is_on),
    late AS MATERIALIZED
        (SELECT id FROM withdrawals w
         WHERE status IN ('pending', 'processing') AND trying_since IS NULL
           AND due_at <= now() - make_interval(secs => :after)
           AND (status_reason IN ('cancel_window', 'new_upi_id')
                OR status_reason = 'paused' AND NOT EXISTS
                   (SELECT FROM off WHERE name IN ('payouts', 'network'))
                OR status_reason = 'handle_paused' AND NOT EXISTS
                   (SELECT FROM off WHERE name = 'handle:' || lower(split_part(w.upi_id, '@', 2)))
                OR status_reason = 'paced' AND :is_kept
                   AND expected_by < now() + make_interval(secs => :renew))
         ORDER BY due_at LIMIT :most FOR UPDATE SKIP LOCKED),
    due AS MATERIALIZED
        (SELECT id, user_id, upi_id, due_at, status, status_reason,
                status = 'processing' OR status_reason = 'preparing' AS is_begun
         FROM withdrawals w
         WHERE status IN ('pending', 'processing') AND due_at <= now() AND EXISTS (SELECT FROM late)
           AND NOT EXISTS
               (SELECT FROM payout_attempts a WHERE a.withdrawal_id = w.id AND a.state = 'accepted')),
    cost AS MATERIALIZED
        (SELECT due.id, due_at, is_begun,
                row_number() OVER (PARTITION BY due.user_id ORDER BY is_begun DESC, due_at) > :per_user
                    AS is_backlog,
                CASE WHEN status_reason = 'awaiting_review' THEN 0
                     WHEN status = 'processing' OR d.id IS NOT NULL OR row_number() OVER
                         (PARTITION BY due.user_id, due.upi_id ORDER BY is_begun DESC, due_at) > 1 THEN 1
                     ELSE :new_payee END AS calls
         FROM due LEFT JOIN destinations d ON d.user_id = due.user_id AND d.upi_id = due.upi_id
             AND d.known_to = :identity AND d.ended_at IS NULL),
    queued AS MATERIALIZED
        (SELECT id, is_backlog, sum(calls) OVER ahead AS calls, row_number() OVER ahead AS place,
                count(*) FILTER (WHERE NOT is_begun) OVER ahead AS waiting
         FROM cost WINDOW ahead AS (PARTITION BY is_backlog ORDER BY is_begun DESC, due_at, id)),
    other AS MATERIALIZED (SELECT NOT is_backlog AS is_backlog, sum(calls) AS calls FROM cost GROUP BY 1),
    under_way AS MATERIALIZED
        (SELECT coalesce(sum(CASE status_reason WHEN 'preparing' THEN :new_payee ELSE 1 END), 0) AS calls
         FROM withdrawals WHERE status IN ('pending', 'processing') AND due_at > now()
           AND status_reason IN ('preparing', 'sending') AND EXISTS (SELECT FROM late)),
    polls AS MATERIALIZED
        (SELECT count(*) AS calls FROM withdrawals w JOIN payout_attempts a
            ON a.withdrawal_id = w.id AND a.state = 'accepted'
         WHERE w.status = 'processing' AND EXISTS (SELECT FROM late)),
    before AS MATERIALIZED
        (SELECT id, waiting, queued.calls + under_way.calls + least(polls.calls, place)
                + least(coalesce(other.calls, 0), :new_payee * place) AS calls
         FROM queued LEFT JOIN other USING (is_backlog), under_way, polls)
    UPDATE withdrawals w SET status_reason = 'paced', updated_at = now(),
        expected_by = now() + make_interval(secs => greatest(
            :spare + :seconds_a_call * before.calls,
            CASE WHEN EXISTS (SELECT FROM off WHERE name IN ('payouts', 'network')) THEN :pause ELSE 0 END))
    FROM before WHERE w.id = before.id AND w.id IN (SELECT id FROM late)
      AND (w.status_reason <> 'paced' OR before.waiting > 1)
""")


def tell_who_waits_for_a_turn() -> int:
    """Tell what is due and in nobody's hands that it waits for its turn, and until about when; how many.

    Only the words change, of rows that nobody holds: no version is needed for that. Raises Unavailable.
    """
    values = _values(pace.measured())  # not in the same transaction: it would hold the pace's row meanwhile
    with transaction() as session:
        told = session.execute(TELL, values)
        return int(told.rowcount)  # type: ignore[attr-defined]


def _values(calls_a_second: float) -> dict[str, Any]:
    per_second = settings().payouts_per_second
    return {
        "after": AFTER_SECONDS,
        "most": AT_ONCE,
        "renew": RENEW_SECONDS,
        "is_kept": calls_a_second >= KEPT * per_second,
        "per_user": settings().payouts_per_user,
        "identity": settings().razorpayx_identity,
        "new_payee": NEW_PAYEE_CALLS,
        "spare": SPARE_SECONDS,
        "seconds_a_call": MARGIN * pace.SPARE / per_second,
        "pause": WAITING[Reason.PAUSED][1],
    }
