"""Review, frozen wallets, blocks, and coins by hand, in the panel."""

import re
from typing import Any

import pytest

from shared.roles import Role
from tests.integration.panel.conftest import Signed
from tests.integration.panel.person import Person
from tests.integration.test_operating import said
from tests.world import World, forget_settings


@pytest.fixture
def reviewed(panel: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A system in which everything awaits approval."""
    monkeypatch.setenv("REVIEW_ALL", "on")
    forget_settings()
    panel.credit()
    return panel


def outcomes(world: World, action: str) -> list[str]:
    rows = world.sql("SELECT outcome FROM audit_log WHERE action = :a ORDER BY id", a=action)
    return [row.outcome for row in rows]


def reasons(world: World, action: str) -> list[str]:
    """Why it was done, as the audit log keeps it."""
    done = "SELECT reason FROM audit_log WHERE action = :a AND outcome = 'done' ORDER BY id"
    rows = world.sql(done, a=action)
    return [row.reason for row in rows]


def confirmed(person: Person, action: str, *, why: str | None = None, **filled: Any) -> str:
    """Through the confirmation of a form, which may ask `why`; what the page then tells."""
    person.send(action=action, **filled)
    if "This will happen" not in person.page.text:
        return person.messages
    person.send(step="do", **({} if why is None else {"reason": why}))
    return person.messages


def test_an_approval_lets_it_be_paid(reviewed: World, signed_in: Signed) -> None:
    withdrawal_id = reviewed.request()
    assert reviewed.step(withdrawal_id) == "pending"
    asha = signed_in()
    assert str(withdrawal_id) in asha.get("/admin/").text
    asha.get(f"/admin/withdrawal/{withdrawal_id}/approve-review/")
    assert "₹50.00 is paid to us…@okhdfcbank" in asha.page.text
    assert "It has changed" in asha.act(withdrawal_id, "approve-review", "known customer", times=2)
    [review] = reviewed.sql("SELECT * FROM reviews")
    assert (review.outcome, review.decided_by, review.reason) == (
        "approved",
        "operator:asha",
        "known customer",
    )
    assert outcomes(reviewed, "approve-review") == ["asked", "done", "asked", "refused"]
    assert reviewed.finish(withdrawal_id) == "completed"


def test_what_is_over_awaits_no_approval(reviewed: World, signed_in: Signed) -> None:
    rejected, cancelled = reviewed.request(), reviewed.request()
    asha = signed_in()
    page = asha.get(f"/admin/withdrawal/{rejected}/").text
    assert "<dt>Awaits approval</dt>" in page and "waits for your approval" in page
    assert "awaits_approval" in said("explain", rejected).partition("\n\n")[0]
    asha.act(rejected, "reject-review", "two accounts")
    asha.act(cancelled, "cancel", "asked for")
    for withdrawal_id in (rejected, cancelled):
        assert "<dt>Awaits approval</dt>" not in asha.get(f"/admin/withdrawal/{withdrawal_id}/").text
        assert "awaits_approval" not in said("explain", withdrawal_id).partition("\n\n")[0]


def test_nobody_approves_their_own(reviewed: World, signed_in: Signed) -> None:
    reviewed.credit(user_id="asha")
    withdrawal_id = reviewed.request(user_id="asha")
    asha, ravi = signed_in("asha"), signed_in("ravi")
    assert "It is your own" in asha.act(withdrawal_id, "approve-review")
    assert reviewed.read(withdrawal_id).awaits_approval is not None
    assert "await" in asha.act(withdrawal_id, "retry") or "Not possible" in asha.page.text
    assert "Approved" in ravi.act(withdrawal_id, "approve-review")
    assert reviewed.finish(withdrawal_id) == "completed"


def test_a_blank_in_an_id_counts_wherever_one_acts(panel: World, signed_in: Signed) -> None:
    """Apps choose their ids: to "bob" and "bob " belong two wallets."""
    for user_id in ("bob", "bob "):
        panel.credit(user_id=user_id, coins=5000)
    bobs, the_others = panel.request(user_id="bob"), panel.request(user_id="bob ")
    asha = signed_in("asha", Role.ADMIN)
    asha.get("/admin/users/?user=bob%20")
    told = confirmed(asha, "/admin/ruling/turn/", word="freeze", reason="stolen phone")
    assert "The wallet of bob  is frozen." in told
    asha.get("/admin/users/?user=bob%20")
    confirmed(asha, "/admin/ruling/coins/", coins="-100", reason="a gift too much")
    assert (panel.balance("bob"), panel.balance("bob ")) == (4500, 4400)
    assert [row.subject for row in panel.sql("SELECT subject FROM blocks")] == ["bob "]
    listed = asha.get("/admin/withdrawals/?user=bob%20").text
    assert str(the_others) in listed and str(bobs) not in listed
    # What is pasted with a blank, and is nobody's id, means the one without.
    panel.credit(user_id="eve")
    assert asha.get("/admin/users/?user=%20eve%20").status_code == 200


def test_ten_are_approved_at_once_and_two_rejected(reviewed: World, signed_in: Signed) -> None:
    ids = [reviewed.request(coins=100, upi_id=f"name{n}@okaxis") for n in range(12)]
    asha = signed_in()
    for word, some in (("approve-review", ids[:10]), ("reject-review", ids[10:])):
        asha.get("/admin/withdrawals/?reason=awaiting_review")
        picks = [f"{one}:{reviewed.read(one).version}" for one in some]
        asha.send(action="/admin/bulk/", word=word, pick=picks)
        assert f"{len(some)} withdrawals" in asha.page.text
        asha.send(action="/admin/bulk/", step="do", reason="looked at each")
        assert asha.page.text.count(">done<") == len(some)
    assert [reviewed.read(one).status for one in ids[10:]] == ["failed"] * 2
    assert [reviewed.refunds(one) for one in ids[9:]] == [0, 1, 1]
    for one in ids[:10]:
        assert reviewed.finish(one) == "completed"


def test_a_frozen_wallet_and_a_blocked_payee(panel: World, signed_in: Signed) -> None:
    panel.credit()
    asha = signed_in()
    asha.get("/admin/users/?user=user123")
    told = confirmed(asha, "/admin/ruling/turn/", word="freeze", reason="stolen phone")
    assert "The wallet of user123 is frozen." in told and "No withdrawal can be asked for" in asha.page.text
    since = re.search(r"Since <time[^>]*>[^<]+</time> IST, by operator:asha: stolen phone", asha.page.text)
    assert since, asha.page.text
    with pytest.raises(Exception, match="frozen"):
        panel.request()
    asha.get("/admin/blocks/")
    told = confirmed(asha, "/admin/ruling/turn/", word="block", subject="user@okhdfcbank", reason="fraud")
    assert (
        "us…@okhdfcbank is blocked." in told
        and "us…@okhdfcbank" in asha.page.text
        and "user@ok" not in asha.page.text
    )
    told = confirmed(asha, "/admin/ruling/turn/", word="block", subject="user@okhdfcbank", reason="again")
    assert "Blocked already" in told
    assert "user@okhdfcbank" not in str(panel.sql("SELECT * FROM audit_log"))
    panel.credit("user456")
    with pytest.raises(Exception, match="UPI"):
        panel.request("user456")
    assert "Invalid UPI" in confirmed(
        asha, "/admin/ruling/turn/", word="block", subject="nonsense", reason="x"
    )


def test_coins_are_given_once_and_many_take_two(panel: World, signed_in: Signed) -> None:
    panel.credit()
    fay, gita = signed_in("fay", Role.FINANCE), signed_in("gita", Role.FINANCE)
    fay.get("/admin/users/?user=user123")
    fay.send(action="/admin/ruling/coins/", coins="+300", reason="a lost prize")
    assert "from 2000 to 2300" in fay.page.text and "₹30.00" in fay.page.text
    assert "It is done at once." in fay.page.text and "second person" not in fay.page.text
    fay.send(step="do", times=2)
    assert "Done: 300 coins were given to user123." in fay.messages and panel.balance() == 2300
    fay.send(action="/admin/ruling/coins/", coins="-1500", reason="cheated")
    assert "A second person must approve it" in fay.page.text and "at once" not in fay.page.text
    fay.send(step="do")
    assert "Proposed. A second person must approve it." in fay.messages and panel.balance() == 2300
    assert "Approve …" not in fay.page.text
    gita.get("/admin/users/?user=user123")
    [made] = panel.sql("SELECT id FROM adjustments WHERE decided_at IS NULL")
    decide = f"/admin/ruling/coins/{made.id}/"
    assert "A reason is required" in confirmed(gita, decide, word="approve", why=" ")
    told = confirmed(gita, decide, word="approve", why="seen both accounts")
    assert "Done: 1500 coins were taken from user123." in told and panel.balance() == 800
    assert reasons(panel, "coins_approve") == ["seen both accounts"]
    for coins, why in {
        "x": "Invalid coins",
        "1.5": "Invalid coins",
        "0": "Invalid coins",
        "": "Invalid coins",
        "-801": "There are only 800 coins to take from",
    }.items():
        told = confirmed(gita, "/admin/ruling/coins/", coins=coins, reason="x")
        assert why in told and "Nothing was done" in told, coins
    assert panel.balance() == 800 and len(panel.sql("SELECT FROM adjustments")) == 2


def test_coins_are_rejected_with_a_reason(panel: World, signed_in: Signed) -> None:
    panel.credit()
    fay, gita = signed_in("fay", Role.FINANCE), signed_in("gita", Role.FINANCE)
    fay.get("/admin/users/?user=user123")
    confirmed(fay, "/admin/ruling/coins/", coins="5000", reason="a lost prize")
    [made] = panel.sql("SELECT id FROM adjustments")
    gita.get("/admin/users/?user=user123")
    gita.send(action=f"/admin/ruling/coins/{made.id}/", word="reject")
    assert "operator:fay proposed +5000 coins for user123: a lost prize" in gita.page.text
    assert panel.sql("SELECT outcome FROM adjustments")[0].outcome is None, "one click decides nothing"
    gita.send(step="do", reason="no such prize")
    assert "Rejected. No coin has moved." in gita.messages and panel.balance() == 2000
    assert reasons(panel, "coins_reject") == ["no such prize"]


@pytest.mark.parametrize(
    ("word", "happens", "done", "action"),
    [
        ("disable", "ravi is out at their next click", "ravi is out.", "operator_disable"),
        # What gives power is a proposal; in this room one person may confirm it alone.
        ("role", "ravi becomes finance and may do what that role may.", "Done.", "propose_operator_role"),
        (
            "sign_out",
            "ravi is signed out in every browser",
            "ravi is signed out everywhere.",
            "operator_sign_out",
        ),
    ],
)
def test_operators_are_changed_with_a_reason_and_not_by_one_click(
    panel: World, signed_in: Signed, word: str, happens: str, done: str, action: str
) -> None:
    root, _ = signed_in("root", Role.ADMIN), signed_in("ravi")

    def ravi() -> Any:
        return panel.sql("SELECT role, disabled_at, generation FROM operators WHERE name = 'ravi'")

    before = ravi()
    root.get("/admin/operators/")
    filled = {"name": "ravi", "word": word, "role": "finance"}
    assert "A reason is required" in confirmed(root, "/admin/operators/change/", why="", **filled)
    root.send(action="/admin/operators/change/", **filled)
    assert happens in root.page.text and ravi() == before
    root.send(step="do", reason="changed teams")
    assert done in root.messages and ravi() != before
    assert reasons(panel, action) == ["changed teams"]


def test_a_disabled_operator_is_let_in_again_with_a_reason(panel: World, signed_in: Signed) -> None:
    root, _ = signed_in("root", Role.ADMIN), signed_in("ravi")
    panel.sql("UPDATE operators SET disabled_at = now(), disabled_by = 'x' WHERE name = 'ravi'")
    root.get("/admin/operators/")
    told = confirmed(root, "/admin/operators/change/", name="ravi", word="enable", why="is back")
    assert "Done." in told and reasons(panel, "propose_operator_enable") == ["is back"]
    assert panel.sql("SELECT disabled_at FROM operators WHERE name = 'ravi'")[0].disabled_at is None
    told = confirmed(root, "/admin/operators/change/", name="root", word="disable")
    assert "Not yourself" in told
