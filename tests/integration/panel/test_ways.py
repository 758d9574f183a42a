"""Ways through the panel: none is a dead end, what was typed is kept, and every page says where one can go."""

import re
from html import unescape
from uuid import uuid4

import pytest

from api.admin import door
from api.admin.bulk import MOST
from shared.db import transaction
from shared.exception_records import open_record
from shared.roles import Role
from tests.integration.panel.conftest import Signed
from tests.integration.panel.person import Person
from tests.integration.panel.test_listing import planted
from tests.world import World

LIST = "/admin/withdrawals/"
TURN, COINS = "/admin/ruling/turn/", "/admin/ruling/coins/"


def links(person: Person, words: str) -> list[str]:
    found = re.findall(r'<a [^>]*?href="([^"]+)"[^>]*>([^<]*)</a>', person.page.text)
    return [unescape(address) for address, told in found if told == words]


def typed(person: Person, name: str) -> str:
    """What stands in a field of the page."""
    [value] = re.findall(
        rf'<(?:input id="{name}"[^>]*value="([^"]*)"|textarea id="{name}"[^>]*>([^<]*)<)', person.page.text
    )
    return unescape("".join(value))


def many(world: World) -> None:
    """More than a page of withdrawals, of three users who have a wallet."""
    planted(world, MOST + 20)
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


def test_who_picks_several_comes_back_to_the_same_list(panel: World, signed_in: Signed) -> None:
    panel.credit()
    for n in range(3):
        panel.request(coins=100, upi_id=f"name{n}@okaxis")
    asha = signed_in()
    here = f"{LIST}?user=user123&status=pending"
    number = asha.get(here).text.count('name="pick"')
    asha.send(action="/admin/bulk/", word="cancel")
    assert asha.page.location == here and "pick some withdrawals" in asha.messages
    [everything] = links(asha, f"Pick all {number} on this page")
    picks = re.findall(r'name="pick" value="([^"]+)"[^>]* checked>', asha.get(everything).text)
    assert len(picks) == number == 3 and links(asha, "Pick none") == [here]
    asha.send(action="/admin/bulk/", word="cancel", pick=picks, back="https://evil.example/")
    assert links(asha, "No, back") == ["/admin/"]
    asha.get(here)
    asha.send(action="/admin/bulk/", word="cancel", pick=picks)
    assert links(asha, "No, back") == [here]
    asha.send(action="/admin/bulk/", step="do", reason="a test")
    assert links(asha, "Back to the list") == [here]


def test_all_of_a_page_can_be_picked(panel: World, signed_in: Signed) -> None:
    many(panel)
    asha = signed_in()
    page = asha.get(f"{LIST}?pick=all").text
    assert page.count(" checked>") == MOST and "Pick all" not in signed_in("vera", Role.VIEWER).get(LIST).text
    picks = re.findall(r'name="pick" value="([^"]+)"', page)
    assert "Too many" in asha.send(action="/admin/bulk/", word="cancel", pick=[*picks, f"{uuid4()}:1"]).text
    asha.get(f"{LIST}?pick=all")
    assert f"{MOST} withdrawals" in asha.send(action="/admin/bulk/", word="cancel", pick=picks).text


def test_a_filter_is_named_as_on_the_page_and_nothing_found_says_what_was_looked_for(
    panel: World, signed_in: Signed
) -> None:
    asha = signed_in()
    for query, words in (
        ("min=x", "From ₹ is rupees"),
        ("to=x", "To (IST) is a day"),
        ("status=x", "Status is"),
    ):
        asha.get(f"{LIST}?{query}")
        assert words in asha.messages
    assert "a part of one finds nothing" in asha.get(f"{LIST}?q=nobody").text
    assert "a part of one" not in asha.get(f"{LIST}?user=nobody").text


def test_a_webhook_leads_to_its_withdrawal(panel: World, signed_in: Signed) -> None:
    withdrawal_id = panel.paid()
    panel.sql(
        "INSERT INTO webhook_events (event_id, body, withdrawal_id, applied_at, outcome)"
        " VALUES ('Q7gm0eXv2uKbVd', '', :id, now(), 'repeat')",
        id=withdrawal_id,
    )
    assert signed_in().get(f"{LIST}?q=Q7gm0eXv2uKbVd").location == f"/admin/withdrawal/{withdrawal_id}/"


def test_a_masked_payee_is_unblocked_by_its_row(panel: World, signed_in: Signed) -> None:
    """Two look the same: the one that is meant goes, the other stays, and no page says a UPI id in full."""
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
    assert "This will happen" in asha.page.text and "banu@" not in asha.page.text
    assert links(asha, "No, back") == ["/admin/blocks/"]
    asha.send(step="do")
    ravi = signed_in("ravi")
    ravi.get("/admin/blocks/")
    [made] = panel.sql("SELECT id FROM block_removals")
    ravi.send(action=f"/admin/ruling/lift/{made.id}/", word="approve")
    assert "fraud of ba…@okaxis" in ravi.page.text and "banu@" not in ravi.page.text
    ravi.send(step="do", reason="cleared by their bank")
    assert "ba…@okaxis is not blocked any more." in ravi.messages
    left = panel.sql("SELECT subject FROM blocks WHERE removed_at IS NULL")
    assert [row.subject for row in left] == ["basu@okaxis"]
    assert asha.get(oldest).status_code == 404 and asha.get(newest).status_code == 200
    vera = signed_in("vera", Role.VIEWER)
    assert "ba…@okaxis" in vera.get("/admin/blocks/").text and not links(vera, "Unblock …")
    assert "banu@" not in str(panel.sql("SELECT subject, data FROM audit_log"))


