"""Mail to operators: what opens an exception record is told, at once and then once a minute, without a storm."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from shared import db, exception_records, watching, withdrawals
from shared.notifications.mail import following, keeping, operators
from shared.settings import settings
from tests.integration.mailing import find_exception, rows, tell, tell_all, turn_on
from tests.mailbox import MailServer, serving
from tests.world import World

ASHA, RAVI = "asha@example.com", "ravi@example.com"

ABOUT = {"kind": "amount_differs", "source": "watch", "ours": {}, "theirs": {}}


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    with serving() as server:
        turn_on(world, monkeypatch, server.port, OPERATOR_EMAILS=f"{ASHA},{RAVI}")
        yield server


def subjects(server: MailServer, recipient: str = ASHA) -> list[str]:
    return [str(letter.message["Subject"]) for letter in server.to(recipient)]


def test_each_operator_is_told_once_of_a_new_record(world: World, server: MailServer) -> None:
    number = find_exception("asha@okaxis", expected=500, note="of user@okhdfcbank\nnow")
    for _ in range(3):
        tell()
        world.advance(60)
    assert subjects(server, ASHA) == subjects(server, RAVI) == ["[Quiz] CRITICAL: amount differs"]
    words = server.to(ASHA)[0].part("plain")
    assert f"#{number} critical, amount differs: as…@okaxis" in words and "ours: expected: 500" in words
    assert "ours: note: of us…@okhdfcbank now" in words, "one line, and no whole UPI id"
    assert "user@okhdfcbank" not in server.to(ASHA)[0].message.as_string()
    assert len({letter.id for letter in server.letters}) == 2


def test_a_mail_says_where_all_records_are(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_exception()
    tell()
    monkeypatch.setenv("ADMIN_URL", "https://payouts.example/admin/")
    world.forget_settings()
    world.advance(60)
    find_exception("two")
    tell()
    first, second = server.to(ASHA)
    assert "See all of them: payouts status, payouts exceptions list\n" in first.part("plain")
    page = "https://payouts.example/admin/exceptions/"
    assert f"See all of them: {page}, payouts status, payouts exceptions list\n" in second.part("plain")
    assert page in second.part("html") and "exceptions list" in first.part("html")


def test_the_same_finding_again_is_no_news(world: World, server: MailServer) -> None:
    for _ in range(3):
        find_exception()
        tell()
        world.advance(60)
    assert len(subjects(server)) == 1


def test_a_storm_is_one_mail_a_minute(world: World, server: MailServer) -> None:
    find_exception("first")
    tell()
    for number in range(700):
        find_exception(f"later-{number}")
    for _ in range(5):
        tell()
    assert len(subjects(server)) == 1, "the minute is not over"
    for _ in range(4):
        world.advance(60)
        tell()
    assert subjects(server) == [
        "[Quiz] CRITICAL: amount differs",
        "[Quiz] CRITICAL: 500 × amount differs",
        "[Quiz] CRITICAL: 200 × amount differs",
    ]
    words = server.to(ASHA)[1].part("plain")
    assert "500 new exception records" in words and "… and 475 more." in words
    assert len(server.letters) == 6, "and the same for the other operator"
    keeping.forget_old()
    assert world.sql("SELECT FROM told_records") == [], "what is settled is not kept"
    world.advance(60)
    tell()
    assert len(server.letters) == 6, "and not told again"


def test_followers_at_once_tell_each_record_once(world: World, server: MailServer) -> None:
    for number in range(20):
        find_exception(f"number-{number}")
    with ThreadPoolExecutor(8) as threads:
        made = [threads.submit(following.follow) for _ in range(16)]
    assert sum(one.result() for one in made) == 20
    assert len(rows(world)) == 2


def test_an_automatic_pause_is_told(world: World, server: MailServer) -> None:
    world.credit()
    world.simulator.post("balance", {"paise": 0})
    world.step(world.request())
    tell()
    assert subjects(server) == ["[Quiz] payouts paused"]


def test_too_little_money_is_told(world: World, server: MailServer) -> None:
    world.credit()
    world.request()
    watching.learn_balance(100)
    tell()
    assert subjects(server) == ["[Quiz] too little money at RazorpayX"]
    assert "ours: needed_paise: 5000" in server.to(ASHA)[0].part("plain")


def test_what_is_overdue_is_told_with_the_way_to_its_story(world: World, server: MailServer) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.sql("UPDATE withdrawals SET expected_by = now() - interval '1 minute'")
    watching.warn_of_overdue()
    tell()
    assert subjects(server) == ["[Quiz] later than promised"]
    assert f"payouts explain {withdrawal_id}" in server.to(ASHA)[0].part("html")


def test_what_is_over_by_then_says_so(world: World, server: MailServer) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.sql("UPDATE withdrawals SET expected_by = now() - interval '1 minute'")
    watching.warn_of_overdue()
    withdrawals.cancel(withdrawal_id, reason="waited", actor="user")
    watching.warn_of_overdue()
    tell()
    assert "(over again)" in server.to(ASHA)[0].part("plain")


def test_a_record_that_is_rolled_back_is_never_told(world: World, server: MailServer) -> None:
    with pytest.raises(RuntimeError), db.transaction() as session:
        exception_records.open_record(session, subject="s", **ABOUT)  # type: ignore[arg-type]
        tell()
        raise RuntimeError
    tell_all(world)
    assert server.letters == []


def test_what_is_about_mail_makes_no_mail(world: World, server: MailServer) -> None:
    find_exception(kind=operators.BROKEN)
    find_exception()
    tell()
    assert subjects(server) == ["[Quiz] CRITICAL: amount differs"]
    assert "mail" not in server.to(ASHA)[0].part("plain").split("See all")[0].lower()


def test_operators_who_are_named_later_are_told_what_comes_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        turn_on(world, monkeypatch, server.port)
        find_exception("before")
        tell()
        monkeypatch.setenv("OPERATOR_EMAILS", RAVI)
        world.forget_settings()
        tell()
        find_exception("after")
        tell()
        assert "after" in server.letters[0].part("plain") and len(server.letters) == 1


def test_a_record_that_commits_late_is_told(world: World, server: MailServer) -> None:
    """Its id is smaller than one that was told already, and its transaction lasts for several beats."""
    with db.transaction() as slow:
        late = exception_records.open_record(slow, subject="late", **ABOUT)  # type: ignore[arg-type]
        early = find_exception("early")
        for _ in range(3):
            tell()
            world.advance(60)
    for _ in range(3):
        tell()
        world.advance(60)
    assert late < early and len(subjects(server)) == 2
    assert "early" in server.to(ASHA)[0].part("plain") and "late" in server.to(ASHA)[1].part("plain")


def test_whoever_waits_with_an_id_has_a_transaction_number(world: World) -> None:
    """What following by number stands on: an insert that waits for another's has its number by then."""
    insert = (
        "INSERT INTO exception_records (kind, subject, source, ours, theirs)"
        " VALUES ('k', 's', 'watch', '{}', '{}')"
        " ON CONFLICT (kind, subject) WHERE resolved_at IS NULL DO UPDATE SET seen_at = now()"
    )
    url = settings().database_url.get_secret_value().replace("+psycopg", "")
    waits = "SELECT backend_xid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(url) as first, psycopg.connect(url) as second, ThreadPoolExecutor(1) as thread:
        first.execute(insert)
        waiting = thread.submit(second.execute, insert)
        seen: list[object] = []
        while not seen:
            seen = [row.backend_xid for row in world.sql(waits)]
        first.rollback()
        waiting.result()
        second.rollback()
    assert seen[0] is not None
