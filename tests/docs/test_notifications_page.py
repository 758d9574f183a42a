"""docs/notifications.md: its settings are settings, its commands run and say what it says."""

import re
import shlex
from pathlib import Path

import pytest

from shared.notifications.mail import keeping, operators, sending
from shared.settings import Settings
from shared.settings.mailing import USUAL_PORTS
from tests.integration.mailing import cancelled, known, rows, tell, turn_on
from tests.mailbox import serving
from tests.shell import invoke
from tests.world import World

PAGE = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def said(line: str) -> str:
    program, *words = shlex.split(line)
    done = invoke(*words)
    assert program == "payouts" and done.exit_code == 0, (line, done.output)
    return done.output


def test_its_settings_are_taken(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
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
    here = Settings()
    assert here.smtp_host == "smtp.example.com" and here.smtp_tls == "starttls"
    assert USUAL_PORTS == {"starttls": 587, "implicit": 465, "none": 25}


def test_its_commands_work_and_say_what_it_says(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        turn_on(world, monkeypatch, server.port)
        known(world)
        withdrawal_id = cancelled(world)
        server.answers["rcpt"] = "550 5.1.1 no such user"
        tell()
        [command, expected] = blocks("console")[0].strip().splitlines()
        server.answers.clear()
        assert said(command.removeprefix("$ ")).strip() == expected.replace("smtp.example.com", "127.0.0.1")
        every, failed, again, status = blocks("sh")[1].splitlines()
        line = (
            f"{rows(world)[0].id}  withdrawal {withdrawal_id}: cancelled, to as…@example.com: failed, 1 tries"
        )
        assert said(every) == said(failed) == f"{line} (550 5.1.1 no such user)\n"
        assert "127.0.0.1: works" in said(status) and "1 failed" in said(status)
        assert said(again) == "1 are sent again.\n"
        tell()
        assert len(server.to("asha@example.com")) == 2, "one of them the test's"
        assert ": sent " in said(every) and "There is no mail" in said(failed)


def test_its_numbers_are_those_of_the_code() -> None:
    fields = Settings.model_fields
    assert fields["notify_retry_seconds"].default == (5, 30, 120, 600, 1800, 3600, 7200)
    assert fields["notify_give_up_seconds"].default == 24 * 3600
    assert (operators.BETWEEN_SECONDS, operators.MOST_SHOWN, sending.REST_SECONDS) == (60, 25, 30)
    assert (keeping.SENT_KEPT_DAYS, keeping.FAILED_KEPT_DAYS) == (7, 90)
