"""The list of withdrawals: search, filters, pages and export."""

import csv
import io
import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.clock import INDIA
from shared.roles import Role
from tests.api.admin.conftest import Signed
from tests.api.admin.person import Person
from tests.support.world import World

LIST = "/admin/withdrawals/"


def listed(person: Person, **query: Any) -> list[str]:
    """The ids on the page, in order."""
    return re.findall(r"/admin/withdrawal/([0-9a-f-]{36})/", person.get(LIST, query_string=query).text)


def every(person: Person, **query: Any) -> list[str]:
    """The ids of all pages."""
    seen = listed(person, **query)
    while (link := re.search(r'rel="next" href="([^"]+)"', person.page.text)) is not None:
        seen += re.findall(
            r"/admin/withdrawal/([0-9a-f-]{36})/", person.get(link[1].replace("&amp;", "&")).text
        )
    return seen


def planted(world: World, number: int, **columns: str) -> None:
    """Insert rows directly, without the database's rules."""
    values = {
        "user_id": "'user' || n % 3",
        "created_at": "timestamptz '2026-11-20 12:00+05:30' + n * interval '1 minute'",
        "amount_paise": "1000 + 100 * (n % 7)",
        "upi_id": "'name' || n || '@okaxis'",
        "status": "'pending'",
        "status_reason": "'paused'",
        "due_at": "now()",
        "expected_by": "now()",
    } | columns
    world.sql_without_rules(
        f"INSERT INTO withdrawals (id, coins_amount, {', '.join(values)})"
        f" SELECT gen_random_uuid(), 100, {', '.join(values.values())} FROM generate_series(1, {number}) n"
    )
    world.broken_on_purpose = True


def test_every_page_continues_after_the_last(panel: World, signed_in: Signed) -> None:
    planted(panel, 120)
    panel.sql_without_rules("UPDATE withdrawals SET created_at = '2026-11-20' WHERE amount_paise > 1300")
    asha = signed_in()
    ids = {str(row.id) for row in panel.sql("SELECT id FROM withdrawals")}
    for order in ("newest", "oldest", "largest", "smallest"):
        seen = every(asha, order=order)
        assert len(seen) == 120 and set(seen) == ids, order
    amounts = [str(r.id) for r in panel.sql("SELECT id FROM withdrawals ORDER BY amount_paise DESC, id DESC")]
    assert every(asha, order="largest") == amounts
    times = [str(r.id) for r in panel.sql("SELECT id FROM withdrawals ORDER BY created_at DESC, id DESC")]
    assert every(asha) == times


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ({"user": "user1"}, "user_id = 'user1'"),
        ({"status": "failed"}, "status = 'failed'"),
        ({"reason": "paused"}, "status_reason = 'paused'"),
        ({"hold": "any"}, "hold IS NOT NULL"),
        ({"hold": "unanswered"}, "hold = 'unanswered'"),
        ({"min": "11", "max": "13.00"}, "amount_paise BETWEEN 1100 AND 1300"),
        ({"min": "₹1,000"}, "amount_paise >= 100000"),
        ({"from": "2026-11-20", "to": "2026-11-20"}, "created_at < '2026-11-21 00:00+05:30'"),
        ({"from": "2026-11-21"}, "created_at >= '2026-11-21 00:00+05:30'"),
        ({"q": "user2"}, "user_id = 'user2'"),
        ({"q": "NAME7@okaxis"}, "upi_id = 'name7@okaxis'"),
        ({"q": "  name7@OKAXIS "}, "upi_id = 'name7@okaxis'"),
        ({"q": "UTR000000005"}, "utr = 'UTR000000005'"),
        ({"q": "9876543210"}, "user_id = '9876543210'"),
        ({"q": "who@example"}, "user_id = 'who@example'"),
        ({"q": "user1", "status": "failed"}, "user_id = 'user1' AND status = 'failed'"),
        ({"status": "failed", "order": "largest", "max": "12"}, "status = 'failed' AND amount_paise <= 1200"),
    ],
)  # fmt: skip
def test_filters_and_search(panel: World, signed_in: Signed, query: dict[str, str], condition: str) -> None:
    planted(panel, 30)
    planted(panel, 9, status="'failed'", failure_reason="'x'", due_at="NULL", status_reason="NULL")
    planted(panel, 3, hold="'unanswered'", utr="'UTR00000000' || n + 3", amount_paise="100000 * n")
    planted(panel, 2, user_id="'9876543210'")
    planted(panel, 1, user_id="'who@example'")
    planted(panel, 40, created_at="timestamptz '2026-11-20 23:40+05:30' + n * interval '1 minute'")
    wanted = {str(row.id) for row in panel.sql(f"SELECT id FROM withdrawals WHERE {condition}")}
    assert wanted, "no row matches the filter"
    assert set(every(signed_in(), **query)) == wanted


