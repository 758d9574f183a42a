"""The mail commands and their output, the mail settings, and the tasks that beat sends."""

import pytest
from click.testing import Result

from shared.errors import SettingsError
from shared.ids import new_id
from shared.notifications.mail import fan_out
from shared.queues import messages, redis_broker
from shared.queues.names import NOTIFICATIONS
from shared.settings import load
from tests.support.mail_steps import add_user, cancel_withdrawal, rows, run_mailer, turn_on
from tests.support.mailbox import mail_server
from tests.support.shell import invoke
from tests.support.world import World
from worker import tasks
from worker.app import celery
from worker.schedule import schedule


def payouts(*arguments: object) -> Result:
    return invoke(*arguments)


def run(*arguments: object) -> str:
    done = payouts(*arguments)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def unreachable(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Mail is enabled and its server is unreachable."""
    turn_on(world, monkeypatch, 1)
    add_user(world)
    return world


def test_without_a_server_status_says_that_mail_is_off(world: World) -> None:
    assert "off: SMTP_HOST is not set" in run("status")
    done = payouts("mail", "test", "asha@example.com")
    assert done.exit_code == 1 and "mail is off" in done.output


def test_status_shows_that_mail_fails_and_why(unreachable: World) -> None:
    cancel_withdrawal(unreachable)
    run_mailer()
    assert "127.0.0.1: FAILING since" in run("status") and "ConnectionRefusedError" in run("status")
    assert "1 pending, oldest" in run("status")


def test_status_shows_that_events_are_not_processed(unreachable: World) -> None:
    cancel_withdrawal(unreachable)
    assert "is a notifier running?" not in run("status")
    unreachable.sql_without_rules(
        "UPDATE withdrawal_events SET created_at = created_at - interval '2 minutes'"
    )
    assert "new events are not processed: is a notifier running?" in run("status")
    unreachable.sql_without_rules(
        "UPDATE withdrawal_events SET created_at = created_at + interval '2 minutes'"
    )


def test_explain_shows_the_mail_with_a_masked_address(unreachable: World) -> None:
    withdrawal_id = cancel_withdrawal(unreachable)
    run_mailer()
    explained = run("explain", withdrawal_id)
    assert "mail about withdrawal" in explained and "to as…@example.com: waiting" in explained
    assert "asha@example.com" not in explained


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give ids, or --failed"),
        ((new_id(), "--failed"), "give ids, or --failed"),
        ((new_id(),), "No such mail"),
    ],
)
def test_a_retry_that_is_not_possible_says_why(
    unreachable: World, words: tuple[object, ...], message: str
) -> None:
    done = payouts("mail", "retry", *words)
    assert done.exit_code in (1, 2) and message in done.output


def test_sent_or_skipped_mail_is_not_retried(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_server() as server:
        turn_on(world, monkeypatch, server.port)
        add_user(world)
        add_user(world, None, user_id="nobody")
        cancel_withdrawal(world)
        cancel_withdrawal(world, user_id="nobody")
        run_mailer()
        for row in rows(world):
            done = payouts("mail", "retry", row.id)
            assert done.exit_code == 1 and f"was {row.state}" in done.output
        run_mailer()
        assert len(server.letters) == 1


def test_waiting_mail_can_be_retried_at_once(unreachable: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel_withdrawal(unreachable)
    run_mailer()
    assert run("mail", "retry", rows(unreachable)[0].id) == "Queued for sending: 1.\n"
    assert (rows(unreachable)[0].tries, rows(unreachable)[0].server_failed_at) == (0, None)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"MAIL_FROM": ""}, "MAIL_FROM: is required with SMTP_HOST"),
        ({"SMTP_HOST": "smtp.example.com"}, "SMTP_TLS: none is allowed only on loopback"),
        ({"SMTP_USER": "payouts"}, "SMTP_USER, SMTP_PASSWORD: set both or neither"),
        ({"MAIL_FROM": "payouts"}, "MAIL_FROM: "),
        ({"MAIL_FROM": "Quiz\nBcc: x <payouts@example.com>"}, "MAIL_FROM: "),
        ({"MAIL_APP_NAME": "Quiz\nBcc: x"}, "MAIL_APP_NAME: must be one line"),
        ({"OPERATOR_EMAILS": "asha@example.com,ravi"}, "OPERATOR_EMAILS: 'ravi' is not an email address"),
        ({"SMTP_TLS": "perhaps"}, "SMTP_TLS: "),
        ({"SMTP_PORT": "0"}, "SMTP_PORT: "),
    ],
)
def test_contradicting_settings_are_reported(
    world: World, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], fault: str
) -> None:
    turn_on(world, monkeypatch, 25, SMTP_USER="")
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        load()
    assert [text for text in error.value.faults if text.startswith(fault)], error.value.faults


def test_a_sender_may_have_a_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_server() as server:
        turn_on(world, monkeypatch, server.port, MAIL_FROM='"Rao, Quiz" <payouts@example.com>')
        add_user(world)
        cancel_withdrawal(world)
        run_mailer()
        assert server.letters[0].message["From"] == '"Rao, Quiz" <payouts@example.com>'


def test_beat_and_the_tasks_send_mail(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mail" not in schedule()
    with mail_server() as server:
        turn_on(world, monkeypatch, server.port)
        assert schedule()["mail"]["task"] == messages.MAIL
        celery.conf.broker_url = messages.celery_settings()["broker_url"]
        add_user(world)
        cancel_withdrawal(world)
        tasks.mail()
        assert redis_broker.depth(NOTIFICATIONS) == 1, "one message for one mail"
        tasks.mail()
        assert redis_broker.depth(NOTIFICATIONS) == 1, "no second message while that is queued"
        tasks.send_mail("mail#0")
        assert len(server.letters) == 1 and fan_out.create_mails() == 0
