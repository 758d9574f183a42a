"""The text before an action is exact: attempt numbers, totals, ranges, and messages without repeats."""

import re
from datetime import timedelta

import pytest

from shared.providers.failures import POLICIES
from shared.roles import Role
from shared.withdrawals import resolve, review
from tests.api.admin import outcomes
from tests.api.admin.conftest import Signed
from tests.support.world import World

RETRY = "/admin/withdrawal/{}/retry/"


def told_before_retry(asha, withdrawal_id) -> str:  # type: ignore[no-untyped-def]
    asha.get(RETRY.format(withdrawal_id))
    asha.send(step="confirm", reason="the bank is back")
    return str(asha.page.text)


def test_retry_now_says_which_attempt_it_will_be(panel: World, signed_in: Signed) -> None:
    asha = signed_in()
    panel.credit()
    never_sent = panel.request()
    panel.sql("UPDATE withdrawals SET status_reason = 'paused', due_at = now() + interval '1 hour'")
    assert "for the first time" in told_before_retry(asha, never_sent)
    failed_once = outcomes.sent(panel)
    assert outcomes.report(panel, failed_once, "failed", "gateway_timeout") == "fail"
    assert panel.read(failed_once).status_reason == "retry_later"
    page = told_before_retry(asha, failed_once)
    assert "first time" not in page and "as attempt 2 with a new key" in page
    throttled = outcomes.sent(panel)
    panel.sql("UPDATE payout_attempts SET state = 'throttled' WHERE withdrawal_id = :id", id=throttled)
    panel.sql("UPDATE withdrawals SET status_reason = 'provider_busy' WHERE id = :id", id=throttled)
    assert "with the same key" in told_before_retry(asha, throttled)


def counted(asha, **turn: str) -> list[str]:  # type: ignore[no-untyped-def]
    asha.get("/admin/switches/")
    asha.send(action="/admin/switches/turn/", reason="to look", **turn)
    return re.findall(r"(\d+ withdrawals?(?: now)?, ₹[\d,]+\.\d\d)", asha.page.text)


def test_a_pause_counts_exactly_what_it_affects(panel: World, signed_in: Signed) -> None:
    asha = signed_in()
    panel.credit(coins=5000)
    panel.request(coins=300, upi_id="a@okaxis")
    panel.request(coins=500, upi_id="b@ybl")
    panel.request(coins=700, upi_id="c@YBL")
    assert counted(asha, handle="ybl", word="pause") == ["2 withdrawals now, ₹120.00"]
    assert counted(asha, name="payouts", word="pause") == ["3 withdrawals now, ₹150.00"]
    on_its_way = outcomes.sent(panel, 900, upi_id="d@ybl")
    assert panel.read(on_its_way).status == "processing"
    assert counted(asha, handle="ybl", word="pause") == ["2 withdrawals now, ₹120.00"], (
        "a sent one is not counted"
    )
    asha.send(step="do")
    assert counted(asha, name="handle:ybl", word="resume") == ["0 withdrawals, ₹0.00"], "none was due yet"
    held = panel.sql("SELECT id FROM withdrawals WHERE upi_id = 'b@ybl'")[0].id
    panel.step(held, seconds=60)
    assert counted(asha, name="handle:ybl", word="resume") == ["1 withdrawal, ₹50.00"]


@pytest.mark.parametrize(
    "page", ["withdrawals/", "withdrawals/export.csv", "audit-log/", "analytics/", "analytics/export.csv"]
)
def test_a_range_that_ends_before_it_starts_is_refused(panel: World, signed_in: Signed, page: str) -> None:
    asha = signed_in("fay", Role.ADMIN)
    today = outcomes.today().date()
    answer = asha.get(f"/admin/{page}?from={today}&to={today - timedelta(days=1)}")
    assert answer.status_code == 400 and "Invalid range" in answer.text
    assert asha.get(f"/admin/{page}?from={today}&to={today}").status_code == 200, "one day is a range"


def test_failure_messages_do_not_mention_the_coins() -> None:
    """Apps, mails and the form add that sentence themselves."""
    reasons = [policy.user_message for policy in POLICIES.values()]
    for words in (*reasons, review.NOT_APPROVED, resolve.NOT_ARRIVED):
        assert "coins" not in words, words
