"""The pure half of reconciliation: which pairs match and which do not."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import pytest

from shared.providers.answers import ListedPayout, Outcome
from shared.providers.answers import StatementLine as Line
from shared.providers.razorpayx.answers import NOT_PAID, PAID, PROGRESS, REVERSED
from shared.providers.razorpayx.answers import build_report as report_of
from shared.reconciliation.day_totals import ComparedPair, compute_totals
from shared.reconciliation.diff import OurAttempt, Pair, compare, has_update
from shared.states import UNSETTLED, AttemptState
from shared.text.csv_cells import escape_formula

NOW = datetime(2026, 11, 21, tzinfo=UTC)
THEN = NOW - timedelta(hours=3)
ATTEMPT = UUID(int=1)
WITHDRAWAL = UUID(int=2)
STATUSES = (*PROGRESS, PAID, *sorted(NOT_PAID), REVERSED)
ENDED = {
    AttemptState.PAID: "completed",
    AttemptState.FAILED: "failed",
    AttemptState.REFUSED: "failed",
    AttemptState.REVERSED: "failed",
}


def ours(state: str = "paid", **values: Any) -> OurAttempt:
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
        "is_paid_by_decision": False,
        "is_refunded": status == "failed",
        "sent_as": "us",
        "last_sent_at": THEN,
    }
    return OurAttempt(**{**facts, **values})


def theirs(status: str = "processed", at: datetime = THEN, **values: Any) -> ListedPayout:
    facts = {
        "payout_id": "pout_1",
        "status": status,
        "amount_paise": 5000,
        "reference_id": str(ATTEMPT),
        "utr": "123" if status == "processed" else None,
        "fees_paise": 590,
        "tax_paise": 90,
    }
    return ListedPayout(report_of(**{**facts, **values}), at)


def line(number: int = 1, debit: int = 0, credit: int = 0) -> Line:
    source = "payout" if debit else "reversal"
    return Line(f"txn_{number}", debit, credit, source, "x", "pout_1", THEN)


def lines_of(status: str) -> list[Line]:
    """The lines of a correct statement."""
    if status in ("processing", "processed"):
        return [line(1, debit=5590)]
    return [line(1, debit=5590), line(2, credit=5590)] if status in ("reversed", "failed") else []


def kinds(pair: Pair) -> list[str]:
    return [finding.kind for finding in compare(pair, NOW)]


def test_two_equal_sides_agree() -> None:
    pair = Pair(theirs(), ours(), [line(debit=5590)])
    assert kinds(pair) == [] and not has_update(pair)


@pytest.mark.parametrize("status", PROGRESS)
@pytest.mark.parametrize("state", sorted(UNSETTLED))
def test_in_progress_on_both_sides_is_no_difference(state: str, status: str) -> None:
    assert kinds(Pair(theirs(status), ours(state), lines_of(status))) == []


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("state", sorted(AttemptState))
def test_every_pair_of_states_agrees_updates_or_is_a_finding(state: str, status: str) -> None:
    """Nothing is missed: if the money went differently on the two sides, there is a finding."""
    pair = Pair(theirs(status), ours(state), lines_of(status))
    outcome = pair.theirs.report.outcome if pair.theirs else ""
    here = "open" if state in UNSETTLED else "paid" if state == "paid" else "not paid"
    there = {"waiting": "open", "paid": "paid"}.get(outcome, "not paid")
    assert (here == there) == (not kinds(pair)), kinds(pair)
    assert len(kinds(pair)) <= 1


@pytest.mark.parametrize(
    ("state", "status", "expected"),
    [
        ("refused", "reversed", ["reversed_after_refused"]),
        ("refused", "failed", ["failed_after_refused"]),
        ("failed", "reversed", ["reversed_after_failed"]),
        ("failed", "failed", []),  # known when they decided
    ],
)
def test_a_different_result_after_a_decision_of_paid_is_a_finding(
    state: str, status: str, expected: list[str]
) -> None:
    decided = ours(state, status="completed", is_refunded=False, is_paid_by_decision=True)
    assert kinds(Pair(theirs(status), decided, lines_of(status))) == expected


def test_failed_and_reversed_both_mean_not_paid() -> None:
    assert kinds(Pair(theirs("reversed"), ours("failed"), lines_of("reversed"))) == []
    assert kinds(Pair(theirs("failed"), ours("reversed"), lines_of("failed"))) == []


@pytest.mark.parametrize(
    "values,kind",
    [
        ({"amount_paise": 5001, "fees_paise": 589}, "amount_differs"),
        ({"utr": "124"}, "utr_differs"),
        ({"utr": None}, "utr_differs"),
        ({"tax_paise": 91}, "fees_differ"),
        ({"reference_id": str(UUID(int=9))}, "reference_differs"),
    ],
)
def test_each_differing_field_is_a_finding(values: dict[str, Any], kind: str) -> None:
    assert kind in kinds(Pair(theirs(**values), ours(), [line(debit=5590)]))


@pytest.mark.parametrize("name", ["utr", "withdrawal_utr"])
def test_the_utrs_of_the_withdrawal_and_of_the_attempt_are_both_compared(name: str) -> None:
    pair = Pair(theirs(), dataclasses.replace(ours(), **{name: "9"}), [line(debit=5590)])
    assert kinds(pair) == ["utr_differs"]


def test_a_reversal_without_a_refund_is_a_finding() -> None:
    assert kinds(Pair(theirs("reversed"), ours("reversed", is_refunded=False), lines_of("reversed"))) == [
        "reversed_not_refunded"
    ]


def test_a_failed_attempt_of_a_paid_withdrawal_is_no_difference() -> None:
    failed = ours("failed", status="completed", is_refunded=False)
    assert kinds(Pair(theirs("failed"), failed, lines_of("failed"))) == []


def test_an_abandoned_payout_that_is_alive_at_the_provider_needs_a_hold() -> None:
    (finding,) = compare(
        Pair(
            theirs("processing"),
            ours("failed", status="processing", is_refunded=False),
            lines_of("processing"),
        ),
        NOW,
    )
    assert (finding.kind, finding.subject, finding.needs_hold) == (
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
def test_the_statement_lines_of_a_payout_are_compared(
    status: str, lines: list[Line], kind: list[str]
) -> None:
    state = {"processed": "paid", "queued": "accepted"}.get(status, status)
    assert kinds(Pair(theirs(status), ours(state), lines)) == kind


def test_a_failed_payout_without_its_credit_becomes_a_finding() -> None:
    old = theirs("failed", at=NOW - timedelta(days=6))
    assert kinds(Pair(old, ours("failed"), [line(debit=5590)])) == ["credit_missing"]


def test_a_new_payout_may_lack_its_statement_line() -> None:
    new_payout = theirs("processing", at=NOW - timedelta(minutes=1))
    assert kinds(Pair(new_payout, ours("accepted"), [])) == []
    assert kinds(Pair(theirs("processing"), ours("accepted"), [])) == ["payout_without_debit"]


def test_a_payout_of_another_day_is_judged_by_its_existing_lines_only() -> None:
    assert kinds(Pair(theirs(), ours(), [], is_complete=False)) == []
    assert kinds(Pair(theirs("reversed"), ours("reversed"), [line(credit=5590)], is_complete=False)) == []
    assert kinds(Pair(theirs(), ours(), [line(debit=1)], is_complete=False)) == ["debit_differs"]


def test_a_payout_or_line_on_one_side_only_is_a_finding() -> None:
    assert kinds(Pair(theirs(), None, [line(debit=5590)])) == ["unknown_to_us"]
    assert kinds(Pair(None, ours(), [line(debit=5590)])) == ["unknown_to_them"]
    assert kinds(Pair(None, None, [line(debit=5)])) == ["debit_without_payout"]
    assert kinds(Pair(None, None, [line(credit=5)])) == ["credit_unexplained"]


def test_a_doubtful_match_updates_nothing() -> None:
    for doubtful in (
        Pair(theirs(amount_paise=1), ours("accepted")),
        Pair(theirs(reference_id=str(UUID(int=9))), ours("accepted")),
        Pair(theirs(), ours("accepted"), other_payout_ids=("pout_2",)),
    ):
        assert not has_update(doubtful)


def test_a_missing_utr_is_an_update_and_a_different_utr_is_not() -> None:
    assert has_update(Pair(theirs(), ours(utr=None)))
    assert not has_update(Pair(theirs(), ours(utr="9")))


@pytest.mark.parametrize(
    "pair",
    [
        Pair(theirs(), ours(), [line(debit=5590)]),
        Pair(theirs("reversed"), ours("reversed"), lines_of("reversed")),
        Pair(theirs("processing"), ours("accepted"), lines_of("processing")),
        Pair(theirs("queued"), ours("accepted"), []),
        Pair(theirs("failed"), ours("failed"), [line(debit=5590)]),
        Pair(theirs("reversed"), ours("reversed"), [line(credit=5590)], is_complete=False),
        Pair(theirs(), ours(), [], is_complete=False),
    ],
)
def test_matching_pairs_have_no_remainder(pair: Pair) -> None:
    assert compute_totals([ComparedPair(pair)], []).remainder == 0


def test_an_unexplained_difference_is_the_remainder() -> None:
    wrong = Pair(theirs(), ours(), [line(debit=5597)])
    assert compute_totals([ComparedPair(wrong)], []).remainder == 7
    assert compute_totals([ComparedPair(wrong, ["debit_differs"], [1])], []).remainder == 0


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
    assert escape_formula(before + cell) == f"'{before}{cell}"


@pytest.mark.parametrize("sign", "＝＋－＠﹢﹣﹦﹫−")
def test_a_full_width_or_small_sign_starts_a_formula_too(sign: str) -> None:
    assert escape_formula(f" {sign}1+1") == f"' {sign}1+1"


@pytest.mark.parametrize("cell", ["", " ", "user123", " user", "a=1", "₹5", "\u202eresu", "५", "12.50"])
def test_other_cells_are_unchanged(cell: str) -> None:
    assert escape_formula(cell) == cell


def test_there_are_four_outcomes() -> None:
    assert set(get_args(Outcome)) == {"waiting", "paid", "not_paid", "reversed"}
