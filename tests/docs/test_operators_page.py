"""docs/operators.md: its commands run, and its names, numbers, alerts and reasons match the code."""

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

from api.admin.app import PAGES
from api.admin.bulk import MAX_SELECTED
from cli import main
from cli.token_file import ENVIRONMENT_VARIABLE
from shared import withdrawals
from shared.db.transactions import transaction
from shared.monitoring.watchdog import WEBHOOKS_SILENT
from shared.notifications.mail import operator_mails as mail_to_operators
from shared.notifications.webhooks import endpoints
from shared.people import operators, second_factor
from shared.proof import sealing
from shared.proof.spot_checks import PROMISE_BROKEN
from shared.providers.answers import Refused
from shared.reconciliation import diff
from shared.reconciliation.days import NOT_RECONCILED
from shared.roles import Role
from shared.settings import Settings
from shared.states import Reason
from shared.withdrawals import effects, paid_outside, pauses, resolve, transitions
from shared.withdrawals.attempts import CONTRADICTED
from tests.support import steps
from tests.support.mail_steps import add_user, turn_on
from tests.support.mailbox import mail_server
from tests.support.paths import ROOT, files
from tests.support.shell import invoke
from tests.support.world import World

TEXT = (ROOT / "docs" / "operators.md").read_text()
PAGE = " ".join(TEXT.split())  # wrapped lines as one
CHAPTERS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}
EXAMPLE_ID = "01a208a5-b724-779f-a85a-7688d7fa28bd"
LATE_ID = "01a208b1-1c8e-7f00-9d3c-5e2f0a6b7c81"  # it was paid after its coins came back
ALERTS = {
    rule["alert"]: rule["annotations"]["runbook"].partition("#")[2]
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()]


