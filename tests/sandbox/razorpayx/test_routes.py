"""The documented contract: authentication and validation."""

import pytest
import requests

from .conftest import Client, refused


@pytest.mark.parametrize("auth", [None, ("rzp_test_sim", "wrong"), ("wrong", "a-test-secret"), ("", "")])
def test_every_v1_call_needs_the_right_key_and_secret(sim: Client, auth):
    answer = requests.post(f"{sim.url}/v1/payouts", json={}, auth=auth, timeout=5)
    assert refused(answer, status=401)["description"] == "Authentication failed"


@pytest.mark.parametrize("header", ["Basic", "Basic %%%", "Bearer abc", "Basic " + "x" * 4000])
def test_a_broken_authorization_header_is_401(sim: Client, header):
    answer = requests.get(f"{sim.url}/v1/contacts", headers={"Authorization": header}, timeout=5)
    refused(answer, status=401)


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/payouts/x/y/z", "/v1", "/"])
def test_an_unknown_route_is_400_not_404(sim: Client, path):
    assert refused(sim.get(path))["description"] == "The requested URL was not found on the server."
    assert refused(sim.http.delete(sim.url + "/v1/payouts", timeout=5))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"\xff\xfe",
        b'{"amount": 1' + b"0" * 5000 + b"}",
        b"[" * 100_000,
        b'{"reference_id": "\\ud800"}',
        b'{"account_number": {"a": []}}',
        b'{"notes": NaN}',
        b'{"amount": 1e999}',
    ],
)
def test_a_malformed_body_is_a_400_and_never_a_500(sim: Client, raw):
    refused(sim.send(raw))
    answer = sim.http.post(
        f"{sim.url}/v1/contacts", data=raw, headers={"Content-Type": "application/json"}, timeout=5
    )
    refused(answer)


def test_a_body_that_is_too_large_or_not_json_is_refused(sim: Client):
    refused(sim.send(b'{"notes": "' + b"x" * 1_100_000 + b'"}'), status=413)
    form = sim.http.post(f"{sim.url}/v1/contacts", data={"name": "Asha Rao"}, timeout=5)
    assert "JSON" in refused(form)["description"]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": None},
        {"name": "Al"},
        {"name": "x" * 51},
        {"name": "Asha-"},
        {"name": "Asha@Rao"},
        {"name": 7},
        {"email": "nonsense"},
        {"email": 5},
        {"contact": "12"},
        {"type": "friend"},
        {"type": "Customer"},
        {"reference_id": "x" * 41},
        {"reference_id": []},
        {"notes": {str(n): "x" for n in range(16)}},
        {"notes": {"a": "x" * 257}},
        {"notes": ["x"]},
        {"notes": {"a": {}}},
        {"nmae": "typo"},
    ],
)
def test_an_invalid_contact_is_refused(sim: Client, fields):
    refused(sim.post("/v1/contacts", {"name": "Asha Rao", **fields}))


def test_a_contact_is_reused_unless_a_field_differs(sim: Client):
    body = {
        "name": "Asha Rao",
        "email": "asha@example.com",
        "contact": "9876543210",
        "type": "customer",
        "reference_id": "cust-1",
        "notes": {"tier": "gold"},
    }
    first, again = (
        sim.post("/v1/contacts", body),
        sim.post("/v1/contacts", {**body, "notes": {"tier": "iron"}}),
    )
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    for field in ("name", "email", "reference_id"):
        other = sim.post(
            "/v1/contacts", {**body, field: "other@example.com" if field == "email" else "Other"}
        )
        assert other.json()["id"] != first.json()["id"]
    assert first.json()["id"].startswith("cont_") and len(first.json()["id"]) == 19


def test_a_changed_contact_is_found_by_its_new_fields_only(sim: Client):
    contact = sim.contact(reference_id="before")
    changed = sim.patch(f"/v1/contacts/{contact}", {"reference_id": "after"}).json()
    assert changed["reference_id"] == "after" and changed["name"] == "Asha Rao"
    assert sim.contact(reference_id="after") == contact
    assert sim.contact(reference_id="before") != contact
    refused(sim.patch(f"/v1/contacts/{contact}", {"active": "yes"}), "active")


@pytest.mark.parametrize(
    "address",
    [
        "a@",
        "@b",
        "ab",
        "a b@bank",
        "a@b@c",
        "x" * 100 + "@b",
        "asha_rao@okbank",
        "asha!@okbank",
        "आशा@okbank",
        5,
        {},
        None,
    ],
)
def test_an_invalid_upi_address_is_refused(sim: Client, address):
    body = {"contact_id": sim.contact(), "account_type": "vpa", "vpa": {"address": address}}
    refused(sim.post("/v1/fund_accounts", body), "vpa.address")


def test_an_underscore_is_allowed_by_a_setting_and_under_the_sim_handle(sim: Client):
    sim.fund_account("fail.gateway_down-1@sim")
    sim.control("settings", underscore_ok=True)
    sim.fund_account("asha_rao@okbank")


