"""Requests that bypass the forms, from strangers and operators: none has an effect."""

import re
from concurrent.futures import ThreadPoolExecutor, as_completed
from io import BytesIO
from itertools import islice
from threading import Event

import pytest
from argon2 import PasswordHasher

from api.app import create_app
from shared import withdrawals
from shared.db.transactions import transaction
from shared.people.exception_records import open_record
from shared.roles import Role
from shared.settings import settings
from tests.api.admin.conftest import Signed
from tests.api.admin.person import PASSWORD, Person, add_operator
from tests.api.admin.test_app_access import token_of
from tests.api.admin.test_app_one_bad_admin import FORMS
from tests.support.world import World


def test_a_form_sent_with_head_is_ignored(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    asha = signed_in("asha")
    filled = {"step": "do", "reason": "by a trick", "version": str(panel.read(withdrawal_id).version)}
    answer = asha.client.head(f"/admin/withdrawal/{withdrawal_id}/cancel/", data=filled)
    assert (answer.status_code, panel.read(withdrawal_id).status) == (200, "pending")


def test_no_one_signs_in_with_head(panel: World) -> None:
    add_operator(panel, "asha", Role.ADMIN)
    client = Person("asha").client
    for password in (PASSWORD, "wrong"):
        assert (
            client.head("/admin/sign-in/", data={"username": "asha", "password": password}).status_code == 200
        )
    assert client.get("/admin/").status_code == 302
    assert panel.sql("SELECT * FROM audit_log") == []


def test_a_proposal_is_decided_on_its_own_page_only(panel: World, signed_in: Signed) -> None:
    panel.credit()
    in_doubt = panel.first_send().withdrawal_id
    panel.sql("UPDATE payout_attempts SET state = 'unknown', in_doubt = true")
    small = panel.request(coins=100)
    asha, ravi = signed_in("asha"), signed_in("ravi")
    asha.act(in_doubt, "refund", "nothing in the list")
    [proposal] = panel.sql("SELECT id FROM resolutions")
    ravi.get(f"/admin/withdrawal/{small}/note/")
    _, hidden = ravi.form()
    meant = {
        "version": str(panel.read(in_doubt).version),
        "proposal": str(proposal.id),
        "step": "do",
        "reason": "x",
    }
    for word in ("approve", "reject"):
        page = ravi.client.post(f"/admin/withdrawal/{small}/{word}/", data=hidden | meant)
        assert page.status_code == 404 and "No such proposal" in page.text
    assert panel.read(in_doubt).status == "processing"
    assert panel.sql("SELECT decided_at FROM resolutions") == [(None,)]


NONSENSE = [
    "/admin/exceptions/?kind=%00",
    "/admin/sign-in/?next=/admin/%0d%0aSet-Cookie:%20x=y",
    "/admin/sign-in/?next=//[",
    "/admin/withdrawals/?min=1e9999999",
]


@pytest.mark.parametrize("address", NONSENSE)
def test_an_invalid_address_is_a_client_error(signed_in: Signed, address: str) -> None:
    assert signed_in().get(address).status_code in (302, 400)


def test_an_invalid_form_is_a_client_error(panel: World, signed_in: Signed) -> None:
    with transaction() as session:
        number = open_record(session, kind="test", subject="s", source="watch", ours={}, theirs={})
    asha = signed_in()
    assert Person("as\x00ha").sign_in("wrong").page.status_code == 401
    asha.get(f"/admin/exceptions/{number}/")
    asha.send(action=f"/admin/exceptions/{number}/take/", seen="\x00")
    assert "Nothing was done" in asha.messages
    asha.get("/admin/switches/")
    _, hidden = asha.form("/admin/switches/turn/")
    filled = {"name": "payouts", "word": "pause", "reason": "x", "step": "do", "seen": "\x00"}
    asha.page = asha.client.post("/admin/switches/turn/", data=hidden | filled)
    assert "Nothing was done" in asha.messages


def test_password_attempts_hold_few_threads(panel: World, monkeypatch: pytest.MonkeyPatch) -> None:
    add_operator(panel, "asha", Role.VIEWER)
    may_go = Event()
    compare = PasswordHasher.verify
    monkeypatch.setattr(PasswordHasher, "verify", lambda *given: may_go.wait(30) and compare(*given))
    app = create_app()
    people = [Person("asha", app) for _ in range(settings().api_threads)]
    few = settings().api_threads // 4
    with ThreadPoolExecutor(len(people)) as pool:
        tries = [pool.submit(person.sign_in, "wrong") for person in people]
        done = [one.result() for one in islice(as_completed(tries, timeout=30), len(people) - few)]
        may_go.set()
    assert {person.page.status_code for person in done} == {503}
    assert sorted(person.page.status_code for person in people)[:few] == [401] * few
    assert Person("asha", app).sign_in().page.status_code == 303


def test_passwords_in_an_open_session_are_rate_limited(
    signed_in: Signed,
) -> None:
    asha = signed_in()
    new = "another long password"
    for _ in range(10):
        asha.get("/admin/account/")
        asha.send(action="/admin/account/password/", old="wrong", new=new, again=new, username="someone")
        assert "Wrong password" in asha.messages
    asha.get("/admin/account/")
    form = {"old": PASSWORD, "new": new, "again": new}
    assert asha.send(action="/admin/account/password/", **form).status_code == 429


def test_a_trailing_blank_is_part_of_a_password(signed_in: Signed) -> None:
    asha = signed_in()
    new = "ends with a blank "
    asha.get("/admin/account/")
    asha.send(action="/admin/account/password/", old=PASSWORD, new=new, again=new)
    assert Person("asha").sign_in(new).page.status_code == 303
    asha.get("/admin/account/")
    asha.send(action="/admin/account/password/", old=new, new=PASSWORD, again=PASSWORD)
    assert "Your password has changed" in asha.messages


def test_a_upi_id_in_free_text_is_masked(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    withdrawals.cancel(withdrawal_id, reason="pay secretname@okaxis, please", actor="user:user123")
    with transaction() as session:
        said = {"details": {"description": "The VPA secretname@okaxis is closed."}}
        about = {"ours": {}, "theirs": said, "withdrawal_id": withdrawal_id}
        number = open_record(session, kind="test", subject="s", source="watch", **about)
    vera = signed_in("vera", Role.VIEWER)
    for path in (f"/admin/withdrawal/{withdrawal_id}/", f"/admin/exceptions/{number}/"):
        text = vera.get(path).text
        assert "se…@okaxis" in text and "secretname" not in text


def leave(person: Person) -> None:
    person.get("/admin/")
    person.send(action="/admin/account/sign-out/")


def test_a_stranger_cannot_lock_out_a_known_browser(panel: World, signed_in: Signed) -> None:
    asha = signed_in("asha")
    ravi = signed_in("ravi")
    leave(asha)
    for number in range(12):
        stranger = Person("asha")
        stranger.client.environ_base["REMOTE_ADDR"] = f"10.0.0.{number}"
        stranger.get("/admin/sign-in/")
        last = stranger.sign_in("wrong").page.status_code
    assert last == 429
    leave(ravi)
    ravi.name = "asha"  # another operator's browser does not count as hers
    ravi.get("/admin/sign-in/")
    assert ravi.sign_in().page.status_code == 429
    asha.get("/admin/sign-in/")
    assert asha.sign_in().page.status_code == 303
    leave(asha)
    for _ in range(10):
        asha.get("/admin/sign-in/")
        assert asha.sign_in("wrong").page.status_code == 401
    asha.get("/admin/sign-in/")
    assert asha.sign_in().page.status_code == 429


def test_json_and_files_in_place_of_a_form_are_client_errors(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    fay = signed_in("fay", Role.ADMIN)
    token = token_of(fay)
    for rule in FORMS:
        address = rule.replace("<uuid:withdrawal_id>", str(withdrawal_id)).replace("<word>", "cancel")
        if "<" in address or "sign" in address:
            continue
        fields = ("word", "subject", "reason", "version", "name", "pick", "new", "first_code", "coins")
        files = {name: (BytesIO(b"x"), "x.txt") for name in fields}
        upload = fay.client.post(address, data={"csrf_token": token, "step": "do", **files})
        json = fay.client.post(address, json=["step", "do"], headers={"X-CSRFToken": token})
        assert upload.status_code < 500 and json.status_code < 500, rule
    assert panel.read(withdrawal_id).status == "pending"


def test_an_error_is_beside_its_field_and_the_input_stays(panel: World, signed_in: Signed) -> None:
    panel.credit()
    fay = signed_in("fay", Role.ADMIN)
    fay.get("/admin/users/?user=user123")
    page = fay.send(action="/admin/ruling/coins/", coins="many", reason="a lost prize").text
    assert 'aria-describedby="coins-hint coins-error" aria-invalid="true"' in page
    assert '<small class="error" id="coins-error">Coins must be' in page and "a lost prize" in page
    fay.get("/admin/operators/")
    page = fay.send(
        action="/admin/operators/change/", word="add", name="kiran", role="viewer", email="x"
    ).text
    assert 'id="email-error">Invalid' in page and 'value="kiran"' in page
    fay.send(action="/admin/operators/change/", word="add", name="kiran", role="viewer", email="")
    page = fay.send(action="/admin/operators/change/", step="do", reason="").text
    assert "What will happen" in page and 'id="reason-error">Reason is required' in page
    page = fay.send(action="/admin/operators/change/", word="role", name="asha", role="").text
    assert "Role is required" in page
    assert panel.sql("SELECT FROM admin_proposals") == []


@pytest.mark.parametrize("page", ["users/?user=user123", "operators/", "apps/", "blocks/", "account/"])
def test_a_page_with_several_forms_has_each_id_once(panel: World, signed_in: Signed, page: str) -> None:
    panel.credit()
    ids = re.findall(r' id="([^"]+)"', signed_in("root", Role.ADMIN).get(f"/admin/{page}").text)
    assert len(ids) == len(set(ids))
