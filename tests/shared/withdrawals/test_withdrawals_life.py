"""The life of one withdrawal, by the functions of shared/withdrawals alone."""

from tests.support.world import World


def test_a_withdrawal_is_paid(world: World) -> None:
    world.credit(coins=2000)
    withdrawal_id = world.request(coins=500)
    assert world.balance() == 1500

    assert world.finish(withdrawal_id) == "completed"

    paid = world.read(withdrawal_id)
    assert paid.utr and paid.completed_at and paid.due_at is None
    assert [payout["amount"] for payout in world.simulator.payouts()] == [5000]
    assert world.balance() == 1500
