"""Time of the panel's pages with ten thousand and with a million withdrawals, in turns, on this machine.

    python -m bench.lists [ROWS]

Rare withdrawals are planted equally often in both (`RARE_ROWS`): a list that fills a page among a million
fills one among ten thousand too, and searches find equally many rows. Prints a line for each page: the median
of both in milliseconds, and their ratio. Planting a million rows takes two or three minutes.
"""

import os
import statistics
import sys
import time
from collections.abc import Sequence

import psycopg
from argon2 import PasswordHasher
from flask.testing import FlaskClient

from api.admin.app import create_panel
from sandbox.services import Databases, broker, database
from shared.db.engines import engine
from shared.migrations import migrate
from shared.settings import load, settings
from shared.telemetry import log

FEW_ROWS = 10_000
MANY_ROWS = 1_000_000
ROUNDS = 15
PASSWORD = "correct horse battery"
ENVIRONMENT = {
    "RAZORPAYX_KEY_ID": "rzp_test_bench",
    "RAZORPAYX_KEY_SECRET": "bench",
    "RAZORPAYX_ACCOUNT_NUMBER": "1",
    "RAZORPAYX_WEBHOOK_SECRET": "bench",
    "ADMIN_SECRET_KEY": "a-key-for-the-benchmark-of-32-characters",
    "ADMIN_COOKIE_SECURE": "off",
}
RARE_ROWS = 200  # more than a page
# Most are paid, some failed or were cancelled, few are in progress, as in a year of work. Withdrawals in
# progress, on hold, or of the filtered amount are spread over the whole time, one in each `step`.
PLANT = """
    INSERT INTO wallets (user_id) SELECT 'user' || n FROM generate_series(0, %(rows)s / 20) n;
    INSERT INTO withdrawals (id, user_id, coins_amount, amount_paise, upi_id, status, status_reason, due_at,
                             expected_by, failure_reason, completed_at, hold, utr, created_at)
    SELECT gen_random_uuid(), 'user' || n / 20, 100,
           CASE n %% %(step)s WHEN 2 THEN 500050 ELSE 1000 + n::bigint * 7919 %% 900000 END,
           'name' || n %% 300000 || '@okaxis', s,
           CASE s WHEN 'failed' THEN 'beneficiary_vpa_invalid' WHEN 'processing' THEN 'bank_processing' END,
           CASE s WHEN 'processing' THEN now() END, CASE s WHEN 'processing' THEN now() END,
           CASE s WHEN 'failed' THEN 'x' END,
           CASE s WHEN 'completed' THEN now() END, CASE n %% %(step)s WHEN 1 THEN 'unanswered' END,
           CASE s WHEN 'completed' THEN 'UTR' || n END, timestamptz '2026-01-01' + n * interval '25 seconds'
    FROM (SELECT n, CASE WHEN n %% %(step)s = 0 THEN 'processing' WHEN n %% 100 < 94 THEN 'completed'
                         WHEN n %% 100 < 98 THEN 'failed' ELSE 'cancelled' END AS s
          FROM generate_series(1, %(rows)s) n) planted;
    INSERT INTO payout_attempts (id, withdrawal_id, number, request_body, state, sent_as, payout_id, utr)
    SELECT gen_random_uuid(), id, 1, '', 'paid', 'bench', 'pout_' || utr, utr
    FROM withdrawals WHERE status = 'completed';
"""
PAGES = {
    "all, newest": "?",
    "oldest first": "?order=oldest",
    "largest first": "?order=largest",
    "failed": "?status=failed",
    "processing": "?status=processing",
    "by reason": "?reason=bank_processing",
    "on hold": "?hold=any",
    "of a day": "?from=2026-01-02&to=2026-01-02",
    "by amount": "?min=5000&max=5001",
    "search: user": "?q=user7",
    "search: nobody": "?q=nobody",
    "search: UPI id": "?q=name77@okaxis",
    "search: UTR": "?q=UTR501",
    "search: payout": "?q=pout_UTR501",
}


def main() -> None:
    """Plant two databases, open every page of both in turns."""
    many = int(sys.argv[1]) if len(sys.argv) > 1 else MANY_ROWS
    os.environ.update(ENVIRONMENT)
    log.configure()
    with database(fast=True) as server, broker() as redis_url:
        os.environ["REDIS_URL"] = redis_url
        visitors = create_visitors(server, (FEW_ROWS, many), PLANT)
        print_times(
            visitors, {name: f"/admin/withdrawals/{query}" for name, query in PAGES.items()}, (FEW_ROWS, many)
        )


def print_times(visitors: list["Visitor"], pages: dict[str, str], rows: tuple[int, int]) -> None:
    """Print the time of each page in both databases."""
    sys.stdout.write(f"{'':24}{rows[0]:>10,}{rows[1]:>12,}\n")
    for name, path in pages.items():
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for visitor, visitor_times in zip(visitors, times, strict=True):
                visitor_times.append(visitor.seconds(path))
        few_ms, many_ms = (statistics.median(visitor_times) * 1000 for visitor_times in times)
        sys.stdout.write(f"{name:24}{few_ms:10.1f}{many_ms:12.1f} ms  x {many_ms / few_ms:.2f}\n")


class Visitor:
    """An operator who is signed in to a panel with its own database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._enter()
        self.client = create_panel(load()).test_client()
        page = self.client.get("/admin/sign-in/").text
        token = page.split('name="csrf_token" value="')[1].split('"')[0]
        form = {"csrf_token": token, "username": "bench", "password": PASSWORD}
        assert self.client.post("/admin/sign-in/", data=form).status_code == 303

    def seconds(self, path: str, client: FlaskClient | None = None) -> float:
        """The seconds that a page takes, in the panel or in another application with the same database."""
        self._enter()
        self.client.get("/admin/account/")  # connects
        started_at = time.perf_counter()
        answer = (client or self.client).get(path, buffered=True)
        seconds = time.perf_counter() - started_at
        location = answer.headers.get("Location", "")  # a search opens its only hit
        assert answer.status_code == (302 if location else 200), f"{path}: {answer.status_code}"
        assert "/sign-in/" not in location, f"{path}: signed out"
        return seconds

    def _enter(self) -> None:
        if os.environ.get("DATABASE_URL") != self.url:
            if "DATABASE_URL" in os.environ:
                engine().dispose()
            os.environ["DATABASE_URL"] = self.url
            settings.cache_clear()


def create_visitors(server: Databases, sizes: Sequence[int], plant: str) -> list[Visitor]:
    """A database with so many withdrawals for each size, and an operator who is signed in to its panel.

    They sign in when all are planted, for a session does not last as long as ten million rows take.
    """
    return [Visitor(url) for url in [_plant(server, rows, plant) for rows in sizes]]


def _plant(server: Databases, rows: int, plant: str) -> str:
    url = server.create_database(f"bench_{rows}")
    migrate(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in plant.split(";\n")[:-1]:
            connection.execute(statement, {"rows": rows, "step": rows // RARE_ROWS})
        password_hash = PasswordHasher().hash(PASSWORD)
        columns = "name, role, password_hash, created_by"
        operator = f"INSERT INTO operators ({columns}) VALUES ('bench', 'viewer', %s, 'bench')"
        connection.execute(operator, [password_hash])
        connection.execute("VACUUM ANALYZE")
    return url


if __name__ == "__main__":
    main()
