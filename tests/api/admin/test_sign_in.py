"""Signing in and out: credentials, cookies, the audit log, and the limit of attempts."""

import pyotp
import pytest

from api.admin.page import panel_url
from api.app import create_app
from shared.roles import Role
from tests.api.admin.conftest import Signed
from tests.api.admin.person import PASSWORD, Person, add_operator
from tests.support.world import World, forget_settings


def log(world: World) -> list[tuple[str, str, str]]:
    rows = world.sql("SELECT operator, action, outcome FROM audit_log ORDER BY id")
    return [(row.operator, row.action, row.outcome) for row in rows]


def test_without_a_key_there_is_no_panel(world: World) -> None:
    answer = create_app().test_client().get("/admin/")
    assert answer.status_code == 404 and answer.get_json()["code"] == "not_found"


def test_the_api_has_no_sessions(panel: World) -> None:
    headers = create_app().test_client().get("/healthz").headers
    assert "Set-Cookie" not in headers and "Vary" not in headers


def test_signing_in_and_out_is_audited(panel: World) -> None:
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


def test_a_password_typed_as_a_name_is_not_recorded(panel: World) -> None:
    Person("my-secret-password").sign_in("asha")
    assert log(panel) == [("unknown", "sign_in", "refused")]
    assert "my-secret" not in str(panel.sql("SELECT * FROM audit_log"))


def test_every_wrong_sign_in_looks_the_same(panel: World) -> None:
    add_operator(panel, "asha", Role.VIEWER)
    add_operator(panel, "gone", Role.VIEWER)
    panel.sql("UPDATE operators SET disabled_at = now(), disabled_by = 'x' WHERE name = 'gone'")
    messages = {
        Person(name).sign_in(word).messages
        for name, word in (
            ("asha", "wrong"),
            ("nobody", PASSWORD),
            ("gone", PASSWORD),
            ("", ""),
            ("asha", "x" * 10_000),
        )
    }
    assert messages == {"Name, password or code is wrong."}


def test_a_cookie_is_invalid_after_signing_out(signed_in: Signed) -> None:
    asha = signed_in()
    kept = asha.client.get_cookie("payouts-panel").value
    asha.get("/admin/")
    asha.send(action="/admin/account/sign-out/")
    asha.client.set_cookie("payouts-panel", kept)
    assert asha.get("/admin/").status_code == 302


def test_a_planted_cookie_gets_no_session(panel: World, signed_in: Signed) -> None:
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


def test_sign_in_attempts_are_limited_by_name_and_by_address(
    panel: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT_SIGN_IN", "3/minute")
    forget_settings()
    add_operator(panel, "asha", Role.VIEWER)
    add_operator(panel, "ravi", Role.VIEWER)
    first, second = Person("asha"), Person("asha")
    second.client.environ_base["REMOTE_ADDR"] = "10.0.0.2"
    assert [first.sign_in("wrong").page.status_code for _ in range(3)] == [401] * 3
    page = first.sign_in().page
    assert (
        page.status_code == 429 and "Too many attempts" in page.text and int(page.headers["Retry-After"]) > 0
    )
    # The name is limited from every address, and the address for every name.
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


def test_operators_can_sign_in_without_redis(panel: World, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_sign_in_requires_the_second_factor_and_a_code_works_once(panel: World) -> None:
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
    for old, again, message in (
        ("wrong", new, "Wrong password"),
        (PASSWORD, "x", "The two passwords differ"),
    ):
        here.get("/admin/account/")
        here.send(action="/admin/account/password/", old=old, new=new, again=again)
        assert message in here.messages
    assert there.get("/admin/").status_code == 200
    here.send(action="/admin/account/password/", old=PASSWORD, new=new, again=new)
    assert "Your password has changed" in here.messages
    assert here.get("/admin/").status_code == 200 and there.get("/admin/").status_code == 302
    assert Person("asha").sign_in().page.status_code == 401
    assert Person("asha").sign_in(new).page.status_code == 303


@pytest.mark.parametrize(
    "address",
    ["https://evil.example/admin/", "//evil.example/admin/", "/\\evil.example", "/admin/\\evil", "/other", "", None,
     "javascript:alert(1)"],
)  # fmt: skip
def test_no_redirect_leaves_the_panel_after_signing_in(address: str | None) -> None:
    assert panel_url(address) == "/admin/"


def test_sign_in_leads_to_the_requested_page(panel: World) -> None:
    add_operator(panel, "asha", Role.VIEWER)
    asha = Person("asha")
    asha.get("/admin/sign-in/?next=/admin/withdrawals/?status%3Dfailed")
    assert asha.sign_in().page.location == "/admin/withdrawals/?status=failed"
