"""The expected time (`expected_by`) of withdrawals that wait for the rate limit.

All workers together make at most PAYOUTS_PER_SECOND calls, so in a burst some due withdrawals wait. They get
the reason `paced` and a time that counts the calls ahead of them:

- the calls ahead in the same queue (a user's first few, or the backlog): one for a payee that the provider
  knows, three for a new one (contact, fund account, payout); withdrawals already begun go first;
- workers take from the queues in turn, so for each message ahead, one message of the other queue (at most
  three calls) and one poll, as long as there are any;
- the calls that workers are about to make.

A quarter and a minute are added. While payouts are paused, it is at least the time of a pause.

Later arrivals may still overtake. So the time is extended shortly before it passes, as long as others are
ahead in the queue *and* the measured call rate shows that the queue moves. A stuck withdrawal has no one
ahead of it in the end, and a stopped queue has no call rate: both become overdue.
"""

import time
from typing import Any

from sqlalchemy import text

from shared.db.transactions import transaction
from shared.providers import rate_limit
from shared.providers.registry import provider
from shared.settings import settings
from shared.states import WAITING, Reason

AFTER_SECONDS = 5  # a withdrawal that is due for longer than this waits for the rate limit
BATCH_ROWS = 5000
SPARE_SECONDS = 60
MARGIN = 1.25
NEW_PAYEE_CALLS = 3  # contact, fund account, payout
RENEW_SECONDS = 60  # the time may be extended this long before it passes
REST = 50  # times as long as it took
USED_SHARE = 0.5  # the queue moves while at least this share of the allowed call rate is used

_rest_until = 0.0

# MATERIALIZED: with statistics from before a burst, the planner would count again for each row.
# Nothing is sorted or counted unless a withdrawal needs a new time.
MARK_AS_PACED = text("""
    WITH open_breakers AS MATERIALIZED (SELECT name FROM switches WHERE NOT is_on),
    late AS MATERIALIZED
        (SELECT id FROM withdrawals w
         WHERE status IN ('pending', 'processing') AND trying_since IS NULL
           AND due_at <= now() - make_interval(secs => :after)
           AND (status_reason IN ('cancel_window', 'new_upi_id')
                OR status_reason = 'paused' AND NOT EXISTS
                   (SELECT FROM open_breakers WHERE name IN ('payouts', 'network'))
                OR status_reason = 'handle_paused' AND NOT EXISTS
                   (SELECT FROM open_breakers WHERE name = 'handle:' || lower(split_part(w.upi_id, '@', 2)))
                OR status_reason = 'paced' AND :is_moving
                   AND expected_by < now() + make_interval(secs => :renew))
         ORDER BY due_at LIMIT :batch FOR UPDATE SKIP LOCKED),
    due AS MATERIALIZED
        (SELECT id, user_id, upi_id, due_at, status, status_reason,
                status = 'processing' OR status_reason = 'preparing' AS is_begun,
                id IN (SELECT id FROM late) AS is_late  -- as a join, it could become a loop in a loop
         FROM withdrawals w
         WHERE status IN ('pending', 'processing') AND due_at <= now() AND EXISTS (SELECT FROM late)
           AND NOT EXISTS
               (SELECT FROM payout_attempts a WHERE a.withdrawal_id = w.id AND a.state = 'accepted')),
    cost AS MATERIALIZED
        (SELECT due.id, due_at, is_begun, is_late,
                row_number() OVER (PARTITION BY due.user_id ORDER BY is_begun DESC, due_at) > :per_user
                    AS is_backlog,
                CASE WHEN status_reason = 'awaiting_review' THEN 0
                     WHEN status = 'processing' OR d.id IS NOT NULL OR row_number() OVER
                         (PARTITION BY due.user_id, due.upi_id ORDER BY is_begun DESC, due_at) > 1 THEN 1
                     ELSE :new_payee END AS calls
         FROM due LEFT JOIN destinations d ON d.user_id = due.user_id AND d.upi_id = due.upi_id
             AND d.known_to = :identity AND d.ended_at IS NULL),
    queued AS MATERIALIZED
        (SELECT id, is_late, is_backlog, sum(calls) OVER ahead AS calls, row_number() OVER ahead AS place,
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
        (SELECT id, is_late, waiting, queued.calls + under_way.calls + least(polls.calls, place)
                + least(coalesce(other.calls, 0), :new_payee * place) AS calls
         FROM queued LEFT JOIN other USING (is_backlog), under_way, polls)
    UPDATE withdrawals w SET status_reason = 'paced', updated_at = now(),
        expected_by = now() + make_interval(secs => greatest(
            :spare + :seconds_per_call * before.calls,
            CASE WHEN EXISTS (SELECT FROM open_breakers WHERE name IN ('payouts', 'network'))
                 THEN :pause ELSE 0 END))
    FROM before WHERE w.id = before.id AND before.is_late
      AND (w.status_reason <> 'paced' OR before.waiting > 1)
""")


def mark_as_paced() -> int:
    """Give due withdrawals that no worker holds the reason `paced` and an expected time; returns how many.

    Only these two columns change, of rows that are not locked, so the version stays. It reads every due row
    if one of them needs a time. So that a million of them slow down nothing else, it then does nothing for a
    while: at most a fiftieth of the time is for this. Raises Unavailable.
    """
    global _rest_until  # noqa: PLW0603  each process counts its own time
    started = time.monotonic()
    if started < _rest_until:
        return 0
    try:
        return _mark()
    finally:
        _rest_until = time.monotonic() + REST * (time.monotonic() - started)


def _mark() -> int:
    # In a transaction of its own, which would otherwise hold the rate limit's row.
    values = _values(rate_limit.calls_per_second(provider().code))
    with transaction() as session:
        updated = session.execute(MARK_AS_PACED, values)
        return int(updated.rowcount)  # type: ignore[attr-defined]


def _values(calls_per_second: float) -> dict[str, Any]:
    per_second = settings().payouts_per_second
    return {
        "after": AFTER_SECONDS,
        "batch": BATCH_ROWS,
        "renew": RENEW_SECONDS,
        "is_moving": calls_per_second >= USED_SHARE * per_second,
        "per_user": settings().payouts_per_user,
        "identity": provider().identity(),
        "new_payee": NEW_PAYEE_CALLS,
        "spare": SPARE_SECONDS,
        "seconds_per_call": MARGIN * rate_limit.SLOT_MARGIN / per_second,
        "pause": WAITING[Reason.PAUSED][1],
    }
