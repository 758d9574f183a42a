"""Mail to users: one for each end of a withdrawal, in plain words; nothing that apps write gets out of it."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import DBAPIError

from shared import db, withdrawals
from shared.models import Withdrawal
from shared.notifications import positions
from shared.notifications.mail import following, keeping, turns, users
from shared.states import Status
from shared.withdrawals import journey
from tests.integration.mailing import SENDER, cancelled, known, notifier, rows, tell, tell_all, turn_on
from tests.mailbox import Letter, MailServer, serving
from tests.world import World

ASHA = "asha@example.com"


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    with serving() as server:
        turn_on(world, monkeypatch, server.port)
        yield server


def only(server: MailServer) -> Letter:
    [letter] = server.letters
    return letter


def both(letter: Letter) -> list[str]:
    return [letter.part("plain"), letter.part("html")]


# --- what is told


def test_a_paid_withdrawal_is_told_once_with_what_people_ask_for(world: World, server: MailServer) -> None:
    known(world, name="Asha Rao")
    withdrawal_id = world.request()
    world.finish(withdrawal_id)
    for _ in range(3):
        tell()
    letter = only(server)
    utr = world.read(withdrawal_id).utr
    for words in both(letter):
        for expected in ("Hello Asha Rao", "₹50.00", "500 coins", "us…@okhdfcbank", str(utr), "IST"):
            assert expected in words
        assert "user@okhdfcbank" not in words, "no whole UPI id"
    assert letter.message["Subject"] == "₹50.00 was paid to us…@okhdfcbank"
    assert (letter.sender, letter.recipient) == (SENDER, ASHA)
    assert letter.message["From"] == f"Quiz <{SENDER}>" and letter.message["To"] == ASHA
    assert letter.message["Auto-Submitted"] == "auto-generated"
    [row] = rows(world)
    assert letter.id == f"<{row.id}@example.com>"
    assert (row.state, row.tries, row.withdrawal_id) == ("sent", 1, withdrawal_id)


def test_a_failure_says_why_and_that_the_coins_are_back(world: World, server: MailServer) -> None:
    known(world)
    withdrawal_id = world.request(upi_id="fail.beneficiary_vpa_invalid@sim")
    world.finish(withdrawal_id)
    tell()
    reason = world.read(withdrawal_id).failure_reason
    assert reason and only(server).message["Subject"] == "₹50.00 could not be paid: your coins are back"
    assert all(reason in words and "500 coins are back" in words for words in both(only(server)))


def test_money_that_came_back_is_a_second_mail(world: World, server: MailServer) -> None:
    known(world)
    withdrawal_id = world.request()
    world.finish(withdrawal_id)
    payout = world.simulator.payouts()[0]
    world.hears({**payout, "status": "reversed"})
    tell()
    assert [letter.message["Subject"] for letter in server.letters] == [
        "₹50.00 was paid to us…@okhdfcbank",
        "Your bank sent ₹50.00 back: your coins are back",
    ]
    assert "Your bank sent the payment back." in server.letters[1].part("plain")
    assert "UTR" not in server.letters[1].part("plain")


def test_a_cancellation_tells_its_reason_as_text(world: World, server: MailServer) -> None:
    known(world)
    cancelled(world, "too\nlate <b>&\u202e")
    tell()
    plain, html = both(only(server))
    assert "The reason: too late <b>&\n" in plain and "The reason: too late &lt;b&gt;&amp;</p>" in html


def test_what_goes_on_is_no_news_for_a_user(world: World, server: MailServer) -> None:
    known(world)
    send = world.first_send()
    withdrawals.record_answer(send, world.perform(send))
    tell()
    assert rows(world) == [] and world.read(send.withdrawal_id).status == "processing"


def test_what_is_rolled_back_is_never_told(world: World, server: MailServer) -> None:
    known(world)
    withdrawal_id = world.request()
    with pytest.raises(RuntimeError), db.transaction() as session:
        withdrawal = withdrawals.find(session, withdrawal_id, lock=True)
        journey.move(session, withdrawal, Status.CANCELLED, actor="user", reason="not really")
        tell()
        raise RuntimeError
    tell_all(world)
    assert server.letters == [] and rows(world) == []


def test_there_is_no_image_and_no_link_in_it(world: World, server: MailServer) -> None:
    known(world)
    cancelled(world)
    tell()
    html = only(server).part("html").lower()
    assert not [word for word in ("<img", "http", "src=", "href", "url(") if word in html]


# --- to whom


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (None, "the user has no address"),
        ("nobody", "no address: An email address must have an @-sign."),
        ("a@example.com\nBcc: everybody@example.com", "no address"),
        ("a@example.com, b@example.com", "no address"),
        ("Asha <a@example.com>", "no address"),
        ("a@localhost", "no address"),
        ("\u202easha@example.com", "no address"),
        ("a" * 300 + "@example.com", "no address"),
    ],
)
def test_what_is_no_address_is_skipped_with_a_reason(
    world: World, server: MailServer, address: str | None, why: str
) -> None:
    known(world, address)
    cancelled(world)
    assert tell() == 0
    [row] = rows(world)
    assert row.state == "skipped" and row.last_error.startswith(why) and row.tries == 0
    tell_all(world)
    assert server.letters == [] and server.connections == 0


@pytest.mark.parametrize(
    ("address", "goes_to"),
    [
        (" asha@example.com ", ASHA),
        ("asha@EXAMPLE.com", ASHA),
        ("asha@उदाहरण.भारत", "asha@xn--p1b6ci4b4b3a.xn--h2brj9c"),
        ("आशा@example.com", "आशा@example.com"),
    ],
)
def test_odd_addresses_that_are_some_are_written_to(
    world: World, server: MailServer, address: str, goes_to: str
) -> None:
    known(world, address)
    cancelled(world)
    tell()
    assert only(server).recipient == goes_to


@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        ("Asha", "Hello Asha,"),
        ("आशा राव", "Hello आशा राव,"),
        ("Dr. J. O'Neil-Rao", "Hello Dr. J. O'Neil-Rao,"),
        ("  Asha \n Rao ", "Hello Asha Rao,"),
        ("Asha\r\nBcc: x@example.com", "Hello,"),
        ("Win at evil.example", "Hello,"),
        ("http://evil", "Hello,"),
        ("<script>", "Hello,"),
        ("a" * 61, "Hello,"),
        ("\u202eahsA", "Hello,"),
        ("{{ 7 * 7 }}", "Hello,"),
        ("", "Hello,"),
    ],
)
def test_a_name_is_greeted_when_it_is_one(world: World, server: MailServer, name: str, greeting: str) -> None:
    known(world, name=name)
    cancelled(world)
    tell()
    letter = only(server)
    assert letter.part("plain").startswith(greeting + "\n")
    assert "Bcc" not in letter.message and "evil" not in letter.message.as_string()


# --- how often


def test_who_asks_and_cancels_in_turns_gets_five_mails_an_hour(world: World, server: MailServer) -> None:
    known(world)
    known(world, "other@example.com", user_id="other")
    world.credit("other", coins=1000, reference="more")

    def by_the_user(number: int, user_id: str = "user123", actor: str = "user:user123") -> None:
        for _ in range(number):
            withdrawal_id = world.request(user_id, coins=100)
            withdrawals.cancel(withdrawal_id, reason="changed my mind", actor=actor)

    by_the_user(4)
    by_the_user(4, actor="app:quiz")
    by_the_user(1, "other")
    cancelled(world, "an operator decides")
    world.finish(world.request(coins=100))
    world.finish(world.request(coins=100, upi_id="fail.beneficiary_vpa_invalid@sim"))
    tell()
    assert len(server.to(ASHA)) == 5 + 1 + 2 and len(server.to("other@example.com")) == 1
    words = Counter(row.last_error for row in rows(world) if row.state == "skipped")
    assert words == {"the user cancelled more than 5 within an hour": 3}
    world.sql_without_rules("UPDATE withdrawal_events SET created_at = created_at - interval '61 minutes'")
    world.broken_on_purpose = True  # old events in no block
    by_the_user(6)
    tell()
    assert len(server.to(ASHA)) == 8 + 5, "an hour later it is news again"


# --- once, whatever happens


def test_what_was_before_mail_was_on_is_no_news(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    known(world)
    cancelled(world)
    with serving() as server:
        turn_on(world, monkeypatch, server.port)
        tell()
        assert rows(world) == []


def test_what_happened_while_it_was_off_is_told_when_it_is_on_again_unless_it_is_old(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(world)
    monkeypatch.setenv("SMTP_HOST", "")
    world.forget_settings()
    cancelled(world)
    assert tell() == 0 and turns.nudge_due() == 0 and rows(world) == []
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("NOTIFY_GIVE_UP_SECONDS", "0.001")
    world.forget_settings()
    tell()
    cancelled(world)
    monkeypatch.delenv("NOTIFY_GIVE_UP_SECONDS")
    world.forget_settings()
    tell()
    assert [(row.state, row.last_error) for row in rows(world)] == [
        ("skipped", "too long ago to be news"),
        ("sent", None),
    ]


def test_a_change_that_commits_late_is_told(world: World, server: MailServer) -> None:
    known(world)
    known(world, user_id="another")
    late, early = world.request(), world.request("another")
    with db.transaction() as slow:
        withdrawal = withdrawals.find(slow, late, lock=True)
        journey.move(slow, withdrawal, Status.CANCELLED, actor="user", reason="slowly")
        withdrawals.cancel(early, reason="quickly", actor="user")
        for _ in range(3):
            tell()
        assert [row.withdrawal_id for row in rows(world)] == [early], "the other cannot be seen yet"
    tell()
    assert [row.withdrawal_id for row in rows(world)] == [late, early] and len(server.letters) == 2


def test_a_lost_mail_comes_again_under_its_old_id(world: World, server: MailServer) -> None:
    """The database is set back to before it was made (a restored backup): servers see one mail."""
    known(world)
    cancelled(world)
    for _ in range(2):
        tell()
        world.sql("DELETE FROM emails")
        world.sql("UPDATE mail_listeners SET followed_to = 0, mark_to = NULL, mark_xid = NULL")
    assert len(server.letters) == 2 and len({letter.id for letter in server.letters}) == 1
    first, second = server.letters
    assert first.part("plain") == second.part("plain")


@pytest.mark.timeout(240)
def test_a_thousand_events_and_two_notifiers_make_a_thousand_mails(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_SECONDS", "20")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "16")
    world.forget_settings()
    for number in range(10):
        known(world, f"user{number}@example.com", user_id=f"user{number}", coins=100 * 100)

    def some(number: int) -> None:
        for _ in range(100):
            made = withdrawals.request(
                user_id=f"user{number}", coins=100, upi_id="u@okaxis", actor="app:test"
            )
            withdrawals.cancel(made.id, reason="test", actor="operator:test")

    notifiers = [notifier() for _ in range(2)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(some, range(10)))
    assert [one.wait(110) for one in notifiers] == [0, 0]
    tell_all(world)
    assert len(server.letters) == len({letter.id for letter in server.letters}) == 1000
    assert set(Counter(letter.recipient for letter in server.letters).values()) == {100}
    assert server.connections < 50, "one connection is good for many"
    assert {(row.state, row.tries) for row in rows(world)} == {("sent", 1)}


def test_nobody_who_pays_waits_for_the_follower(world: World, server: MailServer) -> None:
    """While a follower is at it, in an open transaction, the withdrawal's row and its wallet can be locked."""
    known(world)
    cancelled(world)
    [withdrawal] = world.sql("SELECT id FROM withdrawals")
    with db.transaction() as session:
        assert positions.go_on(session, users.LISTENER) == 1
        with db.transaction() as paying:
            assert paying.get(Withdrawal, withdrawal.id, with_for_update={"nowait": True})
            world.sql("SELECT FROM wallets FOR UPDATE NOWAIT")


