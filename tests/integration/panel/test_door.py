"""Signing in and out: who gets in, what the cookie and the log hold, and how often one may try."""

import pyotp
import pytest

from api.admin.page import inside
from api.app import create_app
from shared.roles import Role
from tests.integration.panel.conftest import Signed
from tests.integration.panel.person import PASSWORD, Person, add_operator
from tests.world import World, forget_settings


def log(world: World) -> list[tuple[str, str, str]]:
    rows = world.sql("SELECT operator, action, outcome FROM audit_log ORDER BY id")
    return [(row.operator, row.action, row.outcome) for row in rows]


def test_without_a_key_there_is_no_panel(world: World) -> None:
    answer = create_app().test_client().get("/admin/")
    assert answer.status_code == 404 and answer.get_json()["code"] == "not_found"


def test_the_api_knows_no_sessions(panel: World) -> None:
    headers = create_app().test_client().get("/healthz").headers
    assert "Set-Cookie" not in headers and "Vary" not in headers


def test_signing_in_and_out_is_written_down(panel: World) -> None:
    add_operator(panel, "asha", Role.VIEWER)
    asha = Person("asha").sign_in("wrong horse battery")
    assert asha.page.status_code == 401 and "wrong" in asha.messages
    asha.sign_in()
    assert asha.page.status_code == 303 and asha.get("/admin/").status_code == 200
    asha.send(action="/admin/account/sign-out/")
    assert asha.get("/admin/").status_code == 302
    assert log(panel) == [
        ("asha", "sign_in", "refused"),
        ("asha", "sign_in", "done"),
        ("asha", "sign_out", "done"),
    ]
    assert panel.sql("SELECT last_sign_in_at FROM operators")[0].last_sign_in_at


def test_a_password_typed_as_a_name_is_not_written_down(panel: World) -> None:
    Person("my-secret-password").sign_in("asha")
    assert log(panel) == [("unknown", "sign_in", "refused")]
    assert "my-secret" not in str(panel.sql("SELECT * FROM audit_log"))


def test_all_that_is_wrong_looks_the_same(panel: World) -> None:
    add_operator(panel, "asha", Role.VIEWER)
    add_operator(panel, "gone", Role.VIEWER)
    panel.sql("UPDATE operators SET disabled_at = now(), disabled_by = 'x' WHERE name = 'gone'")
    told = {
        Person(name).sign_in(word).messages
        for name, word in (
            ("asha", "wrong"),
            ("nobody", PASSWORD),
            ("gone", PASSWORD),
            ("", ""),
            ("asha", "x" * 10_000),
        )
    }
    assert told == {"Name, password or code is wrong."}


def test_a_cookie_is_worth_nothing_after_signing_out(signed_in: Signed) -> None:
    asha = signed_in()
    kept = asha.client.get_cookie("payouts-panel").value
    asha.get("/admin/")
    asha.send(action="/admin/account/sign-out/")
    asha.client.set_cookie("payouts-panel", kept)
    assert asha.get("/admin/").status_code == 302


def test_a_planted_cookie_does_not_come_in_with_the_victim(panel: World, signed_in: Signed) -> None:
    mallory = Person("mallory")
    planted = mallory.client.get_cookie("payouts-panel").value
    add_operator(panel, "asha", Role.ADMIN)
    asha = Person("asha")
    asha.client.set_cookie("payouts-panel", planted)
    asha.get("/admin/sign-in/")
    asha.sign_in()
    assert asha.get("/admin/").status_code == 200
    assert mallory.get("/admin/").status_code == 302
    assert mallory.client.get_cookie("payouts-panel").value != asha.client.get_cookie("payouts-panel").value


