"""docs/operators.md: its commands run, its names are the panel's, its numbers, alerts and words are the code's."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pyotp
import pytest
import yaml

from api.admin.bulk import MOST
from api.admin.making import PAGES
from shared import operators, sealing, second_factor, withdrawals
from shared.cli import main
from shared.cli.token_file import VARIABLE
from shared.db import transaction
from shared.notifications import endpoints
from shared.notifications.mail import operators as mail_to_operators
from shared.razorpayx.answers import Refused
from shared.reconciliation import comparing
from shared.roles import Role
from shared.settings import Settings
from shared.spot_checks import BROKEN
from shared.states import Reason
from shared.watching import SILENT
from shared.withdrawals import claiming, effects, journey, paid_outside, pausing, resolving
from tests.integration.mailing import known, turn_on
from tests.mailbox import serving
from tests.shell import invoke
from tests.world import World
from worker.reconcile import NOT_RECONCILED

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operators.md").read_text()
PAGE = " ".join(TEXT.split())  # wrapped lines as one
CHAPTERS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}
EXAMPLE_ID = "01a208a5-b724-779f-a85a-7688d7fa28bd"
LATE_ID = "01a208b1-1c8e-7f00-9d3c-5e2f0a6b7c81"  # it was paid after its coins came back
PANEL = ROOT / "api" / "admin"
ALERTS = {
    rule["alert"]: rule["annotations"]["runbook"].partition("#")[2]
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()]


def literals() -> set[str]:
    """Every text that stands in the panel's code and in the expressions of its templates."""
    found = set()
    for path in PANEL.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    for path in PANEL.rglob("*.html"):
        for code in re.findall(r"{[{%].*?[%}]}", path.read_text(), re.S):
            found |= {one or other for one, other in re.findall(r"'([^']*)'|\"([^\"]*)\"", code)}
    return found


def written() -> set[str]:
    """What stands between the tags of its templates, with {} where something is put in."""
    found = set()
    for path in PANEL.rglob("*.html"):
        text = re.sub(r"{{.*?}}", "{}", re.sub(r"{#.*?#}", "", path.read_text(), flags=re.S), flags=re.S)
        found |= {" ".join(one.split()) for one in re.split(r"<[^>]*>|{%.*?%}", text)}
    return found - {"", "{}"}


LITERALS, WRITTEN = literals(), written()


def is_of_the_panel(name: str) -> bool:
    patterns = (re.escape(one).replace(r"\{\}", "(.+?)") for one in WRITTEN)
    return name in LITERALS or any(
        match and set(match.groups()) <= LITERALS for match in (re.fullmatch(one, name) for one in patterns)
    )


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\*\*([^*]+)\*\*", PAGE))))
def test_every_name_in_bold_stands_in_the_panel(name: str) -> None:
    assert is_of_the_panel(name), name


def test_every_page_of_the_menu_has_its_place_in_the_guide() -> None:
    in_bold = set(re.findall(r"\*\*([^*]+)\*\*", PAGE))
    assert {page.title for page in PAGES if page.in_menu} <= in_bold


def test_what_is_not_in_the_panel_is_found_out() -> None:
    assert is_of_the_panel("Freeze …") and is_of_the_panel("Approve those picked …")
    assert not is_of_the_panel("Switches") and not is_of_the_panel("Thaw …")


SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="  # of the public key on the page


