"""The dashboard: right numbers, red boxes where attention is needed, and a cost independent of old
withdrawals.
"""

import json
import re
from typing import Any

import pytest
from sqlalchemy import event

from shared.db.engines import engine
from shared.db.transactions import transaction
from shared.people.exception_records import open_record
from shared.roles import Role
from shared.withdrawals import circuit_breakers
from tests.api.admin import outcomes
from tests.api.admin.conftest import Signed
from tests.api.admin.outcomes import Box, boxes
from tests.api.admin.person import Person
from tests.support import simulator as outside
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("one_day")


def balance(world: World, paise: int, seconds_ago: float = 0) -> None:
    world.sql(
        "INSERT INTO provider_balances (account_number, available_paise, seen_at)"
        " VALUES (:account, :paise, now() - make_interval(secs => :ago))"
        " ON CONFLICT (account_number) DO UPDATE SET available_paise = :paise,"
        " seen_at = excluded.seen_at",
        account=outside.ACCOUNT,
        paise=paise,
        ago=seconds_ago,
    )


def test_an_empty_database_has_a_dashboard(signed_in: Signed) -> None:
    vera = signed_in("vera", Role.VIEWER)
    answers = boxes(vera)
    assert answers["Amount held"] == Box("₹0.00", "No open withdrawals", False)
    assert answers["Unknown"].value == answers["Paid today (IST)"].value == "₹0.00"
    assert (answers["Failure rate"].value, answers["Refund rate"].value) == ("–", "–")
    assert answers["Balance at RazorpayX"].is_red, "not reported yet"
    assert "<svg" not in vera.page.text and vera.page.text.count("<p>No data.</p>") == 3


def test_money_is_the_first_section(panel: World, signed_in: Signed) -> None:
    """Six results, each once, and every number that follows from them."""
    asha = signed_in()
    for coins, seconds in ((500, 10), (700, 100), (900, 1000)):
        outcomes.backdate_request(panel, outcomes.paid(panel, coins, upi_id="asha@okaxis"), seconds)
    outcomes.failed(panel, 300, upi_id="ravi@ybl", why="beneficiary_vpa_invalid")
    outcomes.cancelled(panel, 200, upi_id="ravi@YBL")
    unknown, waits = outcomes.sent(panel, 1100), outcomes.sent(panel, 1300)
    panel.sql("UPDATE payout_attempts SET state = 'unknown' WHERE withdrawal_id = :id", id=unknown)
    panel.sql("UPDATE withdrawals SET status_reason = 'confirming' WHERE id = :id", id=unknown)
    outcomes.backdate(panel, unknown, hours=3)
    panel.sql("UPDATE withdrawals SET due_at = now() + interval '1 hour' WHERE due_at IS NOT NULL")
    answers = boxes(asha)
    assert answers["Amount held"] == Box("₹240.00", "2 withdrawals; oldest: 3 h", False)
    assert answers["Unknown"] == Box("₹110.00", "1 payout that may have been made; oldest: 3 h", True)
    assert str(unknown) in asha.page.text
    assert answers["Failure rate"][:2] == ("25.0%", "1 of 4 payments in 24 h; also 0 reversed")
    refund_details = "₹50.00 of 2 withdrawals in 24 h, including cancelled ones"
    assert answers["Refund rate"][:2] == ("40.0%", refund_details)
    assert answers["Time from request to paid"].value in ("98 s", "99 s", "100 s", "101 s", "102 s")
    assert "within 17 min" in answers["Time from request to paid"].details
    held = outcomes.table_rows(asha.page.text, "held")
    assert held["processing, confirming"][:7] == [
        "1",
        "₹110.00",
        "₹0.00",
        "₹0.00",
        "₹110.00",
        "₹0.00",
        "₹0.00",
    ]
    assert held[f"processing, {panel.read(waits).status_reason}"][:3] == ["1", "₹130.00", "₹130.00"]
    handles = outcomes.table_rows(asha.page.text, "handles")
    assert handles["@okaxis"][1:5] == ["3", "₹210.00", "0", "0"]
    assert handles["@ybl"][:7] == ["2", "0", "₹0.00", "1", "2", "₹50.00", "100.0%"]
    assert outcomes.table_rows(asha.page.text, "reasons") == {"beneficiary_vpa_invalid": ["1", "25.0%"]}
    hours = outcomes.table_rows(asha.page.text, "hours")
    assert sum(int(cells[1]) for cells in hours.values()) == 3


