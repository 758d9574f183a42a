"""Mail, whole: the real notifier and a mail server that is killed while payouts go on."""

import time
from collections.abc import Iterator

import psycopg
import pytest

from sandbox.processes import wait_until
from sandbox.services import free_port
from sandbox.stack import Stack
from tests.e2e.conftest import QUICK, SPEED
from tests.e2e.system import System
from tests.mailbox import MailServer, serving

pytestmark = pytest.mark.timeout(300)  # a start, and waits of FINAL_SECONDS on a busy machine
PAYOUTS = 24
ARRIVES_SECONDS = 60


@pytest.fixture
def mailing() -> Iterator[tuple[System, int]]:
    """A system that sends its mail to this port."""
    port = free_port()
    mail = {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(port),
        "SMTP_TLS": "none",
        "MAIL_FROM": "payouts@example.com",
        "OPERATOR_EMAILS": "ravi@example.com",
        "MAIL_SECONDS": "10",  # a letter that a busy machine gives up on comes twice
    }
    with Stack(QUICK | mail, provider_speed=SPEED, flower=False) as stack:
        system = System(stack)
        yield system, port
        system.check()


def user(system: System, coins: int = 100 * PAYOUTS) -> str:
    """A new user with an address; his id is what stands before its @."""
    user_id = system.user(coins)
    about = {"user_id": user_id, "coins": 1, "reference": "mail", "email": f"{user_id}@example.com"}
    assert system.post("wallet/credit/", about).status_code == 201
    return user_id


def paid_in(system: System, user_id: str) -> float:
    """Seconds until so many withdrawals are paid."""
    begun = time.monotonic()
    system.withdraw_many(user_id, PAYOUTS, coins=100)
    assert system.wait_for_all(user_id, PAYOUTS) == {"completed": PAYOUTS}
    return time.monotonic() - begun


def wait_for(server: MailServer, user_id: str, number: int) -> None:
    address = f"{user_id}@example.com"
    wait_until(
        lambda: len(server.to(address)) >= number,
        ARRIVES_SECONDS,
        lambda: AssertionError(f"{len(server.to(address))} of {number} came"),
    )


def test_killing_the_mail_server_stops_no_payout_and_all_is_mailed_once_it_is_back(
    mailing: tuple[System, int],
) -> None:
    system, port = mailing
    before, during = user(system), user(system)
    with serving(port) as server:
        alone = paid_in(system, before)
        wait_for(server, before, PAYOUTS)
        first = server.letters
    assert paid_in(system, during) < 2 * alone + 20  # waiting for their mail, it would be for ever
    failed = system.withdraw(user(system), "fail.beneficiary_vpa_invalid@sim")
    system.wait_for(failed)
    with serving(port) as server:
        # The rest after the server was away takes 30 s; nobody need wait here.
        with psycopg.connect(system.info["database_url"]) as connection:
            connection.execute(
                "UPDATE emails SET server_failed_at = NULL, due_at = now() WHERE state = 'waiting'"
            )
        wait_for(server, during, PAYOUTS)
        wait_until(lambda: any(failed in letter.part("plain") for letter in server.letters), ARRIVES_SECONDS)
        letters = [*first, *server.letters]
    to_users = [letter for letter in letters if letter.recipient != "ravi@example.com"]
    assert len(to_users) == len({letter.id for letter in to_users}) == 2 * PAYOUTS + 1
    told = [letter.message["Subject"].partition(" to ")[0] for letter in to_users]
    assert told.count("₹10.00 was paid") == 2 * PAYOUTS
