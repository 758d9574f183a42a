"""docs/life-of-a-withdrawal.md: states, edges, reasons and the story are those of the code."""

import re
from pathlib import Path

from click.testing import CliRunner

from shared import withdrawals
from shared.cli import main
from shared.razorpayx.reasons import POLICIES, REVERSED, UNLISTED
from shared.states import EDGES, WAITING, AttemptState, Status
from tests.world import World

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "life-of-a-withdrawal.md").read_text()


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(heading: str) -> dict[str, list[str]]:
    """The table under a heading whose first cells are words of the code: first cell -> the others."""
    cells = [
        line.strip("| ").split(" | ") for line in section(heading).splitlines() if line.startswith("| `")
    ]
    return {first.strip("`"): rest for first, *rest in cells if first != "`status_reason`"}


def story_of(world: World) -> str:
    """A paid withdrawal, and what `payouts explain` prints of it."""
    world.credit()
    send = world.first_send()
    withdrawals.record_answer(send, world.perform(send))
    payout = world.simulator.payouts()[0]
    world.simulator.post("advance", {"seconds": 60})
    ended = next(one for one in world.simulator.payouts() if one["id"] == payout["id"])
    body = {key: ended[key] for key in ("id", "amount", "reference_id", "status", "utr", "fees", "tax")}
    world.webhook("payout.processed", body, "Q7gm0eXv2uKbVd")
    return CliRunner().invoke(main, ["explain", str(send.withdrawal_id)]).output


def shape(story: str) -> list[str]:
    """What does not change from one run to the next."""
    lines = [line for line in story.splitlines() if not line.startswith("{")]
    for what in (r"\d{4}-\d\d-\d\dT[\d:.]+Z", r"[0-9a-f]{64}", r"[0-9a-f]{8}-[0-9a-f-]{27}", r"\w+@http\S+",
                 r"pout_\w+", r"(?<=utr: )\w+", r"(?<=utr {14})\w+"):  # fmt: skip
        lines = [re.sub(what, "…", line) for line in lines]
    return [line for line in lines if line]


def test_the_diagram_has_the_edges_of_the_code() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+): ", section("States and moves"), re.M)
    assert sorted(drawn) == sorted((str(begin), str(end)) for begin, end in EDGES)
    assert {state for edge in drawn for state in edge} == set(Status)


def test_every_state_of_an_attempt_is_told() -> None:
    assert list(rows("States and moves")) == list(AttemptState)


def test_every_reason_to_wait_is_told_as_users_read_it() -> None:
    units = {"minute": 60, "hour": 3600, "day": 86_400}
    told = {}
    for reason, (words, within, _) in rows("Why it waits").items():
        number, unit = within.split()
        told[reason] = (words, int(number) * units[unit.removesuffix("s")])
    assert told == WAITING


def test_every_reason_to_fail_is_told_as_users_read_it() -> None:
    told = rows("Why it failed")
    assert told.pop("reversed")[0] == REVERSED
    assert {reason: words for reason, (words, _) in told.items()} == {
        reason: policy.words for reason, policy in POLICIES.items()
    }
    for reason, (_, follows) in told.items():
        policy = POLICIES[reason]
        retry = f"again after {policy.minutes:g} minutes, {policy.attempts} attempts in all; then coins back"
        expected = {"refund": "coins back at once", "hold": "a person looks first", "retry": retry}
        assert follows == expected[policy.action], reason
    assert f'"{UNLISTED.words}"' in section("Why it failed")


def test_the_steps_name_files_that_exist() -> None:
    for name in re.findall(r"`((?:api|shared)/[\w/]+\.py)`", PAGE):
        assert (ROOT / name).exists(), name


def test_the_story_is_what_explain_prints(world: World) -> None:
    [shown] = re.findall(r"```text\n(.*?)```", section("One story"), re.S)
    assert shape(shown) == shape(story_of(world))
