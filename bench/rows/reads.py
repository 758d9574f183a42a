"""Ten million withdrawals that have ended: what the API and the panel read, against ten thousand."""

from functools import partial
from typing import Any

import psycopg

from bench import apart, lists
from bench.figures import median
from bench.plan import Column, Contender, Figures, Goal, Options, Results, Row, Table, by_subject
from sandbox.services import Postgres, Redis

FEW_ROWS = 10_000
MANY_ROWS = 10_000_000
ROUNDS = 60  # with fifteen, pages that read nothing differed by a quarter
USER = "user7"
API = "API: "
PANEL = "panel: "
ABOUT = """
The reads of the API, and each page of the panel's list, in turns on two databases: one with ten thousand and
one with ten million withdrawals, with their attempts, journal lines and events. 20 withdrawals a user; both
databases hold 200 of each rare kind, so that each comparison is between two full pages. Through the whole
application, in one process: medians of sixty. The rows are planted past the rules, and nothing is paid, so
there is nothing to check.
"""
PLANT = f"""{lists.PLANT.rstrip()}
    INSERT INTO coin_transactions (user_id, kind, coins, balance_after, withdrawal_id, actor, created_at)
    SELECT user_id, 'withdrawal', -coins_amount, 1000000, id, 'bench', created_at FROM withdrawals;
    INSERT INTO withdrawal_events (withdrawal_id, from_status, to_status, actor, reason, data, created_at)
    SELECT id, 'processing', status, 'worker', 'bench', '{{}}', created_at FROM withdrawals;
"""
CALLS = {
    "status": "/api/razorpay/withdraw/status/?withdrawal_id={id}",
    "history": "/api/razorpay/withdraw/history/?user_id={user}",
    "history, failed": "/api/razorpay/withdraw/history/?user_id={user}&status=failed",
    "wallet": "/api/razorpay/wallet/?user_id={user}",
    "transactions": "/api/razorpay/wallet/transactions/?user_id={user}",
}


def contenders(options: Options) -> list[Contender]:
    """One, because both databases are planted once: it takes half an hour."""
    return [Contender("ours", partial(_measure, options))]


def _measure(options: Options) -> Figures:
    sizes = options.pick((FEW_ROWS, MANY_ROWS), (1000, 4000))
    with Postgres() as server, Redis() as broker:
        environment = lists.ENVIRONMENT | {"REDIS_URL": broker.url}
        return apart.run(_read, environment, server.url, sizes, options.pick(ROUNDS, 1))


def _read(server_url: str, sizes: tuple[int, int], rounds: int) -> Figures:
    from sandbox.services import Databases

    server = Databases(server_url)
    few, many = lists.create_visitors(server, sizes, PLANT)
    readers = {"few": _Reader(few), "many": _Reader(many)}
    figures: Figures = {}
    for subject in readers["few"].subjects():
        times: dict[str, list[float]] = {name: [] for name in readers}
        for turn in range(rounds):
            for name in sorted(readers, reverse=bool(turn % 2)):  # neither always goes first
                times[name].append(readers[name].milliseconds(subject))
        middle = {name: median(some) for name, some in times.items()}
        figures |= {f"{subject}|{name}": value for name, value in middle.items()}
        figures[f"{subject}|ratio"] = middle["many"] / middle["few"]
    return figures


class _Reader:
    """An app and an operator of one database."""

    def __init__(self, visitor: lists.Visitor) -> None:
        from api.app import create_app

        self._visitor = visitor
        self._app: Any = create_app().test_client()
        with psycopg.connect(visitor.url) as connection:
            query = "SELECT id FROM withdrawals WHERE user_id = %s LIMIT 1"
            row = connection.execute(query, [USER]).fetchone()
        assert row
        self._paths = {
            **{API + name: path.format(id=row[0], user=USER) for name, path in CALLS.items()},
            **{PANEL + name: f"/admin/withdrawals/{query}" for name, query in lists.PAGES.items()},
        }

    def subjects(self) -> list[str]:
        return list(self._paths)

    def milliseconds(self, subject: str) -> float:
        client = self._app if subject.startswith(API) else None
        return self._visitor.seconds(self._paths[subject], client) * 1000


def _worst(results: Results) -> float:
    return max(figures["ratio"] for rounds in results.values() for figures in rounds)


ROW = Row(
    name="reads",
    title="Ten million withdrawals",
    about=ABOUT,
    contenders=contenders,
    tables=[
        Table(
            "",
            [
                Column("few", "ten thousand, ms"),
                Column("many", "ten million, ms"),
                Column("ratio", "ratio"),
            ],
        )
    ],
    goals=[Goal("each read at most 1.3 × that at ten thousand", _worst, most=1.3)],
    max_rounds=1,
    shape=by_subject,
)
