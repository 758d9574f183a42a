"""Mail that is on, and a notifier in this process."""

import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row

from shared import db, exception_records, wallet, withdrawals
from shared.notifications.mail import following, turns
from tests.world import World

SENDER = "payouts@example.com"


def turn_on(world: World, monkeypatch: pytest.MonkeyPatch, port: int, **more: str) -> None:
    """Mail goes to this port from now on; what happened before is no news."""
    settings = {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(port),
        "SMTP_TLS": "none",
        "MAIL_FROM": SENDER,
        "MAIL_APP_NAME": "Quiz",
        "MAIL_SECONDS": "1",
        "OPERATOR_EMAILS": "",
    }
    for name, value in (settings | more).items():
        monkeypatch.setenv(name, value)
    world.forget_settings()
    following.follow()


def tell() -> int:
    """What the notifier does at one beat: follow, then send until nothing is due. How many tries."""
    following.follow()
    return turns.take_turn("mail#0")


def tell_all(world: World, *, seconds: float = 7200, beats: int = 60) -> None:
    """Beat after beat, so long apart, until nothing waits."""
    for _ in range(beats):
        tell()
        if not world.sql("SELECT FROM emails WHERE state = 'waiting'"):
            return
        world.advance(seconds)


def notifier() -> subprocess.Popen[bytes]:
    """One that is a process of its own, for thirty beats."""
    beats = "for _ in range(30): following.follow(); turns.take_turn('mail#0')"
    code = f"from shared.notifications.mail import following, turns\n{beats}"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)


def rows(world: World) -> list[Row[Any]]:
    return world.sql("SELECT * FROM emails ORDER BY event_id, recipient")


def known(
    world: World,
    email: str | None = "asha@example.com",
    *,
    name: str | None = None,
    user_id: str = "user123",
    coins: int = 2000,
) -> None:
    """A user with coins and this address."""
    about = {key: value for key, value in {"email": email, "name": name}.items() if value is not None}
    with db.transaction() as session:
        wallet.credit(session, user_id=user_id, coins=coins, reference="known", actor="app:test", **about)


def cancelled(world: World, reason: str = "changed my mind", *, user_id: str = "user123") -> UUID:
    """A withdrawal that an operator has cancelled: one mail, however many there are."""
    withdrawal_id = world.request(user_id, coins=100)
    withdrawals.cancel(withdrawal_id, reason=reason, actor="operator:asha")
    return withdrawal_id


def find_exception(subject: str = "one", kind: str = "amount_differs", **ours: Any) -> int:
    """Somebody finds something that does not add up."""
    with db.transaction() as session:
        return exception_records.open_record(
            session, kind=kind, subject=subject, source="watch", ours=ours, theirs={}
        )
