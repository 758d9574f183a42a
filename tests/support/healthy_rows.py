"""Thousands of withdrawals with every result, inserted as rows under all rules of the database.

Some four hundred users, and one who requests as often as all others, over fifty days. The rows of different
withdrawals are interleaved, as concurrent payouts leave them.
"""

from sqlalchemy import Connection, text

# 5 % each: cancelled, failed, reversed, paid at the second attempt, approved, rejected, paid outside.
ROWS = (
    """CREATE TEMPORARY TABLE planted ON COMMIT DROP AS
       SELECT n, gen_random_uuid() AS id, gen_random_uuid() AS attempt_id,
              CASE WHEN n % 10 = 9 THEN 'busy' ELSE 'user' || (n * 7919) % 400 END AS user_id,
              (ARRAY['cancelled', 'failed', 'sent back', 'second try', 'approved', 'rejected', 'outside'])[1 + n % 20]
                  AS way, n > :number - 100 AND n % 20 IN (7, 8) AS is_open, n % 20 = 8 AS is_new,
              100 + n % 900 AS coins, now() - (:number - n) * interval '50 days' / :number AS asked_at,
              -- the ends of about forty withdrawals are interleaved
              now() - (:number - n) * interval '50 days' / :number + (n * 31 % 40) * interval '50 days' / :number
                  AS ended_at
       FROM generate_series(1, :number) n""",
    """UPDATE planted SET way = CASE WHEN NOT is_open THEN coalesce(way, 'paid') WHEN is_new THEN 'new' ELSE 'sent' END""",
    """INSERT INTO adjustments (id, kind, user_id, coins, reason, needs_two, proposed_by, decided_by, decided_at, outcome)
       SELECT gen_random_uuid(), 'adjustment', 'user' || u, CASE WHEN u % 2 = 0 THEN 10 ELSE -10 END, 'mended', u % 3 = 0,
              'operator:asha', CASE WHEN u % 3 = 0 THEN 'operator:ravi' ELSE 'operator:asha' END, now(), 'approved'
       FROM generate_series(0, 399, 4) u""",
    """INSERT INTO blocks (kind, subject, reason, added_by, removed_by, removed_at, removed_because)
       SELECT 'wallet', 'user' || u, 'odd', 'operator:asha', CASE WHEN u % 2 = 0 THEN 'operator:ravi' END,
              CASE WHEN u % 2 = 0 THEN now() END, CASE WHEN u % 2 = 0 THEN 'seen' END
       FROM generate_series(0, 399, 25) u""",
    """CREATE TEMPORARY TABLE lines ON COMMIT DROP AS
       SELECT *, sum(coins) OVER (PARTITION BY user_id ORDER BY at, kind, reference, withdrawal_id) AS after FROM (
           SELECT 'user' || u AS user_id, 'credit' AS kind, 100000 AS coins, NULL::uuid AS withdrawal_id,
                  'quiz ' || m AS reference, now() - interval '51 days' + m * interval '4 days' AS at
           FROM generate_series(0, 399) u, generate_series(0, 11) m
           UNION ALL SELECT 'busy', 'credit', 1000000, NULL, 'quiz', now() - interval '51 days'
           UNION ALL SELECT user_id, 'adjustment', coins, NULL, id::text, now() - interval '20 days' FROM adjustments
           UNION ALL SELECT user_id, 'withdrawal', -coins, id, NULL, asked_at FROM planted
           UNION ALL SELECT user_id, 'refund', coins, id, NULL, ended_at + interval '1 minute' FROM planted
           WHERE way IN ('cancelled', 'failed', 'sent back', 'rejected')) entries""",
    """INSERT INTO wallets (user_id, balance_coins, lifetime_coins, is_frozen)
       SELECT user_id, sum(coins), coalesce(sum(coins) FILTER (WHERE kind = 'credit'), 0),
              user_id IN (SELECT subject FROM blocks WHERE removed_at IS NULL)
       FROM lines GROUP BY user_id""",
    """INSERT INTO withdrawals (id, user_id, coins_amount, amount_paise, upi_id, status, status_reason, due_at, expected_by,
                                failure_reason, completed_at, utr, awaits_approval, counted_on, created_at)
       SELECT id, user_id, coins, coins * 10, user_id || '@okaxis', status,
              CASE status WHEN 'failed' THEN 'x' WHEN 'pending' THEN 'cancel_window' WHEN 'processing' THEN 'bank_processing' END,
              CASE WHEN is_open THEN now() + interval '1 hour' END, CASE WHEN is_open THEN now() + interval '1 hour' END,
              CASE status WHEN 'failed' THEN 'x' END, CASE status WHEN 'completed' THEN ended_at END,
              CASE status WHEN 'completed' THEN 'UTR' || n END, CASE way WHEN 'rejected' THEN 'amount' END,
              CAST(asked_at AT TIME ZONE 'Asia/Kolkata' AS date), asked_at
       FROM (SELECT *, CASE WHEN way IN ('failed', 'sent back', 'rejected') THEN 'failed' WHEN way = 'cancelled' THEN way
                            WHEN way = 'new' THEN 'pending' WHEN way = 'sent' THEN 'processing' ELSE 'completed' END AS status
             FROM planted) p ORDER BY n""",
    """UPDATE wallets SET used_on = used.last_day, day_withdrawals = used.day_withdrawals, day_coins = used.day_coins,
           month_withdrawals = used.month_withdrawals, month_coins = used.month_coins
       FROM (SELECT user_id, last_day, count(*) FILTER (WHERE counts) AS month_withdrawals,
                    coalesce(sum(coins_amount) FILTER (WHERE counts), 0) AS month_coins,
                    count(*) FILTER (WHERE counts AND counted_on = last_day) AS day_withdrawals,
                    coalesce(sum(coins_amount) FILTER (WHERE counts AND counted_on = last_day), 0) AS day_coins
             FROM (SELECT *, status NOT IN ('failed', 'cancelled') AS counts,
                          max(counted_on) OVER (PARTITION BY user_id) AS last_day FROM withdrawals) counted
             WHERE date_trunc('month', counted_on) = date_trunc('month', last_day) GROUP BY user_id, last_day) used
       WHERE wallets.user_id = used.user_id""",
    """INSERT INTO reviews (withdrawal_id, why, facts, coins_amount, upi_id, requested_by, outcome, reason, decided_by)
       SELECT id, 'amount', 'x', coins, user_id || '@okaxis', 'app:quiz', way, 'seen', 'operator:asha'
       FROM planted WHERE way IN ('approved', 'rejected')""",
    """INSERT INTO resolutions (id, withdrawal_id, decision, evidence, utr, fingerprint, proposed_by, decided_by, decided_at,
                                outcome)
       SELECT gen_random_uuid(), id, 'paid', 'their statement', 'UTR' || n, 'x', 'operator:asha', 'operator:ravi', now(),
              'approved' FROM planted WHERE way = 'outside'""",
    """INSERT INTO payout_attempts (id, withdrawal_id, number, request_body, state, sent_as, payout_id, created_at, ended_at)
       SELECT CASE try WHEN 1 THEN attempt_id ELSE gen_random_uuid() END, id, try, '', state, 'test',
              CASE WHEN state <> 'refused' THEN 'pout_' || n || '_' || try END, asked_at + try * interval '20 seconds',
              CASE WHEN state NOT IN ('paid', 'accepted') THEN ended_at END
       FROM (SELECT *, CASE WHEN way = 'failed' OR (way = 'second try' AND try = 1) THEN 'failed' WHEN way = 'sent' THEN 'accepted'
                            WHEN way = 'sent back' THEN 'reversed' WHEN way = 'outside' THEN 'refused' ELSE 'paid' END AS state
             FROM planted, generate_series(1, 2) try WHERE try = 1 OR way = 'second try') tries
       WHERE way NOT IN ('cancelled', 'rejected', 'new') ORDER BY asked_at""",
    """INSERT INTO coin_transactions (user_id, kind, coins, balance_after, withdrawal_id, reference, actor, created_at)
       SELECT user_id, kind, coins, after, withdrawal_id, reference, 'test', at FROM lines
       ORDER BY at, kind, reference, withdrawal_id""",
    """INSERT INTO withdrawal_events (withdrawal_id, from_status, to_status, actor, reason, data, created_at)
       SELECT id, before, after, 'test', reason,
              CASE WHEN before IS NOT NULL THEN '{}' WHEN way IN ('approved', 'rejected') THEN
                  jsonb_build_object('upi_id', user_id || '@okaxis', 'amount_paise', coins * 10, 'awaits_approval', 'amount')
                  ELSE jsonb_build_object('upi_id', user_id || '@okaxis', 'amount_paise', coins * 10) END, at
       FROM (SELECT p.*, 1 AS step, NULL AS before, 'pending' AS after, 'requested' AS reason, asked_at AS at FROM planted p
             UNION ALL SELECT p.*, 2, 'pending', 'pending', 'approved', asked_at FROM planted p WHERE way = 'approved'
             UNION ALL SELECT p.*, 3, 'pending', 'processing', 'claimed', asked_at FROM planted p
             WHERE way NOT IN ('cancelled', 'rejected', 'new')
             UNION ALL SELECT p.*, 4, 'processing', 'processing', 'retry', ended_at FROM planted p WHERE way = 'second try'
             UNION ALL SELECT p.*, 5, CASE WHEN way IN ('cancelled', 'rejected') THEN 'pending' ELSE 'processing' END,
                  CASE WHEN way IN ('failed', 'rejected') THEN 'failed' WHEN way = 'cancelled' THEN way ELSE 'completed' END,
                  CASE WHEN way IN ('cancelled', 'failed', 'rejected') THEN way ELSE 'paid' END, ended_at
             FROM planted p WHERE NOT is_open
             UNION ALL SELECT p.*, 6, 'completed', 'failed', 'reversed', ended_at + interval '1 minute' FROM planted p
             WHERE way = 'sent back') story
       ORDER BY at, n, step""",
    "ANALYZE",
)


def insert_withdrawals(connection: Connection, number: int) -> None:
    """Insert `number` withdrawals with all their rows in the connection's transaction."""
    for statement in ROWS:
        connection.execute(text(statement), {"number": number} if ":number" in statement else {})
