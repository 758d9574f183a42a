"""docs/notifications.md: its settings exist, its commands run and print the documented output."""

import re
import shlex

import pytest

from shared.notifications import outbox
from shared.notifications.mail import operator_mails, send
from shared.settings import Settings
from shared.settings.mail import DEFAULT_PORTS
from tests.support.mail_steps import add_user, cancel_withdrawal, rows, run_mailer, turn_on
from tests.support.mailbox import mail_server
from tests.support.paths import ROOT
from tests.support.shell import invoke
from tests.support.world import World

PAGE = (ROOT / "docs" / "notifications.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def run(line: str) -> str:
    program, *arguments = shlex.split(line)
    done = invoke(*arguments)
    assert program == "payouts" and done.exit_code == 0, (line, done.output)
    return done.output


def test_the_documented_mail_settings_are_accepted(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    names = {line.partition("=")[0] for line in blocks("sh")[0].splitlines()}
    assert names == {
        "SMTP_HOST",
        "SMTP_USER",
        "SMTP_PASSWORD",
        "MAIL_FROM",
        "MAIL_APP_NAME",
        "OPERATOR_EMAILS",
    }
    for line in blocks("sh")[0].splitlines():
        monkeypatch.setenv(*line.split("=", 1))
    loaded = Settings()
    assert loaded.smtp_host == "smtp.example.com" and loaded.smtp_tls == "starttls"
    assert DEFAULT_PORTS == {"starttls": 587, "implicit": 465, "none": 25}


def test_the_mail_commands_print_the_documented_output(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_server() as server:
        turn_on(world, monkeypatch, server.port)
        add_user(world)
        withdrawal_id = cancel_withdrawal(world)
        server.answers["rcpt"] = "550 5.1.1 no such user"
        run_mailer()
        [command, expected] = blocks("console")[0].strip().splitlines()
        server.answers.clear()
        assert run(command.removeprefix("$ ")).strip() == expected.replace("smtp.example.com", "127.0.0.1")
        list_all, list_failed, retry, status = blocks("sh")[1].splitlines()
        line = f"{rows(world)[0].id}  withdrawal {withdrawal_id}: cancelled, to as…@example.com: failed, 1 attempt"
        assert run(list_all) == run(list_failed) == f"{line} (550 5.1.1 no such user)\n"
        assert "127.0.0.1: works" in run(status) and "1 failed" in run(status)
        assert run(retry) == "Queued for sending: 1.\n"
        run_mailer()
        assert len(server.to("asha@example.com")) == 2, "one of them the test mail"
        assert ": sent " in run(list_all) and "There is no mail" in run(list_failed)


def test_the_numbers_on_the_notifications_page_match_the_code() -> None:
    fields = Settings.model_fields
    assert fields["notify_retry_seconds"].default == (5, 30, 120, 600, 1800, 3600, 7200)
    assert fields["notify_give_up_seconds"].default == 24 * 3600
    assert (
        operator_mails.MAIL_INTERVAL_SECONDS,
        operator_mails.MAX_RECORDS_SHOWN,
        send.SERVER_RETRY_SECONDS,
    ) == (
        60,
        25,
        30,
    )
    assert (outbox.SENT_KEPT_DAYS, outbox.FAILED_KEPT_DAYS) == (7, 90)
