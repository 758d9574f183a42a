"""Every flow applies the same rule for a second person, in the panel and at a shell, with the same messages."""

from uuid import UUID

import pytest

from shared import withdrawals
from shared.db.transactions import transaction
from shared.roles import Role
from shared.withdrawals import review
from tests.api.admin.conftest import Signed
from tests.api.admin.test_user_actions import confirmed
from tests.support.shell import invoke
from tests.support.world import World

NOT_INDEPENDENT = "They are not independent"
FAY = "fay"
GITA = "gita"  # added by Fay yesterday
HANS = "hans"  # independent of both


def proposed(*words: object) -> str:
    """Let fay propose it at a shell; returns the proposal's id."""
    result = invoke(*words, "--as", FAY)
    assert result.exit_code == 0, result.output
    return result.output.split()[-1]


def asked_for(world: World, by: str = "app:quiz") -> UUID:
    return withdrawals.request(user_id="user123", coins=500, upi_id="user@okhdfcbank", actor=by).id


@pytest.mark.parametrize("flow", ["resolution", "adjustment", "review", "unfreeze", "unblock"])
def test_every_flow_needs_a_second_person(
    panel: World, signed_in: Signed, monkeypatch: pytest.MonkeyPatch, flow: str
) -> None:
    panel.credit()
    people = {name: signed_in(name, Role.FINANCE) for name in (FAY, GITA, HANS)}
    panel.sql("UPDATE operators SET created_by = 'operator:fay' WHERE name = 'gita'")
    gita = people[GITA]
    why = ("--reason", "seen")
    if flow == "resolution":
        withdrawal_id = panel.first_send().withdrawal_id
        panel.sql("UPDATE payout_attempts SET state = 'unknown', in_doubt = true")
        proposal = proposed("resolve", "propose", withdrawal_id, "refund", "--evidence", "their letter")
        in_panel = gita.act(withdrawal_id, "approve")
        approve = ("resolve", "approve", proposal)
    elif flow == "adjustment":
        proposal = proposed("wallet", "adjust", "user123", "4000", *why)
        in_panel = gita.get("/admin/users/?user=user123").text
        assert "Approve …" not in in_panel
        approve = ("wallet", "approve", proposal)
    elif flow == "review":
        monkeypatch.setenv("REVIEW_ALL", "on")
        panel.forget_settings()
        withdrawal_id = asked_for(panel, by="operator:fay")
        in_panel = gita.act(withdrawal_id, "approve-review")
        with transaction() as session:
            shown = review.facts_hash(session, withdrawals.find(session, withdrawal_id))
        approve = ("review", "approve", str(withdrawal_id), "--facts", shown, *why)
    else:
        first, end = (
            (("wallet", "freeze", "user123"), ("wallet", "unfreeze", "user123"))
            if flow == "unfreeze"
            else (("block", "add", "user@okhdfcbank"), ("block", "remove", "user@okhdfcbank"))
        )
        assert invoke(*first, *why, "--as", HANS).exit_code == 0
        proposal = proposed(*end, *why)
        in_panel = gita.get("/admin/").text
        assert "Approve …" not in in_panel
        approve = ("block", "approve", proposal)
    assert NOT_INDEPENDENT in in_panel
    result = invoke(*approve, "--as", GITA)
    assert result.exit_code == 1 and NOT_INDEPENDENT in result.output
    if flow != "review":  # a review has no maker
        panel.sql("UPDATE operators SET role = 'viewer' WHERE name = 'fay'")
        result = invoke(*approve, "--as", HANS)
        assert result.exit_code == 1 and "fay is viewer now" in result.output
        panel.sql("UPDATE operators SET role = 'finance' WHERE name = 'fay'")
    assert invoke(*approve, "--as", HANS).exit_code == 0


def test_a_freeze_and_a_block_are_not_ended_alone(panel: World, signed_in: Signed) -> None:
    panel.credit()
    asha, ravi = signed_in("asha"), signed_in("ravi")
    asha.get("/admin/users/?user=user123")
    confirmed(asha, "/admin/ruling/turn/", word="freeze", reason="stolen phone")
    asha.get("/admin/users/?user=user123")
    assert "Proposed. A second person" in confirmed(
        asha, "/admin/ruling/turn/", word="unfreeze", reason="back"
    )
    [proposal] = panel.sql("SELECT id FROM block_removals")
    lift = f"/admin/ruling/lift/{proposal.id}/"
    assert "A second person is needed" in asha.page.text and "Frozen" in asha.page.text
    assert "A second person is needed" in confirmed(asha, lift, word="approve", why="myself")
    ravi.get("/admin/users/?user=user123")
    assert "operator:asha proposed to unfreeze user123: back" in ravi.page.text
    message = confirmed(ravi, lift, word="approve", why="called them")
    assert "user123 can request withdrawals again." in message and "Frozen" not in ravi.page.text
    rows = panel.sql("SELECT * FROM audit_log WHERE action = 'unblock_approve' ORDER BY id")
    assert [(row.operator, row.outcome, row.origin) for row in rows] == [
        ("asha", "asked", "panel"),
        ("asha", "refused", "panel"),
        ("ravi", "asked", "panel"),
        ("ravi", "done", "panel"),
    ]


def test_a_freeze_goes_on_when_its_end_is_rejected(panel: World, signed_in: Signed) -> None:
    panel.credit()
    asha, ravi = signed_in("asha"), signed_in("ravi")
    asha.get("/admin/users/?user=user123")
    confirmed(asha, "/admin/ruling/turn/", word="freeze", reason="stolen phone")
    for number in (1, 2):  # a rejected proposal can be made again
        asha.get("/admin/users/?user=user123")
        confirmed(asha, "/admin/ruling/turn/", word="unfreeze", reason="back")
        [proposal] = panel.sql("SELECT id FROM block_removals WHERE decided_at IS NULL")
        ravi.get("/admin/users/?user=user123")
        message = confirmed(ravi, f"/admin/ruling/lift/{proposal.id}/", word="reject", why="no answer")
        assert "Rejected" in message and "Frozen" in ravi.page.text, number
