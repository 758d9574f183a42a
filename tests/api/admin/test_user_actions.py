"""Reviews, freezes, blocks, coin adjustments and operator changes in the panel."""

import re
from typing import Any

import pytest

from shared.roles import Role
from tests.api.admin.conftest import Signed
from tests.api.admin.person import Person
from tests.cli.test_operations import output_of
from tests.support.world import World, forget_settings


@pytest.fixture
def reviewed(panel: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A system in which every withdrawal needs approval."""
    monkeypatch.setenv("REVIEW_ALL", "on")
    forget_settings()
    panel.credit()
    return panel


def outcomes(world: World, action: str) -> list[str]:
    rows = world.sql("SELECT outcome FROM audit_log WHERE action = :a ORDER BY id", a=action)
    return [row.outcome for row in rows]


def reasons(world: World, action: str) -> list[str]:
    """The reasons in the audit log."""
    done = "SELECT reason FROM audit_log WHERE action = :a AND outcome = 'done' ORDER BY id"
    rows = world.sql(done, a=action)
    return [row.reason for row in rows]


def confirmed(person: Person, action: str, *, why: str | None = None, **filled: Any) -> str:
    """Send a form and confirm it, with `why` if the confirmation asks for a reason; returns the messages."""
    person.send(action=action, **filled)
    if "What will happen" not in person.page.text:
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


def test_a_final_withdrawal_needs_no_approval(reviewed: World, signed_in: Signed) -> None:
    rejected, cancelled = reviewed.request(), reviewed.request()
    asha = signed_in()
    page = asha.get(f"/admin/withdrawal/{rejected}/").text
    assert "<dt>Reason for approval</dt>" in page and "is waiting for approval" in page
    assert "awaits_approval" in output_of("explain", rejected).partition("\n\n")[0]
    asha.act(rejected, "reject-review", "two accounts")
    asha.act(cancelled, "cancel", "asked for")
    for withdrawal_id in (rejected, cancelled):
        assert "<dt>Reason for approval</dt>" not in asha.get(f"/admin/withdrawal/{withdrawal_id}/").text
        assert "awaits_approval" not in output_of("explain", withdrawal_id).partition("\n\n")[0]


def test_no_one_approves_their_own(reviewed: World, signed_in: Signed) -> None:
    reviewed.credit(user_id="asha")
    withdrawal_id = reviewed.request(user_id="asha")
    asha, ravi = signed_in("asha"), signed_in("ravi")
    assert "It is your own" in asha.act(withdrawal_id, "approve-review")
    assert reviewed.read(withdrawal_id).awaits_approval is not None
    assert "await" in asha.act(withdrawal_id, "retry") or "Not possible" in asha.page.text
    assert "Approved" in ravi.act(withdrawal_id, "approve-review")
    assert reviewed.finish(withdrawal_id) == "completed"


def test_a_blank_in_a_user_id_counts_in_every_form(panel: World, signed_in: Signed) -> None:
    """Apps choose their ids: "bob" and "bob " are two wallets."""
    for user_id in ("bob", "bob "):
        panel.credit(user_id=user_id, coins=5000)
    bobs, the_others = panel.request(user_id="bob"), panel.request(user_id="bob ")
    asha = signed_in("asha", Role.ADMIN)
    asha.get("/admin/users/?user=bob%20")
    message = confirmed(asha, "/admin/ruling/turn/", word="freeze", reason="stolen phone")
    assert "The wallet of bob  is frozen." in message
    asha.get("/admin/users/?user=bob%20")
    confirmed(asha, "/admin/ruling/coins/", coins="-100", reason="a gift too much")
    assert (panel.balance("bob"), panel.balance("bob ")) == (4500, 4400)
    assert [row.subject for row in panel.sql("SELECT subject FROM blocks")] == ["bob "]
    listed = asha.get("/admin/withdrawals/?user=bob%20").text
    assert str(the_others) in listed and str(bobs) not in listed
    # If no user has the pasted id with its blank, the id without it is meant.
    panel.credit(user_id="eve")
    assert asha.get("/admin/users/?user=%20eve%20").status_code == 200


def test_bulk_approval_of_ten_and_rejection_of_two(reviewed: World, signed_in: Signed) -> None:
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
    message = confirmed(asha, "/admin/ruling/turn/", word="freeze", reason="stolen phone")
    assert (
        "The wallet of user123 is frozen." in message
        and "The user cannot request withdrawals" in asha.page.text
    )
    since = re.search(r"Since <time[^>]*>[^<]+</time> IST, by operator:asha: stolen phone", asha.page.text)
    assert since, asha.page.text
    with pytest.raises(Exception, match="frozen"):
        panel.request()
    asha.get("/admin/blocks/")
    message = confirmed(asha, "/admin/ruling/turn/", word="block", subject="user@okhdfcbank", reason="fraud")
    assert (
        "us…@okhdfcbank is blocked." in message
        and "us…@okhdfcbank" in asha.page.text
        and "user@ok" not in asha.page.text
    )
    message = confirmed(asha, "/admin/ruling/turn/", word="block", subject="user@okhdfcbank", reason="again")
    assert "Already blocked" in message
    assert "user@okhdfcbank" not in str(panel.sql("SELECT * FROM audit_log"))
    panel.credit("user456")
    with pytest.raises(Exception, match="UPI"):
        panel.request("user456")
    assert "Invalid UPI" in confirmed(
        asha, "/admin/ruling/turn/", word="block", subject="nonsense", reason="x"
    )


def test_coins_are_given_once_and_large_amounts_take_two(panel: World, signed_in: Signed) -> None:
    panel.credit()
    fay, gita = signed_in("fay", Role.FINANCE), signed_in("gita", Role.FINANCE)
    fay.get("/admin/users/?user=user123")
    fay.send(action="/admin/ruling/coins/", coins="+300", reason="a lost prize")
    assert "from 2,000 to 2,300 coins" in fay.page.text and "₹30.00" in fay.page.text
    assert "It happens at once." in fay.page.text and "second person" not in fay.page.text
    fay.send(step="do", times=2)
    assert "300 coins were given to user123." in fay.messages and panel.balance() == 2300
    fay.send(action="/admin/ruling/coins/", coins="-1500", reason="cheated")
    assert "A second person must approve it" in fay.page.text and "at once" not in fay.page.text
    fay.send(step="do")
    assert "Proposed. A second person must approve it." in fay.messages and panel.balance() == 2300
    assert "Approve …" not in fay.page.text
    gita.get("/admin/users/?user=user123")
    [proposal] = panel.sql("SELECT id FROM adjustments WHERE decided_at IS NULL")
    decide = f"/admin/ruling/coins/{proposal.id}/"
    assert "Reason is required" in confirmed(gita, decide, word="approve", why=" ")
    message = confirmed(gita, decide, word="approve", why="seen both accounts")
    assert "1,500 coins were taken from user123." in message and panel.balance() == 800
    assert reasons(panel, "coins_approve") == ["seen both accounts"]
    for coins, why in {
        "x": "Coins must be a whole number",
        "1.5": "Coins must be a whole number",
        "0": "Invalid coins",
        "": "Coins must be a whole number",
        "-801": "The balance is 800 coins",
    }.items():
        message = confirmed(gita, "/admin/ruling/coins/", coins=coins, reason="x")
        assert why in message and "Nothing was done" in message, coins
    assert panel.balance() == 800 and len(panel.sql("SELECT FROM adjustments")) == 2


def test_coins_are_rejected_with_a_reason(panel: World, signed_in: Signed) -> None:
    panel.credit()
    fay, gita = signed_in("fay", Role.FINANCE), signed_in("gita", Role.FINANCE)
    fay.get("/admin/users/?user=user123")
    confirmed(fay, "/admin/ruling/coins/", coins="5000", reason="a lost prize")
    [proposal] = panel.sql("SELECT id FROM adjustments")
    gita.get("/admin/users/?user=user123")
    gita.send(action=f"/admin/ruling/coins/{proposal.id}/", word="reject")
    assert "operator:fay proposed +5,000 coins for user123: a lost prize" in gita.page.text
    assert panel.sql("SELECT outcome FROM adjustments")[0].outcome is None, "one click decides nothing"
    gita.send(step="do", reason="no such prize")
    assert "Rejected. No coins moved." in gita.messages and panel.balance() == 2000
    assert reasons(panel, "coins_reject") == ["no such prize"]


@pytest.mark.parametrize(
    ("word", "happens", "done", "action"),
    [
        (
            "disable",
            "ravi is signed out of every browser at their next click",
            "ravi is disabled.",
            "operator_disable",
        ),
        # A change that adds permissions is a proposal; in these tests one person may confirm it alone.
        (
            "role",
            "ravi becomes finance and gets the permissions of that role.",
            "Done.",
            "propose_operator_role",
        ),
        (
            "sign_out",
            "ravi is signed out of every browser, and can sign in again",
            "ravi is signed out of every browser.",
            "operator_sign_out",
        ),
    ],
)
def test_operator_changes_need_a_reason_and_a_confirmation(
    panel: World, signed_in: Signed, word: str, happens: str, done: str, action: str
) -> None:
    root, _ = signed_in("root", Role.ADMIN), signed_in("ravi")

    def ravi() -> Any:
        return panel.sql("SELECT role, disabled_at, generation FROM operators WHERE name = 'ravi'")

    before = ravi()
    root.get("/admin/operators/")
    filled = {"name": "ravi", "word": word, "role": "finance"}
    assert "Reason is required" in confirmed(root, "/admin/operators/change/", why="", **filled)
    root.send(action="/admin/operators/change/", **filled)
    assert happens in root.page.text and ravi() == before
    root.send(step="do", reason="changed teams")
    assert done in root.messages and ravi() != before
    assert reasons(panel, action) == ["changed teams"]


def test_enabling_an_operator_needs_a_reason(panel: World, signed_in: Signed) -> None:
    root, _ = signed_in("root", Role.ADMIN), signed_in("ravi")
    panel.sql("UPDATE operators SET disabled_at = now(), disabled_by = 'x' WHERE name = 'ravi'")
    root.get("/admin/operators/")
    message = confirmed(root, "/admin/operators/change/", name="ravi", word="enable", why="is back")
    assert "Done." in message and reasons(panel, "propose_operator_enable") == ["is back"]
    assert panel.sql("SELECT disabled_at FROM operators WHERE name = 'ravi'")[0].disabled_at is None
    message = confirmed(root, "/admin/operators/change/", name="root", word="disable")
    assert "You cannot change yourself" in message
