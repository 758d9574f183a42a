"""Mail to users: one for each withdrawal that ends; text from apps cannot alter it."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import DBAPIError

from shared import withdrawals
from shared.db.transactions import transaction
from shared.models import Withdrawal
from shared.notifications import event_cursor
from shared.notifications.mail import dispatcher, fan_out, mails, user_mails
from shared.states import Status
from shared.withdrawals import transitions
from tests.support import steps
from tests.support.mail_steps import (
    SENDER,
    add_user,
    cancel_withdrawal,
    rows,
    run_mailer,
    run_until_done,
    start_mailer,
    turn_on,
)
from tests.support.mailbox import MailServer, ReceivedMail, mail_server
from tests.support.world import World

ASHA = "asha@example.com"


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    with mail_server() as server:
        turn_on(world, monkeypatch, server.port)
        yield server


def only(server: MailServer) -> ReceivedMail:
    [letter] = server.letters
    return letter


def parts(letter: ReceivedMail) -> list[str]:
    return [letter.part("plain"), letter.part("html")]


# --- content


def test_a_paid_withdrawal_is_mailed_once_with_its_details(world: World, server: MailServer) -> None:
    add_user(world, name="Asha Rao")
    withdrawal_id = world.request()
    world.finish(withdrawal_id)
    for _ in range(3):
        run_mailer()
    letter = only(server)
    utr = world.read(withdrawal_id).utr
    for text in parts(letter):
        for expected in ("Hello Asha Rao", "₹50.00", "500 coins", "us…@okhdfcbank", str(utr), "IST"):
            assert expected in text
        assert "user@okhdfcbank" not in text, "the UPI id is masked"
    assert letter.message["Subject"] == "We paid ₹50.00 to us…@okhdfcbank"
    assert (letter.sender, letter.recipient) == (SENDER, ASHA)
    assert letter.message["From"] == f"Quiz <{SENDER}>" and letter.message["To"] == ASHA
    assert letter.message["Auto-Submitted"] == "auto-generated"
    [row] = rows(world)
    assert letter.id == f"<{row.id}@example.com>"
    assert (row.state, row.tries, row.withdrawal_id) == ("sent", 1, withdrawal_id)


def test_a_failure_says_why_and_that_the_coins_are_back(world: World, server: MailServer) -> None:
    add_user(world)
    withdrawal_id = world.request(upi_id="fail.beneficiary_vpa_invalid@sim")
    world.finish(withdrawal_id)
    run_mailer()
    reason = world.read(withdrawal_id).failure_reason
    assert (
        reason
        and only(server).message["Subject"] == "We could not pay ₹50.00: your coins are back in your wallet"
    )
    assert all(reason in text and "500 coins are back" in text for text in parts(only(server)))


def test_a_reversal_is_a_second_mail(world: World, server: MailServer) -> None:
    add_user(world)
    withdrawal_id = world.request()
    world.finish(withdrawal_id)
    payout = world.simulator.payouts()[0]
    world.receive_report({**payout, "status": "reversed"})
    run_mailer()
    assert [letter.message["Subject"] for letter in server.letters] == [
        "We paid ₹50.00 to us…@okhdfcbank",
        "Your bank returned ₹50.00: your coins are back in your wallet",
    ]
    assert "Your bank sent the payment back." in server.letters[1].part("plain")
    assert "UTR" not in server.letters[1].part("plain")


def test_a_cancellation_shows_its_reason_as_plain_text(world: World, server: MailServer) -> None:
    add_user(world)
    cancel_withdrawal(world, "too\nlate <b>&\u202e")
    run_mailer()
    plain, html = parts(only(server))
    assert "Reason: too late <b>&\n" in plain and "Reason: too late &lt;b&gt;&amp;</p>" in html


def test_a_withdrawal_in_progress_sends_no_mail(world: World, server: MailServer) -> None:
    add_user(world)
    send = world.first_send()
    steps.record_answer(send, world.perform(send))
    run_mailer()
    assert rows(world) == [] and world.read(send.withdrawal_id).status == "processing"


def test_a_rolled_back_change_is_never_mailed(world: World, server: MailServer) -> None:
    add_user(world)
    withdrawal_id = world.request()
    with pytest.raises(RuntimeError), transaction() as session:
        withdrawal = withdrawals.find(session, withdrawal_id, lock=True)
        transitions.transition(session, withdrawal, Status.CANCELLED, actor="user", reason="not really")
        run_mailer()
        raise RuntimeError
    run_until_done(world)
    assert server.letters == [] and rows(world) == []


def test_user_mail_contains_no_image_and_no_link(world: World, server: MailServer) -> None:
    add_user(world)
    cancel_withdrawal(world)
    run_mailer()
    html = only(server).part("html").lower()
    assert not [word for word in ("<img", "http", "src=", "href", "url(") if word in html]


# --- recipients


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (None, "the user has no email address"),
        ("nobody", "not an email address: An email address must have an @-sign."),
        ("a@example.com\nBcc: everybody@example.com", "not an email address"),
        ("a@example.com, b@example.com", "not an email address"),
        ("Asha <a@example.com>", "not an email address"),
        ("a@localhost", "not an email address"),
        ("\u202easha@example.com", "not an email address"),
        ("a" * 300 + "@example.com", "not an email address"),
    ],
)
def test_an_invalid_address_is_skipped_with_a_reason(
    world: World, server: MailServer, address: str | None, why: str
) -> None:
    add_user(world, address)
    cancel_withdrawal(world)
    assert run_mailer() == 0
    [row] = rows(world)
    assert row.state == "skipped" and row.last_error.startswith(why) and row.tries == 0
    run_until_done(world)
    assert server.letters == [] and server.connections == 0


@pytest.mark.parametrize(
    ("address", "recipient"),
    [
        (" asha@example.com ", ASHA),
        ("asha@EXAMPLE.com", ASHA),
        ("asha@उदाहरण.भारत", "asha@xn--p1b6ci4b4b3a.xn--h2brj9c"),
        ("आशा@example.com", "आशा@example.com"),
    ],
)
def test_unusual_but_valid_addresses_get_mail(
    world: World, server: MailServer, address: str, recipient: str
) -> None:
    add_user(world, address)
    cancel_withdrawal(world)
    run_mailer()
    assert only(server).recipient == recipient


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
def test_the_greeting_uses_a_name_only_if_it_looks_like_one(
    world: World, server: MailServer, name: str, greeting: str
) -> None:
    add_user(world, name=name)
    cancel_withdrawal(world)
    run_mailer()
    letter = only(server)
    assert letter.part("plain").startswith(greeting + "\n")
    assert "Bcc" not in letter.message and "evil" not in letter.message.as_string()


# --- limits


def test_a_user_who_keeps_cancelling_gets_five_mails_an_hour(world: World, server: MailServer) -> None:
    add_user(world)
    add_user(world, "other@example.com", user_id="other")
    world.credit("other", coins=1000, reference="more")

    def cancel_own(number: int, user_id: str = "user123", actor: str = "user:user123") -> None:
        for _ in range(number):
            withdrawal_id = world.request(user_id, coins=100)
            withdrawals.cancel(withdrawal_id, reason="changed my mind", actor=actor)

    cancel_own(4)
    cancel_own(4, actor="app:quiz")
    cancel_own(1, "other")
    cancel_withdrawal(world, "an operator decides")
    world.finish(world.request(coins=100))
    world.finish(world.request(coins=100, upi_id="fail.beneficiary_vpa_invalid@sim"))
    run_mailer()
    assert len(server.to(ASHA)) == 5 + 1 + 2 and len(server.to("other@example.com")) == 1
    reasons = Counter(row.last_error for row in rows(world) if row.state == "skipped")
    assert reasons == {"more than 5 cancellations within an hour": 3}
    world.sql_without_rules("UPDATE withdrawal_events SET created_at = created_at - interval '61 minutes'")
    world.broken_on_purpose = True  # altered events are in no block
    cancel_own(6)
    run_mailer()
    assert len(server.to(ASHA)) == 8 + 5, "an hour later they are mailed again"


# --- each mail once


def test_changes_before_mail_was_enabled_are_not_mailed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_user(world)
    cancel_withdrawal(world)
    with mail_server() as server:
        turn_on(world, monkeypatch, server.port)
        run_mailer()
        assert rows(world) == []


def test_changes_while_mail_was_off_are_mailed_later_unless_too_old(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_user(world)
    monkeypatch.setenv("SMTP_HOST", "")
    world.forget_settings()
    cancel_withdrawal(world)
    assert run_mailer() == 0 and dispatcher.nudge_due() == 0 and rows(world) == []
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("NOTIFY_GIVE_UP_SECONDS", "0.001")
    world.forget_settings()
    run_mailer()
    cancel_withdrawal(world)
    monkeypatch.delenv("NOTIFY_GIVE_UP_SECONDS")
    world.forget_settings()
    run_mailer()
    assert [(row.state, row.last_error) for row in rows(world)] == [
        ("skipped", "happened too long ago"),
        ("sent", None),
    ]


def test_a_change_that_commits_late_is_mailed(world: World, server: MailServer) -> None:
    add_user(world)
    add_user(world, user_id="another")
    late, early = world.request(), world.request("another")
    with transaction() as slow:
        withdrawal = withdrawals.find(slow, late, lock=True)
        transitions.transition(slow, withdrawal, Status.CANCELLED, actor="user", reason="slowly")
        slow.flush()  # its event has an id from now on
        withdrawals.cancel(early, reason="quickly", actor="user")
        for _ in range(3):
            run_mailer()
        assert [row.withdrawal_id for row in rows(world)] == [early], "the other is not visible yet"
    run_mailer()
    assert [row.withdrawal_id for row in rows(world)] == [late, early] and len(server.letters) == 2


def test_a_lost_mail_is_created_again_with_the_same_id(world: World, server: MailServer) -> None:
    """A restored backup loses the mail; servers must see the same Message-ID again."""
    add_user(world)
    cancel_withdrawal(world)
    for _ in range(2):
        run_mailer()
        world.sql("DELETE FROM emails")
        world.sql("UPDATE mail_listeners SET followed_to = 0, mark_to = NULL, mark_xid = NULL")
    assert len(server.letters) == 2 and len({letter.id for letter in server.letters}) == 1
    first, second = server.letters
    assert first.part("plain") == second.part("plain")


@pytest.mark.exhaustive
@pytest.mark.timeout(240)
def test_a_thousand_events_and_two_notifiers_make_a_thousand_mails(
    world: World, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_SECONDS", "20")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "16")
    world.forget_settings()
    for number in range(10):
        add_user(world, f"user{number}@example.com", user_id=f"user{number}", coins=100 * 100)

    def cancel_hundred(number: int) -> None:
        for _ in range(100):
            withdrawal = withdrawals.request(
                user_id=f"user{number}", coins=100, upi_id="u@okaxis", actor="app:test"
            )
            withdrawals.cancel(withdrawal.id, reason="test", actor="operator:test")

    notifiers = [start_mailer() for _ in range(2)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(cancel_hundred, range(10)))
    assert [notifier.wait(110) for notifier in notifiers] == [0, 0]
    run_until_done(world)
    assert len(server.letters) == len({letter.id for letter in server.letters}) == 1000
    assert set(Counter(letter.recipient for letter in server.letters).values()) == {100}
    assert server.connections < 50, "one connection serves many mails"
    assert {(row.state, row.tries) for row in rows(world)} == {("sent", 1)}


def test_payments_never_wait_for_mail_fan_out(world: World, server: MailServer) -> None:
    """While fan-out has a transaction open, the withdrawal's row and its wallet can be locked."""
    add_user(world)
    cancel_withdrawal(world)
    [withdrawal] = world.sql("SELECT id FROM withdrawals")
    with transaction() as session:
        assert event_cursor.advance_batch(session, user_mails.SUBSCRIBER) == 1
        with transaction() as paying:
            assert paying.get(Withdrawal, withdrawal.id, with_for_update={"nowait": True})
            world.sql("SELECT FROM wallets FOR UPDATE NOWAIT")


def test_old_mail_is_deleted_once_the_cursor_has_passed_it(world: World, server: MailServer) -> None:
    add_user(world)
    cancel_withdrawal(world)
    run_mailer()
    for column in ("created_at", "sent_at", "began_at"):
        world.sql(f"UPDATE emails SET {column} = {column} - interval '8 days'")
    world.sql("UPDATE mail_listeners SET followed_to = 0")
    assert mails.delete_old() == 0
    world.sql("UPDATE mail_listeners SET followed_to = 1000")
    assert mails.delete_old() == 1 and rows(world) == []


@pytest.mark.parametrize(
    ("statement", "error"),
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
def test_the_database_refuses_forbidden_changes_of_mail(
    world: World, server: MailServer, statement: str, error: str
) -> None:
    add_user(world)
    cancel_withdrawal(world)
    fan_out.create_mails()
    with pytest.raises(DBAPIError, match=error):
        world.sql(statement)
