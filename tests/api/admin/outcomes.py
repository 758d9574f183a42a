"""Withdrawals with known results and ages."""

import re
from datetime import datetime, timedelta
from html import unescape
from itertools import count
from typing import NamedTuple
from uuid import UUID

from shared import withdrawals
from shared.clock import INDIA
from shared.db.transactions import transaction
from shared.providers.razorpayx.answers import build_report
from shared.withdrawals import apply_report
from tests.api.admin.person import Person
from tests.support.world import World

_numbers = count(1)


class Box(NamedTuple):
    """One box of the dashboard."""

    value: str
    details: str
    is_red: bool


def sent(world: World, coins: int = 500, upi_id: str = "asha@okaxis") -> UUID:
    """A withdrawal whose first attempt was sent."""
    world.credit(coins=coins, reference=f"outcome-{next(_numbers)}")
    return world.first_send(coins=coins, upi_id=upi_id).withdrawal_id


def report(
    world: World, withdrawal_id: UUID, status: str, reason: str | None = None, **fields: object
) -> str:
    """Apply a report of the provider about its payout. Returns the effect."""
    [attempt] = world.attempts(withdrawal_id)
    paise = world.read(withdrawal_id).amount_paise
    payout_id = attempt.payout_id or f"pout_{next(_numbers):014}"
    reported = build_report(payout_id, status, paise, reference_id=str(attempt.id), reason=reason, **fields)  # type: ignore[arg-type]
    with transaction() as session:
        return apply_report(session, reported, "poll")


def paid(world: World, coins: int = 500, upi_id: str = "asha@okaxis", **fields: object) -> UUID:
    withdrawal_id = sent(world, coins, upi_id)
    assert report(world, withdrawal_id, "processed", **fields) == "pay"
    return withdrawal_id


def failed(
    world: World, coins: int = 500, upi_id: str = "asha@okaxis", why: str = "bank_account_closed"
) -> UUID:
    withdrawal_id = sent(world, coins, upi_id)
    assert report(world, withdrawal_id, "failed", why) == "fail"
    return withdrawal_id


def cancelled(world: World, coins: int = 500, upi_id: str = "asha@okaxis") -> UUID:
    world.credit(coins=coins, reference=f"outcome-{next(_numbers)}")
    withdrawal_id = world.request(coins=coins, upi_id=upi_id)
    withdrawals.cancel(withdrawal_id, actor="app:test", reason="changed my mind")
    return withdrawal_id


def backdate(world: World, withdrawal_id: UUID, **duration: float) -> None:
    """Move the withdrawal and everything that happened to it into the past."""
    seconds = timedelta(**duration).total_seconds()
    for table, key in (("withdrawals", "id"), ("withdrawal_events", "withdrawal_id"),
                       ("payout_attempts", "withdrawal_id")):  # fmt: skip
        world.sql_without_rules(
            f"UPDATE {table} SET created_at = created_at - {seconds} * interval '1 second'"
            f" WHERE {key} = '{withdrawal_id}'"
        )
    world.broken_on_purpose = True  # old events without a seal block


def backdate_request(world: World, withdrawal_id: UUID, seconds: float) -> None:
    """Set the time of the request to `seconds` before the payment."""
    world.sql_without_rules(
        f"UPDATE withdrawals SET created_at = (SELECT created_at FROM withdrawal_events WHERE withdrawal_id = '{withdrawal_id}'"
        f" AND to_status = 'completed' ORDER BY id LIMIT 1) - {seconds} * interval '1 second' WHERE id = '{withdrawal_id}'"
    )
    world.broken_on_purpose = True


def boxes(person: Person) -> dict[str, Box]:
    """The boxes of the dashboard, by title."""
    page = person.get("/admin/")
    assert page.status_code == 200
    matches = re.findall(
        r'<div class="box( red)?(?: wide)?">\s*<h2><a href="[^"]+">([^<]*?)</a>\s*(?:<span class="flag">Needs attention</span>)?</h2>\s*'
        r'<p class="value">(.*?)</p>\s*<p>(.*?)</p>',
        page.text,
        re.S,
    )
    return {
        unescape(title): Box(unescape(value), unescape(details), bool(red))
        for red, title, value, details in matches
    }


def table_rows(page: str, section: str) -> dict[str, list[str]]:
    """The table under the heading with this id: first cell -> other cells."""
    part = page.split(f'<h2 id="{section}">')[1].split("</section>", maxsplit=1)[0]
    rows = {}
    for row in re.findall(r"<tr>(.*?)</tr>", part.split("<tbody>")[1], re.S):
        cells = [
            unescape(re.sub(r"<[^>]+>", "", cell)).strip()
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)
        ]
        rows[cells[0]] = cells[1:]
    return rows


def today() -> datetime:
    return datetime.now(INDIA)
