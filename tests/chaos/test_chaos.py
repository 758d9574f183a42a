"""The plan is reproducible, the judge notices each kind of harm, and a short run breaks no promise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.__main__ import main, page
from tests.chaos.faults import HANDLERS, Injected
from tests.chaos.load import TOO_MANY_COINS, Ledger, Request, make_requests
from tests.chaos.oracle import TRUTHS, Facts, judge
from tests.chaos.run import QUICK, Options, Result, recovery_times, run
from tests.chaos.schedule import FAULTS, MAX_LIES, plan

PAID = "w-paid"
FAILED = "w-failed"
CANCELLED = "w-cancelled"
BACK = "w-back"


# --- the plan


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan(7, 100) == plan(7, 100)
    assert make_requests(7, 100) == make_requests(7, 100)


def test_another_seed_gives_another_plan() -> None:
    assert plan(7, 100) != plan(8, 100)
    assert make_requests(7, 100) != make_requests(8, 100)


def test_every_fault_has_a_handler() -> None:
    assert set(HANDLERS) == set(FAULTS)


@pytest.mark.parametrize("seed", range(3))
def test_a_long_run_has_every_fault(seed: int) -> None:
    assert {fault.name for track in plan(seed, 300).values() for fault in track} == set(FAULTS)


@pytest.mark.parametrize("seed", range(3))
def test_faults_of_a_track_do_not_overlap_and_end_in_time(seed: int) -> None:
    for track in plan(seed, 300).values():
        ends = [fault.at + fault.lasts for fault in track]
        assert all(end < after.at for end, after in zip(ends, track[1:], strict=False))
        assert ends[-1] <= 300


@pytest.mark.parametrize("seed", range(3))
def test_the_provider_never_lies_long_enough_to_cause_a_refund(seed: int) -> None:
    lies = [fault for track in plan(seed, 300).values() for fault in track if fault.name == "lookups.empty"]
    assert len(lies) <= MAX_LIES
    assert all(lie.lasts < 2 * float(QUICK["LOOKUP_SECONDS"]) for lie in lies)


def test_a_frozen_worker_stays_frozen_longer_than_its_lease() -> None:
    assert FAULTS["worker.freeze"][1] > float(QUICK["LEASE_SECONDS"])


# --- the judge


def payout(reference: str, *steps: tuple[float, str]) -> dict[str, Any]:
    return {
        "id": f"pout-{reference}",
        "reference_id": reference,
        "idempotency_key": reference,
        "amount": 1000,
        "vpa": "user@sim",
        "status": steps[-1][1],
        "utr": f"utr-{reference}",
        "created_at": steps[0][0],
        "history": [{"at": at, "status": status, "reason": None} for at, status in steps],
    }


def journal_line(
    kind: str, coins: int, balance: int, at: float, withdrawal_id: str | None = None
) -> dict[str, Any]:
    row = {"user_id": "user1", "kind": kind, "coins": coins, "balance_after": balance, "reference": None}
    return row | {"withdrawal_id": withdrawal_id, "at": at}


def withdrawal(withdrawal_id: str, status: str, utr: str | None = None) -> dict[str, Any]:
    row = {"id": withdrawal_id, "user_id": "user1", "coins_amount": 100, "amount_paise": 1000, "hold": None}
    return row | {
        "upi_id": "user@sim",
        "status": status,
        "status_reason": None,
        "due_at": None,
        "expected_by": None,
        "utr": utr,
        "completed_at": None,
    }


def story(withdrawal_id: str, *statuses: str) -> list[dict[str, Any]]:
    before = [None, *statuses]
    return [
        {
            "withdrawal_id": withdrawal_id,
            "from_status": old,
            "to_status": new,
            "reason": "",
            "actor": "",
            "at": 1.0,
        }
        for old, new in zip(before, statuses, strict=False)
    ]


def clean() -> dict[str, Any]:
    """Four withdrawals of one user, each with a different end, and nothing wrong."""
    requests = [
        Request("user1", 100, "user@sim", "asks again", withdrawal_id=key) for key in (PAID, FAILED, BACK)
    ]
    requests.append(
        Request("user1", 100, "user@sim", "asks again", 0.1, withdrawal_id=CANCELLED, cancelled=True)
    )
    return {
        "payouts": [
            payout("a-paid", (10, "processing"), (12, "processed")),
            payout("a-failed-1", (10, "processing"), (12, "failed")),
            payout("a-failed-2", (14, "processing"), (16, "reversed")),
            payout("a-back", (10, "processing"), (12, "processed"), (20, "reversed")),
        ],
        "wallets": [{"user_id": "user1", "balance_coins": 900}],
        "journal": [
            journal_line("credit", 1000, 1000, 1),
            *(
                journal_line("withdrawal", -100, 900 - 100 * n, 2 + n, key)
                for n, key in enumerate((PAID, FAILED, CANCELLED, BACK))
            ),
            journal_line("refund", 100, 700, 7, CANCELLED),
            journal_line("refund", 100, 800, 17, FAILED),
            journal_line("refund", 100, 900, 21, BACK),
        ],
        "withdrawals": [
            withdrawal(PAID, "completed", "utr-a-paid"),
            withdrawal(FAILED, "failed"),
            withdrawal(CANCELLED, "cancelled"),
            withdrawal(BACK, "failed", "utr-a-back"),
        ],
        "attempts": [
            {"id": attempt, "withdrawal_id": owner, "state": "", "payout_id": f"pout-{attempt}"}
            for attempt, owner in (
                ("a-paid", PAID),
                ("a-failed-1", FAILED),
                ("a-failed-2", FAILED),
                ("a-back", BACK),
            )
        ],
        "events": [
            *story(PAID, "pending", "processing", "completed"),
            *story(FAILED, "pending", "processing", "failed"),
            *story(CANCELLED, "pending", "cancelled"),
            *story(BACK, "pending", "processing", "completed", "failed"),
        ],
        "unread": [],
        "ledger": Ledger(requests, {"user1": 1000}),
    }


def broken(facts: dict[str, Any]) -> set[str]:
    """The sentences that do not hold."""
    return {truth.sentence for truth, violations in judge(Facts(**facts)).items() if violations}


def test_the_oracle_finds_nothing_wrong_in_a_correct_state() -> None:
    assert broken(clean()) == set()


def a_second_payout_beside_the_first(facts: dict[str, Any]) -> None:
    facts["attempts"].append({"id": "a-more", "withdrawal_id": PAID, "state": "", "payout_id": "pout-a-more"})
    facts["payouts"].append(payout("a-more", (11, "processing"), (13, "failed")))


def two_paid(facts: dict[str, Any]) -> None:
    facts["attempts"].append({"id": "a-more", "withdrawal_id": PAID, "state": "", "payout_id": "pout-a-more"})
    facts["payouts"].append(payout("a-more", (20, "processing"), (23, "processed")))


def a_payout_that_nobody_knows(facts: dict[str, Any]) -> None:
    facts["payouts"].append(payout("a-stranger", (11, "processing"), (13, "processed")))


def another_amount(facts: dict[str, Any]) -> None:
    facts["payouts"][0]["amount"] = 10_000


def one_key_twice(facts: dict[str, Any]) -> None:
    facts["payouts"][1]["idempotency_key"] = "a-paid"


def a_lost_refund(facts: dict[str, Any]) -> None:
    facts["journal"] = [
        line for line in facts["journal"] if line["withdrawal_id"] != BACK or line["coins"] < 0
    ]
    facts["wallets"][0]["balance_coins"] = 800


def a_second_refund(facts: dict[str, Any]) -> None:
    facts["journal"].append(journal_line("refund", 100, 1000, 30, FAILED))
    facts["wallets"][0]["balance_coins"] = 1000


def a_refund_of_what_is_paid(facts: dict[str, Any]) -> None:
    facts["journal"].append(journal_line("refund", 100, 1000, 30, PAID))
    facts["wallets"][0]["balance_coins"] = 1000
    facts["withdrawals"][0]["status"] = "failed"
    facts["events"] += [{**story(PAID, "failed")[0], "from_status": "completed"}]


def a_refund_too_early(facts: dict[str, Any]) -> None:
    facts["journal"][6]["at"] = 15  # the second payout is not reversed before 16


def completed_but_sent_back(facts: dict[str, Any]) -> None:
    facts["payouts"][0] = payout("a-paid", (10, "processing"), (12, "processed"), (13, "reversed"))


def completed_and_never_sent(facts: dict[str, Any]) -> None:
    del facts["payouts"][0]


def a_balance_that_nobody_explains(facts: dict[str, Any]) -> None:
    facts["wallets"][0]["balance_coins"] = 901


def coins_from_nowhere(facts: dict[str, Any]) -> None:
    facts["journal"].append(journal_line("credit", 50, 950, 30))
    facts["wallets"][0]["balance_coins"] = 950


def coins_not_taken(facts: dict[str, Any]) -> None:
    del facts["journal"][4]


def told_and_gone(facts: dict[str, Any]) -> None:
    facts["ledger"].requests[0].withdrawal_id = "w-nobody"


def never_asked_for(facts: dict[str, Any]) -> None:
    del facts["ledger"].requests[0]


def too_much_was_granted(facts: dict[str, Any]) -> None:
    facts["ledger"].requests.append(
        Request("user1", TOO_MANY_COINS, "user@sim", "asks again", withdrawal_id=PAID)
    )


def cancelled_and_paid(facts: dict[str, Any]) -> None:
    facts["attempts"].append({"id": "a-c", "withdrawal_id": CANCELLED, "state": "", "payout_id": "pout-a-c"})
    facts["payouts"].append(payout("a-c", (3, "processing"), (5, "processed")))


def an_event_is_missing(facts: dict[str, Any]) -> None:
    del facts["events"][1]


def still_open(facts: dict[str, Any]) -> None:
    facts["withdrawals"][0]["status"] = "processing"


def open_without_a_promise(facts: dict[str, Any]) -> None:
    facts["withdrawals"][0] |= {"status": "processing", "status_reason": "confirming", "due_at": 1.0}


def waits_for_a_person(facts: dict[str, Any]) -> None:
    facts["withdrawals"][0]["hold"] = "two_payouts"


def an_unread_webhook(facts: dict[str, Any]) -> None:
    facts["unread"].append({"event_id": "e1"})


@pytest.mark.parametrize(
    ("harm", "noticed_as"),
    [
        (a_second_payout_beside_the_first, "no withdrawal ever had two live payouts"),
        (two_paid, "no withdrawal ever had two live payouts"),
        (two_paid, "completed exactly where the provider processed one payout"),
        (a_payout_that_nobody_knows, "every payout at the provider is for a withdrawal of ours"),
        (another_amount, "every payout at the provider is for a withdrawal of ours"),
        (one_key_twice, "no idempotency key made two payouts"),
        (a_lost_refund, "failed and cancelled withdrawals were refunded once"),
        (a_lost_refund, "credited = balances + withdrawals that were not refunded"),
        (a_second_refund, "failed and cancelled withdrawals were refunded once"),
        (a_refund_of_what_is_paid, "where the coins went back, no payout lives"),
        (a_refund_of_what_is_paid, "nothing was refunded before the provider had ended every payout"),
        (a_refund_too_early, "nothing was refunded before the provider had ended every payout"),
        (completed_but_sent_back, "completed exactly where the provider processed one payout"),
        (completed_and_never_sent, "completed exactly where the provider processed one payout"),
        (a_balance_that_nobody_explains, "every balance is the sum of its journal"),
        (coins_from_nowhere, "each user got every credit that their app sent, once"),
        (coins_not_taken, "every withdrawal took its coins, once"),
        (told_and_gone, "every withdrawal that an app was told about exists as told"),
        (never_asked_for, "no withdrawal exists that nobody asked for"),
        (too_much_was_granted, "only what a wallet did not hold was refused"),
        (cancelled_and_paid, "what was cancelled by its user is cancelled, and was never at the provider"),
        (an_event_is_missing, "the events of every withdrawal are one unbroken story"),
        (still_open, "every withdrawal is final"),
        (open_without_a_promise, "whatever waits says why and until when"),
        (waits_for_a_person, "every withdrawal is final, and none waits for a person"),
        (an_unread_webhook, "every webhook that was taken was applied"),
    ],
)
def test_the_oracle_notices_each_kind_of_harm(
    harm: Callable[[dict[str, Any]], None], noticed_as: str
) -> None:
    facts = clean()
    harm(facts)
    assert any(sentence.startswith(noticed_as) for sentence in broken(facts))


def test_recovery_is_measured_from_the_fault_to_the_next_move() -> None:
    events = [
        {**event, "at": at} for event, at in zip(story("w", "pending", "processing"), (1.0, 5.0), strict=True)
    ]
    assert recovery_times([Injected("redis.flush", 2.0, 2.0)], events) == {"redis.flush": [3.0]}


def test_recovery_of_held_work_is_measured_until_its_last_withdrawal_continues() -> None:
    claimed = {"withdrawal_id": "w", "from_status": "pending", "to_status": "processing", "reason": "claimed"}
    continued = {**claimed, "from_status": "processing", "reason": "worker_lost"}
    events = [{**claimed, "at": 1.0}, {**continued, "at": 9.0}]
    times = recovery_times([Injected("worker.kill", 2.0, 2.0)], events)
    assert times["worker.kill: what it held"] == [7.0]


# --- the program

ARGUMENTS = "--withdrawals 70 --seconds 5 --seed 9 --faults redis.flush --patience 8 --within 30 --workers 1 --api-workers 3"


def exit_code(tmp_path: Path, **differs: Any) -> int:
    """The exit code of the program for a run that differs from a good one in this."""

    def fake_run(options: Options, directory: Path, tell: Callable[[str], None]) -> Result:
        good: dict[str, Any] = {"took": {"faults": 5.0, "drain": 20.0}, "check_holds": True}
        good["numbers"] = {"withdrawals": 70}
        return Result(options, **{**good, "truths": {truth: [] for truth in TRUTHS}, **differs})

    return main([*ARGUMENTS.split(), "--directory", str(tmp_path)], fake_run)


def test_a_good_run_exits_with_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(tmp_path) == 0
    output = capsys.readouterr().out
    assert "Every promise was kept." in output and "Again:" not in output


@pytest.mark.parametrize(
    ("differs", "message"),
    [
        ({"truths": {TRUTHS[0]: ["user1"]}}, "NOT every promise was kept."),
        ({"truths": {}}, "NOT every promise was kept."),
        ({"check_holds": False}, "NOT every promise was kept."),
        ({"errors": ["apps still ask"]}, "The run itself: apps still ask"),
        ({"died": ["worker (exit code 1)"]}, "Ended by itself and was started again: worker (exit code 1)"),
        ({"took": {"faults": 5.0, "drain": 26.0}}, "It took 31 s, and may take 30 s."),
    ],
)
def test_any_other_run_exits_with_one_and_prints_the_command_to_repeat_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], differs: dict[str, Any], message: str
) -> None:
    assert exit_code(tmp_path, **differs) == 1
    output = capsys.readouterr().out
    assert message in output and f'Again: make chaos ARGS="{ARGUMENTS}"' in output


def test_a_run_that_raises_prints_the_command_to_repeat_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing_run(options: Options, directory: Path, tell: Callable[[str], None]) -> Result:
        raise OSError("no port is free")

    with pytest.raises(OSError, match="no port"):
        main([*ARGUMENTS.split(), "--directory", str(tmp_path)], failing_run)
    assert f'Again: make chaos ARGS="{ARGUMENTS}"' in capsys.readouterr().out


# --- a short run

SHORT = Options(
    withdrawals=60,
    seconds=5,
    seed=5,
    faults=("worker.kill", "redis.flush", "postgres.sever", "provider.drop", "replies.lost", "hooks.twice"),
    patience=180,  # ends as soon as no work is left
    workers=1,
    api_workers=1,
)


@pytest.mark.exhaustive
@pytest.mark.timeout(600)  # start, faults, patience, judgement
def test_a_short_storm_breaks_no_promise(tmp_path: Path) -> None:
    result = run(SHORT, tmp_path)
    assert sum(result.faults.values()) >= 4
    assert result.good, page(result) + f"\nAgain: {SHORT.command}"
