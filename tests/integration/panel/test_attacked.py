"""What a stranger, or an operator who plays, sends past the forms: nothing of it counts."""

from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from threading import Event

import pytest
from argon2 import PasswordHasher

from api.app import create_app
from shared import withdrawals
from shared.db import transaction
from shared.exception_records import open_record
from shared.roles import Role
from shared.settings import settings
from tests.integration.panel.conftest import Signed
from tests.integration.panel.person import PASSWORD, Person, add_operator
from tests.world import World


def test_a_form_that_comes_with_head_is_none(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    asha = signed_in("asha")
    filled = {"step": "do", "reason": "by a trick", "version": str(panel.read(withdrawal_id).version)}
    answer = asha.client.head(f"/admin/withdrawal/{withdrawal_id}/cancel/", data=filled)
    assert (answer.status_code, panel.read(withdrawal_id).status) == (200, "pending")


def test_nobody_signs_in_with_head(panel: World) -> None:
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
    [made] = panel.sql("SELECT id FROM resolutions")
    ravi.get(f"/admin/withdrawal/{small}/note/")
    _, hidden = ravi.form()
    meant = {
        "version": str(panel.read(in_doubt).version),
        "proposal": str(made.id),
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
def test_nonsense_in_an_address_is_no_fault_of_ours(signed_in: Signed, address: str) -> None:
    assert signed_in().get(address).status_code in (302, 400)


def test_nonsense_in_a_form_is_no_fault_of_ours(panel: World, signed_in: Signed) -> None:
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


def test_whoever_tries_passwords_holds_few_threads(panel: World, monkeypatch: pytest.MonkeyPatch) -> None:
    add_operator(panel, "asha", Role.VIEWER)
    may_go, compare = Event(), PasswordHasher.verify
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


def test_who_sits_down_at_a_session_cannot_try_passwords_for_ever(
    signed_in: Signed,
) -> None:
    asha = signed_in()
    new = "another long password"
    for _ in range(10):
        asha.get("/admin/account/")
        asha.send(action="/admin/account/password/", old="wrong", new=new, again=new, username="somebody")
        assert "Not your password" in asha.messages
    asha.get("/admin/account/")
    form = {"old": PASSWORD, "new": new, "again": new}
    assert asha.send(action="/admin/account/password/", **form).status_code == 429


def test_a_password_is_what_was_typed(signed_in: Signed) -> None:
    asha, new = signed_in(), "ends with a blank "
    asha.get("/admin/account/")
    asha.send(action="/admin/account/password/", old=PASSWORD, new=new, again=new)
    assert Person("asha").sign_in(new).page.status_code == 303
    asha.get("/admin/account/")
    asha.send(action="/admin/account/password/", old=new, new=PASSWORD, again=PASSWORD)
    assert "new password" in asha.messages


def test_a_upi_id_in_what_others_wrote_is_masked(panel: World, signed_in: Signed) -> None:
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


def test_a_stranger_keeps_nobody_out_who_comes_as_always(panel: World, signed_in: Signed) -> None:
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
    ravi.name = "asha"  # somebody else's browser is no browser of hers
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