def literals() -> set[str]:
    """Every string in the code of the panel and in the expressions of its templates."""
    texts = set()
    for path in files("api/admin"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    for path in files("api/admin/templates/**/*.html"):
        for code in re.findall(r"{[{%].*?[%}]}", path.read_text(), re.S):
            texts |= {single or double for single, double in re.findall(r"'([^']*)'|\"([^\"]*)\"", code)}
    return texts


def template_texts() -> set[str]:
    """Every text between the tags of the templates, with {} for each expression."""
    texts = set()
    for path in files("api/admin/templates/**/*.html"):
        text = re.sub(r"{{.*?}}", "{}", re.sub(r"{#.*?#}", "", path.read_text(), flags=re.S), flags=re.S)
        texts |= {" ".join(part.split()) for part in re.split(r"<[^>]*>|{%.*?%}", text)}
    return texts - {"", "{}"}


LITERALS = literals()
TEMPLATE_TEXTS = template_texts()


def is_in_panel(name: str) -> bool:
    patterns = (re.escape(text).replace(r"\{\}", "(.+?)") for text in TEMPLATE_TEXTS)
    return name in LITERALS or any(
        match and set(match.groups()) <= LITERALS
        for match in (re.fullmatch(pattern, name) for pattern in patterns)
    )


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\*\*([^*]+)\*\*", PAGE))))
def test_every_name_in_bold_is_in_the_panel(name: str) -> None:
    assert is_in_panel(name), name


def test_the_guide_names_every_page_of_the_menu() -> None:
    in_bold = set(re.findall(r"\*\*([^*]+)\*\*", PAGE))
    assert {page.title for page in PAGES if page.in_menu} <= in_bold


def test_names_that_are_not_in_the_panel_are_detected() -> None:
    assert is_in_panel("Freeze …") and is_in_panel("Approve selected …")
    assert not is_in_panel("Switches") and not is_in_panel("Thaw …")


SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="  # of the public key on the page


def test_every_command_of_the_operators_page_runs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_user(world)
    late_id, late_payout = _paid_late(world)
    withdrawal_id = str(world.request())
    seal_two_days_ago(world, monkeypatch)
    monkeypatch.setenv("CERTIFICATE_KEY", SECRET)
    monkeypatch.setenv("ADMIN_SECRET_KEY", "a-key-of-the-tests-of-32-characters")
    monkeypatch.chdir(tmp_path)  # certificates are written here
    withdrawals.pause("network", reason="for `resume --network`", actor="operator:ravi")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    outputs: dict[str, str] = {}
    with mail_server() as server:
        turn_on(world, monkeypatch, server.port)
        for line in COMMANDS:
            typed = totp_code(line.split()[-1]) if "sign-in" in line else ""
            outputs[line] = run(line.replace(EXAMPLE_ID, withdrawal_id).replace(LATE_ID, str(late_id)), typed)
            if " take_back " in line:
                _take_back(world, late_id, late_payout)
            if line.startswith("payouts operator add "):
                _accept(line.split()[3], outputs[line])
    assert len(COMMANDS) > 15
    assert "has no password" not in outputs["payouts operator list"]
    assert outputs["payouts operator totp asha --off"].endswith("Done.\n")
    assert "UPI handles" in outputs["payouts status"] and "missing" in TEXT
    assert "accepted the mail" in outputs["payouts mail test asha@example.com"]
    assert outputs["payouts operator disable asha"] == "asha is disabled.\n"
    assert "Head of the seals: " in outputs["payouts check"]
    assert [
        line for line in COMMANDS if line.startswith("payouts verify") and "Proven: " not in outputs[line]
    ] == []


def _paid_late(world: World) -> tuple[UUID, dict[str, Any]]:
    """A withdrawal whose coins were refunded and whose payout RazorpayX still paid."""
    add_user(world, email=None, user_id="user456")
    send = world.first_send(user_id="user456", upi_id="another@okaxis")
    steps.record_answer(send, Refused("input_validation_failed", "no", 400))
    payout = world.arrive_late(send.withdrawal_id)
    assert world.receive_report(payout) == "conflict"
    return send.withdrawal_id, payout


def _take_back(world: World, withdrawal_id: UUID, payout: dict[str, Any]) -> None:
    """A second person approves, and then the bank returns the rupees."""
    with transaction() as session:
        proposal = resolve.open_proposal(session, withdrawal_id)
    assert proposal is not None
    withdrawals.approve(proposal.id, actor="operator:ravi")
    assert world.receive_report(world.set_status(payout["id"], "reversed")) == "conflict"


def _accept(name: str, shown: str) -> None:
    """Open the link, choose a password and enrol a phone, as the invited person does."""
    operators.accept_invitation(re.findall(r"\?token=(\S+)", shown)[0], "correct horse battery")
    with transaction() as session:
        operator = operators.lock(session, name)
        offer = second_factor.offer(session, operator)
        second_factor.enrol(session, operator, pyotp.TOTP(offer.secret).now(), offer.mark)
        operator.totp_step = 0  # so that the next code is accepted at once


def seal_two_days_ago(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move all rows to the day before yesterday, and seal them."""
    for table in ("coin_transactions", "withdrawal_events"):
        world.sql_without_rules(f"UPDATE {table} SET created_at = created_at - interval '2 days'")
    sealing.seal()
    if world.sql("SELECT extract(hour FROM now() AT TIME ZONE interval '05:30') AS hour")[0].hour == 0:
        monkeypatch.setattr(sealing, "LATE_SECONDS", 0)  # yesterday could not be closed yet


def totp_code(name: str) -> str:
    """The current code of the authenticator app of the operator."""
    with transaction() as session:
        return pyotp.TOTP(operators.lock(session, name).totp_secret or "").now()


def run(line: str, code: str = "") -> str:
    program, *arguments = shlex.split(line)
    done = invoke(*arguments, input=f"correct horse battery\n{code}\n")
    assert program == "payouts" and done.exit_code == 0, (line, done.output)
    return done.output


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`(payouts [^`]+)`", PAGE))))
def test_every_command_and_option_that_the_page_names_exists(line: str) -> None:
    command: click.Command = main
    _, *arguments = line.split()
    while arguments and isinstance(command, click.Group):
        command = command.commands[arguments.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in arguments if word.startswith("--")} <= options


def test_every_alert_has_a_chapter_with_instructions() -> None:
    rows = re.findall(r"^\| (`Payouts.*?) \| \[[^]]+\]\(#([\w-]+)\) \|$", CHAPTERS["Alerts"], re.M)
    assert {name: anchor for names, anchor in rows for name in re.findall(r"`(\w+)`", names)} == ALERTS
    by_anchor = {title.lower().replace(" ", "-"): text for title, text in CHAPTERS.items()}
    for name, anchor in ALERTS.items():
        assert f"`{name}`" in by_anchor[anchor], f"{anchor} does not name {name}"
        for word in ("*You see*", "*It means*", "*Do*", "*Do not*"):
            assert word in by_anchor[anchor], f"{anchor}: {word}"


def test_the_roles_match_the_code() -> None:
    assert re.findall(r"^\| `(\w+)` \|", CHAPTERS["Roles"], re.M) == list(Role)


def test_reasons_and_exception_kinds_match_the_code() -> None:
    reasons = re.findall(r"^\| (`.*?) \|", CHAPTERS["Stuck payout"], re.M)
    assert {word for row in reasons for word in re.findall(r"`(\w+)`", row)} <= set(Reason)
    kinds = set(
        re.findall(r"`([\w:…]+)`", CHAPTERS["Exception record"].partition("| kind |")[2].partition("\n\n")[0])
    )
    of_the_code = {
        PROMISE_BROKEN,
        WEBHOOKS_SILENT,
        endpoints.ENDPOINT_FAILING,
        mail_to_operators.MAIL_FAILING,
        pauses.LOW_BALANCE,
    }
    of_the_code |= transitions.NOTICE_ONLY | {NOT_RECONCILED, CONTRADICTED, diff.REFERENCE_DIFFERS}
    of_the_code |= {pauses.REFUSED_ALONE, paid_outside.UTR_OF_ANOTHER}
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


def test_every_reconciliation_finding_is_explained() -> None:
    findings = {value for name, value in vars(diff).items() if name.isupper() and isinstance(value, str)}
    rows = dict(
        re.findall(r"^\| `(\w+)`(?:, and others.*?)? \| (.+ \| .+) \|$", CHAPTERS["Reconciliation"], re.M)
    )
    assert len(findings) > 15 and findings | {"processed_after_failed"} == set(rows)
    for word in ("*You see*", "*It means*", "*Do*", "*Do not*"):
        assert word in CHAPTERS["Reconciliation"] and word in CHAPTERS["Close a day, prove a withdrawal"]


def test_the_settings_and_numbers_match_the_code() -> None:
    fields = Settings.model_fields
    names = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", TEXT))
    assert len(names) > 3 and {name.lower() for name in names - {ENVIRONMENT_VARIABLE}} <= set(fields)

    def default(name: str) -> object:
        return fields[name].default

    assert (default("auto_pause_unknowns"), default("auto_pause_handle_failures")) == (10, 5)
    assert (default("probe_seconds"), default("probe_max_seconds")) == (60, 3600)
    assert (default("admin_idle_seconds"), default("admin_session_seconds")) == (1800, 12 * 3600)
    assert default("operator_token_seconds") == 15 * 60 and default("maker_checker_independence_days") == 30
    assert (default("watch_seconds"), default("rate_limit_sign_in")) == (60, "10/minute")
    assert f"select up to {MAX_SELECTED}" in PAGE
