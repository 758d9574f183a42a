"""What operators type and read about mail, the settings it takes, and what beat sends."""

import pytest
from click.testing import Result

from shared import queues
from shared.errors import SettingsError
from shared.ids import new_id
from shared.notifications.mail import following
from shared.settings import load
from tests.integration.mailing import cancelled, known, rows, tell, turn_on
from tests.mailbox import serving
from tests.shell import invoke
from tests.world import World
from worker import tasks
from worker.app import celery
from worker.schedule import schedule


def payouts(*words: object) -> Result:
    return invoke(*words)


def said(*words: object) -> str:
    done = payouts(*words)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def off(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Mail is on, and its server is not there."""
    turn_on(world, monkeypatch, 1)
    known(world)
    return world


def test_without_a_server_status_says_that_mail_is_off(world: World) -> None:
    assert "off: SMTP_HOST is not set" in said("status")
    done = payouts("mail", "test", "asha@example.com")
    assert done.exit_code == 1 and "mail is off" in done.output


def test_status_tells_that_nothing_goes_out_and_why(off: World) -> None:
    cancelled(off)
    tell()
    assert "127.0.0.1: FAILING since" in said("status") and "ConnectionRefusedError" in said("status")
    assert "1 waiting, oldest" in said("status")


def test_status_tells_that_nobody_looks_at_news(off: World) -> None:
    cancelled(off)
    assert "does a notifier run?" not in said("status")
    off.sql_without_rules("UPDATE withdrawal_events SET created_at = created_at - interval '2 minutes'")
    assert "news is not looked at: does a notifier run?" in said("status")
    off.sql_without_rules("UPDATE withdrawal_events SET created_at = created_at + interval '2 minutes'")


def test_the_story_of_a_withdrawal_has_its_mail_and_no_address_in_full(off: World) -> None:
    withdrawal_id = cancelled(off)
    tell()
    told = said("explain", withdrawal_id)
    assert "mail about withdrawal" in told and "to as…@example.com: waiting" in told
    assert "asha@example.com" not in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "give ids, or --failed"),
        ((new_id(), "--failed"), "give ids, or --failed"),
        ((new_id(),), "No such mail"),
    ],
)
def test_what_cannot_be_retried_is_told_plainly(off: World, words: tuple[object, ...], told: str) -> None:
    done = payouts("mail", "retry", *words)
    assert done.exit_code in (1, 2) and told in done.output


def test_what_was_sent_or_skipped_is_not_sent_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        turn_on(world, monkeypatch, server.port)
        known(world)
        known(world, None, user_id="nobody")
        cancelled(world)
        cancelled(world, user_id="nobody")
        tell()
        for row in rows(world):
            done = payouts("mail", "retry", row.id)
            assert done.exit_code == 1 and f"was {row.state}" in done.output
        tell()
        assert len(server.letters) == 1


def test_what_waits_is_sent_at_once_when_asked_for(off: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled(off)
    tell()
    assert said("mail", "retry", rows(off)[0].id) == "1 are sent again.\n"
    assert (rows(off)[0].tries, rows(off)[0].server_failed_at) == (0, None)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"MAIL_FROM": ""}, "MAIL_FROM: is required with SMTP_HOST"),
        ({"SMTP_HOST": "smtp.example.com"}, "SMTP_TLS: none is accepted only on loopback"),
        ({"SMTP_USER": "payouts"}, "SMTP_USER, SMTP_PASSWORD: go together"),
        ({"MAIL_FROM": "payouts"}, "MAIL_FROM: "),
        ({"MAIL_FROM": "Quiz\nBcc: x <payouts@example.com>"}, "MAIL_FROM: "),
        ({"MAIL_APP_NAME": "Quiz\nBcc: x"}, "MAIL_APP_NAME: must be one line"),
        ({"OPERATOR_EMAILS": "asha@example.com,ravi"}, "OPERATOR_EMAILS: 'ravi' is no address"),
        ({"SMTP_TLS": "perhaps"}, "SMTP_TLS: "),
        ({"SMTP_PORT": "0"}, "SMTP_PORT: "),
    ],
)
def test_settings_that_do_not_fit_are_named(
    world: World, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], fault: str
) -> None:
    turn_on(world, monkeypatch, 25, SMTP_USER="")
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        load()
    assert [one for one in error.value.faults if one.startswith(fault)], error.value.faults


def test_a_sender_may_have_a_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        turn_on(world, monkeypatch, server.port, MAIL_FROM='"Rao, Quiz" <payouts@example.com>')
        known(world)
        cancelled(world)
        tell()
        assert server.letters[0].message["From"] == '"Rao, Quiz" <payouts@example.com>'


def test_beat_and_the_tasks_bring_mail_on_its_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mail" not in schedule()
    with serving() as server:
        turn_on(world, monkeypatch, server.port)
        assert schedule()["mail"]["task"] == queues.MAIL
        celery.conf.broker_url = queues.celery_settings()["broker_url"]
        known(world)
        cancelled(world)
        tasks.mail()
        assert queues.depth(queues.NOTIFICATIONS) == 1, "one place is enough for one mail"
        tasks.mail()
        assert queues.depth(queues.NOTIFICATIONS) == 1, "and it is asked for once"
        tasks.send_mail("mail#0")
        assert len(server.letters) == 1 and following.follow() == 0
