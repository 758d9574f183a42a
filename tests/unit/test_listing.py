"""Reading the provider's lists: whole whatever their order, and however they move; or not at all."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.razorpayx import listing
from shared.razorpayx.answers import Reply, Throttled, Unknown
from shared.razorpayx.listing import Listing, NotReadable
from shared.razorpayx.statements import Line, parse_line, parse_payout

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
    """A list behind offsets, newest first; `meanwhile` runs before each answer."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.order: Callable[[list[Any]], list[Any]] = lambda rows: rows[::-1]
        self.meanwhile: Callable[[int], None] = lambda call: None
        self.answers: dict[int, Any] = {}
        self.most = 100
        self.calls = 0

    def get(self, path: str, query: dict[str, Any]) -> Any:
        self.calls += 1
        self.meanwhile(self.calls)
        if self.calls in self.answers:
            return self.answers[self.calls]
        within = [row for row in self.rows if query["from"] <= row["created_at"] <= query["to"]]
        page = self.order(within)[query["skip"] :][: min(query["count"], self.most)]
        return Reply(200, json.dumps(collection(page)).encode())


def read(provider: Provider) -> set[str]:
    return set(Listing(provider, "1").payouts(DAY, DAY + timedelta(days=1)))


def ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["id"] for row in rows}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FIRST_WAIT_SECONDS", 0.001)


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 195, 2001, 7003])
def test_every_row_is_read(count: int) -> None:
    rows = [payout(number) for number in range(count)]
    assert read(Provider(rows)) == ids(rows)


def test_the_order_does_not_matter() -> None:
    provider = Provider([payout(number) for number in range(5000)])
    provider.order = lambda rows: rows[1::2] + rows[::2]
    assert read(provider) == ids(provider.rows)


def test_a_short_page_is_no_end() -> None:
    provider = Provider([payout(number) for number in range(300)])
    provider.most = 40
    assert read(provider) == ids(provider.rows)


def test_many_rows_in_one_second() -> None:
    provider = Provider([payout(number, second=3600) for number in range(3000)])
    assert read(provider) == ids(provider.rows)


def test_rows_that_are_added_while_one_pages_hide_none() -> None:
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


def test_a_list_that_never_comes_to_rest_is_not_readable() -> None:
    provider = Provider([payout(number) for number in range(150)])
    provider.meanwhile = lambda call: provider.rows.append(payout(1000 + call))
    with pytest.raises(NotReadable, match="does not come to rest"):
        read(provider)


def test_a_busy_provider_is_asked_again() -> None:
    provider = Provider([payout(number) for number in range(150)])
    provider.answers = {2: Throttled("busy", "Too many"), 3: Reply(500, b"{}"), 5: Unknown("cut off")}
    assert read(provider) == ids(provider.rows)


@pytest.mark.parametrize(
    "answer,words",
    [
        (Reply(503, b"<html>"), "Not an answer of RazorpayX"),
        (Reply(401, b'{"error": {"description": "Authentication failed"}}'), "Authentication failed"),
        (Reply(200, json.dumps(collection([{"id": "pout_1"}])).encode()), "not understood"),
        (Reply(200, b'{"items": []}'), "contradicts itself"),
        (Reply(200, b"[]"), "not a list"),
    ],
)
def test_what_is_not_answered_is_told_in_plain_words(answer: Reply, words: str) -> None:
    provider = Provider([])
    provider.answers = dict.fromkeys(range(1, 100), answer)
    with pytest.raises(NotReadable, match=words):
        read(provider)


def test_a_provider_that_refuses_us_is_not_asked_again() -> None:
    provider = Provider([])
    provider.answers = {1: Reply(401, b'{"error": {"description": "no"}}')}
    with pytest.raises(NotReadable):
        read(provider)
    assert provider.calls == 1


def test_no_such_payout_is_an_answer_and_no_answer_is_none() -> None:
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


def test_another_payout_is_not_the_one_asked_for() -> None:
    provider = Provider([])
    provider.answers = dict.fromkeys(range(1, 100), Reply(200, json.dumps(payout(2)).encode()))
    with pytest.raises(NotReadable, match="Not the payout asked for"):
        Listing(provider, "1").payout(payout(1)["id"])


def line(**says: Any) -> Line | None:
    return parse_line({"id": "txn_1", "debit": 0, "credit": 0, "created_at": 1767000101, **says})


def test_a_line_names_its_payout() -> None:
    debit = line(debit=25590, source={"id": "pout_1", "entity": "payout"})
    back = line(credit=25590, source={"id": "rvrsl_1", "entity": "reversal", "payout_id": "pout_1"})
    money = line(credit=100, source={"id": "bt_1", "entity": "bank_transfer"})
    odd = line(debit=100, source={"id": "x", "entity": "cess"})
    assert debit and (debit.payout_id, debit.source, debit.net_paise) == ("pout_1", "payout", 25590)
    assert back and (back.payout_id, back.source_id, back.net_paise) == ("pout_1", "rvrsl_1", -25590)
    assert money and (money.payout_id, money.source) == (None, "bank_transfer")
    assert odd and (odd.payout_id, odd.source) == (None, "other")


@pytest.mark.parametrize("says", [{"debit": None}, {"credit": "5"}, {"id": None}, {"created_at": "now"}])
def test_a_line_that_is_not_understood_is_none(says: dict[str, Any]) -> None:
    assert line(**says) is None


def test_a_payout_without_its_time_is_none() -> None:
    assert parse_payout({**payout(1), "created_at": None}) is None
    assert parse_payout("x") is None
