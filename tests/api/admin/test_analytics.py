"""Analytics: each number on its day, also after late reports; stored rows and live counts agree."""

import csv
import io
import re
import threading
from datetime import date, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import text

from shared.db.transactions import transaction
from shared.monitoring.totals import counts, daily_totals, sums
from shared.roles import Role
from tests.api.admin import outcomes
from tests.api.admin.conftest import Signed
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("one_day")

PAGE = "/admin/analytics/"


def day(back: int) -> date:
    return outcomes.today().date() - timedelta(days=back)


def noon(back: int) -> float:
    """The number of seconds since noon in India on that day."""
    now = outcomes.today()
    then = now.replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=back)
    return (now - then).total_seconds()


def span(first: int, last: int = 0) -> dict[str, str]:
    return {"from": day(first).isoformat(), "to": day(last).isoformat()}


def forgotten(world: World) -> None:
    world.sql("DELETE FROM counted_days")


def test_each_number_belongs_to_its_day(panel: World, signed_in: Signed) -> None:
    for coins, back in ((500, 5), (700, 5), (900, 2)):
        outcomes.backdate(
            panel, outcomes.paid(panel, coins, fees_paise=590, tax_paise=90), seconds=noon(back)
        )
    outcomes.backdate(
        panel, outcomes.failed(panel, 300, "ravi@ybl", "beneficiary_vpa_invalid"), seconds=noon(5)
    )
    outcomes.backdate(panel, outcomes.cancelled(panel, 200, "ravi@ybl"), seconds=noon(5))
    outcomes.backdate(panel, outcomes.sent(panel, 1100), seconds=noon(5))
    vera = signed_in("vera", Role.VIEWER)
    page = vera.get(PAGE, query_string=span(6)).text
    days = outcomes.table_rows(page, "days")
    assert list(days) == [day(back).isoformat() for back in range(7)]
    asked, paid, rupees, failed, refunded, rupees_back, rate, *_, fees = days[day(5).isoformat()]
    assert (asked, paid, rupees, failed, fees) == ("5", "2", "₹120.00", "1", "₹11.80")
    assert (refunded, rupees_back, rate) == ("2", "₹50.00", "50.0%")
    assert days[day(2).isoformat()][:3] == ["1", "1", "₹90.00"]
    assert days[day(4).isoformat()][:6] == ["0", "0", "₹0.00", "0", "0", "₹0.00"]
    handles = outcomes.table_rows(page, "handles")
    assert handles["@okaxis"][:3] == ["4", "3", "₹210.00"] and handles["@ybl"][3:5] == ["1", "2"]
    assert outcomes.table_rows(page, "reasons") == {"beneficiary_vpa_invalid": ["1", "25.0%"]}
    assert "6 withdrawals, 3,700 coins, ₹370.00" in page and "₹17.70, including ₹2.70 tax" in page
    # All requested withdrawals have ended, except the open one.
    whole = daily_totals.totals_between(day(6), day(0)).all
    assert whole.requested == whole.paid + whole.number["failed"] + whole.number["cancelled"] + 1
    assert "0 withdrawals, 0 coins, ₹0.00" in vera.get(PAGE, query_string=span(4, 3)).text


def test_a_reversal_belongs_to_its_own_day(panel: World) -> None:
    withdrawal_id = outcomes.paid(panel, 500, upi_id="asha@ybl")
    outcomes.backdate(panel, withdrawal_id, seconds=noon(5))
    before = daily_totals.totals_between(day(5), day(5)).all
    assert outcomes.report(panel, withdrawal_id, "reversed", "beneficiary_bank_failure") == "reverse"
    days = daily_totals.totals_between(day(6), day(0))
    then, now = days.by_day[day(5)], days.by_day[day(0)]
    assert (then.paid, then.refunded) == (before.paid, before.refunded) == (1, 0)
    assert (now.paid, now.number["reversed"], now.refunded, now.refunded_coins) == (0, 1, 1, 500)
    assert now.reasons == {"reversed": 1} and now.failure_rate is None


