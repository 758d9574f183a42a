"""Paths through the panel: no dead ends, the input stays after an error, and every page links onward."""

import re
from html import unescape
from uuid import uuid4

import pytest

from api.admin import sessions
from api.admin.bulk import MAX_SELECTED
from shared.db.transactions import transaction
from shared.people.exception_records import open_record
from shared.roles import Role
from tests.api.admin.conftest import Signed
from tests.api.admin.person import Person
from tests.api.admin.test_withdrawal_list import planted
from tests.support.world import World

LIST = "/admin/withdrawals/"
TURN = "/admin/ruling/turn/"
COINS = "/admin/ruling/coins/"


def links(person: Person, text: str) -> list[str]:
    pairs = re.findall(r'<a [^>]*?href="([^"]+)"[^>]*>([^<]*)</a>', person.page.text)
    return [unescape(address) for address, link in pairs if link == text]


def typed(person: Person, name: str) -> str:
    """The value of a field on the page."""
    [value] = re.findall(
        rf'<(?:input [^>]*id="{name}"[^>]*value="([^"]*)"|textarea [^>]*id="{name}"[^>]*>([^<]*)<)',
        person.page.text,
    )
    return unescape("".join(value)).strip()


def many(world: World) -> None:
    """More than a page of withdrawals, of three users with a wallet."""
    planted(world, MAX_SELECTED + 20)
    for n in range(3):
        world.credit(user_id=f"user{n}", reference=f"start-{n}")