@pytest.mark.parametrize(
    "change",
    [
        {"contact_id": None},
        {"contact_id": "cont_12345678901234"},
        {"contact_id": "nonsense"},
        {"contact_id": 5},
        {"account_type": "wallet"},
        {"account_type": None},
        {"account_type": []},
        {"vpa": None},
        {"vpa": "a@b"},
        {"vpa": {"address": "a@b1", "more": 1}},
        {"customer_id": "x"},
    ],
)
def test_an_invalid_fund_account_is_refused(sim: Client, change):
    body = {"contact_id": sim.contact(), "account_type": "vpa", "vpa": {"address": "asha@okbank"}, **change}
    refused(sim.post("/v1/fund_accounts", {k: v for k, v in body.items() if v is not None}))


def test_a_fund_account_is_reused_per_contact_and_address(sim: Client):
    contact, other = sim.contact(), sim.contact(reference_id="other")
    first = sim.fund_account("asha@okbank", contact)
    assert sim.fund_account("asha@okbank", contact) == first
    assert sim.fund_account("asha2@okbank", contact) != first
    assert sim.fund_account("asha@okbank", other) != first
    entity = sim.get(f"/v1/fund_accounts/{first}").json()
    assert entity["vpa"] == {"username": "asha", "handle": "okbank", "address": "asha@okbank"}
    listed = sim.get("/v1/fund_accounts", contact_id=contact, account_type="vpa").json()
    assert listed["count"] == 2


def test_bank_accounts_take_imps_and_not_upi(sim: Client):
    bank = {"name": "Asha Rao", "ifsc": "HDFC0000053", "account_number": "50100000000000"}
    body = {"contact_id": sim.contact(), "account_type": "bank_account", "bank_account": bank}
    account = sim.post("/v1/fund_accounts", body).json()["id"]
    assert sim.pay(fund_account_id=account, mode="IMPS", amount=4_00_000_00)["status"] == "processing"
    refused(sim.send(sim.order(fund_account_id=account)), "mode")
    for field, value in (
        ("ifsc", "HDFC"),
        ("account_number", "12"),
        ("account_number", "12-345"),
        ("name", "A"),
    ):
        refused(
            sim.post("/v1/fund_accounts", {**body, "bank_account": {**bank, field: value}}),
            f"bank_account.{field}",
        )


def test_an_inactive_contact_or_fund_account_blocks_payouts(sim: Client):
    contact = sim.contact()
    account = sim.fund_account("asha@okbank", contact)
    sim.patch(f"/v1/fund_accounts/{account}", {"active": False})
    assert "inactive" in refused(sim.send(sim.order(fund_account_id=account)))["description"]
    sim.patch(f"/v1/fund_accounts/{account}", {"active": True})
    assert sim.patch(f"/v1/contacts/{contact}", {"active": False}).json()["active"] is False
    assert "inactive" in refused(sim.send(sim.order(fund_account_id=account)))["description"]
    refused(sim.patch(f"/v1/fund_accounts/{account}", {"vpa": {"address": "x@y1"}}))


@pytest.mark.parametrize(
    "field,value",
    [
        ("account_number", None),
        ("account_number", "999"),
        ("account_number", 4564560000000001),
        ("amount", None),
        ("amount", 99),
        ("amount", -1),
        ("amount", 1_00_000_01),
        ("amount", "25000"),
        ("amount", 25000.0),
        ("amount", True),
        ("amount", 10**300),
        ("currency", None),
        ("currency", "USD"),
        ("mode", None),
        ("mode", "upi"),
        ("mode", "NEFT"),
        ("mode", {}),
        ("purpose", None),
        ("purpose", "gift"),
        ("queue_if_low_balance", "yes"),
        ("reference_id", "x" * 41),
        ("reference_id", 5),
        ("narration", "x" * 31),
        ("narration", "Coins #7"),
        ("narration", "Coins-7"),
        ("narration", "पैसे"),
        ("notes", {"a": "x" * 257}),
        ("notes", "x"),
        ("fund_account_id", "fa_12345678901234"),
        ("fund_account_id", "nonsense"),
        ("fund_account_id", 5),
        ("fund_account_id", ["fa_12345678901234"]),
    ],
)
def test_an_invalid_payout_is_refused(sim: Client, field, value):
    refused(sim.send(sim.order(**{field: value})), field)


def test_a_payout_needs_one_destination_and_no_unknown_field(sim: Client):
    refused(sim.send(sim.order(fund_account_id=None)), "fund_account_id")
    refused(sim.send(sim.order(refrence_id="typo")), "refrence_id")
    refused(sim.send(sim.order(fund_account={"account_type": "vpa"})))


def test_the_limits_of_the_amount_are_inclusive_by_default(sim: Client):
    assert sim.pay(amount=100)["amount"] == 100
    assert sim.pay(amount=1_00_000_00)["amount"] == 1_00_000_00
    sim.control("settings", upi_limit_exclusive=True)
    refused(sim.send(sim.order(amount=1_00_000_00)), "amount")
