"""Access: every route of the panel for every kind of caller, and forms from other sites."""

import time
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from api.admin import sessions
from api.admin.app import create_panel
from api.admin.page import ANYONE
from shared import proposals
from shared.clock import INDIA  # noqa: F401  the panel's modules need it; a cheap import first
from shared.coins import adjustments
from shared.db.transactions import transaction
from shared.ids import new_id
from shared.models import CircuitBreaker, ExceptionRecord
from shared.people.exception_records import open_record, version_of
from shared.roles import Role
from shared.settings import settings
from shared.withdrawals import blocks, circuit_breakers
from tests.api.admin.conftest import Signed
from tests.api.admin.person import Person, add_operator
from tests.support.world import World, forget_settings

VIEWER, OPERATOR, FINANCE, ADMIN = Role
ONE = "/admin/withdrawal/<uuid:withdrawal_id>/"
RECORD = "/admin/exceptions/<int:record_id>/"
PROPOSAL = "/admin/proposals/<uuid:proposal_id>/"
# Every route with the role that it needs; a missing route fails a test. Permitted callers send an empty form,
# which changes nothing; all others send a complete one. Signing out is last because it ends the session.
ROUTES: dict[tuple[str, str], Role | str] = {
    ("GET", "/admin/assets/<path:filename>"): ANYONE,
    ("GET", "/admin/static/<path:filename>"): ANYONE,
    ("GET", "/admin/sign-in/"): ANYONE,
    ("POST", "/admin/sign-in/"): ANYONE,
    ("GET", "/admin/"): VIEWER,
    ("GET", "/admin/analytics/"): VIEWER,
    ("GET", "/admin/analytics/export.csv"): VIEWER,
    ("GET", "/admin/withdrawals/"): VIEWER,
    ("GET", "/admin/withdrawals/export.csv"): OPERATOR,
    ("GET", ONE): VIEWER,
    ("POST", f"{ONE}upi-id/"): OPERATOR,
    ("GET", f"{ONE}<word>/"): OPERATOR,
    ("POST", f"{ONE}<word>/"): OPERATOR,
    ("POST", "/admin/bulk/"): OPERATOR,
    ("GET", "/admin/users/"): VIEWER,
    ("GET", "/admin/blocks/"): VIEWER,
    ("GET", "/admin/second-person/"): VIEWER,
    ("GET", "/admin/second-person/coins/"): VIEWER,
    ("POST", "/admin/ruling/turn/"): OPERATOR,
    ("GET", "/admin/ruling/unblock/<int:block_id>/"): OPERATOR,
    ("POST", "/admin/ruling/coins/"): FINANCE,
    ("POST", "/admin/ruling/coins/<uuid:adjustment_id>/"): FINANCE,
    ("GET", "/admin/switches/"): VIEWER,
    ("POST", "/admin/switches/turn/"): OPERATOR,
    ("GET", "/admin/exceptions/"): VIEWER,
    ("GET", RECORD): VIEWER,
    ("POST", f"{RECORD}take/"): OPERATOR,
    ("POST", f"{RECORD}close/"): OPERATOR,
    ("GET", "/admin/reconciliation/"): VIEWER,
    ("GET", "/admin/reconciliation/<int:run_id>/"): VIEWER,
    ("POST", "/admin/ruling/lift/<uuid:removal_id>/"): OPERATOR,
    ("GET", "/admin/audit-log/"): FINANCE,
    ("GET", "/admin/proposals/"): FINANCE,
    ("POST", PROPOSAL): FINANCE,
    ("GET", "/admin/operators/"): ADMIN,
    ("POST", "/admin/operators/change/"): ADMIN,
    ("GET", "/admin/apps/"): ADMIN,
    ("POST", "/admin/apps/change/"): ADMIN,
    ("GET", "/admin/invitation/"): ANYONE,
    ("POST", "/admin/invitation/"): ANYONE,
    ("GET", "/admin/account/"): VIEWER,
    ("GET", "/admin/account/second-factor/"): VIEWER,
    ("POST", "/admin/account/second-factor/offer/"): VIEWER,
    ("POST", "/admin/account/second-factor/enrol/"): VIEWER,
    ("POST", "/admin/account/recovery-codes/"): VIEWER,
    ("POST", "/admin/account/password/"): VIEWER,
    ("POST", "/admin/account/sign-out/"): VIEWER,
}
CALLERS = ["stranger", "disabled", "idle", "too long", "signed out", *Role]


def panel_app() -> Flask:
    return create_panel(settings())


