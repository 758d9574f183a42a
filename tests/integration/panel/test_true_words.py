"""What the panel says before an act is true of just that act: ordinals, numbers, ranges, and words said once."""

import re
from datetime import timedelta

import pytest

from shared.razorpayx.reasons import POLICIES
from shared.roles import Role
from shared.withdrawals import resolving, reviewing
from tests.integration.panel import fates
from tests.integration.panel.conftest import Signed
from tests.world import World

RETRY = "/admin/withdrawal/{}/retry/"


def told_before_retry(asha, withdrawal_id) -> str:  # type: ignore[no-untyped-def]
    asha.get(RETRY.format(withdrawal_id))
    asha.send(step="confirm", reason="the bank is back")
    return str(asha.page.text)


def test_try_now_says_which_attempt_it_will_be(panel: World, signed_in: Signed) -> None:
    asha = signed_in()
    panel.credit()
    never_sent = panel.request()
    panel.sql("UPDATE withdrawals SET status_reason = 'paused', due_at = now() + interval '1 hour'")
    assert "for the first time" in told_before_retry(asha, never_sent)
    failed_once = fates.sent(panel)
    assert fates.told(panel, failed_once, "failed", "gateway_timeout") == "fail"
    assert panel.read(failed_once).status_reason == "retry_later"
    page = told_before_retry(asha, failed_once)
    assert "first time" not in page and "as attempt 2 with a new key" in page
    throttled = fates.sent(panel)
    panel.sql("UPDATE payout_attempts SET state = 'throttled' WHERE withdrawal_id = :id", id=throttled)
    panel.sql("UPDATE withdrawals SET status_reason = 'provider_busy' WHERE id = :id", id=throttled)
    assert "with the same key" in told_before_retry(asha, throttled)


def counted(asha, **turn: str) -> list[str]:  # type: ignore[no-untyped-def]
    asha.get("/admin/switches/")
    asha.send(action="/admin/switches/turn/", reason="to look", **turn)
    return re.findall(r"(\d+ withdrawals?(?: now)?, ₹[\d,]+\.\d\d)", asha.page.text)


def test_a_pause_counts_what_it_touches_and_nothing_else(panel: World, signed_in: Signed) -> None:
    asha = signed_in()
    panel.credit(coins=5000)
    panel.request(coins=300, upi_id="a@okaxis")
    panel.request(coins=500, upi_id="b@ybl")
    panel.request(coins=700, upi_id="c@YBL")
    assert counted(asha, handle="ybl", word="pause") == ["2 withdrawals now, ₹120.00"]
    assert counted(asha, name="payouts", word="pause") == ["3 withdrawals now, ₹150.00"]
    on_its_way = fates.sent(panel, 900, upi_id="d@ybl")
    assert panel.read(on_its_way).status == "processing"
    assert counted(asha, handle="ybl", word="pause") == ["2 withdrawals now, ₹120.00"], "that one is sent"
    asha.send(step="do")
    assert counted(asha, name="handle:ybl", word="resume") == ["0 withdrawals, ₹0.00"], "none was due yet"
    held = panel.sql("SELECT id FROM withdrawals WHERE upi_id = 'b@ybl'")[0].id
    panel.step(held, seconds=60)
    assert counted(asha, name="handle:ybl", word="resume") == ["1 withdrawal, ₹50.00"]


@pytest.mark.parametrize(
    "page", ["withdrawals/", "withdrawals/export.csv", "audit-log/", "analytics/", "analytics/export.csv"]
)
def test_a_range_that_ends_before_it_begins_is_refused_with_words(
    panel: World, signed_in: Signed, page: str
) -> None:
    asha = signed_in("fay", Role.ADMIN)
    today = fates.today().date()
    answer = asha.get(f"/admin/{page}?from={today}&to={today - timedelta(days=1)}")
    assert answer.status_code == 400 and "Invalid range" in answer.text
    assert asha.get(f"/admin/{page}?from={today}&to={today}").status_code == 200, "one day is a range"


def test_why_it_failed_leaves_it_to_the_mail_that_the_coins_are_back() -> None:
    """Apps, mails and the form write that sentence around it: it would be said twice."""
    reasons = [policy.words for policy in POLICIES.values()]
    for words in (*reasons, reviewing.NOT_APPROVED, resolving.NOT_ARRIVED):
        assert "coins" not in words, words
