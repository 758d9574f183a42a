"""Review, frozen wallets, blocks, and coins by hand, in the panel."""

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


def confirmed(person: Person, action: str, **filled: Any) -> str:
    """Through the confirmation of a form; what the page then tells."""
    person.send(action=action, **filled)
    if "This will happen" not in person.page.text:
        return person.messages
    person.send(step="do")
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
    assert "Done: freeze" in told and "No withdrawal can be asked for" in asha.page.text
    with pytest.raises(Exception, match="frozen"):
        panel.request()
    assert "Done: unfreeze" in confirmed(asha, "/admin/ruling/turn/", word="unfreeze", reason="found")
    asha.get("/admin/blocks/")
    told = confirmed(asha, "/admin/ruling/turn/", word="block", subject="user@okhdfcbank", reason="fraud")
    assert "Done: block" in told and "us…@okhdfcbank" in asha.page.text and "user@ok" not in asha.page.text
    told = confirmed(asha, "/admin/ruling/turn/", word="block", subject="user@okhdfcbank", reason="again")
    assert "Blocked already" in told
    assert "user@okhdfcbank" not in str(panel.sql("SELECT * FROM audit_log"))
    with pytest.raises(Exception, match="UPI"):
        panel.request()
    assert "Invalid UPI" in confirmed(
        asha, "/admin/ruling/turn/", word="block", subject="nonsense", reason="x"
    )


def test_coins_are_given_once_and_many_take_two(panel: World, signed_in: Signed) -> None:
    panel.credit()
    fay, gita = signed_in("fay", Role.FINANCE), signed_in("gita", Role.FINANCE)
    fay.get("/admin/users/?user=user123")
    fay.send(action="/admin/ruling/coins/", coins="+300", reason="a lost prize")
    assert "from 2000 to 2300" in fay.page.text and "₹30.00" in fay.page.text
    fay.send(step="do", times=2)
    assert "Done" in fay.messages and panel.balance() == 2300
    told = confirmed(fay, "/admin/ruling/coins/", coins="-1500", reason="cheated")
    assert "second person" in told and panel.balance() == 2300
    assert "Approve …" not in fay.page.text
    gita.get("/admin/users/?user=user123")
    [made] = panel.sql("SELECT id FROM adjustments WHERE decided_at IS NULL")
    assert "Done: approve" in confirmed(gita, f"/admin/ruling/coins/{made.id}/", word="approve")
    assert panel.balance() == 800
    for coins in ("x", "1.5", "0", "-801", ""):
        told = confirmed(gita, "/admin/ruling/coins/", coins=coins, reason="x")
        assert "Nothing was done" in told or "Proposed" in told
    assert panel.balance() == 800
