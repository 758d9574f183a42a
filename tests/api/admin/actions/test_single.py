"""Actions on a withdrawal: with a reason, in two steps, once, recorded under the operator's name."""

import re
from typing import Any

import pytest

from shared.roles import Role
from tests.api.admin.conftest import Signed
from tests.support.world import World, this_minute

PAID = {"utr": "SBIN426333000001", "paid_via": "neft"}


def events(world: World, withdrawal_id: Any) -> list[tuple[str, str]]:
    rows = world.sql(
        "SELECT reason, actor FROM withdrawal_events WHERE withdrawal_id = :id AND actor LIKE 'operator:%'"
        " ORDER BY id",
        id=withdrawal_id,
    )
    return [(row.reason, row.actor) for row in rows]


def audit(world: World, action: str) -> list[str]:
    return [
        r.outcome for r in world.sql("SELECT outcome FROM audit_log WHERE action = :a ORDER BY id", a=action)
    ]


def test_a_cancellation_says_what_will_happen_then_does_it(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    asha = signed_in()
    asha.get(f"/admin/withdrawal/{withdrawal_id}/cancel/")
    confirmation = asha.send(step="confirm", reason="asked for by mail").text
    assert "₹50.00 is not paid to us…@okhdfcbank" in confirmation
    assert "500 coins return to user123 at once." in confirmation
    assert "The balance changes from 1,500 to 2,000 coins" in confirmation
    assert "operator:asha" in confirmation and "asked for by mail" in confirmation
    assert panel.read(withdrawal_id).status == "pending"
    asha.send(step="do")
    assert "Cancelled. ₹50.00" in asha.messages
    assert events(panel, withdrawal_id) == [("asked for by mail", "operator:asha")]
    assert panel.read(withdrawal_id).admin_notes == "Cancelled: asked for by mail"
    assert audit(panel, "cancel") == ["asked", "done"]
    assert panel.balance() == 2000


def test_a_double_click_acts_once(panel: World, signed_in: Signed) -> None:
    panel.credit()
    asha = signed_in()
    first, second = panel.request(), panel.request()
    assert "It has changed" in asha.act(first, "cancel", times=2)
    assert "It has changed" in asha.act(second, "note", times=2)
    assert (panel.refunds(first), panel.balance()) == (1, 1500)
    assert events(panel, second) == [("noted", "operator:asha")]
    assert audit(panel, "note") == ["asked", "done", "asked", "refused"]


def test_a_stale_page_cannot_act_and_keeps_what_was_typed(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    asha, ravi = signed_in("asha"), signed_in("ravi")
    asha.get(f"/admin/withdrawal/{withdrawal_id}/cancel/")
    assert "Note added" in ravi.act(withdrawal_id, "note", "I am calling the user")
    page = asha.send(step="do", reason="a long story")
    assert page.status_code == 409 and "It has changed" in page.text and "a long story" in page.text
    assert panel.read(withdrawal_id).status == "pending"
    asha.send(step="confirm", reason="a long story")
    asha.send(step="do")
    assert panel.read(withdrawal_id).status == "cancelled"


@pytest.mark.parametrize(
    ("word", "more", "status"),
    [("mark-paid", {"utr": "500000000001", "paid_via": "imps"}, "completed"), ("refund", {}, "failed")],
)
def test_an_unknown_payout_takes_two_people(
    panel: World, signed_in: Signed, word: str, more: dict[str, str], status: str
) -> None:
    panel.credit()
    withdrawal_id = panel.first_send().withdrawal_id
    panel.sql("UPDATE payout_attempts SET state = 'unknown', in_doubt = true")
    asha, ravi = signed_in("asha"), signed_in("ravi")
    more |= {"paid_at": this_minute()} if more else {}
    assert "second person" in asha.act(withdrawal_id, word, "seen in the statement", **more)
    assert "second person is needed" in asha.act(withdrawal_id, "approve", "myself")
    assert panel.read(withdrawal_id).status == "processing"
    ravi.get(f"/admin/withdrawal/{withdrawal_id}/approve/")
    assert "seen in the statement" in ravi.page.text and "operator:asha" in ravi.page.text
    if word == "refund":
        assert "₹50.00 is lost" in ravi.page.text
    assert f"Approved. The withdrawal is {status}" in ravi.act(withdrawal_id, "approve", "seen it too")
    read = panel.read(withdrawal_id)
    assert (read.status, read.utr) == (status, more.get("utr"))
    assert panel.refunds(withdrawal_id) == (1 if word == "refund" else 0)
    assert [actor for _, actor in events(panel, withdrawal_id)] == ["operator:asha", "operator:ravi"]


def test_a_rejected_proposal_moves_nothing(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.first_send().withdrawal_id
    panel.sql("UPDATE payout_attempts SET state = 'unknown', in_doubt = true")
    asha, ravi = signed_in("asha"), signed_in("ravi")
    asha.act(withdrawal_id, "refund", "nothing in the list")
    assert "Rejected" in ravi.act(withdrawal_id, "reject", "it is in the list")
    assert panel.read(withdrawal_id).status == "processing" and panel.balance() == 1500
    assert "There is no open proposal" in ravi.act(withdrawal_id, "approve")


def test_retry_now_respects_the_cancel_window(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    asha = signed_in()
    assert "A worker holds it" in asha.act(withdrawal_id, "retry")
    panel.sql("UPDATE withdrawals SET status_reason = 'paused', due_at = now() + interval '1 hour'")
    assert "due now" in asha.act(withdrawal_id, "retry", "the bank is back")
    [row] = panel.sql("SELECT due_at <= now() AS due FROM withdrawals")
    assert row.due and events(panel, withdrawal_id) == [("retry_now", "operator:asha")]
    panel.bring_on(withdrawal_id)
    assert panel.read(withdrawal_id).status == "processing"
    assert "Query RazorpayX instead" in asha.act(withdrawal_id, "retry")
    assert panel.finish(withdrawal_id) == "completed"


def test_query_now_brings_the_result(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    asha = signed_in()
    assert "No payout is under way" in asha.act(withdrawal_id, "ask")
    panel.step(withdrawal_id)
    panel.sql("UPDATE withdrawals SET due_at = now() + interval '1 hour'")
    assert "queried now" in asha.act(withdrawal_id, "ask", "the user calls")
    panel.bring_on(withdrawal_id)
    assert panel.finish(withdrawal_id) == "completed"
    assert "queried now" in asha.act(withdrawal_id, "ask", "the user says nothing came")
    assert panel.sql("SELECT recheck_at <= now() AS due FROM payout_attempts")[0].due


@pytest.mark.parametrize(
    ("filled", "message"),
    [
        ({"reason": ""}, "Reason is required"),
        ({"reason": "x" * 501}, "can have at most 500 characters"),
        ({"reason": "a\x00b"}, "contains characters that are not allowed"),
        ({"reason": "fine", "version": "x"}, "Incomplete form"),
        ({"reason": "fine", "version": "99"}, "It has changed"),
    ],
)
def test_an_invalid_form_does_nothing(
    panel: World, signed_in: Signed, filled: dict[str, str], message: str
) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    asha = signed_in()
    asha.get(f"/admin/withdrawal/{withdrawal_id}/cancel/")
    page = asha.send(step="do", **filled)
    assert 400 <= page.status_code < 500 and message in page.text
    assert panel.read(withdrawal_id).status == "pending"


def test_the_timeline_masks_the_upi_id(panel: World, signed_in: Signed) -> None:
    withdrawal_id = panel.paid(upi_id="secretname@okaxis")
    asha, vera = signed_in("asha"), signed_in("vera", Role.VIEWER)
    for person in (asha, vera):
        text = person.get(f"/admin/withdrawal/{withdrawal_id}/").text
        assert "completed" in text and "attempt 1" in text and "withdrawal -500 coins" in text
        assert "se…@okaxis" in text and "secretname" not in text
    asha.get(f"/admin/withdrawal/{withdrawal_id}/")
    assert "secretname@okaxis" in asha.send(action=f"/admin/withdrawal/{withdrawal_id}/upi-id/").text
    assert audit(panel, "unmask") == ["done"]


def test_a_bulk_action_has_a_result_for_each_withdrawal(panel: World, signed_in: Signed) -> None:
    panel.credit()
    ids = [panel.request(coins=100) for _ in range(4)]
    asha = signed_in()
    asha.get("/admin/withdrawals/")
    versions = {i: panel.read(i).version for i in ids}
    panel.step(ids[3])  # it is no longer pending
    page = asha.send(action="/admin/bulk/", word="cancel", pick=[f"{i}:{v}" for i, v in versions.items()])
    assert "Cancel withdrawal: 3 withdrawals, ₹30.00 in total" in page.text and "It has changed" in page.text
    signed_in("ravi").act(ids[0], "note", "not this one")
    page = asha.send(action="/admin/bulk/", step="do", reason="a flood")
    assert page.text.count(">done<") == 2 and page.text.count(">refused<") == 1
    assert [panel.read(i).status for i in ids] == ["pending", "cancelled", "cancelled", "processing"]
    assert panel.finish(ids[3]) == "completed"


def test_to_continue_is_offered_only_on_hold(panel: World, signed_in: Signed) -> None:
    panel.credit()
    address = f"/admin/withdrawal/{panel.first_send().withdrawal_id}/"
    asha = signed_in()
    assert "Propose to continue" not in asha.get(address).text
    panel.sql("UPDATE payout_attempts SET state = 'unknown', in_doubt = true")
    panel.sql("UPDATE withdrawals SET hold = 'two_payouts'")
    assert "Propose to continue" in asha.get(address).text


# The actions that an operator is offered in each state. A final withdrawal without a hold offers no decisions.
OFFERED = {
    "pending": "note cancel refund",
    "pending, awaits approval": "approve-review reject-review note cancel refund",
    "pending, paused": "note cancel retry refund",
    "processing, accepted": "note ask mark-paid",
    "processing, accepted, flagged": "note ask mark-paid go-on",
    "processing, not heard of for a day": "note ask mark-paid refund",
    "completed": "note ask",
    "completed, flagged": "note ask mark-paid refund go-on",
    "failed": "note",
    "rejected in review": "note",
    "cancelled": "note",
    "proposed, as its author sees it": "note ask reject",
    "proposed, as another sees it": "note ask approve reject",
}


def test_the_offered_actions_follow_from_the_state(
    panel: World, signed_in: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEW_ABOVE_COINS", "500")
    panel.forget_settings()
    panel.credit(coins=10_000)
    asha, ravi = signed_in("asha"), signed_in("ravi")

    def offered(withdrawal_id: Any, person: Any = asha) -> str:
        page = f"/admin/withdrawal/{withdrawal_id}/"
        return " ".join(re.findall(rf'class="button[^"]*" href="{page}([a-z-]+)/', person.get(page).text))

    def flagged(withdrawal_id: Any) -> Any:
        panel.sql("UPDATE withdrawals SET hold = 'two_payouts' WHERE id = :id", id=withdrawal_id)
        return withdrawal_id

    def started(upi_id: str = "user@okhdfcbank") -> Any:
        withdrawal_id = panel.request(upi_id=upi_id)
        panel.step(withdrawal_id)
        return withdrawal_id

    offers = {}
    offers["processing, accepted"] = offered(started())
    offers["processing, accepted, flagged"] = offered(flagged(started()))
    unheard = started()
    panel.sql("UPDATE payout_attempts SET answered_at = answered_at - interval '25 hours'")
    offers["processing, not heard of for a day"] = offered(unheard)
    offers["completed"] = offered(panel.paid())
    offers["completed, flagged"] = offered(flagged(panel.paid()))
    offers["failed"] = offered(panel.paid("fail.bank_account_closed@sim"))
    proposed = flagged(panel.paid())
    asha.act(proposed, "refund", "seen in the statement")
    offers["proposed, as its author sees it"] = offered(proposed)
    offers["proposed, as another sees it"] = offered(proposed, ravi)
    large = panel.request(coins=600)
    offers["pending, awaits approval"] = offered(large)
    ravi.act(large, "reject-review", "two accounts")
    offers["rejected in review"] = offered(large)
    plain, cancelled, paused = (panel.request() for _ in range(3))
    asha.act(cancelled, "cancel", "asked for")
    panel.sql("UPDATE withdrawals SET status_reason = 'paused' WHERE id = :id", id=paused)
    offers["pending"], offers["cancelled"], offers["pending, paused"] = map(
        offered, (plain, cancelled, paused)
    )
    assert offers == OFFERED


def test_a_completed_withdrawal_is_marked_paid_only_on_hold_and_keeps_its_utr(
    panel: World, signed_in: Signed
) -> None:
    withdrawal_id = panel.paid()
    asha, ravi = signed_in("asha"), signed_in("ravi")
    assert "Nothing contradicts the payment" in asha.act(
        withdrawal_id, "mark-paid", **PAID, paid_at=this_minute()
    )
    panel.sql("UPDATE withdrawals SET hold = 'failed_after_paid'")
    utr = panel.read(withdrawal_id).utr
    assert "Proposed" in asha.act(
        withdrawal_id, "mark-paid", "seen in the statement", **PAID, paid_at=this_minute()
    )
    text = ravi.get(f"/admin/withdrawal/{withdrawal_id}/approve/").text
    assert f"It stays completed under the UTR {utr}" in text
    assert "counts as paid" not in text and "is lost" not in text
    assert "Approved. The withdrawal is completed" in ravi.act(withdrawal_id, "approve", "seen it too")
    read = panel.read(withdrawal_id)
    assert (read.status, read.utr, read.hold) == ("completed", utr, None)
