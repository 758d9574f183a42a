"""Many polls cost a few pages of the list. Only a whole payment in it is an answer."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.providers.answers import Accepted, Throttled, Unknown
from shared.providers.razorpayx.polls import poll_many
from shared.providers.steps import Poll
from tests.shared.providers.razorpayx.test_listing import DAY, Provider

UTR = "626712345678"


def payments(number: int, per_second: int = 40) -> tuple[list[Poll], list[dict[str, Any]]]:
    """Polls of so many payouts, and the provider's rows of these."""
    polls = []
    rows = []
    for place in range(number):
        created_at = DAY + timedelta(seconds=place // per_second)
        poll = Poll(uuid4(), uuid4(), f"pout_{place:014d}", 5000, 1, created_at)
        polls.append(poll)
        rows.append(row_of(poll))
    return polls, rows


def row_of(poll: Poll, **values: Any) -> dict[str, Any]:
    assert poll.created_at
    return {
        "id": poll.payout_id,
        "amount": poll.amount_paise,
        "status": "processed",
        "reference_id": str(poll.attempt_id),
        "utr": UTR,
        "created_at": int(poll.created_at.timestamp()),
        **values,
    }


@pytest.mark.parametrize("number", [5, 20, 100])
def test_a_page_answers_up_to_a_hundred_polls(number: int) -> None:
    polls, rows = payments(number)
    provider = Provider(rows)
    answers = poll_many(provider, "1", polls)
    assert set(answers) == set(polls)
    assert all(isinstance(answer, Accepted) and answer.report.utr == UTR for answer in answers.values())
    assert provider.calls == 1


def test_payouts_of_others_within_the_same_seconds_cost_more_pages() -> None:
    polls, rows = payments(100)
    _, others = payments(250)
    provider = Provider(rows + [{**row, "id": f"pout_9{row['id'][6:]}"} for row in others])
    assert len(poll_many(provider, "1", polls)) == 100
    assert provider.calls == 3  # 160 of these 250 are within the seconds of the hundred


def test_pages_cost_no_more_than_a_fifth_of_the_polls() -> None:
    polls, rows = payments(10)
    _, others = payments(900, per_second=900)
    provider = Provider(rows + [{**row, "id": f"pout_9{row['id'][6:]}"} for row in others])
    answers = poll_many(provider, "1", polls)
    assert provider.calls == 2
    assert answers == {}  # the newest two hundred are others': these ten are polled by their ids


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"status": "processing"}, id="on its way"),
        pytest.param({"status": "reversed"}, id="returned"),
        pytest.param({"status": "failed"}, id="failed"),
        pytest.param({"utr": None}, id="paid without a UTR"),
        pytest.param({"amount": 5001}, id="another amount"),
        pytest.param({"reference_id": str(UUID(int=1))}, id="another reference"),
        pytest.param({"reference_id": None}, id="no reference"),
        pytest.param({"id": "pout_99999999999999"}, id="another payout"),
    ],
)
def test_a_row_that_is_not_this_whole_payment_is_no_answer(values: dict[str, Any]) -> None:
    polls, rows = payments(5)
    rows[2] |= values
    assert set(poll_many(Provider(rows), "1", polls)) == set(polls) - {polls[2]}


def test_a_list_that_is_not_understood_answers_nothing() -> None:
    polls, rows = payments(5)
    rows[2]["status"] = "new_in_2027"
    assert poll_many(Provider(rows), "1", polls) == {}
    provider = Provider(rows)
    provider.answers[1] = Unknown("timeout")
    assert poll_many(provider, "1", polls) == {}
    assert provider.calls == 1


@pytest.mark.parametrize("cause", ["busy", "paced", "unreachable"])
def test_if_the_provider_takes_no_calls_all_polls_wait(cause: Any) -> None:
    polls, rows = payments(5)
    provider = Provider(rows)
    provider.answers[1] = Throttled(cause, "later")
    assert poll_many(provider, "1", polls) == dict.fromkeys(polls, Throttled(cause, "later"))


def test_if_our_account_may_not_list_each_payout_is_polled() -> None:
    polls, rows = payments(5)
    provider = Provider(rows)
    provider.answers[1] = Throttled("refuses_request", "Not enabled for this merchant")
    assert poll_many(provider, "1", polls) == {}


def test_without_times_of_creation_no_page_is_fetched() -> None:
    provider = Provider([])
    poll = Poll(uuid4(), uuid4(), "pout_00000000000001", 5000, 1, None)
    assert poll_many(provider, "1", [poll]) == {}
    assert provider.calls == 0


def test_times_are_compared_in_the_providers_seconds() -> None:
    """`from` and `to` are whole seconds, and may be exclusive."""
    polls, _ = payments(5)
    at = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
    polls = [Poll(p.withdrawal_id, p.attempt_id, p.payout_id, 5000, 1, at) for p in polls]
    seen: list[dict[str, Any]] = []

    class Watched(Provider):
        def get(self, path: str, query: dict[str, Any]) -> Any:
            seen.append(query)
            return super().get(path, query)

    assert len(poll_many(Watched([row_of(poll) for poll in polls]), "1", polls)) == 5
    assert seen[0]["from"] < int(at.timestamp()) < seen[0]["to"]