def test_fees_reported_late_belong_to_the_day_of_the_payment(panel: World) -> None:
    early, late = outcomes.paid(panel, fees_paise=590), outcomes.paid(panel)
    for withdrawal_id in (early, late):
        outcomes.backdate(panel, withdrawal_id, seconds=noon(5))
    assert daily_totals.totals_between(day(5), day(5)).all.fees_paise == 590
    panel.sql("UPDATE counted_days SET counted_at = counted_at - interval '4 days'")
    assert outcomes.report(panel, late, "processed", fees_paise=300, tax_paise=45) == "repeat"
    days = daily_totals.totals_between(day(5), day(0))
    assert (days.by_day[day(5)].fees_paise, days.by_day[day(5)].tax_paise) == (890, 45)
    assert day(0) not in days.by_day


def test_stored_totals_equal_counted_totals(panel: World) -> None:
    # Until one o'clock, rows of yesterday may still appear, so it is not stored.
    last = 1 if outcomes.today().hour else 2
    first = last + 2
    between = last + 1
    for back in (last, between, between, first):
        outcomes.backdate(
            panel, outcomes.paid(panel, 500 + back, f"asha@h{back}", fees_paise=back), seconds=noon(back)
        )
        outcomes.backdate(panel, outcomes.failed(panel, 100, f"asha@h{back}"), seconds=noon(back))
    assert daily_totals.store_finished_days() == 3 and daily_totals.store_finished_days() == 0
    kept = daily_totals.rows_between(day(first), day(last))
    with transaction() as session:
        counted = [
            line
            for back in (first, between, last)
            for line in counts.count_totals(session, *counts.day_bounds(day(back)))
        ]
    assert kept == counted and len(kept) == 9
    summed = daily_totals.totals_between(day(first), day(last))
    by_hand = sums.group_totals(counted, lambda line: line.slot.date())
    for one, other in ((summed.by_day[one], by_hand[one]) for one in by_hand):
        assert vars(one) == vars(other)
    forgotten(panel)
    assert daily_totals.rows_between(day(first), day(last)) == counted, "a new count gives the same totals"


def test_concurrent_counts_store_a_day_once(panel: World) -> None:
    outcomes.backdate(panel, outcomes.paid(panel), seconds=noon(2))
    done: list[bool] = []
    counters = [
        threading.Thread(target=lambda: done.append(daily_totals.store_day(day(2)))) for _ in range(4)
    ]
    for counter in counters:
        counter.start()
    for counter in counters:
        counter.join()
    assert sorted(done) == [False, False, False, True]
    assert daily_totals.totals_between(day(2), day(2)).all.paid == 1


def test_an_interrupted_count_stores_nothing(panel: World, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes.backdate(panel, outcomes.paid(panel), seconds=noon(2))
    with monkeypatch.context() as broken:
        broken.setattr(
            daily_totals,
            "INSERT_TOTALS",
            text("SELECT 1 / 0 WHERE :since < :until OR :unit = '' OR :steps = 0"),
        )
        with pytest.raises(Exception, match="division by zero"):
            daily_totals.store_finished_days()
    assert panel.sql("SELECT * FROM counted_days") == []
    assert daily_totals.totals_between(day(2), day(2)).all.paid == 1


def test_a_day_is_stored_when_it_is_over(panel: World) -> None:
    outcomes.paid(panel)
    assert (
        daily_totals.store_finished_days() == 0 and daily_totals.totals_between(day(0), day(0)).all.paid == 1
    )
    outcomes.paid(panel)
    assert daily_totals.totals_between(day(0), day(0)).all.paid == 2


def test_the_page_does_not_wait_while_a_year_is_counted(
    panel: World, signed_in: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes.backdate(panel, outcomes.paid(panel), seconds=noon(300))
    asha = signed_in()
    monkeypatch.setattr(daily_totals, "READER_TIMEOUT_SECONDS", 0)
    answer = asha.get(PAGE, query_string=span(300))
    assert (
        answer.status_code == 503 and "still being counted" in answer.text and answer.headers["Retry-After"]
    )
    while daily_totals.store_finished_days():
        pass
    assert asha.get(PAGE, query_string=span(300)).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        {"from": "yesterday"}, {"to": "2026-13-01"}, {"from": "9999-12-31"}, {"from": "0001-01-01"},
        {"from": "2026-11-02", "to": "2026-11-01"}, {"from": "2025-11-01", "to": "2026-11-02"}, {"to": "0001-01-01"},
        {"from": "2026-11-01\x00"}, {"from": "é"}, {"from": "2026-11-01 OR 1=1"}, {"to": "x" * 5000},
    ],
)  # fmt: skip
def test_an_invalid_range_is_an_error(signed_in: Signed, query: dict[str, str]) -> None:
    asha = signed_in()
    for path in (PAGE, f"{PAGE}export.csv"):
        answer = asha.get(path, query_string=query)
        assert answer.status_code == 400 and "nvalid" in answer.text, path


