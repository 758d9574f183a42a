"""Days in sums: what happened on which day, also when something comes late; kept rows and counting agree."""

import csv
import io
import re
import threading
from datetime import date, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import text

from shared.db import transaction
from shared.roles import Role
from shared.totals import counting, keeping, summing
from tests.integration.panel import fates
from tests.integration.panel.conftest import Signed
from tests.world import World

pytestmark = pytest.mark.usefixtures("one_day")

PAGE = "/admin/analytics/"


def day(back: int) -> date:
    return fates.today().date() - timedelta(days=back)


def noon(back: int) -> float:
    """How many seconds ago it was noon in India on that day."""
    now = fates.today()
    then = now.replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=back)
    return (now - then).total_seconds()


def span(first: int, last: int = 0) -> dict[str, str]:
    return {"from": day(first).isoformat(), "to": day(last).isoformat()}


def forgotten(world: World) -> None:
    world.sql("DELETE FROM counted_days")


def test_each_number_stands_on_its_day(panel: World, signed_in: Signed) -> None:
    for coins, back in ((500, 5), (700, 5), (900, 2)):
        fates.ago(panel, fates.paid(panel, coins, fees_paise=590, tax_paise=90), seconds=noon(back))
    fates.ago(panel, fates.failed(panel, 300, "ravi@ybl", "beneficiary_vpa_invalid"), seconds=noon(5))
    fates.ago(panel, fates.cancelled(panel, 200, "ravi@ybl"), seconds=noon(5))
    fates.ago(panel, fates.sent(panel, 1100), seconds=noon(5))
    vera = signed_in("vera", Role.VIEWER)
    page = vera.get(PAGE, query_string=span(6)).text
    days = fates.rows(page, "days")
    assert list(days) == [day(back).isoformat() for back in range(7)]
    asked, paid, rupees, failed, refunded, rupees_back, rate, *_, fees = days[day(5).isoformat()]
    assert (asked, paid, rupees, failed, fees) == ("5", "2", "₹120.00", "1", "₹11.80")
    assert (refunded, rupees_back, rate) == ("2", "₹50.00", "50.0%")
    assert days[day(2).isoformat()][:3] == ["1", "1", "₹90.00"]
    assert days[day(4).isoformat()][:6] == ["0", "0", "₹0.00", "0", "0", "₹0.00"]
    handles = fates.rows(page, "handles")
    assert handles["@okaxis"][:3] == ["4", "3", "₹210.00"] and handles["@ybl"][3:5] == ["1", "2"]
    assert fates.rows(page, "reasons") == {"beneficiary_vpa_invalid": ["1", "25.0%"]}
    assert "6 withdrawals, 3700 coins, ₹370.00" in page and "₹17.70, of which ₹2.70 tax" in page
    # All that was asked for has ended, or is open.
    whole = keeping.of_days(day(6), day(0)).all
    assert whole.asked == whole.paid + whole.number["failed"] + whole.number["cancelled"] + 1
    assert "0 withdrawals, 0 coins, ₹0.00" in vera.get(PAGE, query_string=span(4, 3)).text


def test_a_reversal_stands_on_its_own_day(panel: World) -> None:
    withdrawal_id = fates.paid(panel, 500, upi_id="asha@ybl")
    fates.ago(panel, withdrawal_id, seconds=noon(5))
    before = keeping.of_days(day(5), day(5)).all
    assert fates.told(panel, withdrawal_id, "reversed", "beneficiary_bank_failure") == "reverse"
    days = keeping.of_days(day(6), day(0))
    then, now = days.by_day[day(5)], days.by_day[day(0)]
    assert (then.paid, then.refunded) == (before.paid, before.refunded) == (1, 0)
    assert (now.paid, now.number["reversed"], now.refunded, now.refunded_coins) == (0, 1, 1, 500)
    assert now.reasons == {"reversed": 1} and now.failure_rate is None


def test_fees_that_are_told_late_count_on_the_day_of_the_payment(panel: World) -> None:
    early, late = fates.paid(panel, fees_paise=590), fates.paid(panel)
    for withdrawal_id in (early, late):
        fates.ago(panel, withdrawal_id, seconds=noon(5))
    assert keeping.of_days(day(5), day(5)).all.fees_paise == 590
    panel.sql("UPDATE counted_days SET counted_at = counted_at - interval '4 days'")
    assert fates.told(panel, late, "processed", fees_paise=300, tax_paise=45) == "repeat"
    days = keeping.of_days(day(5), day(0))
    assert (days.by_day[day(5)].fees_paise, days.by_day[day(5)].tax_paise) == (890, 45)
    assert day(0) not in days.by_day


def test_kept_days_are_what_counting_tells(panel: World) -> None:
    # Until one o'clock yesterday may still be written to, and nobody keeps it.
    last = 1 if fates.today().hour else 2
    first, between = last + 2, last + 1
    for back in (last, between, between, first):
        fates.ago(panel, fates.paid(panel, 500 + back, f"asha@h{back}", fees_paise=back), seconds=noon(back))
        fates.ago(panel, fates.failed(panel, 100, f"asha@h{back}"), seconds=noon(back))
    assert keeping.keep() == 3 and keeping.keep() == 0
    kept = keeping.lines_of(day(first), day(last))
    with transaction() as session:
        counted = [
            line
            for back in (first, between, last)
            for line in counting.count(session, *counting.whole_day(day(back)))
        ]
    assert kept == counted and len(kept) == 9
    summed = keeping.of_days(day(first), day(last))
    by_hand = summing.summed(counted, lambda line: line.slot.date())
    for one, other in ((summed.by_day[one], by_hand[one]) for one in by_hand):
        assert vars(one) == vars(other)
    forgotten(panel)
    assert keeping.lines_of(day(first), day(last)) == counted, "all of it can be counted again"


