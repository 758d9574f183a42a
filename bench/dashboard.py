"""Time of the dashboard and the analytics with ten thousand and with a million withdrawals, in turns.

    python -m bench.dashboard [ROWS]

Recent rows are the same in both: 3,000 withdrawals of the last day, 1,000 of them open, with their events,
attempts and webhooks. All others are older and final: 7,000 or 997,000 withdrawals over the same year. Prints
a line for each page: the median of both in milliseconds, and their ratio. Planting takes five minutes or
more.
"""

import os
import sys
import time

from bench.lists import ENVIRONMENT, FEW_ROWS, MANY_ROWS, Visitor, create_visitors, print_times
from sandbox.services import broker, database
from shared.monitoring.totals import daily_totals
from shared.telemetry import log

# The last 3,000 are from the last day, every third of them open; the others are spread over 330 days.
PLANT = """
    INSERT INTO wallets (user_id) SELECT 'user' || n FROM generate_series(0, %(rows)s / 20) n;
    CREATE TABLE planted AS
    SELECT n, gen_random_uuid() AS id, gen_random_uuid() AS attempt_id,
           CASE WHEN n > %(rows)s - 3000 THEN now() - (%(rows)s - n) * interval '28 seconds'
                ELSE now() - interval '25 hours' - (%(rows)s - n)::float8 / %(rows)s * interval '330 days'
           END AS asked_at,
           CASE WHEN n > %(rows)s - 3000 AND n %% 3 = 0 THEN 'open'
                WHEN n %% 100 < 92 THEN 'completed'
                WHEN n %% 100 < 97 THEN 'failed' ELSE 'cancelled' END AS s,
           (ARRAY['okaxis', 'okhdfcbank', 'okicici', 'oksbi', 'ybl', 'ibl', 'axl', 'paytm', 'upi', 'apl',
                  'fbl', 'sbi'])[1 + n %% 12] AS handle,
           (ARRAY['bank_processing', 'paced', 'confirming', 'provider_busy'])[1 + n %% 4] AS waits,
           (ARRAY['beneficiary_vpa_invalid', 'beneficiary_bank_rejected', 'bank_account_closed'])[1 + n %% 3]
               AS why,
           1000 + n::bigint * 7919 %% 900000 AS paise, 5 + n %% 400 AS seconds
    FROM generate_series(1, %(rows)s) n;
    INSERT INTO withdrawals (id, user_id, coins_amount, amount_paise, upi_id, status, status_reason, due_at,
                             expected_by, failure_reason, completed_at, utr, created_at)
    SELECT id, 'user' || n / 20, paise / 10, paise, 'name' || n %% 300000 || '@' || handle,
           CASE WHEN s <> 'open' THEN s WHEN waits = 'paced' THEN 'pending' ELSE 'processing' END,
           CASE s WHEN 'failed' THEN why WHEN 'open' THEN waits END, CASE s WHEN 'open' THEN now() END,
           CASE s WHEN 'open' THEN now() END,
           CASE s WHEN 'failed' THEN 'x' END, CASE s WHEN 'completed' THEN asked_at END,
           CASE s WHEN 'completed' THEN 'UTR' || n END, asked_at
    FROM planted ORDER BY n;
    INSERT INTO payout_attempts (id, withdrawal_id, number, request_body, state, sent_as, payout_id, utr,
                                 fees_paise, tax_paise, created_at, ended_at, status_details)
    SELECT attempt_id, id, 1, '', CASE s WHEN 'completed' THEN 'paid' WHEN 'failed' THEN 'failed' ELSE
               CASE waits WHEN 'confirming' THEN 'unknown' ELSE 'accepted' END END,
           'bench', 'pout_' || n, CASE s WHEN 'completed' THEN 'UTR' || n END, 590, 90, asked_at,
           CASE s WHEN 'failed' THEN asked_at END, jsonb_build_object('reason', why)
    FROM planted WHERE s <> 'cancelled' ORDER BY n;
    INSERT INTO withdrawal_events (withdrawal_id, from_status, to_status, actor, reason, data, created_at)
    SELECT id, before, after, actor, reason, jsonb_build_object('attempt_id', attempt_id), at
    FROM (SELECT n, id, attempt_id, NULL AS before, 'pending' AS after, 'app:bench' AS actor,
                 'requested' AS reason, asked_at AS at FROM planted
          UNION ALL SELECT n, id, attempt_id, 'pending', 'processing', 'worker', 'claimed',
                 asked_at + interval '3 seconds' FROM planted WHERE s <> 'cancelled'
          UNION ALL SELECT n, id, attempt_id, CASE s WHEN 'cancelled' THEN 'pending' ELSE 'processing' END, s,
                 'webhook', CASE s WHEN 'failed' THEN why WHEN 'completed' THEN 'paid' ELSE 'cancelled' END,
                 asked_at + seconds * interval '1 second' FROM planted WHERE s <> 'open') told ORDER BY at;
    INSERT INTO webhook_events (event_id, body, occurred_at, received_at, applied_at, outcome, withdrawal_id)
    SELECT 'evt_' || n, '{}', asked_at, asked_at + interval '1 second', asked_at + interval '2 seconds',
           'pay', id
    FROM planted WHERE s = 'completed' ORDER BY n;
    DROP TABLE planted;
    INSERT INTO provider_balances (account_number, available_paise) VALUES ('1', 500000000);
"""
PAGES = {
    "dashboard": "/admin/",
    "analytics, 30 days": "/admin/analytics/",
    "analytics, 366 days": "/admin/analytics/?from={year_ago}&to={today}",
    "file of 366 days": "/admin/analytics/export.csv?from={year_ago}&to={today}",
}


def main() -> None:
    """Plant two databases, count their days, and open every page of both in turns."""
    many = int(sys.argv[1]) if len(sys.argv) > 1 else MANY_ROWS
    os.environ.update(ENVIRONMENT)
    log.configure()
    with database(fast=True) as server, broker() as redis_url:
        os.environ["REDIS_URL"] = redis_url
        visitors = create_visitors(server, (FEW_ROWS, many), PLANT)
        for visitor, rows in zip(visitors, (FEW_ROWS, many), strict=True):
            _count_days(visitor, rows)
        today = time.strftime("%Y-%m-%d")
        year_ago = time.strftime("%Y-%m-%d", time.localtime(time.time() - 365 * 86_400))
        pages = {name: path.format(today=today, year_ago=year_ago) for name, path in PAGES.items()}
        print_times(visitors, pages, (FEW_ROWS, many))
        sys.stdout.write(f"load {os.getloadavg()[0]:.1f}\n")


def _count_days(visitor: Visitor, rows: int) -> None:
    """Count all finished days, as the worker does."""
    visitor.seconds("/admin/account/")
    started_at = time.perf_counter()
    days = 0
    while counted := daily_totals.store_finished_days():
        days += counted
    sys.stdout.write(f"{rows:,}: counting {days} days took {time.perf_counter() - started_at:.1f} s\n")


if __name__ == "__main__":
    main()
