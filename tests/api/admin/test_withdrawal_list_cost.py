"""The cost of a page of the list: it follows an index and does not grow with the number of rows."""

import json
from typing import Any

import pytest
from sqlalchemy import event

from shared.db.engines import engine
from tests.api.admin.conftest import Signed
from tests.api.admin.person import Person
from tests.api.admin.test_withdrawal_list import planted
from tests.support.world import World

ROWS = 20_000  # some 600 blocks of 8 KiB
FEW_BLOCKS = 300  # 51 rows, each in two blocks at most, and the inner blocks of some indexes
LISTS = [
    {}, {"order": "oldest"}, {"order": "largest"}, {"order": "smallest"}, {"status": "failed"}, {"status": "pending"},
    {"status": "completed"}, {"reason": "paused"}, {"reason": "nothing"}, {"hold": "any"}, {"hold": "unanswered"},
    {"user": "user1"}, {"user": "nobody"}, {"q": "name77@okaxis"}, {"q": "UTR77"}, {"q": "no-one"},
    {"from": "2026-11-21", "to": "2026-11-21"}, {"min": "9999"}, {"min": "10", "max": "12"}, {"cursor": "middle"},
]  # fmt: skip


@pytest.fixture
def many(panel: World) -> World:
    planted(panel, ROWS // 2, amount_paise="1000 + n")
    planted(panel, ROWS // 2, status="'failed'", failure_reason="'x'", status_reason="NULL", due_at="NULL",
            utr="'UTR' || n", hold="CASE WHEN n % 500 = 0 THEN 'unanswered' END")  # fmt: skip
    panel.sql("VACUUM ANALYZE withdrawals")
    return panel


def blocks(person: Person, query: dict[str, str]) -> int:
    """The number of database blocks that the page reads."""
    seen: list[tuple[str, Any]] = []

    def listen(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "FROM withdrawals" in statement:
            seen.append((statement, values))

    event.listen(engine(), "before_cursor_execute", listen)
    try:
        page = person.get("/admin/withdrawals/", query_string=query)
    finally:
        event.remove(engine(), "before_cursor_execute", listen)
    assert page.status_code == 200 and seen
    read = 0
    with engine().connect() as connection:
        for statement, values in seen:
            explained = connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values
            ).scalar()
            plan = (json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"]
            read += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return read


def test_a_page_reads_few_blocks_for_any_filter(many: World, signed_in: Signed) -> None:
    asha = signed_in()
    asha.get("/admin/withdrawals/")
    middle = asha.page.text.split("cursor=")[1].split('"')[0].replace("%3D", "=")
    cost = {}
    for query in LISTS:
        filters = {"cursor": middle} if "cursor" in query else query
        cost[json.dumps(query)] = blocks(asha, filters)
    assert {query: read for query, read in cost.items() if read > FEW_BLOCKS} == {}