def test_every_command_runs(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(world)
    late_id, late_payout = _paid_late(world)
    withdrawal_id = str(world.request())
    a_day_passes(world, monkeypatch)
    monkeypatch.setenv("CERTIFICATE_KEY", SECRET)
    monkeypatch.setenv("ADMIN_SECRET_KEY", "a-key-of-the-tests-of-32-characters")
    monkeypatch.chdir(tmp_path)  # where papers are written
    withdrawals.pause("network", reason="for `resume --network`", actor="operator:ravi")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    said: dict[str, str] = {}
    with serving() as server:
        turn_on(world, monkeypatch, server.port)
        for line in COMMANDS:
            typed = code_of(line.split()[-1]) if "sign-in" in line else ""
            said[line] = run(line.replace(EXAMPLE_ID, withdrawal_id).replace(LATE_ID, str(late_id)), typed)
            if " take_back " in line:
                _take_back(world, late_id, late_payout)
            if line.startswith("payouts operator add "):
                _accept(line.split()[3], said[line])
    assert len(COMMANDS) > 15
    assert "has no password" not in said["payouts operator list"]
    assert said["payouts operator totp asha --off"].endswith("Done.\n")
    assert "UPI handles" in said["payouts status"] and "missing" in TEXT
    assert "took it" in said["payouts mail test asha@example.com"]
    assert said["payouts operator disable asha"] == "asha is out.\n"
    assert "Head of the seals: " in said["payouts check"]
    assert [
        line for line in COMMANDS if line.startswith("payouts verify") and "Proven: " not in said[line]
    ] == []


def _paid_late(world: World) -> tuple[UUID, dict[str, Any]]:
    """A withdrawal whose coins came back, and whose payout RazorpayX paid all the same."""
    known(world, email=None, user_id="user456")
    send = world.first_send(user_id="user456", upi_id="another@okaxis")
    withdrawals.record_answer(send, Refused("input_validation_failed", "no", 400))
    payout = world.arrives_after_all(send.withdrawal_id)
    assert world.hears(payout) == "conflict"
    return send.withdrawal_id, payout


def _take_back(world: World, withdrawal_id: UUID, payout: dict[str, Any]) -> None:
    """What comes between: a second person agrees, and then the bank sends it back."""
    with transaction() as session:
        made = resolving.waiting(session, withdrawal_id)
    assert made is not None
    withdrawals.approve(made.id, actor="operator:ravi")
    assert world.hears(world.becomes(payout["id"], "reversed")) == "conflict"


def _accept(name: str, shown: str) -> None:
    """What the invited person does: opens the link, chooses a password, enrols a phone."""
    operators.accept_invitation(re.findall(r"\?token=(\S+)", shown)[0], "correct horse battery")
    with transaction() as session:
        operator = operators.locked(session, name)
        offer = second_factor.offer(session, operator)
        second_factor.enrol(session, operator, pyotp.TOTP(offer.secret).now(), offer.mark)
        operator.totp_step = 0  # as if that was a while ago


def a_day_passes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written so far was written the day before yesterday, and sealed."""
    for table in ("coin_transactions", "withdrawal_events"):
        world.sql_without_rules(f"UPDATE {table} SET created_at = created_at - interval '2 days'")
    sealing.seal()
    if world.sql("SELECT extract(hour FROM now() AT TIME ZONE interval '05:30') AS hour")[0].hour == 0:
        monkeypatch.setattr(sealing, "LATE_SECONDS", 0)  # yesterday could not be closed yet


def code_of(name: str) -> str:
    """What their authenticator app shows."""
    with transaction() as session:
        return pyotp.TOTP(operators.locked(session, name).totp_secret or "").now()


def run(line: str, code: str = "") -> str:
    program, *words = shlex.split(line)
    done = invoke(*words, input=f"correct horse battery\n{code}\n")
    assert program == "payouts" and done.exit_code == 0, (line, done.output)
    return done.output


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`(payouts [^`]+)`", PAGE))))
def test_every_command_that_is_named_exists(line: str) -> None:
    command: click.Command = main
    _, *words = line.split()
    while words and isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_every_alert_has_its_chapter_with_what_to_do_and_what_not() -> None:
    rows = re.findall(r"^\| (`Payouts.*?) \| \[[^]]+\]\(#([\w-]+)\) \|$", CHAPTERS["Alerts"], re.M)
    assert {name: anchor for names, anchor in rows for name in re.findall(r"`(\w+)`", names)} == ALERTS
    by_anchor = {title.lower().replace(" ", "-"): text for title, text in CHAPTERS.items()}
    for name, anchor in ALERTS.items():
        assert f"`{name}`" in by_anchor[anchor], f"{anchor} does not name {name}"
        for word in ("*You see*", "*It means*", "*Do*", "*Do not*"):
            assert word in by_anchor[anchor], f"{anchor}: {word}"


def test_the_roles_are_those_of_the_code() -> None:
    assert re.findall(r"^\| `(\w+)` \|", CHAPTERS["Who may do what"], re.M) == list(Role)


def test_reasons_and_kinds_are_those_of_the_code() -> None:
    reasons = re.findall(r"^\| (`.*?) \|", CHAPTERS["Stuck payout"], re.M)
    assert {word for row in reasons for word in re.findall(r"`(\w+)`", row)} <= set(Reason)
    kinds = set(
        re.findall(r"`([\w:…]+)`", CHAPTERS["Exception record"].partition("| kind |")[2].partition("\n\n")[0])
    )
    of_the_code = {BROKEN, SILENT, endpoints.FAILING, mail_to_operators.BROKEN, pausing.LOW_BALANCE}
    of_the_code |= journey.TOLD_ONLY | {NOT_RECONCILED, claiming.CONTRADICTED, comparing.REFERENCE}
    of_the_code |= {pausing.REFUSED_ALONE, paid_outside.UTR_OF_ANOTHER}
    of_the_code |= {effects.WEBHOOK_UNTRUE, effects.NOT_CONFIRMED}
    assert of_the_code <= kinds
    assert kinds - of_the_code == {
        "two_payouts",
        "processed_after_failed",
        "_after_",
        "held:…",
        "overdue",
        "paused",
    }


def test_every_finding_of_a_comparison_has_its_meaning_and_what_to_do() -> None:
    findings = {value for name, value in vars(comparing).items() if name.isupper() and isinstance(value, str)}
    rows = dict(
        re.findall(r"^\| `(\w+)`(?:, and others.*?)? \| (.+ \| .+) \|$", CHAPTERS["Reconciliation"], re.M)
    )
    assert len(findings) > 15 and findings | {"processed_after_failed"} == set(rows)
    for word in ("*You see*", "*It means*", "*Do*", "*Do not*"):
        assert word in CHAPTERS["Reconciliation"] and word in CHAPTERS["Close a day, prove a withdrawal"]


def test_the_settings_and_numbers_are_those_of_the_code() -> None:
    fields = Settings.model_fields
    names = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", TEXT))
    assert len(names) > 3 and {name.lower() for name in names - {VARIABLE}} <= set(fields)

    def default(name: str) -> object:
        return fields[name].default

    assert (default("auto_pause_unknowns"), default("auto_pause_handle_failures")) == (10, 5)
    assert (default("probe_seconds"), default("probe_max_seconds")) == (60, 3600)
    assert (default("admin_idle_seconds"), default("admin_session_seconds")) == (1800, 12 * 3600)
    assert default("operator_token_seconds") == 15 * 60 and default("maker_checker_independence_days") == 30
    assert (default("watch_seconds"), default("rate_limit_sign_in")) == (60, "10/minute")
    assert f"pick up to {MOST}" in PAGE