def test_the_cookie_and_the_headers_are_strict(panel: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_COOKIE_SECURE", "on")
    forget_settings()
    client = create_app().test_client()
    for path in ("/admin/sign-in/", "/admin/", "/admin/nothing", "/admin/assets/panel.css"):
        answer = client.get(path, base_url="https://panel.example")
        policy = answer.headers["Content-Security-Policy"]
        assert (
            "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        )
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert ("no-store" in answer.headers["Cache-Control"]) == ("assets" not in path)
        if path == "/admin/sign-in/":
            cookie = answer.headers["Set-Cookie"]
            assert cookie.startswith("__Host-") and cookie.endswith(
                "Secure; HttpOnly; Path=/; SameSite=Strict"
            )
        assert "<script" not in answer.text and "http://" not in answer.text and "style=" not in answer.text


def test_too_many_tries_wait_by_name_and_by_address(panel: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE_LIMIT_SIGN_IN", "3/minute")
    forget_settings()
    add_operator(panel, "asha", Role.VIEWER)
    add_operator(panel, "ravi", Role.VIEWER)
    first, second = Person("asha"), Person("asha")
    second.client.environ_base["REMOTE_ADDR"] = "10.0.0.2"
    assert [first.sign_in("wrong").page.status_code for _ in range(3)] == [401] * 3
    page = first.sign_in().page
    assert page.status_code == 429 and "Too many tries" in page.text and int(page.headers["Retry-After"]) > 0
    # The name waits wherever one tries, the address whatever name one tries.
    second.get("/admin/sign-in/")
    assert second.sign_in().page.status_code == 429
    ravi = Person("ravi")
    assert ravi.sign_in().page.status_code == 429
    ravi.client.environ_base["REMOTE_ADDR"] = "10.0.0.3"
    ravi.get("/admin/sign-in/")
    assert ravi.sign_in().page.status_code == 303


def test_good_sign_ins_are_not_counted(panel: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE_LIMIT_SIGN_IN", "2/minute")
    forget_settings()
    add_operator(panel, "asha", Role.VIEWER)
    for _ in range(3):
        assert Person("asha").sign_in().page.status_code == 303


def test_without_redis_operators_come_in(panel: World, monkeypatch: pytest.MonkeyPatch) -> None:
    add_operator(panel, "asha", Role.VIEWER)
    panel.point_broker_at_nothing(monkeypatch)
    assert Person("asha").sign_in().page.status_code == 303


def test_without_the_database_the_panel_says_so(
    panel: World, signed_in: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    asha = signed_in()
    panel.point_database_at_nothing(monkeypatch)
    page = asha.get("/admin/")
    assert page.status_code == 503 and "cannot be reached" in page.text and page.headers["Retry-After"]
    panel.point_database_back(monkeypatch)
    assert asha.get("/admin/").status_code == 200


def test_a_second_factor(panel: World) -> None:
    add_operator(panel, "asha", Role.VIEWER)
    secret = pyotp.random_base32()
    panel.sql("UPDATE operators SET totp_secret = :s", s=secret)
    assert Person("asha").sign_in().page.status_code == 401
    code = pyotp.TOTP(secret).now()
    assert Person("asha").sign_in(code=code).page.status_code == 303
    assert Person("asha").sign_in(code=code).page.status_code == 401


def test_a_new_password_ends_the_other_sessions(panel: World, signed_in: Signed) -> None:
    here = signed_in()
    there = Person("asha").sign_in()
    new = "another long password"
    for old, again, told in (("wrong", new, "Not your password"), (PASSWORD, "x", "Not the same")):
        here.get("/admin/account/")
        here.send(action="/admin/account/password/", old=old, new=new, again=again)
        assert told in here.messages
    assert there.get("/admin/").status_code == 200
    here.send(action="/admin/account/password/", old=PASSWORD, new=new, again=new)
    assert "new password" in here.messages
    assert here.get("/admin/").status_code == 200 and there.get("/admin/").status_code == 302
    assert Person("asha").sign_in().page.status_code == 401
    assert Person("asha").sign_in(new).page.status_code == 303


@pytest.mark.parametrize(
    "address",
    ["https://evil.example/admin/", "//evil.example/admin/", "/\\evil.example", "/admin/\\evil", "/other", "", None,
     "javascript:alert(1)"],
)  # fmt: skip
def test_nobody_is_sent_elsewhere_after_signing_in(address: str | None) -> None:
    assert inside(address) == "/admin/"


def test_one_goes_on_to_where_one_wanted(panel: World) -> None:
    add_operator(panel, "asha", Role.VIEWER)
    asha = Person("asha")
    asha.get("/admin/sign-in/?next=/admin/withdrawals/?status%3Dfailed")
    assert asha.sign_in().page.location == "/admin/withdrawals/?status=failed"