@pytest.fixture
def ids(panel: World) -> dict[str, str]:
    """One row of each kind that addresses name."""
    panel.credit()
    withdrawal_id, other = panel.request(), panel.request()
    panel.operators("fay")
    proposal = adjustments.propose("user123", 2000, reason="a lost prize", actor="operator:fay")
    add_operator(panel, "other", Role.VIEWER)
    with transaction() as session:
        record_id = open_record(session, kind="test", subject="s", source="watch", ours={"a": 1}, theirs={})
        block_id = blocks.add(session, "other@okaxis", reason="x", actor="operator:fay").id
        end = blocks.propose_unblock(session, "other@okaxis", reason="x", actor="operator:fay")
    panel.sql("INSERT INTO reconciliation_runs (from_at, to_at) VALUES (now() - interval '1 day', now())")
    [run] = panel.sql("SELECT id FROM reconciliation_runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECOND_ADMIN_REQUIRED", "on")
        forget_settings()
        proposal_id = proposals.propose(
            proposals.KINDS["operator_role"], "other", {"role": "admin"}, reason="x", actor="operator:fay"
        ).proposal.id
    forget_settings()
    return {
        "<uuid:withdrawal_id>": str(withdrawal_id),
        "<int:record_id>": str(record_id),
        "<int:block_id>": str(block_id),
        "<int:run_id>": str(run.id),
        "<uuid:adjustment_id>": str(proposal.id),
        "<uuid:removal_id>": str(end.id),
        "<uuid:proposal_id>": str(proposal_id),
        "<word>": "cancel",
        "<path:filename>": "panel.css",
        "the other withdrawal": str(other),
    }


def filled(world: World, ids: dict[str, str]) -> dict[str, dict[str, str]]:
    """For each address that changes something, a complete form for it."""
    one, other = UUID(ids["<uuid:withdrawal_id>"]), UUID(ids["the other withdrawal"])
    with transaction() as session:
        record = version_of(session.get_one(ExceptionRecord, int(ids["<int:record_id>"])))
        switch = circuit_breakers.version_of(session.get(CircuitBreaker, circuit_breakers.PAYOUTS))
    do = {"step": "do", "reason": "x"}
    return {
        f"{ONE}<word>/": {**do, "version": str(world.read(one).version)},
        "/admin/bulk/": {**do, "word": "cancel", "pick": f"{other}:{world.read(other).version}"},
        "/admin/ruling/turn/": {**do, "word": "freeze", "subject": "user123"},
        "/admin/ruling/coins/": {**do, "subject": "user123", "coins": "5", "key": str(new_id())},
        "/admin/ruling/coins/<uuid:adjustment_id>/": {**do, "word": "approve"},
        "/admin/ruling/lift/<uuid:removal_id>/": {**do, "word": "approve"},
        "/admin/switches/turn/": {**do, "word": "pause", "name": "payouts", "seen": switch},
        f"{RECORD}take/": {"seen": record},
        f"{RECORD}close/": {"seen": record, "resolution": "x"},
        PROPOSAL: {**do, "word": "reject"},
        "/admin/operators/change/": {**do, "word": "disable", "name": "other"},
        "/admin/apps/change/": {**do, "word": "create", "subject": "quiz", "scope_read": "on"},
    }