def test_paid_today_starts_at_midnight_in_india(panel: World, signed_in: Signed) -> None:
    outcomes.paid(panel, 500)
    yesterday, long_ago = outcomes.paid(panel, 700), outcomes.paid(panel, 900)
    now = outcomes.today()
    back = (now - now.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds() + 60
    outcomes.backdate(panel, yesterday, seconds=back)
    outcomes.backdate(panel, long_ago, days=1, minutes=1)
    asha = signed_in()
    assert boxes(asha)["Paid today (IST)"][:2] == ("₹50.00", "1 withdrawal; 1 requested, 0 refunded")
    paid_in_a_day = sum(int(cells[1]) for cells in outcomes.table_rows(asha.page.text, "hours").values())
    if back < 86_400 - 120:  # in the day's last minutes, "yesterday" is at the edge of the 24 hours
        assert paid_in_a_day == 2


def test_boxes_that_need_attention_are_red(panel: World, signed_in: Signed) -> None:
    asha = signed_in()
    balance(panel, 100_000)
    outcomes.paid(panel, 500)
    waits = outcomes.sent(panel, 500)
    assert {title for title, box in boxes(asha).items() if box.is_red} == set()
    panel.sql("UPDATE withdrawals SET due_at = now() - interval '10 minutes' WHERE id = :id", id=waits)
    assert "are workers running?" in boxes(asha)["To be sent"].details
    with transaction() as session:
        circuit_breakers.open_by_hand(session, "payouts", reason="test", actor="operator:test")
        for kind in ("webhooks_silent", "overdue"):
            open_record(session, kind=kind, subject="razorpayx", source="watch", ours={}, theirs={})
    balance(panel, 4_000)
    answers = boxes(asha)
    assert {title for title, box in answers.items() if box.is_red} == {
        "Amount held", "Balance at RazorpayX", "To be sent", "Webhooks from RazorpayX", "Pauses",
    }  # fmt: skip
    assert answers["Balance at RazorpayX"].details.startswith(
        "₹10.00 missing; lasts 48 min at the last hour's rate"
    )
    assert answers["Pauses"][:2] == ("1", "payouts")
    balance(panel, 100_000, seconds_ago=3600)
    assert boxes(asha)["Balance at RazorpayX"].is_red, "reported an hour ago"


def test_a_failed_integrity_check_is_the_first_box_and_red(panel: World, signed_in: Signed) -> None:
    asha = signed_in()
    assert next(iter(boxes(asha).items())) == (
        "Integrity checks",
        Box("not run", "No spot check has run yet", False),
    )
    panel.sql("INSERT INTO spot_checks (truth, promise, faults, asked_at) VALUES ('coins', 1, 0, now())")
    first, box = next(iter(boxes(asha).items()))
    assert (first, box.value, box.is_red) == ("Integrity checks", "passed", False)
    panel.sql("UPDATE spot_checks SET faults = 2")
    first, box = next(iter(boxes(asha).items()))
    assert (first, box.value, box.is_red) == ("Integrity checks", "FAILED", True)
    assert box.details.startswith("promise 1 (2 rows)")
    panel.sql("UPDATE spot_checks SET faults = 0")
    with transaction() as session:
        open_record(session, kind="promise_broken", subject="coins", source="watch", ours={}, theirs={})
    answers = boxes(asha)
    assert answers["Integrity checks"].is_red and answers["Action needed"].is_red, "the record is still open"
    assert "1 exception record (1 critical)" in answers["Action needed"].details
    panel.sql("UPDATE exception_records SET resolved_at = now(), resolved_by = 'a', resolution = 'b'")
    panel.sql("UPDATE spot_checks SET asked_at = now() - interval '1 hour'")
    assert boxes(asha)["Integrity checks"][::2] == ("out of date", True)


def test_records_are_filtered_by_severity(panel: World, signed_in: Signed) -> None:
    asha = signed_in()
    with transaction() as session:
        for kind in ("overdue", "two_payouts", "fees_differ"):
            open_record(session, kind=kind, subject="razorpayx", source="watch", ours={}, theirs={})
    page = asha.get("/admin/exceptions/").text
    kinds = re.findall(r"<td>(overdue|two_payouts|fees_differ)</td>", page)
    assert kinds == ["two_payouts", "overdue", "fees_differ"]
    assert '<span class="flag">critical</span>' in page
    only = asha.get("/admin/exceptions/?severity=notice").text
    assert re.findall(r"<td>(overdue|two_payouts|fees_differ)</td>", only) == ["fees_differ"]
    assert asha.get("/admin/exceptions/?severity=awful").status_code == 400


def test_an_unreachable_broker_is_reported(
    panel: World, signed_in: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    asha = signed_in()
    assert outcomes.table_rows(asha.get("/admin/").text, "queues")["payouts"] == ["0"]
    panel.point_broker_at_nothing(monkeypatch)
    assert boxes(asha)["To be sent"].is_red and "Nothing is lost" in asha.page.text


def test_each_chart_is_a_named_image_with_a_table(panel: World, signed_in: Signed) -> None:
    outcomes.paid(panel, upi_id="x@y1z")
    outcomes.failed(panel)
    outcomes.sent(panel)
    asha = signed_in()
    for address, charts in (("/admin/", 3), ("/admin/analytics/", 2)):
        page = asha.get(address).text
        sections = re.findall(
            r'<section aria-labelledby="(?:held|hours|handles|days|times)">.*?</section>', page, re.S
        )
        drawn = [section for section in sections if "<svg" in section]
        assert len(drawn) == charts
        for section in drawn:
            [picture] = re.findall(r"<svg[^>]*>", section)
            assert 'role="img"' in picture and re.search(r'aria-label="\w', picture)
            assert section.index("</svg>") < section.index("<table>") and 'scope="row"' in section
        # Nothing that the content security policy would refuse, and nothing from other servers.
        assert not re.search(r"<script|<style|style=|https?://|<!--", page)


def blocks(person: Person) -> int:
    """The number of database blocks that the dashboard reads."""
    statements: list[tuple[str, Any]] = []

    def listen(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "WITH")):
            statements.append((statement, values))

    event.listen(engine(), "before_cursor_execute", listen)
    try:
        assert person.get("/admin/").status_code == 200
    finally:
        event.remove(engine(), "before_cursor_execute", listen)
    read = 0
    with engine().connect() as connection:
        for statement, values in statements:
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
            output = connection.exec_driver_sql(explain, values).scalar()
            plan = (json.loads(output) if isinstance(output, str) else output)[0]["Plan"]
            read += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return read


def test_old_rows_are_not_read(panel: World, signed_in: Signed) -> None:
    """The same day with and without 20,000 earlier withdrawals."""
    for _ in range(3):
        outcomes.paid(panel)
    outcomes.sent(panel)
    asha = signed_in()
    panel.sql("VACUUM ANALYZE")
    few = blocks(asha)
    panel.sql_without_rules("""
        WITH old AS (
            INSERT INTO withdrawals (id, user_id, coins_amount, amount_paise, upi_id, status, completed_at, created_at)
            SELECT gen_random_uuid(), 'user123', 100, 1000, 'old@okaxis', 'completed', now(),
                   now() - interval '2 days' - n * interval '30 minutes' FROM generate_series(1, 20000) n
            RETURNING id, created_at
        ), sent AS (
            INSERT INTO payout_attempts (id, withdrawal_id, number, request_body, state, sent_as, payout_id, created_at)
            SELECT gen_random_uuid(), id, 1, '', 'paid', 'test', 'pout_' || id, created_at FROM old
        )
        INSERT INTO withdrawal_events (withdrawal_id, from_status, to_status, actor, reason, created_at)
        SELECT id, 'processing', 'completed', 'webhook', 'paid', created_at FROM old ORDER BY created_at
    """)
    panel.sql("VACUUM ANALYZE")
    panel.broken_on_purpose = True
    # Some indexes are deeper now; the tables have grown by 1,600 blocks.
    assert blocks(asha) < few + 200
