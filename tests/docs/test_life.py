"""docs/life-of-a-withdrawal.md: its states, transitions, reasons and timeline match the code."""

import re

from click.testing import CliRunner

from cli import main
from shared.providers.failures import POLICIES, REVERSED, UNLISTED
from shared.states import EDGES, WAITING, AttemptState, Status
from tests.support import steps
from tests.support.paths import ROOT, files
from tests.support.world import World

PAGE = (ROOT / "docs" / "life-of-a-withdrawal.md").read_text()


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(heading: str) -> dict[str, list[str]]:
    """The table under a heading: first cell, without its backticks -> the other cells."""
    cells = [
        line.strip("| ").split(" | ") for line in section(heading).splitlines() if line.startswith("| `")
    ]
    return {first.strip("`"): rest for first, *rest in cells if first != "`status_reason`"}


def timeline_of(world: World) -> str:
    """Pay a withdrawal; returns the output of `payouts explain`."""
    world.credit()
    send = world.first_send()
    steps.record_answer(send, world.perform(send))
    payout = world.simulator.payouts()[0]
    world.simulator.post("advance", {"seconds": 60})
    ended = next(row for row in world.simulator.payouts() if row["id"] == payout["id"])
    body = {key: ended[key] for key in ("id", "amount", "reference_id", "status", "utr", "fees", "tax")}
    world.webhook("payout.processed", body, "Q7gm0eXv2uKbVd")
    return CliRunner().invoke(main, ["explain", str(send.withdrawal_id)]).output


def shape(timeline: str) -> list[str]:
    """The lines without the values that differ in each run."""
    lines = [line for line in timeline.splitlines() if not line.startswith("{")]
    for varying in (r"\d{4}-\d\d-\d\dT[\d:.]+Z", r"[0-9a-f]{64}", r"[0-9a-f]{8}-[0-9a-f-]{27}", r"\w+@http\S+",
                 r"pout_\w+", r"(?<=utr: )\w+", r"(?<=utr {14})\w+"):  # fmt: skip
        lines = [re.sub(varying, "…", line) for line in lines]
    return [line for line in lines if line]


def test_the_diagram_has_the_transitions_of_the_code() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+): ", section("States and moves"), re.M)
    assert sorted(drawn) == sorted((str(begin), str(end)) for begin, end in EDGES)
    assert {state for edge in drawn for state in edge} == set(Status)


def test_the_page_lists_every_attempt_state() -> None:
    assert list(rows("States and moves")) == list(AttemptState)


def test_every_waiting_reason_has_its_user_message_and_time() -> None:
    units = {"minute": 60, "hour": 3600, "day": 86_400}
    shown = {}
    for reason, (message, within, _) in rows("Why it waits").items():
        number, unit = within.split()
        shown[reason] = (message, int(number) * units[unit.removesuffix("s")])
    assert shown == WAITING


def test_every_failure_reason_has_its_user_message_and_action() -> None:
    shown = rows("Why it failed")
    assert shown.pop("reversed")[0] == REVERSED
    assert {reason: message for reason, (message, _) in shown.items()} == {
        reason: policy.user_message for reason, policy in POLICIES.items()
    }
    for reason, (_, action) in shown.items():
        policy = POLICIES[reason]
        retry = f"retries after {policy.wait_minutes:g} minutes, at most {policy.max_attempts} attempts, then refunds"
        expected = {"refund": "refunds at once", "hold": "holds it for two people", "retry": retry}
        assert action == expected[policy.action], reason
    assert f'"{UNLISTED.user_message}"' in section("Why it failed")


def test_the_steps_name_files_that_exist() -> None:
    assert files(*re.findall(r"`((?:api|cli|shared|worker)/[\w/]+\.py)`", PAGE))


def test_the_example_timeline_matches_the_output_of_explain(world: World) -> None:
    [shown] = re.findall(r"```text\n(.*?)```", section("Example timeline"), re.S)
    assert shape(shown) == shape(timeline_of(world))
