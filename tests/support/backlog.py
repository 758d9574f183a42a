"""Insert many due withdrawals as rows, because requesting each over HTTP would take too long.

The rows are those that `withdrawals.request` writes, and every rule of the database checks them.
"""

import psycopg

COINS = 100
PAISE = 1000
ROWS = (
    """INSERT INTO wallets (user_id, balance_coins, lifetime_coins)
       SELECT %(name)s || u, 0, %(each)s::int * %(coins)s FROM generate_series(1, %(users)s) u""",
    """INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor)
       SELECT %(name)s || u, 'credit', %(each)s::int * %(coins)s, %(each)s::int * %(coins)s, 'crowd', 'test'
       FROM generate_series(1, %(users)s) u""",
    # Due a minute ago and a millisecond apart; the first user's first withdrawal is the oldest.
    """INSERT INTO withdrawals (id, user_id, coins_amount, amount_paise, upi_id, status, status_reason, due_at,
                                expected_by)
       SELECT gen_random_uuid(), %(name)s || u, %(coins)s, %(paise)s, %(upi_id)s, 'pending', 'cancel_window',
              now() - interval '1 minute' + (n * %(users)s + u) * interval '1 millisecond', now()
       FROM generate_series(1, %(users)s) u, generate_series(1, %(each)s) n""",
    """INSERT INTO coin_transactions (user_id, kind, coins, balance_after, withdrawal_id, actor)
       SELECT user_id, 'withdrawal', -coins_amount, %(coins)s * (%(each)s - row_number() OVER
              (PARTITION BY user_id ORDER BY due_at)), id, 'test'
       FROM withdrawals WHERE user_id LIKE %(name)s || '%%' ORDER BY due_at""",
    """INSERT INTO withdrawal_events (withdrawal_id, to_status, actor, reason, data)
       SELECT id, 'pending', 'test', 'requested',
              jsonb_build_object('upi_id', upi_id, 'amount_paise', amount_paise) FROM withdrawals WHERE user_id LIKE %(name)s || '%%'""",
)
IDS = "SELECT id::text FROM withdrawals WHERE user_id LIKE %(name)s || '%%' ORDER BY due_at"


def insert_backlog(
    database_url: str, *, users: int, each: int, name: str = "crowd", upi_id: str = "success@sim"
) -> list[str]:
    """Insert `each` withdrawals for each of the users `name`1, `name`2, …; returns their ids, the longest due first."""
    values = {"name": name, "users": users, "each": each, "upi_id": upi_id, "coins": COINS, "paise": PAISE}
    with psycopg.connect(database_url) as connection:
        for statement in ROWS:
            connection.execute(statement, values)
        return [row[0] for row in connection.execute(IDS, values)]
