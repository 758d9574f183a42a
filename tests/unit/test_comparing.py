"""What counts as a difference, and what does not: the pure half of reconciliation."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import pytest

from shared.cells import harmless
from shared.razorpayx.answers import NOT_PAID, PAID, PROGRESS, REVERSED, Outcome, PayoutReport
from shared.razorpayx.statements import Line, ListedPayout
from shared.reconciliation.comparing import Ours, Pair, compare, has_news
from shared.reconciliation.summing import Judged, add_up
from shared.states import UNSETTLED, AttemptState

NOW = datetime(2026, 11, 21, tzinfo=UTC)
THEN = NOW - timedelta(hours=3)
ATTEMPT, WITHDRAWAL = UUID(int=1), UUID(int=2)
STATUSES = (*PROGRESS, PAID, *sorted(NOT_PAID), REVERSED)
ENDED = {
    AttemptState.PAID: "completed",
    AttemptState.FAILED: "failed",
    AttemptState.REFUSED: "failed",
    AttemptState.REVERSED: "failed",
}


def ours(state: str = "paid", **says: Any) -> Ours:
    status = ENDED.get(AttemptState(state), "processing")
    facts = {
        "attempt_id": ATTEMPT,
        "withdrawal_id": WITHDRAWAL,
        "state": state,
        "payout_id": "pout_1",
        "amount_paise": 5000,
        "utr": "123" if state == "paid" else None,
        "withdrawal_utr": "123" if state == "paid" else None,
        "fees_paise": 590,
        "tax_paise": 90,
        "status": status,
        "on_peoples_word": False,
        "is_refunded": status == "failed",
        "sent_as": "us",
        "last_sent_at": THEN,
    }
    return Ours(**{**facts, **says})


def theirs(status: str = "processed", at: datetime = THEN, **says: Any) -> ListedPayout:
    facts = {
        "payout_id": "pout_1",
        "status": status,
        "amount_paise": 5000,
        "reference_id": str(ATTEMPT),
        "utr": "123" if status == "processed" else None,
        "fees_paise": 590,
        "tax_paise": 90,
    }
    return ListedPayout(PayoutReport(**{**facts, **says}), at)


def line(number: int = 1, debit: int = 0, credit: int = 0) -> Line:
    source = "payout" if debit else "reversal"
    return Line(f"txn_{number}", debit, credit, source, "x", "pout_1", THEN)


def lines_of(status: str) -> list[Line]:
    """What the statement has when all is well."""
    if status in ("processing", "processed"):
        return [line(1, debit=5590)]
    return [line(1, debit=5590), line(2, credit=5590)] if status in ("reversed", "failed") else []


def kinds(pair: Pair) -> list[str]:
    return [finding.kind for finding in compare(pair, NOW)]


def test_two_equal_sides_agree() -> None:
    pair = Pair(theirs(), ours(), [line(debit=5590)])
    assert kinds(pair) == [] and not has_news(pair)


@pytest.mark.parametrize("status", PROGRESS)
@pytest.mark.parametrize("state", sorted(UNSETTLED))
def test_what_is_on_its_way_on_both_sides_is_no_difference(state: str, status: str) -> None:
    assert kinds(Pair(theirs(status), ours(state), lines_of(status))) == []


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("state", sorted(AttemptState))
def test_every_meeting_of_states_is_agreement_news_or_a_finding(state: str, status: str) -> None:
    """Nothing falls through: where money went another way there and here, somebody is told."""
    pair = Pair(theirs(status), ours(state), lines_of(status))
    outcome = pair.theirs.report.outcome if pair.theirs else ""
    here = "open" if state in UNSETTLED else "paid" if state == "paid" else "not paid"
    there = {"waiting": "open", "paid": "paid"}.get(outcome, "not paid")
    assert (here == there) == (not kinds(pair)), kinds(pair)
    assert len(kinds(pair)) <= 1


@pytest.mark.parametrize(
    ("state", "status", "told"),
    [
        ("refused", "reversed", ["reversed_after_refused"]),
        ("refused", "failed", ["failed_after_refused"]),
        ("failed", "reversed", ["reversed_after_failed"]),
        ("failed", "failed", []),  # they knew that when they said so
    ],
)
def test_where_people_said_paid_another_end_there_is_told(state: str, status: str, told: list[str]) -> None:
    said = ours(state, status="completed", is_refunded=False, on_peoples_word=True)
    assert kinds(Pair(theirs(status), said, lines_of(status))) == told


def test_both_words_for_not_paid_are_the_same_to_us() -> None:
    assert kinds(Pair(theirs("reversed"), ours("failed"), lines_of("reversed"))) == []
    assert kinds(Pair(theirs("failed"), ours("reversed"), lines_of("failed"))) == []


@pytest.mark.parametrize(
    "says,kind",
    [
        ({"amount_paise": 5001, "fees_paise": 589}, "amount_differs"),
        ({"utr": "124"}, "utr_differs"),
        ({"utr": None}, "utr_differs"),
        ({"tax_paise": 91}, "fees_differ"),
        ({"reference_id": str(UUID(int=9))}, "reference_differs"),
    ],
)
def test_one_fact_that_differs_is_one_finding(says: dict[str, Any], kind: str) -> None:
    assert kind in kinds(Pair(theirs(**says), ours(), [line(debit=5590)]))


@pytest.mark.parametrize("name", ["utr", "withdrawal_utr"])
def test_what_the_user_sees_counts_as_well_as_what_the_attempt_says(name: str) -> None:
    pair = Pair(theirs(), dataclasses.replace(ours(), **{name: "9"}), [line(debit=5590)])
    assert kinds(pair) == ["utr_differs"]


def test_a_reversal_there_without_a_refund_here() -> None:
    assert kinds(Pair(theirs("reversed"), ours("reversed", is_refunded=False), lines_of("reversed"))) == [
        "reversed_not_refunded"
    ]


def test_a_failed_try_of_a_withdrawal_that_another_try_paid_is_no_difference() -> None:
    failed = ours("failed", status="completed", is_refunded=False)
    assert kinds(Pair(theirs("failed"), failed, lines_of("failed"))) == []


def test_given_up_here_and_alive_there_stops_the_withdrawal() -> None:
    (finding,) = compare(
        Pair(
            theirs("processing"),
            ours("failed", status="processing", is_refunded=False),
            lines_of("processing"),
        ),
        NOW,
    )
    assert (finding.kind, finding.subject, finding.stops) == (
        "processing_after_failed",
        str(WITHDRAWAL),
        True,
    )


@pytest.mark.parametrize(
    "status,lines,kind",
    [
        ("processed", [], ["payout_without_debit"]),
        ("processed", [line(debit=5000)], ["debit_differs"]),
        ("processed", [line(debit=5590), line(2, debit=5590)], ["debit_differs"]),
        ("processed", [line(debit=5590), line(2, credit=10)], ["credit_unexplained"]),
        ("reversed", [line(debit=5590)], ["credit_missing"]),
        ("reversed", [line(debit=5590), line(2, credit=5000)], ["credit_differs"]),
        ("failed", [line(debit=5590)], []),
        ("failed", [], []),
        ("queued", [line(debit=5590)], ["debit_differs"]),
        ("processed", [line(debit=5590), line(2, credit=5590), line(3, debit=5590)], []),
    ],
)
def test_the_statement_of_one_payout(status: str, lines: list[Line], kind: list[str]) -> None:
    state = {"processed": "paid", "queued": "accepted"}.get(status, status)
    assert kinds(Pair(theirs(status), ours(state), lines)) == kind


def test_a_failed_payout_whose_money_stays_away_too_long() -> None:
    old = theirs("failed", at=NOW - timedelta(days=6))
    assert kinds(Pair(old, ours("failed"), [line(debit=5590)])) == ["credit_missing"]


def test_the_statement_may_be_a_little_behind_what_has_just_begun() -> None:
    begun = theirs("processing", at=NOW - timedelta(minutes=1))
    assert kinds(Pair(begun, ours("accepted"), [])) == []
    assert kinds(Pair(theirs("processing"), ours("accepted"), [])) == ["payout_without_debit"]


def test_of_another_day_s_payout_only_what_is_there_is_judged() -> None:
    assert kinds(Pair(theirs(), ours(), [], whole=False)) == []
    assert kinds(Pair(theirs("reversed"), ours("reversed"), [line(credit=5590)], whole=False)) == []
    assert kinds(Pair(theirs(), ours(), [line(debit=1)], whole=False)) == ["debit_differs"]


def test_what_only_one_side_knows_is_one_finding() -> None:
    assert kinds(Pair(theirs(), None, [line(debit=5590)])) == ["unknown_to_us"]
    assert kinds(Pair(None, ours(), [line(debit=5590)])) == ["unknown_to_them"]
    assert kinds(Pair(None, None, [line(debit=5)])) == ["debit_without_payout"]
    assert kinds(Pair(None, None, [line(credit=5)])) == ["credit_unexplained"]


def test_nothing_is_learnt_from_what_may_be_another_payout() -> None:
    for odd in (
        Pair(theirs(amount_paise=1), ours("accepted")),
        Pair(theirs(reference_id=str(UUID(int=9))), ours("accepted")),
        Pair(theirs(), ours("accepted"), beside=("pout_2",)),
    ):
        assert not has_news(odd)


def test_a_utr_that_is_missing_here_is_news_and_another_one_is_not() -> None:
    assert has_news(Pair(theirs(), ours(utr=None)))
    assert not has_news(Pair(theirs(), ours(utr="9")))


@pytest.mark.parametrize(
    "pair",
    [
        Pair(theirs(), ours(), [line(debit=5590)]),
        Pair(theirs("reversed"), ours("reversed"), lines_of("reversed")),
        Pair(theirs("processing"), ours("accepted"), lines_of("processing")),
        Pair(theirs("queued"), ours("accepted"), []),
        Pair(theirs("failed"), ours("failed"), [line(debit=5590)]),
        Pair(theirs("reversed"), ours("reversed"), [line(credit=5590)], whole=False),
        Pair(theirs(), ours(), [], whole=False),
    ],
)
def test_what_agrees_closes_to_zero(pair: Pair) -> None:
    assert add_up([Judged(pair)], []).remainder == 0


def test_what_nobody_named_remains() -> None:
    wrong = Pair(theirs(), ours(), [line(debit=5597)])
    assert add_up([Judged(wrong)], []).remainder == 7
    assert add_up([Judged(wrong, ["debit_differs"], [1])], []).remainder == 0


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
@pytest.mark.parametrize(
    "before",
    [
        "",
        "  ",
        "\u00a0",
        "\u200b\ufeff",
        "\u202e",
        "\u3000",
        "\u3164",
        "\x01",
        "\ufe0f",
        "\u180b",
        "\U000e0100",
    ],
)
def test_no_cell_is_a_formula(cell: str, before: str) -> None:
    assert harmless(before + cell) == f"'{before}{cell}"


@pytest.mark.parametrize("sign", "＝＋－＠﹢﹣﹦﹫−")
def test_a_full_width_or_small_sign_begins_a_formula_too(sign: str) -> None:
    assert harmless(f" {sign}1+1") == f"' {sign}1+1"


@pytest.mark.parametrize("cell", ["", " ", "user123", " user", "a=1", "₹5", "\u202eresu", "५", "12.50"])
def test_other_cells_stay_as_they_are(cell: str) -> None:
    assert harmless(cell) == cell


def test_the_outcomes_are_the_four_that_are_known_here() -> None:
    assert set(get_args(Outcome)) == {"waiting", "paid", "not_paid", "reversed"}
