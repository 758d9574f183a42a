"""Steps for mail tests: enable mail, cause events to mail, and run a notifier in this process."""

import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row

from shared import withdrawals
from shared.coins import wallet
from shared.db.transactions import transaction
from shared.notifications.mail import dispatcher, fan_out
from shared.people import exception_records
from tests.support.world import World

SENDER = "payouts@example.com"


def turn_on(world: World, monkeypatch: pytest.MonkeyPatch, port: int, **more: str) -> None:
    """Send mail to this port from now on; earlier events are not mailed."""
    settings = {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(port),
        "SMTP_TLS": "none",
        "MAIL_FROM": SENDER,
        "MAIL_APP_NAME": "Quiz",
        "OPERATOR_EMAILS": "",
    }
    for name, value in (settings | more).items():
        monkeypatch.setenv(name, value)
    world.forget_settings()
    fan_out.create_mails()


def run_mailer() -> int:
    """One beat of the notifier: fan out, then send until nothing is due. Returns the number of attempts."""
    fan_out.create_mails()
    return dispatcher.take_turn("mail#0")


def run_until_done(world: World, *, seconds: float = 7200, beats: int = 60) -> None:
    """Run the notifier every `seconds` until nothing waits."""
    for _ in range(beats):
        run_mailer()
        if not world.sql("SELECT FROM emails WHERE state = 'waiting'"):
            return
        world.advance(seconds)


def start_mailer() -> subprocess.Popen[bytes]:
    """A mailer in a process of its own, for thirty beats."""
    beats = "for _ in range(30): fan_out.create_mails(); dispatcher.take_turn('mail#0')"
    code = f"from shared.notifications.mail import dispatcher, fan_out\n{beats}"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)


def rows(world: World) -> list[Row[Any]]:
    return world.sql("SELECT * FROM emails ORDER BY event_id, recipient")


def add_user(
    world: World,
    email: str | None = "asha@example.com",
    *,
    name: str | None = None,
    user_id: str = "user123",
    coins: int = 2000,
) -> None:
    """Create a user with coins and this address."""
    about = {key: value for key, value in {"email": email, "name": name}.items() if value is not None}
    with transaction() as session:
        wallet.credit(session, user_id=user_id, coins=coins, reference="known", actor="app:test", **about)


def cancel_withdrawal(world: World, reason: str = "changed my mind", *, user_id: str = "user123") -> UUID:
    """Request a withdrawal and cancel it as an operator, which has no limit on mails."""
    withdrawal_id = world.request(user_id, coins=100)
    withdrawals.cancel(withdrawal_id, reason=reason, actor="operator:asha")
    return withdrawal_id


def open_exception(subject: str = "one", kind: str = "amount_differs", **ours: Any) -> int:
    """Open an exception record; returns its id."""
    with transaction() as session:
        return exception_records.open_record(
            session, kind=kind, subject=subject, source="watch", ours=ours, theirs={}
        )