def test_old_mail_is_forgotten_and_what_the_follower_may_look_for_is_not(
    world: World, server: MailServer
) -> None:
    known(world)
    cancelled(world)
    tell()
    for column in ("created_at", "sent_at", "began_at"):
        world.sql(f"UPDATE emails SET {column} = {column} - interval '8 days'")
    world.sql("UPDATE mail_listeners SET followed_to = 0")
    assert keeping.forget_old() == 0
    world.sql("UPDATE mail_listeners SET followed_to = 1000")
    assert keeping.forget_old() == 1 and rows(world) == []


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("UPDATE emails SET facts = '{}'", "never changes"),
        ("UPDATE emails SET recipient = 'other@example.com'", "never changes"),
        ("UPDATE emails SET id = gen_random_uuid()", "never changes"),
        ("UPDATE emails SET state = 'lost', due_at = NULL", "ck_emails_state"),
        ("UPDATE emails SET due_at = NULL", "due_iff_waiting"),
        ("UPDATE emails SET sent_at = now()", "sent_at_iff_sent"),
        ("UPDATE emails SET state = 'failed', due_at = NULL", "says_why_not"),
        ("UPDATE emails SET unsure = 1", "unsure_tries"),
        (
            "INSERT INTO emails (id, event_id, withdrawal_id, recipient, facts)"
            " SELECT gen_random_uuid(), event_id, withdrawal_id, recipient, facts FROM emails",
            "uq_emails_event_id_recipient",
        ),
        (
            "INSERT INTO emails (id, event_id, withdrawal_id, facts)"
            " SELECT gen_random_uuid(), 99, withdrawal_id, facts FROM emails",
            "has_a_recipient",
        ),
        ("INSERT INTO emails (id, recipient, facts) VALUES (gen_random_uuid(), 'a', '{}')", "of_one_thing"),
        ("INSERT INTO mail_listeners (name, followed_to) VALUES ('everybody', 0)", "ck_mail_listeners_name"),
    ],
)
def test_the_database_refuses(world: World, server: MailServer, statement: str, word: str) -> None:
    known(world)
    cancelled(world)
    following.follow()
    with pytest.raises(DBAPIError, match=word):
        world.sql(statement)
