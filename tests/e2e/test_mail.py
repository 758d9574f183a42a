"""Mail end to end: the real notifier and a mail server that is killed while payouts continue."""

import time
from collections.abc import Iterator

import psycopg
import pytest

from sandbox.processes import wait_until
from sandbox.services import free_port
from sandbox.stack import Stack
from tests.e2e.conftest import QUICK, SPEED
from tests.e2e.system import System
from tests.support.mailbox import MailServer, mail_server

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(300),
]  # a start, and waits of FINAL_SECONDS on a busy machine
PAYOUTS = 24
ARRIVES_SECONDS = 60


@pytest.fixture
def mail_system() -> Iterator[tuple[System, int]]:
    """A system and the port to which it sends its mail."""
    port = free_port()
    mail = {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(port),
        "SMTP_TLS": "none",
        "MAIL_FROM": "payouts@example.com",
        "OPERATOR_EMAILS": "ravi@example.com",
        "MAIL_SECONDS": "10",  # on a busy machine, a mail that times out would be sent twice
    }
    with Stack(QUICK | mail, provider_speed=SPEED, flower=False) as stack:
        system = System(stack)
        yield system, port
        system.check()


def user(system: System, coins: int = 100 * PAYOUTS) -> str:
    """Create a user with an email address, whose local part is the user id; returns the id."""
    user_id = system.user(coins)
    body = {"user_id": user_id, "coins": 1, "reference": "mail", "email": f"{user_id}@example.com"}
    assert system.post("wallet/credit/", body).status_code == 201
    return user_id


def seconds_to_pay(system: System, user_id: str) -> float:
    """The seconds until PAYOUTS withdrawals are paid."""
    started_at = time.monotonic()
    system.withdraw_many(user_id, PAYOUTS, coins=100)
    assert system.wait_for_all(user_id, PAYOUTS) == {"completed": PAYOUTS}
    return time.monotonic() - started_at


def wait_for(server: MailServer, user_id: str, number: int) -> None:
    address = f"{user_id}@example.com"
    wait_until(
        lambda: len(server.to(address)) >= number,
        ARRIVES_SECONDS,
        lambda: AssertionError(f"{len(server.to(address))} of {number} arrived"),
    )


def test_killing_the_mail_server_stops_no_payout_and_every_mail_is_sent_later(
    mail_system: tuple[System, int],
) -> None:
    system, port = mail_system
    before, during = user(system), user(system)
    with mail_server(port) as server:
        baseline = seconds_to_pay(system, before)
        wait_for(server, before, PAYOUTS)
        first = server.letters
    assert seconds_to_pay(system, during) < 2 * baseline + 20  # payouts that wait for mail would never end
    failed = system.withdraw(user(system), "fail.beneficiary_vpa_invalid@sim")
    system.wait_for(failed)
    with mail_server(port) as server:
        # After an outage the next attempt is 30 s later: do not wait for it here.
        with psycopg.connect(system.info["database_url"]) as connection:
            connection.execute(
                "UPDATE emails SET server_failed_at = NULL, due_at = now() WHERE state = 'waiting'"
            )
        wait_for(server, during, PAYOUTS)
        wait_until(lambda: any(failed in letter.part("plain") for letter in server.letters), ARRIVES_SECONDS)
        letters = [*first, *server.letters]
    to_users = [letter for letter in letters if letter.recipient != "ravi@example.com"]
    assert len(to_users) == len({letter.id for letter in to_users}) == 2 * PAYOUTS + 1
    subjects = [letter.message["Subject"].partition(" to ")[0] for letter in to_users]
    assert subjects.count("We paid ₹10.00") == 2 * PAYOUTS