def test_two_who_count_one_day_keep_it_once(panel: World) -> None:
    fates.ago(panel, fates.paid(panel), seconds=noon(2))
    done: list[bool] = []
    counters = [threading.Thread(target=lambda: done.append(keeping.keep_day(day(2)))) for _ in range(4)]
    for counter in counters:
        counter.start()
    for counter in counters:
        counter.join()
    assert sorted(done) == [False, False, False, True]
    assert keeping.of_days(day(2), day(2)).all.paid == 1


def test_a_counter_that_dies_keeps_nothing(panel: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fates.ago(panel, fates.paid(panel), seconds=noon(2))
    with monkeypatch.context() as broken:
        broken.setattr(
            keeping, "KEEP", text("SELECT 1 / 0 WHERE :since < :until OR :unit = '' OR :steps = 0")
        )
        with pytest.raises(Exception, match="division by zero"):
            keeping.keep()
    assert panel.sql("SELECT * FROM counted_days") == []
    assert keeping.of_days(day(2), day(2)).all.paid == 1


def test_a_day_is_kept_when_it_is_over(panel: World) -> None:
    fates.paid(panel)
    assert keeping.keep() == 0 and keeping.of_days(day(0), day(0)).all.paid == 1
    fates.paid(panel)
    assert keeping.of_days(day(0), day(0)).all.paid == 2


def test_nobody_waits_while_a_year_is_counted(
    panel: World, signed_in: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    fates.ago(panel, fates.paid(panel), seconds=noon(300))
    asha = signed_in()
    monkeypatch.setattr(keeping, "READER_SECONDS", 0)
    answer = asha.get(PAGE, query_string=span(300))
    assert (
        answer.status_code == 503 and "still being counted" in answer.text and answer.headers["Retry-After"]
    )
    while keeping.keep():
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
def test_a_bad_range_is_told(signed_in: Signed, query: dict[str, str]) -> None:
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


def test_the_file_is_the_page(panel: World, signed_in: Signed) -> None:
    for back in (0, 3, 40):
        fates.ago(
            panel, fates.paid(panel, 500, fees_paise=590, tax_paise=90), seconds=noon(back) if back else 0
        )
        fates.ago(panel, fates.failed(panel, 300, "ravi@ybl"), seconds=noon(back) if back else 0)
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
    whole = re.search(r"<dt>Asked for</dt><dd>(\d+) withdrawals", vera.get(PAGE, query_string=span(50)).text)
    assert (
        whole
        and int(whole[1]) == sum(int(line["withdrawals"]) for line in lines if line["what"] == "asked") == 6
    )
    [line] = panel.sql("SELECT * FROM audit_log WHERE action = 'export_totals'")
    assert line.operator == "vera" and line.data["since"] == day(50).isoformat()


def test_days_begin_at_midnight_in_india(panel: World) -> None:
    for seconds in (0.001, -60):  # just after midnight, and a minute before
        withdrawal_id = fates.paid(panel)
        since = (fates.today() - counting.midnight(day(3))).total_seconds()
        [ended] = panel.sql(
            "SELECT extract(epoch FROM now() - created_at) AS ago FROM withdrawal_events"
            " WHERE withdrawal_id = :id AND to_status = 'completed'",
            id=withdrawal_id,
        )
        fates.ago(panel, withdrawal_id, seconds=since - float(ended.ago) - seconds)
    days = keeping.of_days(day(6), day(0)).by_day
    assert {one: came_to.paid for one, came_to in days.items()} == {day(4): 1, day(3): 1}
    for back in (4, 3):
        assert keeping.of_days(day(back), day(back)).all.paid == 1


def test_a_day_that_stands_alone_is_seen(panel: World, signed_in: Signed) -> None:
    """A line needs two points: a paid day between days without any, in a year and in a month, is a dot."""
    fates.ago(panel, fates.paid(panel), seconds=noon(3))
    for first in (300, 29):
        page = (
            signed_in("vera" if first == 300 else "asha", Role.VIEWER)
            .get(PAGE, query_string=span(first))
            .text
        )
        times = page.split('<section aria-labelledby="times">')[1].split("</section>")[0]
        assert times.count("<circle") == 2, "half within, and 95 of 100"


def test_dates_below_a_chart_do_not_touch_and_ids_come_once(panel: World, signed_in: Signed) -> None:
    fates.paid(panel)
    page = signed_in().get(PAGE).text
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    places = [
        float(x) for x in re.findall(r'<text x="([\d.]+)"[^>]*>\d\d \w{3}</text>', page.split("</figure>")[0])
    ]
    assert len(places) > 3 and min(b - a for a, b in pairwise(sorted(places))) > 45
