"""The provider's lists are read completely, in any order and while they change, or not at all."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.providers.answers import StatementLine as Line
from shared.providers.answers import Throttled, Unknown
from shared.providers.port import NotReadable
from shared.providers.razorpayx import listing
from shared.providers.razorpayx.answers import Reply
from shared.providers.razorpayx.listing import Listing
from shared.providers.razorpayx.statements import parse_line, parse_payout

DAY = datetime(2026, 11, 20, tzinfo=UTC)


def payout(number: int, second: int | None = None) -> dict[str, Any]:
    return {
        "id": f"pout_{number:014d}",
        "amount": 5000,
        "status": "processed",
        "created_at": int(DAY.timestamp()) + (number if second is None else second),
    }


def collection(rows: list[Any]) -> dict[str, Any]:
    return {"entity": "collection", "count": len(rows), "items": rows}


class Provider:
    """A list with offsets, newest first; `meanwhile` runs before each answer."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.order: Callable[[list[Any]], list[Any]] = lambda rows: rows[::-1]
        self.meanwhile: Callable[[int], None] = lambda call: None
        self.answers: dict[int, Any] = {}
        self.max_count = 100
        self.calls = 0

    def get(self, path: str, query: dict[str, Any]) -> Any:
        self.calls += 1
        self.meanwhile(self.calls)
        if self.calls in self.answers:
            return self.answers[self.calls]
        within = [row for row in self.rows if query["from"] <= row["created_at"] <= query["to"]]
        page = self.order(within)[query["skip"] :][: min(query["count"], self.max_count)]
        return Reply(200, json.dumps(collection(page)).encode())


def read(provider: Provider) -> set[str]:
    return set(Listing(provider, "1").payouts(DAY, DAY + timedelta(days=1)))


def ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["id"] for row in rows}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FIRST_WAIT_SECONDS", 0.001)


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 195, 2001, 7003])
def test_every_row_is_read(count: int) -> None:
    rows = [payout(number) for number in range(count)]
    assert read(Provider(rows)) == ids(rows)


def test_the_order_does_not_matter() -> None:
    provider = Provider([payout(number) for number in range(5000)])
    provider.order = lambda rows: rows[1::2] + rows[::2]
    assert read(provider) == ids(provider.rows)


def test_a_short_page_does_not_end_the_list() -> None:
    provider = Provider([payout(number) for number in range(300)])
    provider.max_count = 40
    assert read(provider) == ids(provider.rows)


def test_many_rows_in_one_second_are_all_read() -> None:
    provider = Provider([payout(number, second=3600) for number in range(3000)])
    assert read(provider) == ids(provider.rows)


def test_rows_added_while_paging_hide_no_row() -> None:
    provider = Provider([payout(number) for number in range(1500)])

    def add(call: int) -> None:
        if call in (3, 5, 6, 9):
            provider.rows.append(payout(2000 + call))

    provider.meanwhile = add
    assert read(provider) == ids(provider.rows)


def test_a_list_is_read_until_two_readings_agree() -> None:
    provider = Provider([payout(number) for number in range(50)])
    # The first page of the second reading, and of the third.
    provider.meanwhile = lambda call: provider.rows.append(payout(100 + call)) if call in (4, 6) else None
    assert read(provider) == ids(provider.rows) and len(provider.rows) == 52


def test_a_list_that_keeps_changing_is_not_readable() -> None:
    provider = Provider([payout(number) for number in range(150)])
    provider.meanwhile = lambda call: provider.rows.append(payout(1000 + call))
    with pytest.raises(NotReadable, match="keeps changing"):
        read(provider)


def test_requests_to_a_busy_provider_are_retried() -> None:
    provider = Provider([payout(number) for number in range(150)])
    provider.answers = {2: Throttled("busy", "Too many"), 3: Reply(500, b"{}"), 5: Unknown("cut off")}
    assert read(provider) == ids(provider.rows)


@pytest.mark.parametrize(
    "answer,message",
    [
        (Reply(503, b"<html>"), "The answer is not from RazorpayX"),
        (Reply(401, b'{"error": {"description": "Authentication failed"}}'), "Authentication failed"),
        (Reply(200, json.dumps(collection([{"id": "pout_1"}])).encode()), "do not understand"),
        (Reply(200, b'{"items": []}'), "is inconsistent"),
        (Reply(200, b"[]"), "not a list"),
    ],
)
def test_an_unusable_response_is_a_plain_error(answer: Reply, message: str) -> None:
    provider = Provider([])
    provider.answers = dict.fromkeys(range(1, 100), answer)
    with pytest.raises(NotReadable, match=message):
        read(provider)


def test_a_rejected_request_is_not_retried() -> None:
    provider = Provider([])
    provider.answers = {1: Reply(401, b'{"error": {"description": "no"}}')}
    with pytest.raises(NotReadable):
        read(provider)
    assert provider.calls == 1


def test_an_unknown_payout_is_none_and_an_unusable_response_is_an_error() -> None:
    provider = Provider([])
    refusal = {"error": {"code": "BAD_REQUEST_ERROR", "description": "The id provided does not exist"}}
    provider.answers = {1: Reply(400, json.dumps(refusal).encode())}
    assert Listing(provider, "1").payout("pout_1") is None
    refusal["error"]["description"] = "The requested URL was not found on the server."
    provider.answers[2] = Reply(400, json.dumps(refusal).encode())
    with pytest.raises(NotReadable):
        Listing(provider, "1").payout("pout_1")
    refusal["error"]["description"] = "The count may not be greater than 100"
    provider.answers[3] = Reply(400, json.dumps(refusal).encode())
    with pytest.raises(NotReadable):
        Listing(provider, "1").payout("pout_1")
    provider.answers = dict.fromkeys(range(1, 100), Reply(500, b""))
    with pytest.raises(NotReadable):
        Listing(provider, "1").payout("pout_1")


def test_a_response_about_another_payout_is_an_error() -> None:
    provider = Provider([])
    provider.answers = dict.fromkeys(range(1, 100), Reply(200, json.dumps(payout(2)).encode()))
    with pytest.raises(NotReadable, match="The answer is about another payout"):
        Listing(provider, "1").payout(payout(1)["id"])


def line(**values: Any) -> Line | None:
    return parse_line({"id": "txn_1", "debit": 0, "credit": 0, "created_at": 1767000101, **values})


def test_a_line_names_its_payout() -> None:
    debit = line(debit=25590, source={"id": "pout_1", "entity": "payout"})
    refund = line(credit=25590, source={"id": "rvrsl_1", "entity": "reversal", "payout_id": "pout_1"})
    deposit = line(credit=100, source={"id": "bt_1", "entity": "bank_transfer"})
    other = line(debit=100, source={"id": "x", "entity": "cess"})
    assert debit and (debit.payout_id, debit.source, debit.net_paise) == ("pout_1", "payout", 25590)
    assert refund and (refund.payout_id, refund.source_id, refund.net_paise) == ("pout_1", "rvrsl_1", -25590)
    assert deposit and (deposit.payout_id, deposit.source) == (None, "bank_transfer")
    assert other and (other.payout_id, other.source) == (None, "other")


@pytest.mark.parametrize("values", [{"debit": None}, {"credit": "5"}, {"id": None}, {"created_at": "now"}])
def test_an_invalid_line_is_none(values: dict[str, Any]) -> None:
    assert line(**values) is None


def test_a_payout_without_a_creation_time_is_none() -> None:
    assert parse_payout({**payout(1), "created_at": None}) is None
    assert parse_payout("x") is None
