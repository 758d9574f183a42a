"""Cost of the metrics: counting a payment, and scraping a database with a million withdrawals.

.venv/bin/python -m bench.metrics            counting
.venv/bin/python -m bench.metrics 1000000    also scraping, after planting that many withdrawals (minutes)
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from timeit import repeat

COUNTS = """
import sys
sys.path.insert(0, {root!r})
from timeit import repeat
from bench.metrics import count_create, count_payment
for name, part in (("a create", count_create), ("a payment", count_payment)):
    print(name, min(repeat(part, number=2000, repeat=5)) / 2000 * 1e6)
"""
SETTINGS = {
    "RAZORPAYX_KEY_ID": "rzp_test_x",
    "RAZORPAYX_KEY_SECRET": "s",
    "RAZORPAYX_ACCOUNT_NUMBER": "1",
    "RAZORPAYX_WEBHOOK_SECRET": "w",
}
OPEN_ROWS = 20_000  # open withdrawals; the others have ended
PLANT = (
    "SET LOCAL session_replication_role = replica",
    "INSERT INTO wallets (user_id) SELECT 'u' || i FROM generate_series(0, 99999) i",
    """INSERT INTO withdrawals (id, user_id, coins_amount, amount_paise, upi_id, status, status_reason,
           due_at, expected_by, created_at, completed_at)
       SELECT gen_random_uuid(), 'u' || i % 100000, 500, 5000, 'u' || i || '@okaxis',
           CASE WHEN i <= :open THEN 'processing' ELSE 'completed' END,
           CASE WHEN i <= :open THEN 'bank_processing' END,
           CASE WHEN i <= :open THEN now() + interval '1 hour' END,
           CASE WHEN i <= :open THEN now() + interval '1 hour' END,
           now() - make_interval(secs => i), CASE WHEN i > :open THEN now() END
       FROM generate_series(1, :number) i""",
    """INSERT INTO webhook_events (event_id, body, received_at, applied_at, outcome)
       SELECT 'e' || i, '', now() - make_interval(secs => i), now(), 'pay'
       FROM generate_series(1, :number) i""",
)


def count_create() -> None:
    """The counts of one accepted withdrawal in the API."""
    from shared.telemetry import metrics

    route = "/api/razorpay/withdraw/"
    method = metrics.known_or_other("POST", {"POST"})
    metrics.HTTP_REQUESTS.labels(route, method, 201).inc()
    metrics.HTTP_SECONDS.labels(route, method).observe(0.004)
    metrics.ACCEPT_SECONDS.observe(0.004)
    metrics.count_move("pending", by="app:quiz")


def count_payment() -> None:
    """The counts of one payment in the worker: known payee, one send, two webhooks, its sweep."""
    from shared.telemetry import metrics

    metrics.SWEEP_LAG_SECONDS.labels("submit_withdrawal").observe(0.3)
    metrics.RATE_LIMIT_WAIT_SECONDS.observe(0.1)
    metrics.CALL_SECONDS.labels("send", "2xx").observe(0.2)
    metrics.ANSWERS.labels("send", "accepted", "").inc()
    for to in ("processing", "completed"):
        metrics.count_move(to, by="worker")
    metrics.PAID_PAISE.inc(5000)
    metrics.PAID_SECONDS.observe(12)
    for _ in range(2):
        metrics.WEBHOOKS_APPLIED.labels("pay").inc()
        metrics.WEBHOOK_LAG_SECONDS.observe(1)
    for task in ("submit_withdrawal", "apply_webhook", "apply_webhook"):
        metrics.TASK_SECONDS.labels(task, "done").observe(0.2)


def counts(*, shared: bool) -> None:
    """Print microseconds per create and payment, measured in a separate process."""
    with tempfile.TemporaryDirectory() as directory:
        env = dict(os.environ) | ({"PROMETHEUS_MULTIPROC_DIR": directory} if shared else {})
        done = subprocess.run(
            [sys.executable, "-c", COUNTS.format(root=str(Path.cwd()))],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
    print(f"{'shared with other processes' if shared else 'alone'}:")
    for line in done.stdout.splitlines():
        name, _, micros = line.rpartition(" ")
        print(f"  {name}: {float(micros):.1f} µs")


def scrape(number: int) -> None:
    """Print the time of a scrape with `number` withdrawals, and of its database queries."""
    from sqlalchemy import text

    from sandbox.services import Postgres, Redis

    with Postgres() as postgres, Redis() as redis:
        os.environ.update(SETTINGS, DATABASE_URL=postgres.url, REDIS_URL=redis.url, API_AUTH="off")
        from api.app import create_app
        from shared.db.engines import unbounded_engine
        from shared.migrations import migrate
        from shared.monitoring import gauges
        from shared.settings import settings

        migrate(settings().database_url.get_secret_value())
        engine = unbounded_engine()
        with engine.begin() as connection:
            for statement in PLANT:
                values = {"number": number, "open": OPEN_ROWS} if ":number" in statement else {}
                connection.execute(text(statement), values)
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("VACUUM ANALYZE"))
        client = create_app().test_client()
        query_ms = min(repeat(gauges.query_database, number=1, repeat=10)) * 1000
        scrape_ms = []
        for _ in range(10):
            gauges.database_samples.cache_clear()
            started_at = time.perf_counter()
            assert b"payouts_withdrawals_open" in client.get("/metrics").data
            scrape_ms.append((time.perf_counter() - started_at) * 1000)
        print(f"{number:,} withdrawals, {OPEN_ROWS:,} of them open:")
        print(
            f"  database queries {query_ms:.1f} ms; a scrape {min(scrape_ms):.0f} to {max(scrape_ms):.0f} ms"
        )


if __name__ == "__main__":
    counts(shared=False)
    counts(shared=True)
    if len(sys.argv) > 1:
        scrape(int(sys.argv[1]))
