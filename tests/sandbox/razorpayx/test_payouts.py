"""Payout entities, lists, money and cancellation."""

import json

import pytest

from .conftest import ACCOUNT, SPEED, Client, refused


def test_a_payout_entity_has_the_documented_fields_and_nulls(sim: Client):
    entities = [sim.pay() for _ in range(40)]
    for entity in entities:
        assert entity["id"].startswith("pout_") and len(entity["id"]) == 19
        assert (entity["entity"], entity["status"], entity["fees"], entity["tax"]) == (
            "payout",
            "processing",
            590,
            90,
        )
        assert entity["notes"] == [] and entity["narration"] and isinstance(entity["created_at"], int)
    assert {entity["utr"] for entity in entities} == {None, "null"}
    details = [entity["status_details"] for entity in entities]
    assert None in details
    assert {"reason": "payout_bank_processing", "source": "gateway"}.items() <= next(
        d for d in details if d
    ).items()
    assert len({entity["id"] for entity in entities}) == 40


def test_a_composite_payout_creates_or_reuses_contact_and_fund_account(sim: Client):
    inline = {
        "account_type": "vpa",
        "vpa": {"address": "asha@okbank"},
        "contact": {"name": "Asha Rao", "type": "customer"},
    }
    first = sim.pay(fund_account=inline)
    assert first["fund_account"]["contact"]["name"] == "Asha Rao"
    assert sim.pay(fund_account=inline)["fund_account_id"] == first["fund_account_id"]
    by_id = {**inline, "contact": {"id": first["fund_account"]["contact_id"]}}
    assert sim.pay(fund_account=by_id)["fund_account_id"] == first["fund_account_id"]
    refused(
        sim.send(sim.order(fund_account={**inline, "contact": {"name": "x"}})), "fund_account.contact.name"
    )


def test_payout_lists_need_the_account_and_filter(sim: Client):
    refused(sim.get("/v1/payouts"), "account_number")
    refused(sim.get("/v1/payouts", account_number="999"), "account_number")
    payouts = [sim.pay(f"user{n}@okbank") for n in range(12)]

    def ids(**query) -> list[str]:
        answer = sim.get("/v1/payouts", account_number=ACCOUNT, **query).json()
        assert answer["entity"] == "collection" and answer["count"] == len(answer["items"])
        return [item["id"] for item in answer["items"]]

    newest_first = [payout["id"] for payout in reversed(payouts)]
    assert ids() == newest_first[:10]
    assert ids(count=5, skip=10) == newest_first[10:]
    assert ids(reference_id=payouts[3]["reference_id"]) == [payouts[3]["id"]]
    assert ids(reference_id="nobody") == []
    assert ids(fund_account_id=payouts[4]["fund_account_id"]) == [payouts[4]["id"]]
    assert ids(mode="UPI", count=100) == newest_first and ids(mode="IMPS") == []
    assert ids(to=payouts[0]["created_at"] - 1) == []
    assert set(ids(**{"from": payouts[0]["created_at"]}, count=100)) == set(newest_first)
    sim.control(f"payouts/{payouts[2]['id']}/status", status="reversed")
    assert ids(status="reversed") == [payouts[2]["id"]]


@pytest.mark.parametrize(
    "query",
    [
        {"count": 101},
        {"count": 0},
        {"count": "x"},
        {"skip": -1},
        {"from": "now"},
        {"status": "paid"},
        {"order": "asc"},
    ],
)
def test_invalid_list_parameters_are_refused(sim: Client, query):
    refused(sim.get("/v1/payouts", account_number=ACCOUNT, **query))


@pytest.mark.parametrize(
    "path",
    [
        "payouts/pout_12345678901234",
        "payouts/nonsense",
        "contacts/cont_x",
        "fund_accounts/fa_12345678901234",
        "transactions/txn_12345678901234",
        "payouts/%ff%00",
    ],
)
def test_unknown_ids(sim: Client, path):
    refused(sim.get(f"/v1/{path}"))