def test_an_error_keeps_the_menu(panel: World, signed_in: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    vera = signed_in("vera", Role.VIEWER)
    for path, status in (("operators/", 403), ("nothing/", 404), ("exceptions/999/", 404)):
        page = vera.get(f"/admin/{path}")
        assert page.status_code == status
        assert (
            links(vera, "Withdrawals") == [LIST] and "Sign out" in page.text and not links(vera, "Operators")
        )
    assert "<nav" not in Person("nobody").get("/admin/nothing/").text
    panel.point_database_at_nothing(monkeypatch)
    assert vera.get("/admin/operators/").status_code == 503
    panel.point_database_back(monkeypatch)


def test_a_bulk_action_returns_to_the_same_list(panel: World, signed_in: Signed) -> None:
    panel.credit()
    for n in range(3):
        panel.request(coins=100, upi_id=f"name{n}@okaxis")
    asha = signed_in()
    here = f"{LIST}?user=user123&status=pending"
    number = asha.get(here).text.count('name="pick"')
    asha.send(action="/admin/bulk/", word="cancel")
    assert asha.page.location == here and "Select withdrawals" in asha.messages
    [everything] = links(asha, f"Select all {number} on this page")
    picks = re.findall(r'name="pick" value="([^"]+)"[^>]* checked>', asha.get(everything).text)
    assert len(picks) == number == 3 and links(asha, "Clear selection") == [here]
    asha.send(action="/admin/bulk/", word="cancel", pick=picks, back="https://evil.example/")
    assert links(asha, "Back") == ["/admin/"]
    asha.get(here)
    asha.send(action="/admin/bulk/", word="cancel", pick=picks)
    assert links(asha, "Back") == [here]
    asha.send(action="/admin/bulk/", step="do", reason="a test")
    assert links(asha, "Back to the list") == [here]


def test_a_whole_page_can_be_selected(panel: World, signed_in: Signed) -> None:
    many(panel)
    asha = signed_in()
    page = asha.get(f"{LIST}?pick=all").text
    assert (
        page.count(" checked>") == MAX_SELECTED
        and "Select all" not in signed_in("vera", Role.VIEWER).get(LIST).text
    )
    picks = re.findall(r'name="pick" value="([^"]+)"', page)
    assert "Too many" in asha.send(action="/admin/bulk/", word="cancel", pick=[*picks, f"{uuid4()}:1"]).text
    asha.get(f"{LIST}?pick=all")
    assert f"{MAX_SELECTED} withdrawals" in asha.send(action="/admin/bulk/", word="cancel", pick=picks).text


def test_filter_errors_use_the_labels_and_an_empty_search_says_what_it_covers(
    panel: World, signed_in: Signed
) -> None:
    asha = signed_in()
    for query, words in (
        ("min=x", "From ₹ must be an amount in rupees"),
        ("to=x", "To (IST) must be a day"),
        ("status=x", "Status must be"),
    ):
        asha.get(f"{LIST}?{query}")
        assert words in asha.messages
    assert "matches whole values only" in asha.get(f"{LIST}?q=nobody").text
    assert "whole values only" not in asha.get(f"{LIST}?user=nobody").text


def test_a_webhook_id_leads_to_its_withdrawal(panel: World, signed_in: Signed) -> None:
    withdrawal_id = panel.paid()
    panel.sql(
        "INSERT INTO webhook_events (event_id, body, withdrawal_id, applied_at, outcome)"
        " VALUES ('Q7gm0eXv2uKbVd', '', :id, now(), 'repeat')",
        id=withdrawal_id,
    )
    assert signed_in().get(f"{LIST}?q=Q7gm0eXv2uKbVd").location == f"/admin/withdrawal/{withdrawal_id}/"


def test_a_masked_payee_is_unblocked_by_its_row(panel: World, signed_in: Signed) -> None:
    """Two payees look the same when masked: only the chosen one is unblocked, and no page shows a full UPI id."""
    asha = signed_in()
    for payee in ("banu@okaxis", "basu@okaxis"):
        asha.get("/admin/blocks/")
        asha.send(action=TURN, word="block", subject=payee, reason=f"fraud of {payee}")
        asha.send(step="do")
    asha.get("/admin/blocks/")
    newest, oldest = links(asha, "Unblock …")
    asha.get(oldest)
    assert "fraud of ba…@okaxis" in asha.page.text
    asha.send(action=TURN, reason="cleared")
    assert "What will happen" in asha.page.text and "banu@" not in asha.page.text
    assert links(asha, "Back") == ["/admin/blocks/"]
    asha.send(step="do")
    ravi = signed_in("ravi")
    ravi.get("/admin/blocks/")
    [proposal] = panel.sql("SELECT id FROM block_removals")
    ravi.send(action=f"/admin/ruling/lift/{proposal.id}/", word="approve")
    assert "fraud of ba…@okaxis" in ravi.page.text and "banu@" not in ravi.page.text
    ravi.send(step="do", reason="cleared by their bank")
    assert "ba…@okaxis is no longer blocked." in ravi.messages
    left = panel.sql("SELECT subject FROM blocks WHERE removed_at IS NULL")
    assert [row.subject for row in left] == ["basu@okaxis"]
    assert asha.get(oldest).status_code == 404 and asha.get(newest).status_code == 200
    vera = signed_in("vera", Role.VIEWER)
    assert "ba…@okaxis" in vera.get("/admin/blocks/").text and not links(vera, "Unblock …")
    assert "banu@" not in str(panel.sql("SELECT subject, data FROM audit_log"))


@pytest.mark.parametrize("word", ["block", "unblock"])
def test_an_invalid_upi_id_is_refused_before_the_confirmation(signed_in: Signed, word: str) -> None:
    asha = signed_in()
    asha.get("/admin/blocks/")
    page = asha.send(action=TURN, word=word, subject="ba…@okaxis", reason="the reason")
    assert (
        page.status_code == 400 and "Invalid UPI ID" in asha.messages and "What will happen" not in page.text
    )
    assert (typed(asha, "subject"), typed(asha, "reason")) == ("ba…@okaxis", "the reason")


def test_the_input_stays_after_an_error(panel: World, signed_in: Signed) -> None:
    panel.credit()
    fay = signed_in("fay", Role.FINANCE)
    fay.get("/admin/users/?user=user123")
    fay.send(action=COINS, coins="many", reference="quiz-7", reason="a lost prize")
    assert "Coins must be a whole number" in fay.messages
    kept = [typed(fay, name) for name in ("coins", "reference", "reason")]
    assert kept == ["many", "quiz-7", "a lost prize"] and links(fay, "Back") == ["/admin/users/?user=user123"]
    fay.send(action=COINS, coins="30", reference="quiz-7", reason="a lost prize")
    assert links(fay, "Back") == ["/admin/users/?user=user123"]
    fay.get("/admin/switches/")
    fay.send(action="/admin/switches/turn/", word="pause", name="payouts", handle="ok axis", reason="down")
    assert "Unknown scope" in fay.messages
    assert (typed(fay, "handle"), typed(fay, "reason")) == ("ok axis", "down")


def test_each_box_of_the_dashboard_has_a_working_link(panel: World, signed_in: Signed) -> None:
    asha = signed_in()
    with transaction() as session:
        open_record(session, kind="overdue", subject="x", source="watch", ours={}, theirs={})
    panel.credit()
    panel.request()
    page = asha.get("/admin/").text
    boxes = dict(re.findall(r'<h2><a href="([^"]+)">([^<]+)</a>', page))
    assert len(boxes) == page.count('<div class="box') == 14
    assert boxes["/admin/exceptions/?kind=overdue"] == "Amount held"
    for address in map(unescape, boxes):
        if address.startswith("#"):
            assert f'id="{address[1:]}"' in page
        else:
            assert asha.get(address).status_code == 200, address


def test_action_needed_counts_decisions(panel: World, signed_in: Signed) -> None:
    panel.credit()
    fay = signed_in("fay", Role.FINANCE)
    fay.get("/admin/users/?user=user123")
    fay.send(action=COINS, coins="1500", reason="a prize")
    fay.send(step="do")
    words = "0 withdrawals to approve, 0 exception records, 1 decision for a second person"
    assert f'<p class="value">1</p>\n    <p>{words}</p>' in fay.get("/admin/").text


def test_automatic_refresh_does_not_extend_a_session(
    signed_in: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an operator who leaves the dashboard open stays signed in for twelve hours."""
    asha = signed_in()
    clock = sessions.time.time()
    monkeypatch.setattr(sessions.time, "time", lambda: clock)
    assert 'http-equiv="refresh"' not in asha.get("/admin/").text
    [itself] = links(asha, "Refresh every minute")
    statuses = []
    for _ in range(31):
        clock += 60
        statuses.append(asha.get(itself).status_code)
        assert statuses[-1] != 200 or '<meta http-equiv="refresh" content="60">' in asha.page.text
    assert statuses == [200] * 29 + [302] * 2
    assert 'http-equiv="refresh"' not in asha.get(asha.page.location).text


def test_known_values_are_suggested(panel: World, signed_in: Signed) -> None:
    fay = signed_in("fay", Role.FINANCE)
    with transaction() as session:
        open_record(session, kind="low_balance", subject="razorpayx", source="watch", ours={}, theirs={})
    assert '<option value="low_balance">' in fay.get("/admin/exceptions/").text
    fay.get("/admin/account/")
    fay.send(action="/admin/account/password/", old="wrong", new="x", again="x")
    fay.get("/admin/audit-log/")
    offered = re.findall(r'<option value="([^"]+)">', fay.page.text)
    assert offered == sorted(row.action for row in panel.sql("SELECT DISTINCT action FROM audit_log")) != []


def test_every_scrolling_table_is_reachable_by_keyboard(panel: World, signed_in: Signed) -> None:
    root = signed_in("root", Role.ADMIN)
    panel.paid()
    for path in ("", "audit-log/", "operators/", "switches/", "users/?user=user123", "withdrawals/"):
        page = root.get(f"/admin/{path}").text
        assert '<div class="scroll"' in page and '<div class="scroll">' not in page, path
