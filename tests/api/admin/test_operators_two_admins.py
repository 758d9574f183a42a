"""Changes that add permissions take two admins; second factors; and the mails about them."""

from typing import Any
from uuid import UUID

import pyotp
import pytest
import structlog
from click.testing import CliRunner
from sqlalchemy.exc import DBAPIError

from api.admin.app import create_panel
from api.app import create_app
from cli import main
from shared import proposals
from shared.access import app_keys
from shared.coins import adjustments
from shared.errors import PayoutsError
from shared.notifications.mail.texts import compose
from shared.people import operators, second_factor
from shared.proposals import kinds
from shared.roles import Role
from shared.settings import settings
from tests.api.admin.person import PASSWORD, Person, add_operator
from tests.support.shell import invoke
from tests.support.world import World, forget_settings

ASHA = "operator:asha"
RAVI = "operator:ravi"
FAY = "operator:fay"


@pytest.fixture
def two(panel: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A system as it is by default, with two admins, an operator of finance and a viewer."""
    monkeypatch.setenv("SECOND_ADMIN_REQUIRED", "on")
    monkeypatch.setenv("ADMIN_URL", "https://payouts.example/admin/")
    forget_settings()
    people = {"asha": Role.ADMIN, "ravi": Role.ADMIN, "fay": Role.FINANCE, "vera": Role.VIEWER}
    for name, role in people.items():
        add_operator(panel, name, role)
    return panel


def propose(word: str, subject: str, actor: str = ASHA, **wanted: Any) -> Any:
    return proposals.propose(proposals.KINDS[word], subject, wanted, reason="x", actor=actor).proposal


def refused(function: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(PayoutsError) as caught:
        function(*arguments, **options)
    return caught.value.code


def confirm(proposal: Any, actor: str = RAVI) -> proposals.ProposalResult:
    return proposals.confirm(proposal.id, shown=proposal.fingerprint, actor=actor)


def operator(world: World, name: str) -> Any:
    [row] = world.sql("SELECT * FROM operators WHERE name = :n", n=name)
    return row


def test_a_second_admin_confirms_what_was_shown(two: World) -> None:
    proposal = propose(kinds.ADD, "kiran", role="finance", email="kiran@example.com")
    assert proposal.outcome is None and two.sql("SELECT FROM operators WHERE name = 'kiran'") == []
    assert refused(confirm, proposal, ASHA) == "same_person"
    assert refused(proposals.confirm, proposal.id, shown="something else", actor=RAVI) == "proposal_stale"
    done = confirm(proposal)
    kiran = operator(two, "kiran")
    assert (kiran.role, kiran.created_by, kiran.confirmed_by) == ("finance", ASHA, RAVI)
    assert kiran.password_hash is None and done.invitation is not None and not done.is_mailed
    assert refused(confirm, proposal) == "proposal_decided"
    with pytest.raises(DBAPIError, match="never changes"):
        two.sql("UPDATE admin_proposals SET outcome = 'rejected'")


def test_invalid_proposals_and_confirmations_of_two_admins_are_refused(two: World) -> None:
    two.sql("UPDATE operators SET totp_secret = 'JBSWY3DPEHPK3PXP' WHERE name = 'vera'")
    assert refused(propose, kinds.ROLE, "ravi", actor=FAY, role="admin") == "role_needed"
    assert refused(propose, kinds.ROLE, "asha", role="viewer") == "own_account"
    assert refused(propose, kinds.ROLE, "vera", role="viewer") == "role_not_higher"
    raised = propose(kinds.ROLE, "vera", role="admin")
    assert refused(confirm, raised, FAY) == "role_needed"
    assert refused(propose, kinds.ROLE, "vera", actor=RAVI, role="finance") == "proposal_waits"
    two.sql("UPDATE operators SET role = 'operator' WHERE name = 'vera'")
    assert refused(confirm, raised) == "proposal_stale", "the role changed since the proposal"
    proposals.reject(raised.id, actor=ASHA)
    lowered = propose(kinds.EMAIL, "vera", email="vera@example.com")
    two.sql("UPDATE operators SET role = 'finance' WHERE name = 'asha'")
    assert refused(confirm, lowered) == "maker_disabled", "the maker is no longer an admin"
    two.sql("UPDATE operators SET role = 'admin' WHERE name = 'asha'")
    late = propose(kinds.TOTP, "vera")
    two.broken_on_purpose = True  # for the seals, the changed time is a forgery
    two.sql_without_rules(
        "UPDATE admin_proposals SET expires_at = now() - interval '1 s' WHERE outcome IS NULL"
    )
    assert refused(confirm, late) == "proposal_expired"
    assert propose(kinds.TOTP, "vera").outcome is None, "an expired proposal blocks nothing"
    two.sql("UPDATE operators SET created_by = 'operator:asha', created_at = now() WHERE name = 'ravi'")
    assert refused(confirm, propose(kinds.ENABLE, _disabled(two, "fay"))) == "not_independent"


def _disabled(world: World, name: str) -> str:
    world.sql("UPDATE operators SET disabled_at = now(), disabled_by = 'x' WHERE name = :n", n=name)
    return name


def test_one_admin_can_remove_permissions_but_not_the_last_admin(two: World) -> None:
    proposals.lower_role("fay", Role.VIEWER, actor=ASHA)
    assert refused(proposals.lower_role, "fay", Role.FINANCE, actor=ASHA) == "role_not_lower"
    proposals.disable("ravi", actor=ASHA)
    assert refused(proposals.disable, "asha", actor="operator:ravi") == "last_admin"
    assert propose(kinds.ADD, "puppet", role="admin", email=None).outcome is None, (
        "being the last gives no right"
    )


def test_the_exception_for_the_first_two_admins_ends_for_good(
    panel: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND_ADMIN_REQUIRED", "on")
    forget_settings()
    assert (
        refused(propose, kinds.ADD, "vera", "operator:root", role="viewer", email=None) == "unknown_operator"
    )
    for name in ("asha", "ravi"):
        proposal = proposals.propose(
            proposals.KINDS[kinds.ADD], name, {"role": "admin"}, reason="first", actor="operator:root"
        )
        assert proposal.invitation is not None
    assert refused(propose, kinds.ADD, "kiran", "operator:root", role="admin") == "unknown_operator"
    again = proposals.propose(
        proposals.KINDS[kinds.PASSWORD], "ravi", {}, reason="lost", actor="operator:root"
    )
    assert again.invitation is not None, "a lost link is replaced while no one could confirm it"
    panel.sql("UPDATE operators SET password_hash = 'x'")
    panel.sql("UPDATE operators SET role = 'viewer' WHERE name = 'ravi'")
    panel.sql(
        "UPDATE operators SET disabled_at = now(), disabled_by = 'x', was_admin = false WHERE name = 'asha'"
    )
    assert refused(propose, kinds.ADD, "kiran", "operator:root", role="admin") == "unknown_operator"


def test_a_coin_moving_key_is_claimed_once_by_its_maker(two: World) -> None:
    wanted = {"scopes": ["withdraw", "credit"], "days": None}
    proposal = propose(kinds.KEY, "quiz", **wanted)
    assert refused(proposals.claim, proposal.id, actor=ASHA) == "not_claimable"
    confirm(proposal)
    assert (
        two.sql("SELECT FROM app_keys") == []
        and refused(proposals.claim, proposal.id, actor=RAVI) == "not_claimable"
    )
    _, secret = proposals.claim(proposal.id, actor=ASHA)
    assert app_keys.find_caller(secret) and secret not in str(two.sql("SELECT * FROM admin_proposals"))
    assert refused(proposals.claim, proposal.id, actor=ASHA) == "not_claimable"
    assert propose(kinds.ROTATE, secret[:14], grace_hours=0.0).outcome is None
    assert propose(kinds.KEY, "reader", scopes=["read"], days=None).outcome == "confirmed"
    late = propose(kinds.KEY, "late", **wanted)
    confirm(late)
    two.broken_on_purpose = True  # for the seals, the changed time is a forgery
    two.sql_without_rules("UPDATE admin_proposals SET decided_at = decided_at - interval '73 h'")
    assert refused(proposals.claim, late.id, actor=ASHA) == "proposal_expired"


def test_a_file_is_imported_after_a_second_person_confirms_it(two: World, tmp_path: Any) -> None:
    two.credit("user123", 1000)
    file = tmp_path / "prizes.csv"
    file.write_text("user_id,amount,upi_id,reference\nuser123,500,user@okaxis,one\n")

    def payouts(*arguments: str) -> Any:
        return invoke("import", file, *arguments)

    add_operator(two, "finn", Role.FINANCE)
    assert "A second person is needed" in payouts("--as", "fay").output and two.balance("user123") == 1000
    assert "Proposed" in payouts("--propose", "--as", "fay").output
    assert "second person is needed" in payouts("--confirm", "--as", "fay").output
    before = file.read_text()
    file.write_text(before.replace("user@okaxis", "mine@okaxis"))
    assert "exactly this file" in payouts("--confirm", "--as", "finn").output
    file.write_text(before)
    assert "Confirmed: 1 rows, 500 coins" in payouts("--confirm", "--as", "finn").output
    file.write_text(before.replace("user@okaxis", "mine@okaxis"))
    assert payouts("--as", "fay").exit_code == 2 and two.balance("user123") == 1000
    file.write_text(before)
    assert payouts("--as", "fay").exit_code == 0 and two.balance("user123") == 500


def test_admins_and_the_operator_concerned_are_mailed(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SMTP_HOST": "127.0.0.1", "SMTP_TLS": "none", "MAIL_FROM": "p@example.com",
                        "OPERATOR_EMAILS": "ops@example.com"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    forget_settings()
    for name in ("asha", "ravi", "vera"):
        two.sql("UPDATE operators SET email = :e WHERE name = :n", n=name, e=f"{name}@example.com")

    def mailed() -> list[str]:
        rows = two.sql("SELECT recipient FROM emails ORDER BY recipient")
        two.sql("DELETE FROM emails")
        return [row.recipient.partition("@")[0] for row in rows]

    proposal = propose(kinds.ROLE, "vera", role="operator")
    everybody = ["asha", "ops", "ravi", "vera"]
    assert mailed() == everybody
    confirm(proposal)
    assert mailed() == everybody
    proposals.disable("vera", actor=ASHA)
    assert mailed() == everybody
    done = confirm(propose(kinds.ADD, "kiran", role="viewer", email="kiran@example.com"))
    assert done.is_mailed and done.invitation
    [waits] = two.sql("SELECT * FROM emails WHERE facts ? 'invitation'")
    text = (
        compose(waits.id, waits.recipient, waits.facts, waits.created_at).get_body(("plain",)).get_content()
    )
    token = text.partition("?token=")[2].split()[0]
    assert "https://payouts.example/admin/invitation/?token=" in text and token not in str(waits.facts)
    assert operators.accept_invitation(token, PASSWORD).name == "kiran"


def test_the_panel_proposes_confirms_and_shows_a_link_once(two: World) -> None:
    app = create_app()
    asha = Person("asha", app).sign_in()
    ravi = Person("ravi", app).sign_in()
    asha.get("/admin/operators/")
    asha.send(action="/admin/operators/change/", word="add", name="kiran", role="viewer", email="")
    assert "Another admin must confirm it" in asha.page.text
    asha.send(step="do", reason="a new colleague")
    assert "Proposed" in asha.messages
    [proposal] = two.sql("SELECT id FROM admin_proposals")
    ravi.get("/admin/proposals/")
    ravi.send(action=f"/admin/proposals/{proposal.id}/", word="confirm")
    assert "kiran may sign in as viewer" in ravi.page.text
    ravi.send(step="do", reason="I called her")
    link = ravi.page.text.partition("?token=")[2].partition("<")[0]
    assert "It works once" in ravi.page.text and link
    kiran = Person("kiran", app)
    kiran.get(f"/admin/invitation/?token={link}")
    kiran.send(action="/admin/invitation/", new="short", again="short")
    assert "Invalid password" in kiran.messages
    kiran.get(f"/admin/invitation/?token={link}")
    kiran.send(action="/admin/invitation/", new=PASSWORD, again=PASSWORD)
    kiran.get(f"/admin/invitation/?token={link}")
    assert kiran.page.status_code == 404 and "does not work" in kiran.page.text
    assert Person("kiran", app).sign_in().page.status_code == 303
    assert link not in str(two.sql("SELECT * FROM audit_log"))


def test_an_operator_who_must_enrol_can_do_nothing_else(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_TOTP_REQUIRED_ROLES", "finance,admin")
    forget_settings()
    app = create_app()
    asha = Person("asha", app).sign_in()
    for path in ("/admin/", "/admin/operators/", "/admin/users/"):
        assert asha.get(path).location == "/admin/account/second-factor/"
    asha.get("/admin/account/second-factor/")
    assert "<svg" in asha.page.text and "style=" not in asha.page.text
    secret = asha.page.text.partition("setup key in the app: <code>")[2].partition("<")[0]
    asha.send(action="/admin/account/second-factor/enrol/", first_code="000000")
    assert "Wrong code" in asha.messages and secret in asha.page.text, "the same secret after a typing error"
    other = Person("asha", app).sign_in()
    other.get("/admin/account/second-factor/")
    assert secret not in other.page.text, "another session gets another secret"
    asha.send(action="/admin/account/second-factor/enrol/", first_code=pyotp.TOTP(secret).now())
    assert "Scan the new QR code" in asha.messages
    secret = asha.page.text.partition("setup key in the app: <code>")[2].partition("<")[0]
    offered = two.sql("SELECT FROM audit_log WHERE action = 'totp_offered' AND subject = 'asha'")
    assert len(offered) == 3 and secret not in str(two.sql("SELECT * FROM audit_log"))
    asha.send(action="/admin/account/second-factor/enrol/", first_code=pyotp.TOTP(secret).now())
    assert asha.page.text.count("<li><code>") == second_factor.RECOVERY_CODES
    assert asha.get("/admin/operators/").status_code == 200
    assert Person("asha", app).sign_in().page.status_code == 401
    assert Person("vera", app).sign_in().get("/admin/").status_code == 200, "a viewer needs none"


def test_money_needs_a_fresh_code(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    two.credit("user123", 1000)
    secret = pyotp.random_base32()
    two.sql("UPDATE operators SET totp_secret = :s WHERE name = 'fay'", s=secret)
    code = pyotp.TOTP(secret).now()
    fay = Person("fay", create_panel(settings())).sign_in(code=code)
    with fay.client.session_transaction() as session:
        session["code_at"] -= 1000
    fay.get("/admin/users/?user=user123")
    fay.send(action="/admin/ruling/coins/", coins="7", reason="a prize", reference="r-1")
    fay.send(step="do")
    assert fay.page.status_code == 403 and "Enter a code" in fay.page.text
    assert fay.send(second_factor=code).status_code == 401, "a used code does not count as fresh"
    assert two.sql("SELECT FROM adjustments") == []
    two.sql("UPDATE operators SET totp_step = 0")
    fay.send(second_factor=code)
    [proposal] = two.sql("SELECT * FROM adjustments")
    assert fay.page.status_code == 303 and (proposal.coins, proposal.reference, proposal.reason) == (
        7,
        "r-1",
        "a prize",
    )
    for _ in range(12):
        with fay.client.session_transaction() as session:
            session["code_at"] = 0
        fay.client.post("/admin/bulk/", data={"csrf_token": _token(fay), "step": "do", "second_factor": "1"})
    fay.get("/admin/")
    answer = fay.client.post("/admin/bulk/", data={"csrf_token": _token(fay), "second_factor": "000000"})
    assert answer.status_code == 429


def _token(person: Person) -> str:
    return person.get("/admin/").text.split('name="csrf_token" value="')[1].split('"')[0]


def test_all_operators_together_have_a_limit_too(panel: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADJUST_ALONE_SUM_COINS", "1500")
    forget_settings()
    panel.credit("user123", 5000)
    for name in ("asha", "ravi"):
        add_operator(panel, name, Role.FINANCE)
    done = [adjustments.propose("user123", -800, reason="x", actor=actor).outcome for actor in (ASHA, RAVI)]
    assert done == ["approved", None]
    assert adjustments.propose("user123", -700, reason="x", actor=RAVI).outcome == "approved"
    assert adjustments.propose("user123", -1, reason="x", actor=RAVI).outcome is None


def test_a_relaxed_setting_is_reported_at_start(panel: World, capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        create_app()
    finally:
        structlog.configure(**before)  # the output of this test is closed after it
    output = capsys.readouterr().out
    status = CliRunner().invoke(main, ["status"]).output
    for text in ("one person alone can add operators", "sign in without a second factor"):
        assert text in output and "RELAXED: " in status and text in status
    assert "ONE ADMIN IS TOO FEW" in status


def test_unknown_ids_are_refused(two: World) -> None:
    assert refused(proposals.reject, UUID(int=1), actor=ASHA) == "proposal_not_found"
    assert refused(proposals.claim, UUID(int=1), actor=ASHA) == "nothing_to_claim"
