"""Withdrawals of known fates and ages, for what is told of them."""

import re
from datetime import datetime, timedelta
from html import unescape
from itertools import count
from typing import NamedTuple
from uuid import UUID

from shared import db, withdrawals
from shared.clock import INDIA
from shared.razorpayx.answers import PayoutReport
from shared.withdrawals import apply_report
from tests.integration.panel.person import Person
from tests.world import World

_numbers = count(1)


class Box(NamedTuple):
    """One answer of the dashboard."""

    value: str
    words: str
    is_red: bool


def sent(world: World, coins: int = 500, upi_id: str = "asha@okaxis") -> UUID:
    """A withdrawal whose first attempt is on the wire."""
    world.credit(coins=coins, reference=f"fate-{next(_numbers)}")
    return world.first_send(coins=coins, upi_id=upi_id).withdrawal_id


def told(world: World, withdrawal_id: UUID, status: str, reason: str | None = None, **about: object) -> str:
    """RazorpayX tells of its payout; what that did."""
    [attempt] = world.attempts(withdrawal_id)
    paise = world.read(withdrawal_id).amount_paise
    payout_id = attempt.payout_id or f"pout_{next(_numbers):014}"
    report = PayoutReport(payout_id, status, paise, reference_id=str(attempt.id), reason=reason, **about)  # type: ignore[arg-type]
    with db.transaction() as session:
        return apply_report(session, report, "poll")


def paid(world: World, coins: int = 500, upi_id: str = "asha@okaxis", **about: object) -> UUID:
    withdrawal_id = sent(world, coins, upi_id)
    assert told(world, withdrawal_id, "processed", **about) == "pay"
    return withdrawal_id


def failed(
    world: World, coins: int = 500, upi_id: str = "asha@okaxis", why: str = "bank_account_closed"
) -> UUID:
    withdrawal_id = sent(world, coins, upi_id)
    assert told(world, withdrawal_id, "failed", why) == "fail"
    return withdrawal_id


def cancelled(world: World, coins: int = 500, upi_id: str = "asha@okaxis") -> UUID:
    world.credit(coins=coins, reference=f"fate-{next(_numbers)}")
    withdrawal_id = world.request(coins=coins, upi_id=upi_id)
    withdrawals.cancel(withdrawal_id, actor="app:test", reason="changed my mind")
    return withdrawal_id


def ago(world: World, withdrawal_id: UUID, **length: float) -> None:
    """Let all that happened to it so far have happened so long ago."""
    seconds = timedelta(**length).total_seconds()
    for table, key in (("withdrawals", "id"), ("withdrawal_events", "withdrawal_id"),
                       ("payout_attempts", "withdrawal_id")):  # fmt: skip
        world.sql_without_rules(
            f"UPDATE {table} SET created_at = created_at - {seconds} * interval '1 second'"
            f" WHERE {key} = '{withdrawal_id}'"
        )
    world.broken_on_purpose = True  # old events in no block


def asked_before(world: World, withdrawal_id: UUID, seconds: float) -> None:
    """Let it have been asked for so long before it was paid."""
    world.sql_without_rules(
        f"UPDATE withdrawals SET created_at = (SELECT created_at FROM withdrawal_events WHERE withdrawal_id = '{withdrawal_id}'"
        f" AND to_status = 'completed' ORDER BY id LIMIT 1) - {seconds} * interval '1 second' WHERE id = '{withdrawal_id}'"
    )
    world.broken_on_purpose = True


def boxes(person: Person) -> dict[str, Box]:
    """The answers on the dashboard, by title."""
    page = person.get("/admin/")
    assert page.status_code == 200
    found = re.findall(
        r'<div class="box( red)?(?: wide)?">\s*<h2><a href="[^"]+">([^<]*?)</a>\s*(?:<span class="flag">Look at this</span>)?</h2>\s*'
        r'<p class="value">(.*?)</p>\s*<p>(.*?)</p>',
        page.text,
        re.S,
    )
    return {
        unescape(title): Box(unescape(value), unescape(words), bool(red))
        for red, title, value, words in found
    }


def rows(page: str, section: str) -> dict[str, list[str]]:
    """The table under the heading with this id: first cell -> the others."""
    part = page.split(f'<h2 id="{section}">')[1].split("</section>", maxsplit=1)[0]
    found = {}
    for row in re.findall(r"<tr>(.*?)</tr>", part.split("<tbody>")[1], re.S):
        cells = [
            unescape(re.sub(r"<[^>]+>", "", cell)).strip()
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)
        ]
        found[cells[0]] = cells[1:]
    return found


def today() -> datetime:
    return datetime.now(INDIA)
