"""What operators do to a withdrawal: with a reason, in two steps, once, and under their own name."""

import re
from typing import Any

import pytest

from shared.roles import Role
from tests.integration.panel.conftest import Signed
from tests.world import World, this_minute

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


def test_a_cancellation_says_what_happens_in_rupees_and_does_it(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    asha = signed_in()
    asha.get(f"/admin/withdrawal/{withdrawal_id}/cancel/")
    confirmation = asha.send(step="confirm", reason="asked for by mail").text
    assert "₹50.00 to us…@okhdfcbank will not be paid" in confirmation
    assert "500 coins go back to user123 at once: from 1500 to 2000" in confirmation
    assert "operator:asha" in confirmation and "asked for by mail" in confirmation
    assert panel.read(withdrawal_id).status == "pending"
    asha.send(step="do")
    assert "Cancelled: ₹50.00" in asha.messages
    assert events(panel, withdrawal_id) == [("asked for by mail", "operator:asha")]
    assert panel.read(withdrawal_id).admin_notes == "Cancelled: asked for by mail"
    assert audit(panel, "cancel") == ["asked", "done"]
    assert panel.balance() == 2000


def test_a_doubled_click_does_one_thing(panel: World, signed_in: Signed) -> None:
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
    assert "Noted" in ravi.act(withdrawal_id, "note", "I am calling the user")
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
def test_what_could_be_paid_takes_two_people(
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
    assert f"Done: it is {status}" in ravi.act(withdrawal_id, "approve", "seen it too")
    read = panel.read(withdrawal_id)
    assert (read.status, read.utr) == (status, more.get("utr"))
    assert panel.refunds(withdrawal_id) == (1 if word == "refund" else 0)
    assert [actor for _, actor in events(panel, withdrawal_id)] == ["operator:asha", "operator:ravi"]


def test_a_proposal_that_is_rejected_moves_nothing(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.first_send().withdrawal_id
    panel.sql("UPDATE payout_attempts SET state = 'unknown', in_doubt = true")
    asha, ravi = signed_in("asha"), signed_in("ravi")
    asha.act(withdrawal_id, "refund", "nothing in the list")
    assert "Rejected" in ravi.act(withdrawal_id, "reject", "it is in the list")
    assert panel.read(withdrawal_id).status == "processing" and panel.balance() == 1500
    assert "Nothing is proposed" in ravi.act(withdrawal_id, "approve")


def test_trying_now_leaves_the_user_their_window(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    asha = signed_in()
    assert "in hand" in asha.act(withdrawal_id, "retry")
    panel.sql("UPDATE withdrawals SET status_reason = 'paused', due_at = now() + interval '1 hour'")
    assert "due now" in asha.act(withdrawal_id, "retry", "the bank is back")
    [row] = panel.sql("SELECT due_at <= now() AS due FROM withdrawals")
    assert row.due and events(panel, withdrawal_id) == [("retry_now", "operator:asha")]
    panel.bring_on(withdrawal_id)
    assert panel.read(withdrawal_id).status == "processing"
    assert "ask the provider instead" in asha.act(withdrawal_id, "retry")
    assert panel.finish(withdrawal_id) == "completed"


def test_asking_now_brings_the_answer(panel: World, signed_in: Signed) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    asha = signed_in()
    assert "No payout is under way" in asha.act(withdrawal_id, "ask")
    panel.step(withdrawal_id)
    panel.sql("UPDATE withdrawals SET due_at = now() + interval '1 hour'")
    assert "asked now" in asha.act(withdrawal_id, "ask", "the user calls")
    panel.bring_on(withdrawal_id)
    assert panel.finish(withdrawal_id) == "completed"
    assert "asked now" in asha.act(withdrawal_id, "ask", "the user says nothing came")
    assert panel.sql("SELECT recheck_at <= now() AS due FROM payout_attempts")[0].due


@pytest.mark.parametrize(
    ("filled", "told"),
    [
        ({"reason": ""}, "Reason is required"),
        ({"reason": "x" * 501}, "Too long"),
        ({"reason": "a\x00b"}, "Too long"),
        ({"reason": "fine", "version": "x"}, "Incomplete form"),
        ({"reason": "fine", "version": "99"}, "It has changed"),
    ],
)
def test_a_form_that_is_not_right_does_nothing(
    panel: World, signed_in: Signed, filled: dict[str, str], told: str
) -> None:
    panel.credit()
    withdrawal_id = panel.request()
    asha = signed_in()
    asha.get(f"/admin/withdrawal/{withdrawal_id}/cancel/")
    page = asha.send(step="do", **filled)
    assert 400 <= page.status_code < 500 and told in page.text
    assert panel.read(withdrawal_id).status == "pending"


def test_the_story_is_told_with_the_upi_id_masked(panel: World, signed_in: Signed) -> None:
    withdrawal_id = panel.paid(upi_id="secretname@okaxis")
    asha, vera = signed_in("asha"), signed_in("vera", Role.VIEWER)
    for person in (asha, vera):
        text = person.get(f"/admin/withdrawal/{withdrawal_id}/").text
        assert "completed" in text and "attempt 1" in text and "withdrawal -500 coins" in text
        assert "se…@okaxis" in text and "secretname" not in text
    asha.get(f"/admin/withdrawal/{withdrawal_id}/")
    assert "secretname@okaxis" in asha.send(action=f"/admin/withdrawal/{withdrawal_id}/upi-id/").text
    assert audit(panel, "unmask") == ["done"]


def test_several_at_once_have_each_their_result(panel: World, signed_in: Signed) -> None:
    panel.credit()
    ids = [panel.request(coins=100) for _ in range(4)]
    asha = signed_in()
    asha.get("/admin/withdrawals/")
    versions = {i: panel.read(i).version for i in ids}
    panel.step(ids[3])  # it went on
    page = asha.send(action="/admin/bulk/", word="cancel", pick=[f"{i}:{v}" for i, v in versions.items()])
    assert "Cancel: 3 withdrawals, ₹30.00 in all" in page.text and "It has changed" in page.text
    signed_in("ravi").act(ids[0], "note", "not this one")
    page = asha.send(action="/admin/bulk/", step="do", reason="a flood")
    assert page.text.count(">done<") == 2 and page.text.count(">refused<") == 1
    assert [panel.read(i).status for i in ids] == ["pending", "cancelled", "cancelled", "processing"]
    assert panel.finish(ids[3]) == "completed"


def test_to_go_on_is_offered_only_where_something_contradicts(panel: World, signed_in: Signed) -> None:
    panel.credit()
    address = f"/admin/withdrawal/{panel.first_send().withdrawal_id}/"
    asha = signed_in()
    assert "Propose: explained, go on" not in asha.get(address).text
    panel.sql("UPDATE payout_attempts SET state = 'unknown', in_doubt = true")
    panel.sql("UPDATE withdrawals SET review = 'two_payouts'")
    assert "Propose: explained, go on" in asha.get(address).text


# What is offered to an operator, by how it stands. Nothing can be decided on what is over and adds up.
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


def test_what_is_offered_follows_from_how_it_stands(
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
        panel.sql("UPDATE withdrawals SET review = 'two_payouts' WHERE id = :id", id=withdrawal_id)
        return withdrawal_id

    def started(upi_id: str = "user@okhdfcbank") -> Any:
        withdrawal_id = panel.request(upi_id=upi_id)
        panel.step(withdrawal_id)
        return withdrawal_id

    found = {}
    found["processing, accepted"] = offered(started())
    found["processing, accepted, flagged"] = offered(flagged(started()))
    unheard = started()
    panel.sql("UPDATE payout_attempts SET answered_at = answered_at - interval '25 hours'")
    found["processing, not heard of for a day"] = offered(unheard)
    found["completed"] = offered(panel.paid())
    found["completed, flagged"] = offered(flagged(panel.paid()))
    found["failed"] = offered(panel.paid("fail.bank_account_closed@sim"))
    proposed = flagged(panel.paid())
    asha.act(proposed, "refund", "seen in the statement")
    found["proposed, as its author sees it"] = offered(proposed)
    found["proposed, as another sees it"] = offered(proposed, ravi)
    large = panel.request(coins=600)
    found["pending, awaits approval"] = offered(large)
    ravi.act(large, "reject-review", "two accounts")
    found["rejected in review"] = offered(large)
    plain, cancelled, paused = (panel.request() for _ in range(3))
    asha.act(cancelled, "cancel", "asked for")
    panel.sql("UPDATE withdrawals SET status_reason = 'paused' WHERE id = :id", id=paused)
    found["pending"], found["cancelled"], found["pending, paused"] = map(offered, (plain, cancelled, paused))
    assert found == OFFERED


def test_paid_once_more_is_offered_only_where_something_contradicts_and_the_utr_stays(
    panel: World, signed_in: Signed
) -> None:
    withdrawal_id = panel.paid()
    asha, ravi = signed_in("asha"), signed_in("ravi")
    assert "Nothing contradicts the payment" in asha.act(
        withdrawal_id, "mark-paid", **PAID, paid_at=this_minute()
    )
    panel.sql("UPDATE withdrawals SET review = 'failed_after_paid'")
    utr = panel.read(withdrawal_id).utr
    assert "Proposed" in asha.act(
        withdrawal_id, "mark-paid", "seen in the statement", **PAID, paid_at=this_minute()
    )
    told = ravi.get(f"/admin/withdrawal/{withdrawal_id}/approve/").text
    assert f"It stays completed under the UTR {utr}" in told
    assert "counts as paid" not in told and "is lost" not in told
    assert "Done: it is completed" in ravi.act(withdrawal_id, "approve", "seen it too")
    read = panel.read(withdrawal_id)
    assert (read.status, read.utr, read.review) == ("completed", utr, None)
