"""The notifier is killed (SIGKILL) before every line between an event and its mail, one after the other.

At every line: each withdrawal that ended and each exception record is mailed, and a mail that arrives twice
has one Message-ID.
"""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from shared.notifications.mail import dispatcher, fan_out, operator_mails
from tests.chaos.killing import BEFORE_THE_RECORD, Killer, in_child, moments
from tests.support.mail_steps import (
    add_user,
    cancel_withdrawal,
    open_exception,
    rows,
    run_until_done,
    turn_on,
)
from tests.support.mailbox import mail_server
from tests.support.world import World

MAIL = "shared/notifications/mail/"
# The lines that write or send; composing the text has no side effects.
PATH = (
    "shared/net/",
    "shared/notifications/event_cursor.py",
    "shared/notifications/outbox.py",
    *(
        f"{MAIL}{module}.py"
        for module in ("fan_out", "user_mails", "operator_mails", "dispatcher", "send", "smtp")
    ),
)
ASHA = "asha@example.com"
RAVI = "ravi@example.com"
# Sets aside what a killed notifier left behind, so that the next one runs through the same lines.
ASIDE = "UPDATE emails SET leased_until = NULL, due_at = now() + interval '1 hour' WHERE state = 'waiting'"
WITHOUT_INTERVAL = "UPDATE mail_listeners SET told_at = NULL"


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_mailer_killed_before_every_line_sends_each_mail_under_one_id(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The next mail must show every record of the notifiers that were killed.
    monkeypatch.setattr(operator_mails, "MAX_RECORDS_SHOWN", 1000)
    with mail_server() as server:
        turn_on(world, monkeypatch, server.port, OPERATOR_EMAILS=RAVI, MAIL_SECONDS="10")
        fan_out.create_mails()
        add_user(world, ASHA, coins=1_000_000)

        def notify() -> None:
            fan_out.create_mails()
            dispatcher.take_turn("mail#0")

        created = 0

        def create_events() -> None:
            nonlocal created
            world.sql(ASIDE)
            world.sql(WITHOUT_INTERVAL)
            cancel_withdrawal(world)
            open_exception(f"number-{created}")
            created += 1

        create_events()
        notify()  # loads what is read once, such as templates; the children inherit it
        create_events()
        survived = 0
        for line, time in moments(notify, tmp_path, *PATH, always=BEFORE_THE_RECORD):
            if time == 1 or line[0].endswith(("send.py", "outbox.py")):
                create_events()
                survived += in_child(notify, Killer(line, time))
        assert survived < max(3, created / 20)
        run_until_done(world, seconds=3600)
        message_ids = defaultdict(set)
        for letter in server.letters:
            text = letter.part("plain")
            for event in re.findall(r"Withdrawal: (\S+)|amount differs: (number-\d+)$", text, re.M):
                message_ids["".join(event)].add(letter.id)
        assert len(message_ids) == 2 * created and all(len(ids) == 1 for ids in message_ids.values())
        assert len(server.letters) > len({letter.id for letter in server.letters}), "killed before the record"
        assert {row.state for row in rows(world)} == {"sent"}
