"""The notifier is killed (SIGKILL) before every line between an event and its mail, one after the other.

Whatever the line is: every end of a withdrawal and every exception record is mailed, and whatever arrives
twice has one Message-ID.
"""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from shared.notifications.mail import following, operators, turns
from tests.chaos.killing import Killer, in_child, moments
from tests.integration.mailing import cancelled, find_exception, known, rows, tell_all, turn_on
from tests.mailbox import serving
from tests.world import World

MAIL = "shared/notifications/mail/"
# Where something is written down or said; words are only words.
PATH = (
    "shared/notifications/positions.py",
    *(f"{MAIL}{room}.py" for room in ("following", "users", "operators", "turns", "sending", "smtp")),
)
ASHA, RAVI = "asha@example.com", "ravi@example.com"
# What a killed one left behind is set aside, so that the next one goes through the same lines.
ASIDE = "UPDATE emails SET leased_until = NULL, due_at = now() + interval '1 hour' WHERE state = 'waiting'"
AT_ONCE = "UPDATE mail_listeners SET told_at = NULL"


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_before_every_line_mails_each_thing_under_one_id(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "MOST_SHOWN", 1000)  # of those that were killed, all in the next mail
    with serving() as server:
        turn_on(world, monkeypatch, server.port, OPERATOR_EMAILS=RAVI, MAIL_SECONDS="10")
        following.follow()
        known(world, ASHA, coins=1_000_000)

        def notify() -> None:
            following.follow()
            turns.take_turn("mail#0")

        asked = 0

        def ask() -> None:
            nonlocal asked
            world.sql(ASIDE)
            world.sql(AT_ONCE)
            cancelled(world)
            find_exception(f"number-{asked}")
            asked += 1

        ask()
        notify()  # what is read once, as templates are, is read: the children have it
        ask()
        lived = 0
        for line, time in moments(notify, tmp_path, *PATH):
            if time == 1 or line[0].endswith("sending.py"):
                ask()
                lived += in_child(notify, Killer(line, time))
        assert lived < asked / 20
        tell_all(world, seconds=3600)
        told = defaultdict(set)
        for letter in server.letters:
            words = letter.part("plain")
            for thing in re.findall(r"Withdrawal: (\S+)|amount differs: (number-\d+)$", words, re.M):
                told["".join(thing)].add(letter.id)
        assert len(told) == 2 * asked and all(len(ids) == 1 for ids in told.values())
        assert len(server.letters) > len({letter.id for letter in server.letters}), "killed before the record"
        assert {row.state for row in rows(world)} == {"sent"}
