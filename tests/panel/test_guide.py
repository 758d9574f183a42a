"""The steps of docs/operators.md in a real browser; these tests make its screenshots."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from sandbox.processes import wait_until
from tests.e2e.system import System
from tests.panel.conftest import Opened
from tests.panel.test_panel import decide, sign_in

pytestmark = pytest.mark.exhaustive

LARGE = 1200  # more coins than are paid without approval


def admin(system: System, page: Page) -> Page:
    sign_in(page, system.info["admin_user"], system.info["admin_password"])
    return page


def confirmed(page: Page, button: str) -> None:
    """Confirm on the page that says what will happen."""
    expect(page.get_by_role("heading", name="What will happen")).to_be_visible()
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role("status")).to_be_visible()


def test_one_review_is_approved_one_rejected_and_ten_in_bulk(
    system: System, opened: Opened, shots: Path
) -> None:
    user_id = system.user(20_000)
    first, second, *_ = system.withdraw_many(user_id, 12, coins=LARGE)
    page = admin(system, opened())
    page.goto(f"{system.info['admin']}withdrawal/{first}/")
    expect(page.get_by_text("Reason for approval", exact=True)).to_be_visible()
    page.screenshot(path=shots / "panel-review.png")
    decide(page, "Approve", "A long-standing user")
    expect(page.get_by_role("status")).to_contain_text("Approved. ₹120.00")
    page.goto(f"{system.info['admin']}withdrawal/{second}/")
    decide(page, "Reject and refund", "Played with two accounts")
    expect(page.get_by_role("status")).to_contain_text("1,200 coins are back")
    page.goto(f"{system.info['admin']}withdrawals/?user={user_id}&reason=awaiting_review&order=oldest")
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Approve selected …").click()
    expect(page.get_by_text("Approve: 10 withdrawals, ₹1,200.00 in total")).to_be_visible()
    page.screenshot(path=shots / "panel-bulk.png")
    page.get_by_label("Reason").fill("All of them won the same contest")
    page.get_by_role("button", name="Approve selected (10)").click()
    expect(page.get_by_role("cell", name="done", exact=True)).to_have_count(10)
    assert system.wait_for_all(user_id, 12) == {"completed": 11, "failed": 1}
    assert system.balance(user_id) == 20_000 - 11 * LARGE


def test_a_low_balance_is_reported_until_the_balance_suffices(
    system: System, opened: Opened, shots: Path
) -> None:
    system.withdraw(system.user(), coins=LARGE)
    page = admin(system, opened())
    system.provider.post("balance", {"paise": 5000})
    try:
        records = f"{system.info['admin']}exceptions/?kind=low_balance"

        def is_reported() -> bool:
            page.goto(records)
            return page.get_by_role("cell", name="low_balance").count() == 1

        wait_until(is_reported, 30)
        page.get_by_role("link", name=re.compile("#[0-9]+")).click()
        expect(page.get_by_role("heading", name="Their side")).to_be_visible()
        page.get_by_role("button", name="Assign to me").click()
        expect(page.get_by_role("status")).to_contain_text("Assigned to you.")
        page.screenshot(path=shots / "panel-exception.png")
    finally:
        system.provider.post("balance", {"paise": 100_000_000})
    wait_until(lambda: not is_reported(), 30)


def test_payouts_are_paused_and_resumed_by_hand(system: System, opened: Opened, shots: Path) -> None:
    page = admin(system, opened())
    page.get_by_role("navigation").get_by_role("link", name="Pauses").click()
    page.get_by_label("Reason").fill("Their status page says that UPI is down")
    page.get_by_role("button", name="Pause …").click()
    expect(page.get_by_text("No payments are sent until an operator resumes them")).to_be_visible()
    page.screenshot(path=shots / "panel-pause.png")
    confirmed(page, "Pause payouts")
    withdrawal_id = system.withdraw(system.user())
    wait_until(
        lambda: system.status(withdrawal_id)["status_reason"] == "paused",
        30,
        lambda: AssertionError(system.status(withdrawal_id)),
    )
    page.get_by_label("Reason").fill("It is over")
    page.get_by_role("button", name="Resume …").click()
    confirmed(page, "Resume payouts")
    assert system.wait_for(withdrawal_id) == "completed"


def test_unfreezing_a_wallet_and_giving_coins_need_a_second_person(
    system: System, opened: Opened, shots: Path
) -> None:
    user_id = system.user()
    page = admin(system, opened())
    page.get_by_role("link", name="Users").click()
    page.get_by_label("User id").fill(user_id)
    page.get_by_role("button", name="Find user").click()
    page.get_by_text("Freeze wallet", exact=True).click()
    page.get_by_text("Adjust coins", exact=True).click()
    page.screenshot(path=shots / "panel-user.png")
    page.get_by_label("Reason").first.fill("Asked us by telephone")
    page.get_by_role("button", name="Freeze …").click()
    confirmed(page, "Freeze wallet")
    assert system.request(user_id).json()["code"] == "wallet_frozen"
    page.get_by_text("Unfreeze wallet", exact=True).click()
    page.get_by_label("Reason").first.fill("Found the telephone")
    page.get_by_role("button", name="Unfreeze …").click()
    confirmed(page, "Propose to unfreeze wallet")
    page.get_by_text("Adjust coins", exact=True).click()
    page.get_by_role("textbox", name="Coins").fill("5000")
    page.get_by_label("Reason").last.fill("The quiz of Sunday was not counted")
    page.get_by_role("button", name="Continue …").click()
    confirmed(page, "Give coins")
    expect(page.get_by_role("status")).to_contain_text("A second person must approve it")
    expect(page.get_by_role("button", name="Approve …")).to_have_count(0)
    assert system.balance(user_id) == 2000