@pytest.mark.parametrize("word", ["block", "unblock"])
def test_what_is_no_upi_id_is_refused_before_anybody_confirms(signed_in: Signed, word: str) -> None:
    asha = signed_in()
    asha.get("/admin/blocks/")
    page = asha.send(action=TURN, word=word, subject="ba…@okaxis", reason="the reason")
    assert page.status_code == 400 and "Invalid UPI ID" in asha.messages and "This will" not in page.text
    assert (typed(asha, "subject"), typed(asha, "reason")) == ("ba…@okaxis", "the reason")


def test_what_was_typed_is_kept_when_it_is_refused(panel: World, signed_in: Signed) -> None:
    panel.credit()
    fay = signed_in("fay", Role.FINANCE)
    fay.get("/admin/users/?user=user123")
    fay.send(action=COINS, coins="many", reference="quiz-7", reason="a lost prize")
    assert "Invalid coins" in fay.messages
    kept = [typed(fay, name) for name in ("coins", "reference", "reason")]
    assert kept == ["many", "quiz-7", "a lost prize"] and links(fay, "Back") == ["/admin/users/?user=user123"]
    fay.send(action=COINS, coins="30", reference="quiz-7", reason="a lost prize")
    assert links(fay, "No, back") == ["/admin/users/?user=user123"]
    fay.get("/admin/switches/")
    fay.send(action="/admin/switches/turn/", word="pause", name="payouts", handle="ok axis", reason="down")
    assert "No such switch" in fay.messages
    assert (typed(fay, "handle"), typed(fay, "reason")) == ("ok axis", "down")


def test_each_box_of_the_dashboard_leads_somewhere(panel: World, signed_in: Signed) -> None:
    asha = signed_in()
    with transaction() as session:
        open_record(session, kind="overdue", subject="x", source="watch", ours={}, theirs={})
    panel.credit()
    panel.request()
    page = asha.get("/admin/").text
    found = dict(re.findall(r'<h2><a href="([^"]+)">([^<]+)</a>', page))
    assert len(found) == page.count('<div class="box') == 14
    assert found["/admin/exceptions/?kind=overdue"] == "Held"
    for address in map(unescape, found):
        if address.startswith("#"):
            assert f'id="{address[1:]}"' in page
        else:
            assert asha.get(address).status_code == 200, address


def test_what_waits_for_people_counts_decisions(panel: World, signed_in: Signed) -> None:
    panel.credit()
    fay = signed_in("fay", Role.FINANCE)
    fay.get("/admin/users/?user=user123")
    fay.send(action=COINS, coins="1500", reason="a prize")
    fay.send(step="do")
    words = "0 withdrawals to approve, 0 exception records, 1 decision for a second person"
    assert f'<p class="value">1</p>\n    <p>{words}</p>' in fay.get("/admin/").text


def test_a_page_that_loads_itself_keeps_nobody_signed_in(
    signed_in: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever goes home with the dashboard open stays in for twelve hours."""
    asha, clock = signed_in(), door.time.time()
    monkeypatch.setattr(door.time, "time", lambda: clock)
    assert 'http-equiv="refresh"' not in asha.get("/admin/").text
    [itself] = links(asha, "Load anew each minute")
    statuses = []
    for _ in range(31):
        clock += 60
        statuses.append(asha.get(itself).status_code)
        assert statuses[-1] != 200 or '<meta http-equiv="refresh" content="60">' in asha.page.text
    assert statuses == [200] * 29 + [302] * 2
    assert 'http-equiv="refresh"' not in asha.get(asha.page.location).text


def test_words_that_are_known_are_offered(panel: World, signed_in: Signed) -> None:
    fay = signed_in("fay", Role.FINANCE)
    with transaction() as session:
        open_record(session, kind="low_balance", subject="razorpayx", source="watch", ours={}, theirs={})
    assert '<option value="low_balance">' in fay.get("/admin/exceptions/").text
    fay.get("/admin/account/")
    fay.send(action="/admin/account/password/", old="wrong", new="x", again="x")
    fay.get("/admin/audit-log/")
    offered = re.findall(r'<option value="([^"]+)">', fay.page.text)
    assert offered == sorted(row.action for row in panel.sql("SELECT DISTINCT action FROM audit_log")) != []


def test_every_table_that_scrolls_can_be_reached_by_keyboard(panel: World, signed_in: Signed) -> None:
    root = signed_in("root", Role.ADMIN)
    panel.paid()
    for path in ("", "audit-log/", "operators/", "switches/", "users/?user=user123", "withdrawals/"):
        page = root.get(f"/admin/{path}").text
        assert '<div class="scroll"' in page and '<div class="scroll">' not in page, path
