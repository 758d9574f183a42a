"""What the panel's pages cost at ten thousand and at a million withdrawals, in turns, on this machine.

    python -m bench.lists [ROWS]

What few withdrawals are is planted as often in both (`KEPT_EQUAL`): a list that has a full page of rows among
a million has one among ten thousand as well. Those that find twenty, one or none find as many in both.
Prints a line for each page: the median of both in milliseconds, and how many times as much the second costs.
Planting a million rows takes two or three minutes.
"""

import os
import statistics
import sys
import time

import psycopg
from argon2 import PasswordHasher

from api.admin.making import create_panel
from sandbox.services import Databases, broker, database
from shared import db, log
from shared.migrations import migrate
from shared.settings import load, settings

FEW, MANY = 10_000, 1_000_000
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
KEPT_EQUAL = 200  # more than a page
# Most are paid, some failed or were cancelled, few are under way, as in a year of work. What is under way, is
# flagged or is of the amount that is filtered by is spread over the whole time, one in each `step`.
PLANT = """
    INSERT INTO wallets (user_id) SELECT 'user' || n FROM generate_series(0, %(rows)s / 20) n;
    INSERT INTO withdrawals (id, user_id, coins_amount, amount_paise, upi_id, status, status_reason, due_at,
                             expected_by, failure_reason, completed_at, review, utr, created_at)
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
    "in review": "?review=any",
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
    many = int(sys.argv[1]) if len(sys.argv) > 1 else MANY
    os.environ.update(ENVIRONMENT)
    log.configure()
    with database(fast=True) as server, broker() as redis_url:
        os.environ["REDIS_URL"] = redis_url
        visitors = [visitor(server, rows, PLANT) for rows in (FEW, many)]
        tell(visitors, {name: f"/admin/withdrawals/{query}" for name, query in PAGES.items()}, (FEW, many))


def tell(visitors: list["Visitor"], pages: dict[str, str], rows: tuple[int, int]) -> None:
    """Print what each page costs in both databases."""
    sys.stdout.write(f"{'':24}{rows[0]:>10,}{rows[1]:>12,}\n")
    for name, path in pages.items():
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for visitor, took in zip(visitors, times, strict=True):
                took.append(visitor.seconds(path))
        few_ms, many_ms = (statistics.median(took) * 1000 for took in times)
        sys.stdout.write(f"{name:24}{few_ms:10.1f}{many_ms:12.1f} ms  x {many_ms / few_ms:.2f}\n")


class Visitor:
    """An operator who is signed in to a panel with a database of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._enter()
        self.client = create_panel(load()).test_client()
        page = self.client.get("/admin/sign-in/").text
        token = page.split('name="csrf_token" value="')[1].split('"')[0]
        form = {"csrf_token": token, "username": "bench", "password": PASSWORD}
        assert self.client.post("/admin/sign-in/", data=form).status_code == 303

    def seconds(self, path: str) -> float:
        self._enter()
        self.client.get("/admin/account/")  # connects
        begun = time.perf_counter()
        answer = self.client.get(path, buffered=True)
        took = time.perf_counter() - begun
        assert answer.status_code in (200, 302), f"{path}: {answer.status_code}"
        return took

    def _enter(self) -> None:
        if os.environ.get("DATABASE_URL") != self.url:
            if "DATABASE_URL" in os.environ:
                db.engine().dispose()
            os.environ["DATABASE_URL"] = self.url
            settings.cache_clear()
            db.engine.cache_clear()


def visitor(server: Databases, rows: int, plant: str) -> Visitor:
    """A database with so many withdrawals, and an operator who is signed in to its panel."""
    url = server.create_database(f"bench_{rows}")
    migrate(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in plant.split(";\n")[:-1]:
            connection.execute(statement, {"rows": rows, "step": rows // KEPT_EQUAL})
        hashed = PasswordHasher().hash(PASSWORD)
        columns = "name, role, password_hash, created_by"
        operator = f"INSERT INTO operators ({columns}) VALUES ('bench', 'viewer', %s, 'bench')"
        connection.execute(operator, [hashed])
        connection.execute("VACUUM ANALYZE")
    return Visitor(url)


if __name__ == "__main__":
    main()