def test_an_id_leads_straight_to_the_withdrawal(panel: World, signed_in: Signed) -> None:
    withdrawal_id = panel.paid()
    asha = signed_in()
    [attempt] = panel.attempts(withdrawal_id)
    for query in (withdrawal_id, attempt.id, attempt.payout_id, str(withdrawal_id).upper()):
        assert asha.get(LIST, query_string={"q": query}).location == f"/admin/withdrawal/{withdrawal_id}/"
    assert listed(asha, q=attempt.utr) == [str(withdrawal_id)] * 1
    for query in ("pout_unknown", "01a208a5-b724-779f-a85a-7688d7fa28bd", "nobody"):
        assert "No withdrawals found" in asha.get(LIST, query_string={"q": query}).text


@pytest.mark.parametrize(
    "query",
    [
        {"status": "lost"}, {"order": "random"}, {"from": "yesterday"}, {"to": "9999-12-31"}, {"from": "0001-01-01"},
        {"min": "-1"}, {"min": "x"}, {"max": "1.234"}, {"max": "NaN"}, {"max": "1e30"}, {"q": "x" * 501},
        {"from": "2026-11-25", "to": "2026-11-24"}, {"min": "5", "max": "4.99"}, {"q": "a\x00b"}, {"q": "pout_\x00"}, {"cursor": "YWJj"}, {"cursor": "é"}, {"order": "largest", "cursor": "MjAyNg=="},
    ],
)  # fmt: skip
def test_an_invalid_filter_is_an_error(panel: World, signed_in: Signed, query: dict[str, str]) -> None:
    asha = signed_in()
    page = asha.get(LIST, query_string=query)
    assert page.status_code == 400 and 'role="alert"' in page.text
    assert asha.get(f"{LIST}export.csv", query_string=query).status_code in (200, 400)


def test_lists_mask_upi_ids_and_escape_text(panel: World, signed_in: Signed) -> None:
    panel.credit(user_id="<script>alert(1)</script>")
    panel.request(user_id="<script>alert(1)</script>", upi_id="secretname@okhdfcbank")
    text = signed_in().get(LIST).text
    assert "se…@okhdfcbank" in text and "secretname" not in text
    assert "<script" not in text and "&lt;script" in text


def test_the_export_has_every_row_and_no_formula(panel: World, signed_in: Signed) -> None:
    planted(panel, 2300, user_id="'=HYPERLINK(\"x\")'")
    planted(panel, 5, status="'failed'", failure_reason="'x'", due_at="NULL")
    asha = signed_in()
    answer = asha.get(f"{LIST}export.csv", query_string={"status": "pending", "order": "oldest"})
    assert answer.headers["Content-Disposition"] == "attachment; filename=withdrawals.csv"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 2300 == len({row["withdrawal"] for row in rows})
    assert [row["requested_ist"] for row in rows] == sorted(row["requested_ist"] for row in rows)
    first = rows[0]
    assert first["requested_ist"] == "2026-11-20 12:01:00" and first["user"] == '\'=HYPERLINK("x")'
    assert (first["rupees"], first["upi_id"]) == ("11.00", "na…@okaxis")
    [line] = panel.sql("SELECT * FROM audit_log WHERE action = 'export'")
    assert line.operator == "asha" and line.data["status"] == "pending"


def test_an_export_is_streamed(panel: World, signed_in: Signed) -> None:
    """The first lines are sent before the last are read, and nothing is held between pages."""
    planted(panel, 3000)
    asha = signed_in()
    answer = asha.client.get(f"{LIST}export.csv")
    parts = iter(answer.response)
    assert next(parts) and next(parts)
    [open_] = panel.sql(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    )
    assert open_.n == 0
    other = signed_in("ravi").client.get(f"{LIST}export.csv")
    third = signed_in("vera", Role.OPERATOR).client.get(f"{LIST}export.csv")
    assert (other.status_code, third.status_code) == (200, 503)
    answer.close()
    other.close()
    with asha.client.get(f"{LIST}export.csv") as again:
        assert again.status_code == 200


def test_days_are_in_india(panel: World, signed_in: Signed) -> None:
    midnight = datetime(2026, 11, 21, tzinfo=INDIA)
    planted(panel, 1, created_at=f"timestamptz '{midnight.isoformat()}'")
    planted(panel, 1, created_at=f"timestamptz '{(midnight - timedelta(microseconds=1)).isoformat()}'")
    asha = signed_in()
    assert len(every(asha, **{"from": "2026-11-21"})) == len(every(asha, to="2026-11-20")) == 1