def address(rule: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        rule = rule.replace(name, value)
    return rule


def state(world: World) -> Any:
    tables = (
        "withdrawals", "withdrawal_events", "resolutions", "switches", "exception_records", "blocks", "block_removals",
        "adjustments", "reviews", "coin_transactions", "wallets", "admin_proposals", "app_keys",
    )  # fmt: skip
    others = world.sql("SELECT * FROM operators WHERE name = 'other'")
    return [world.sql(f"SELECT * FROM {table} ORDER BY 1") for table in tables], others


def token_of(person: Person, page: str = "/admin/") -> str:
    return person.get(page).text.split('name="csrf_token" value="')[1].split('"')[0]


def test_each_complete_form_changes_something_for_a_permitted_operator(
    panel: World, signed_in: Signed, ids: dict[str, str]
) -> None:
    root = signed_in("root", Role.ADMIN)
    token = token_of(root)
    for rule in filled(panel, ids):
        before = state(panel)
        form = filled(panel, ids)[rule]  # with current versions: the previous form changed something
        root.client.post(address(rule, ids), data={**form, "csrf_token": token})
        assert state(panel) != before, rule


def test_every_route_is_in_the_table(panel: World) -> None:
    routes = {
        (method, rule.rule)
        for rule in panel_app().url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert routes == set(ROUTES)


@pytest.mark.parametrize("caller", CALLERS)
def test_every_route_and_every_caller(
    panel: World, signed_in: Signed, ids: dict[str, str], caller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = Role(caller) if caller in tuple(Role) else None
    person = signed_in("asha", role or Role.ADMIN)
    token = token_of(person)
    if caller == "stranger":
        person.client.delete_cookie("payouts-panel")
        token = token_of(person, "/admin/sign-in/")
    elif caller == "disabled":
        panel.sql("UPDATE operators SET disabled_at = now(), disabled_by = 'operator:test'")
    elif caller == "signed out":
        panel.sql("UPDATE operators SET generation = generation + 1")
    elif role is None:
        seconds = settings().admin_idle_seconds if caller == "idle" else settings().admin_session_seconds
        now = time.time() + seconds + 1
        monkeypatch.setattr(sessions.time, "time", lambda: now)
    before = state(panel)
    forms = filled(panel, ids)
    for (method, rule), needs in ROUTES.items():
        answer = person.client.open(
            address(rule, ids),
            method=method,
            data={**_form(rule, forms, role, needs), "csrf_token": token} if method == "POST" else None,
            buffered=True,
        )
        where = f"{method} {rule} as {caller}: {answer.status_code} {answer.location}"
        is_sent_away = (answer.location or "").startswith("/admin/sign-in/")
        if needs == ANYONE:
            assert answer.status_code in (200, 302, 401, 404), where
        elif role is None:
            assert answer.status_code == 302 and is_sent_away, where
            assert answer.headers["Cache-Control"] == "no-store"
        elif not role.may(needs):
            assert answer.status_code == 403, where
        else:
            assert answer.status_code in (200, 303, 400, 404, 409) and not is_sent_away, where
    assert state(panel) == before


def _form(
    rule: str, forms: dict[str, dict[str, str]], role: Role | None, needs: Role | str
) -> dict[str, str]:
    """The form that is sent: empty if the caller is permitted, because a complete one would change something."""
    may = needs == ANYONE or (role is not None and role.may(Role(needs)))
    return {} if may else forms.get(rule, {})


def test_a_form_from_another_site_changes_nothing(
    panel: World, signed_in: Signed, ids: dict[str, str]
) -> None:
    asha, ravi = signed_in("asha", Role.ADMIN), signed_in("ravi", Role.ADMIN)
    of_ravi = token_of(ravi)
    before = (state(panel), panel.sql("SELECT * FROM operators ORDER BY name"))
    forms = filled(panel, ids)
    for method, rule in ROUTES:
        for token in ("", "forged", of_ravi) if method == "POST" else ():
            answer = asha.client.post(address(rule, ids), data={**forms.get(rule, {}), "csrf_token": token})
            assert answer.status_code == 400 and "Form not accepted" in answer.text, rule
    assert (state(panel), panel.sql("SELECT * FROM operators ORDER BY name")) == before


def test_a_view_without_a_route_declaration_is_closed(panel: World, signed_in: Signed) -> None:
    app = panel_app()
    view = app.extensions["admin"][0]._views[1]
    add_operator(panel, "asha", Role.ADMIN)
    type(view).unmarked = lambda self: "open"  # a forgotten declaration
    with app.test_request_context("/admin/withdrawals/"):
        assert view._handle_view("unmarked").status_code == 302
    del type(view).unmarked


def test_the_menu_shows_permitted_pages_only(signed_in: Signed) -> None:
    vera, root = signed_in("vera", Role.VIEWER), signed_in("root", Role.ADMIN)
    assert "/admin/operators/" not in vera.get("/admin/").text
    assert "/admin/operators/" in root.get("/admin/").text
    assert "Retry now" not in vera.get("/admin/withdrawals/").text


def test_an_active_session_lasts_until_its_limit(signed_in: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request restarts the idle time, but not the limit of the session."""
    asha = signed_in()
    clock = time.time()
    monkeypatch.setattr(sessions.time, "time", lambda: clock)
    statuses = []
    for _ in range(26):
        clock += 1750
        statuses.append(asha.get("/admin/").status_code)
    assert statuses == [200] * 24 + [302] * 2


def test_a_stranger_can_only_sign_in(panel: World) -> None:
    stranger = Person("stranger")
    answer = stranger.get("/admin/withdrawals/?status=failed")
    assert answer.location == "/admin/sign-in/?next=/admin/withdrawals/?status%3Dfailed"
