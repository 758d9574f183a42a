"""The worker is killed (SIGKILL) before every single line of the money path, one after the other.

A child process runs the task under a trace that counts the lines of our own code and kills itself at the
n-th; a second worker then finds what is left. Whatever n is: one payout, completed, no refund.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import pytest

from shared import db
from shared.razorpayx.client import RazorpayX
from shared.settings import settings
from tests.world import World
from worker.tasks import bring_on

ROOT = Path(__file__).parents[2]
PARTS = ("shared/withdrawals/", "shared/wallet.py", "shared/db.py", "shared/razorpayx/", "worker/tasks.py")
MONEY_PATH = tuple(str(ROOT / part) for part in PARTS)
MOST_LINES = 2000


class Killer:
    """Counts lines of the money path and ends the process, without a word, before the n-th."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(MONEY_PATH):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def run_in_child(withdrawal_id: UUID, line: int) -> bool:
    """Bring the withdrawal on in a child that dies before its n-th line; True when it lived to the end."""
    pid = os.fork()
    if pid == 0:
        # The parent's connections are its own: this process opens new ones.
        db.engine().dispose(close=False)
        provider = RazorpayX(settings())
        sys.settrace(Killer(line))
        threading.settrace(Killer(line))
        try:
            bring_on(withdrawal_id, provider)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFEXITED(status)


def lines_of_a_whole_run(world: World) -> int:
    """How many lines an undisturbed run has: the smallest n at which nobody dies, by bisection."""
    low, high = 1, MOST_LINES
    while low < high:
        middle = (low + high) // 2
        if run_in_child(new_withdrawal(world), middle):
            high = middle
        else:
            low = middle + 1
    return low


def new_withdrawal(world: World, upi_id: str = "user@okhdfcbank") -> UUID:
    withdrawal_id = world.request(coins=100, upi_id=upi_id)
    make_due(world, withdrawal_id)
    return withdrawal_id


def make_due(world: World, withdrawal_id: UUID) -> None:
    world.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=withdrawal_id)


def finish_all(world: World, withdrawal_ids: Iterable[UUID]) -> None:
    """Bring all of them on until each is final."""
    left = list(withdrawal_ids)
    for _ in range(12):
        world.advance()
        for withdrawal_id in left:
            world.bring_on(withdrawal_id)
        left = [one for one in left if world.read(one).status == "processing" or world.read(one).due_at]
        if not left:
            return


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_before_every_line_pays_once(world: World) -> None:
    world.credit(coins=1_000_000)
    world.paid()  # the payee is known, as for all but a user's first withdrawal
    lines = lines_of_a_whole_run(world)
    assert 100 < lines < MOST_LINES
    killed = {}
    for line in range(1, lines):
        withdrawal_id = new_withdrawal(world)
        assert not run_in_child(withdrawal_id, line)
        killed[withdrawal_id] = line
    finish_all(world, killed)
    for withdrawal_id, line in killed.items():
        assert world.read(withdrawal_id).status == "completed", f"line {line}: {world.story(withdrawal_id)}"
        assert world.refunds(withdrawal_id) == 0
        payouts = [p for a in world.attempts(withdrawal_id) for p in world.simulator.payouts(str(a.id))]
        assert len(payouts) == 1, f"line {line}: {world.story(withdrawal_id)}"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_before_every_line_of_a_refund_refunds_once(world: World) -> None:
    """The second run of a worker, in which the failure is told and the coins go back."""
    world.credit(coins=1_000_000)
    start, line, lived, killed = world.balance(), 0, False, {}
    while not lived:
        line += 3
        withdrawal_id = new_withdrawal(world, "fail.bank_account_closed@sim")
        world.bring_on(withdrawal_id)
        make_due(world, withdrawal_id)
        lived = run_in_child(withdrawal_id, line)
        killed[withdrawal_id] = line
    assert line > 100
    finish_all(world, killed)
    for withdrawal_id, line in killed.items():
        assert world.read(withdrawal_id).status == "failed", f"line {line}: {world.story(withdrawal_id)}"
        assert world.refunds(withdrawal_id) == 1
    assert world.balance() == start