def test_money_moves_with_transactions_and_comes_back_once(sim: Client):
    opening = sim.balance()
    sim.control("speed", speed=0.01)  # so that neither ends before the assertion
    paid, failed = sim.pay("success-1@sim", amount=1000), sim.pay("fail.gateway_down-1@sim", amount=2000)
    assert sim.balance() == opening - 1590 - 2590
    sim.control("speed", speed=SPEED)
    sim.reaches(failed["id"], "failed")
    assert sim.balance() == opening - 1590
    items = sim.get("/v1/transactions", account_number=ACCOUNT).json()["items"]
    assert [(t["debit"], t["credit"], t["source"]["entity"]) for t in items] == [
        (0, 2590, "reversal"),
        (2590, 0, "payout"),
        (1590, 0, "payout"),
    ]
    assert items[0]["source"]["payout_id"] == failed["id"] and items[0]["balance"] == opening - 1590
    assert items[2]["source"]["id"] == paid["id"]
    assert sim.get(f"/v1/transactions/{items[0]['id']}").json() == items[0]
    (balance,) = sim.get("/v1/banking_balances").json()["items"]
    assert balance["amount"] == opening - 1590 and balance["account_number"] == ACCOUNT


def test_only_a_queued_payout_can_be_cancelled(sim: Client):
    sim.control("speed", speed=0.01)
    queued, running = sim.pay("queued-1@sim"), sim.pay()
    assert queued["status"] == "queued" and queued["fees"] == 0
    assert sim.patch(f"/v1/payouts/{queued['id']}/cancel", {}).json()["status"] == "cancelled"
    refused(sim.post(f"/v1/payouts/{queued['id']}/cancel"))
    refused(sim.post(f"/v1/payouts/{running['id']}/cancel"))
    sim.control("advance", seconds=100)
    assert sim.payout(queued["id"])["status"] == "cancelled"


def test_low_balance_is_refused_or_failed_later_or_queued(sim: Client):
    sim.control("balance", paise=1000)
    assert refused(sim.send(sim.order(amount=1000)))["reason"] == "insufficient_funds"
    sim.control("settings", low_balance_async=True)
    later = sim.pay(amount=1000)
    details = sim.reaches(later["id"], "failed")["status_details"]
    assert (details["reason"], details["source"]) == ("insufficient_funds", "business")
    assert sim.balance() == 1000
    queued = sim.pay(amount=1000, queue_if_low_balance=True)
    assert (queued["status"], queued["status_details"]["reason"], queued["fees"]) == (
        "queued",
        "low_balance",
        0,
    )


def test_the_low_balance_queue_is_first_in_first_out_but_skips_what_does_not_fit(sim: Client):
    sim.control("settings", fees_paise=0, tax_paise=0)
    sim.control("balance", paise=0)
    six, three, five = (
        sim.pay(amount=rupees * 100_00, queue_if_low_balance=True)["id"] for rupees in (60, 30, 50)
    )
    sim.control("balance", paise=50 * 100_00)
    assert sim.reaches(three, "processed")["fees"] == 0
    assert (sim.payout(six)["status"], sim.payout(five)["status"]) == ("queued", "queued")
    sim.control("balance", paise=200 * 100_00)
    sim.reaches(six, "processed")
    sim.reaches(five, "processed")
    assert sim.balance() == 90 * 100_00


def test_replies_are_plain_ascii_json(sim: Client):
    answer = sim.send(sim.order(notes={"नाम": "आशा"}))
    assert answer.content.isascii() and json.loads(answer.content)["notes"] == {"नाम": "आशा"}


def test_returned_money_starts_queued_payouts(sim: Client):
    sim.control("balance", paise=1590)
    sim.control("speed", speed=0.01)  # so that the first does not fail before the second is queued
    sim.pay("fail.gateway_down-1@sim", amount=1000)
    queued = sim.pay(amount=1000, queue_if_low_balance=True)
    assert queued["status"] == "queued"
    sim.control("speed", speed=SPEED)
    sim.reaches(queued["id"], "processed")
    assert sim.balance() == 0
