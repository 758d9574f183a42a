"""The dashboard counts the proposals that await a second person, and links to all of them."""

import re

import pytest

from shared import withdrawals
from shared.coins import adjustments
from shared.roles import Role
from shared.states import Decision
from tests.api.admin.conftest import Signed
from tests.api.admin.person import Person
from tests.cli.test_operations import output_of
from tests.support.world import World

FAY = "operator:fay"


@pytest.fixture(autouse=True)
def fay(panel: World) -> None:
    panel.operators("fay")


def part(person: Person, section: str) -> str:
    """A section of the dashboard, by the id of its heading."""
    return person.get("/admin/").text.split(f'<h3 id="{section}">')[1].split("</section>")[0]


def test_the_dashboard_links_to_all_coin_adjustments(panel: World, signed_in: Signed) -> None:
    panel.credit()
    panel.credit("late")
    for number in range(50):
        adjustments.propose("user123", 2000 + number, reason=f"prize {number}", actor=FAY)
    adjustments.propose("late", 7777, reason="the last prize", actor=FAY)
    vera = signed_in("vera", Role.VIEWER)
    shown = part(vera, "adjustments")
    assert (
        shown.count("<li>") == 20 and "View all 51" in shown and 'href="/admin/second-person/coins/"' in shown
    )
    page = vera.get("/admin/second-person/coins/").text
    assert page.count(" coins, proposed by ") == 50 and "the last prize" not in page
    rest = re.search(r'rel="next" href="([^"]+)"', page)
    assert rest and "the last prize" in vera.get(f"/admin/second-person/coins/{rest[1]}").text
    assert 'rel="next"' not in vera.page.text and " coins, proposed by " in vera.page.text
    assert "proposed +7,777 coins" in vera.get("/admin/users/?user=late").text, "however many wait before it"
    assert vera.get("/admin/second-person/coins/?cursor=x").status_code == 400
    assert "51 coin adjustments await a second person" in output_of("status")


def test_the_dashboard_links_to_all_decisions(panel: World, signed_in: Signed) -> None:
    panel.credit(coins=5000)
    ids = [panel.request(coins=100) for _ in range(21)]
    for withdrawal_id in ids:
        withdrawals.propose(withdrawal_id, Decision.REFUND, evidence="their letter", actor=FAY)
    vera = signed_in("vera", Role.VIEWER)
    shown = part(vera, "proposals")
    assert shown.count("/admin/withdrawal/") == 20 and "View all 21" in shown and str(ids[-1]) not in shown
    assert 'href="/admin/second-person/"' in shown
    page = vera.get("/admin/second-person/").text
    assert all(str(one) in page for one in ids) and 'rel="next"' not in page
    assert "21 decisions about withdrawals await a second person" in output_of("status")


def test_the_dashboard_links_to_all_records(panel: World, signed_in: Signed) -> None:
    panel.sql(
        "INSERT INTO exception_records (kind, subject, source, ours, theirs)"
        " SELECT 'two_payouts', n, 'test', '{}', '{}' FROM generate_series(1, 21) n"
    )
    shown = part(signed_in("vera", Role.VIEWER), "records")
    assert shown.count("<li>") == 20 and "View all 21" in shown and 'href="/admin/exceptions/"' in shown


def test_status_counts_what_awaits_approval(panel: World, monkeypatch) -> None:
    assert "Action needed\n  none" in output_of("status")
    monkeypatch.setenv("REVIEW_ALL", "on")
    panel.forget_settings()
    panel.credit()
    for _ in range(3):
        panel.request()
    assert "Action needed\n  3 withdrawals await approval: payouts review list" in output_of("status")