def test_an_empty_database_has_analytics(signed_in: Signed) -> None:
    vera = signed_in("vera", Role.VIEWER)
    for query in (
        {},
        span(365),
        {"from": "2031-01-01", "to": "2031-01-31"},
        {"to": "2000-01-01"},
        {"to": "9999-12-31"},
    ):
        page = vera.get(PAGE, query_string=query)
        assert (
            page.status_code == 200
            and "0 withdrawals, 0 coins, ₹0.00" in page.text
            and "<svg" not in page.text
        )


def test_the_export_matches_the_page(panel: World, signed_in: Signed) -> None:
    for back in (0, 3, 40):
        outcomes.backdate(
            panel, outcomes.paid(panel, 500, fees_paise=590, tax_paise=90), seconds=noon(back) if back else 0
        )
        outcomes.backdate(panel, outcomes.failed(panel, 300, "ravi@ybl"), seconds=noon(back) if back else 0)
    vera = signed_in("vera", Role.VIEWER)
    answer = vera.get(f"{PAGE}export.csv", query_string=span(50))
    assert answer.headers["Content-Disposition"] == "attachment; filename=totals.csv"
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert all(one["day_ist"] <= other["day_ist"] for one, other in pairwise(lines))
    paid = [line for line in lines if line["what"] == "completed"]
    assert [line["day_ist"] for line in paid] == [day(back).isoformat() for back in (40, 3, 0)]
    assert {(line["rupees"], line["coins"], line["fees_rupees"], line["tax_rupees"]) for line in paid} == {
        ("50.00", "500", "5.90", "0.90")
    }
    assert {(line["upi_handle"], line["reason"]) for line in lines if line["what"] == "failed"} == {
        ("ybl", "bank_account_closed")
    }
    whole = re.search(r"<dt>Requested</dt><dd>(\d+) withdrawals", vera.get(PAGE, query_string=span(50)).text)
    assert (
        whole
        and int(whole[1]) == sum(int(line["withdrawals"]) for line in lines if line["what"] == "asked") == 6
    )
    [line] = panel.sql("SELECT * FROM audit_log WHERE action = 'export_totals'")
    assert line.operator == "vera" and line.data["since"] == day(50).isoformat()


def test_days_start_at_midnight_in_india(panel: World) -> None:
    for seconds in (0.001, -60):  # just after midnight, and a minute before
        withdrawal_id = outcomes.paid(panel)
        since = (outcomes.today() - counts.day_start(day(3))).total_seconds()
        [ended] = panel.sql(
            "SELECT extract(epoch FROM now() - created_at) AS ago FROM withdrawal_events"
            " WHERE withdrawal_id = :id AND to_status = 'completed'",
            id=withdrawal_id,
        )
        outcomes.backdate(panel, withdrawal_id, seconds=since - float(ended.ago) - seconds)
    days = daily_totals.totals_between(day(6), day(0)).by_day
    assert {one: totals.paid for one, totals in days.items()} == {day(4): 1, day(3): 1}
    for back in (4, 3):
        assert daily_totals.totals_between(day(back), day(back)).all.paid == 1


def test_a_single_day_is_visible_in_the_chart(panel: World, signed_in: Signed) -> None:
    """A line needs two points, so a paid day between days without payments must show as a dot."""
    outcomes.backdate(panel, outcomes.paid(panel), seconds=noon(3))
    for first in (300, 29):
        page = (
            signed_in("vera" if first == 300 else "asha", Role.VIEWER)
            .get(PAGE, query_string=span(first))
            .text
        )
        times = page.split('<section aria-labelledby="times">')[1].split("</section>")[0]
        assert times.count("<circle") == 2, "median, and 95 % within"


def test_chart_dates_do_not_overlap_and_ids_are_unique(panel: World, signed_in: Signed) -> None:
    outcomes.paid(panel)
    page = signed_in().get(PAGE).text
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    places = [
        float(x) for x in re.findall(r'<text x="([\d.]+)"[^>]*>\d\d \w{3}</text>', page.split("</figure>")[0])
    ]
    assert len(places) > 3 and min(b - a for a, b in pairwise(sorted(places))) > 45
