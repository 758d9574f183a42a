"""A provider with wrong data: lists and lookups return what control calls changed."""

import pytest

from .conftest import ACCOUNT, Client


def lines(sim: Client) -> list[dict]:
    return sim.get("/v1/transactions", account_number=ACCOUNT).json()["items"]


def listed(sim: Client, **query) -> list[str]:
    items = sim.get("/v1/payouts", account_number=ACCOUNT, **query).json()["items"]
    return [item["id"] for item in items]


def test_an_altered_payout_is_consistent_everywhere(sim: Client):
    payout = sim.pay(reference_id="wd-1")
    sim.control(f"payouts/{payout['id']}/alter", amount=7, fees=1, tax=0, utr="42", reference_id="wd-2")
    altered = sim.payout(payout["id"])
    names = ("amount", "fees", "tax", "utr", "reference_id")
    assert [altered[name] for name in names] == [7, 1, 0, "42", "wd-2"]
    assert listed(sim, reference_id="wd-2") == [payout["id"]] and listed(sim, reference_id="wd-1") == []


def test_altering_moves_no_money(sim: Client):
    payout = sim.pay()
    balance = sim.balance()
    statement = lines(sim)
    sim.control(f"payouts/{payout['id']}/alter", amount=7)
    assert sim.balance() == balance and lines(sim) == statement


def test_a_forgotten_payout_leaves_its_transactions(sim: Client):
    payout = sim.pay(reference_id="wd-1")
    assert sim.control(f"payouts/{payout['id']}/forget") == {"forgotten": payout["id"]}
    assert sim.get(f"/v1/payouts/{payout['id']}").status_code == 400
    assert listed(sim) == listed(sim, reference_id="wd-1") == []
    assert [line["source"]["id"] for line in lines(sim)] == [payout["id"]]


@pytest.mark.parametrize("source", ["payout", "reversal", "bank_transfer", "other"])
def test_a_transaction_without_a_payout_can_be_added(sim: Client, source: str):
    line = sim.control("transactions", credit=500, source=source, payout_id="pout_x")
    assert lines(sim) == [line] and line["source"]["entity"] == source and line["credit"] == 500
    assert sim.get(f"/v1/transactions/{line['id']}").json() == line


def test_a_transaction_can_be_altered_or_deleted(sim: Client):
    sim.pay(amount=25000)
    (line,) = lines(sim)
    changed = sim.control(f"transactions/{line['id']}", debit=3)
    assert lines(sim) == [changed] and changed["debit"] == changed["amount"] == 3
    sim.control(f"transactions/{line['id']}", gone=True)
    assert lines(sim) == []


@pytest.mark.parametrize(
    "path,body",
    [
        ("payouts/pout_none/alter", {"amount": 1}),
        ("payouts/pout_none/forget", {}),
        ("transactions", {"debit": 1, "source": "gift"}),
        ("transactions", {"source": "other"}),
        ("transactions", {"debit": 1, "credit": 1, "source": "other"}),
        ("transactions", {"debit": -1, "source": "other"}),
        ("transactions/txn_none", {"debit": 1}),
    ],
)
def test_invalid_tampering_is_a_plain_error(sim: Client, path: str, body: dict):
    answer = sim.post(f"/_sim/{path}", body)
    assert answer.status_code == 400 and answer.json()["error"].endswith(".")


def test_the_altered_fields_of_a_payout_are_validated(sim: Client):
    payout = sim.pay()
    for body in ({"amount": "5"}, {"fees": -1}, {"utr": 5}, {"status": "failed"}):
        assert sim.post(f"/_sim/payouts/{payout['id']}/alter", body).status_code == 400
