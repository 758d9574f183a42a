"""The React form in a real browser against the running system, by labels and keyboard."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect

from sandbox.processes import wait_until
from tests.e2e.system import System
from tests.examples.conftest import REACT, TOKENS, worker_paused
from tests.examples.wire import LOST, Wire

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(300),
]  # the first test waits until the form is built
UPI = "user@okhdfcbank"
SEEN_MS = 30_000
END_MS = 30_000
Open = Callable[[str], Page]


@contextmanager
def served(node: str, port: int, api: str, user_id: str) -> Iterator[str]:
    """Run the app's backend for one user; yields its address."""
    environment = os.environ | TOKENS | {"PAYOUTS_URL": api, "PORT": str(port), "DEMO_USER": user_id}
    process = subprocess.Popen(
        [node, "serve.mjs"], cwd=REACT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture
def open_page(
    browser: Browser, built: Path, node: str, page_port: int, wire: Wire, request: pytest.FixtureRequest
) -> Iterator[Open]:
    """Open the page as a user. It calls the API through the recording proxy, from its own origin."""
    context = browser.new_context(viewport={"width": 700, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    servers = []

    def open_as(user_id: str) -> Page:
        server = served(node, page_port, wire.url, user_id)
        servers.append(server)
        page.goto(server.__enter__())
        expect(page.get_by_test_id("balance")).to_contain_text("You have", timeout=SEEN_MS)
        return page

    try:
        yield open_as
        assert errors == []
    finally:
        context.close()
        for server in servers:
            server.__exit__(None, None, None)


def field(page: Page, label: str) -> Locator:
    return page.get_by_role("textbox", name=label, exact=True)


def fill(page: Page, coins: str, upi_id: str) -> None:
    field(page, "Coins").fill(coins)
    field(page, "UPI id").fill(upi_id)


def submit(page: Page) -> None:
    page.get_by_role("button", name="Withdraw").click()


def expect_withdrawal(page: Page, status: str, text: str | re.Pattern[str], timeout: int = SEEN_MS) -> None:
    item = page.locator(f'[data-testid="withdrawal"][data-status="{status}"]')
    expect(item).to_contain_text(text, timeout=timeout)


def expect_fault(page: Page, label: str, message: str) -> None:
    """Expect the field to be invalid, described and focused."""
    invalid = field(page, label)
    expect(invalid).to_have_attribute("aria-invalid", "true", timeout=SEEN_MS)
    expect(invalid).to_have_accessible_description(re.compile(re.escape(message)))
    expect(invalid).to_be_focused()


def test_the_page_shows_paid_and_failed_withdrawals_as_they_happen(
    open_page: Open, wire: Wire, system: System, tmp_path: Path
) -> None:
    user_id = system.user(2000)
    page = open_page(user_id)
    expect(page.get_by_test_id("balance")).to_have_text("You have 2,000 coins (₹200.00)")
    # By keyboard only.
    field(page, "Coins").focus()
    page.keyboard.type("500")
    page.keyboard.press("Tab")
    page.keyboard.type(f" {UPI} ")
    expect(page.get_by_role("button", name="Withdraw ₹50.00")).to_be_visible()
    with worker_paused(system):
        page.keyboard.press("Enter")
        expect_withdrawal(page, "pending", "You can still cancel")
    expect(page.get_by_test_id("balance")).to_have_text("You have 1,500 coins (₹150.00)")
    fill(page, "100", "fail.beneficiary_vpa_invalid@sim")
    submit(page)
    status = page.get_by_role("status")
    expect(status).to_contain_text(re.compile("completed|failed"), timeout=END_MS)
    expect_withdrawal(page, "completed", re.compile(r"500 coins · ₹50\.00.*UTR\) is \w+", re.S), END_MS)
    expect_withdrawal(
        page, "failed", "This UPI id does not exist. Please check it. Your coins are back.", END_MS
    )
    expect(page.get_by_test_id("balance")).to_have_text("You have 1,500 coins (₹150.00)")
    shot = Path(os.environ.get("SCREENSHOTS", tmp_path)) / "react.png"
    page.screenshot(path=shot, full_page=True)
    assert shot.stat().st_size > 10_000
    assert system.balance(user_id) == 1500
    completed = [item["id"] for item in system.history(user_id) if item["status"] == "completed"]
    system.assert_paid_once(completed)


def test_a_double_click_requests_once_and_cancel_refunds_the_coins(
    open_page: Open, wire: Wire, system: System
) -> None:
    user_id = system.user(2000)
    page = open_page(user_id)
    fill(page, "300", UPI)
    with worker_paused(system):
        page.get_by_role("button", name="Withdraw").dblclick()
        expect_withdrawal(page, "pending", "300 coins")
        page.get_by_role("button", name=f"Cancel 300 coins to {UPI}").dblclick()
        expect_withdrawal(page, "cancelled", "Your coins are back.")
    expect(page.get_by_test_id("balance")).to_have_text("You have 2,000 coins (₹200.00)")
    assert [post.path.split("/")[-2] for post in wire.posts] == ["withdraw", "cancel"]
    assert [item["status"] for item in system.history(user_id)] == ["cancelled"]


def test_cancelling_a_cancelled_withdrawal_shows_that_it_is_cancelled(
    open_page: Open, wire: Wire, system: System
) -> None:
    user_id = system.user(2000)
    page = open_page(user_id)
    fill(page, "300", UPI)
    submit(page)
    expect_withdrawal(page, "pending", "300 coins")
    page.route("**/withdraw/history/**", lambda _: None)  # the page does not refresh
    system.cancel(system.history(user_id)[0]["id"])  # on the user's other device
    page.get_by_role("button", name=f"Cancel 300 coins to {UPI}").click()
    expect(page.get_by_role("alert")).to_have_text("It is already cancelled.", timeout=SEEN_MS)


def test_invalid_input_is_reported_before_anything_is_sent(
    open_page: Open, wire: Wire, system: System
) -> None:
    page = open_page(system.user(2000))
    for coins, upi_id, label, message in [
        ("", UPI, "Coins", "Enter a whole number of coins."),
        ("12.5", UPI, "Coins", "Enter a whole number of coins."),
        ("99", UPI, "Coins", "Minimum withdrawal is 100 coins."),
        ("2001", UPI, "Coins", "You have 2,000 coins."),
        *(("100", invalid, "UPI id", "Enter a UPI id such as user@okhdfcbank.")
          for invalid in ("invalid-upi", "username#bank", "@bank", "user@", "a@b")),
    ]:  # fmt: skip
        fill(page, coins, upi_id)
        submit(page)
        expect_fault(page, label, message)
    assert wire.posts == []


def test_an_error_of_the_api_is_shown_at_its_field(open_page: Open, wire: Wire, system: System) -> None:
    user_id = system.user(2000)
    page = open_page(user_id)
    system.withdraw(user_id, coins=1900)  # on the user's other device
    fill(page, "500", UPI)
    submit(page)
    expect_fault(page, "Coins", "Insufficient coin balance")
    # The corrected request has another key.
    field(page, "Coins").fill("100")
    submit(page)
    expect(page.get_by_role("status")).to_contain_text("Withdrawal requested: 100 coins", timeout=SEEN_MS)
    assert len(set(wire.keys())) == 2
    assert system.balance(user_id) == 0


def test_an_unanswered_request_survives_a_reload_and_is_retried_with_its_key(
    open_page: Open, wire: Wire, system: System
) -> None:
    user_id = system.user(2000)
    page = open_page(user_id)
    fill(page, "500", UPI)
    wire.fates.extend([LOST] * 20)
    submit(page)
    wait_until(lambda: len(system.history(user_id)) == 1, SEEN_MS / 1000)
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("We have no answer yet", timeout=SEEN_MS)
    expect(field(page, "Coins")).not_to_be_editable()
    wire.fates.clear()
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_role("status")).to_contain_text("Withdrawal requested: 500 coins", timeout=SEEN_MS)
    expect(field(page, "UPI id")).to_be_editable()
    assert len(wire.posts) >= 2 and len(set(wire.keys())) == 1
    assert len(system.history(user_id)) == 1


def test_the_page_has_no_api_key_and_its_token_is_valid_for_its_user_only(
    built: Path, node: str, page_port: int, system: System
) -> None:
    user_id, other = system.user(2000), system.user(2000)
    with served(node, page_port, system.info["api"], user_id) as address:
        session = requests.post(f"{address}/session", timeout=10).json()
        page = requests.get(address, timeout=10)
        assert "connect-src 'self' " + system.info["api"] in page.headers["Content-Security-Policy"]
        assert requests.get(f"{address}/serve.mjs", timeout=10).status_code == 404
    bearer = {"Authorization": f"Bearer {session['token']}"}
    statuses = [
        requests.get(f"{system.url}wallet/", params={"user_id": id_}, headers=bearer, timeout=10).status_code
        for id_ in (user_id, other)
    ]
    assert statuses == [200, 403]
    assert system.info["api_key"] not in (built / "dist" / "main.js").read_text()


def test_the_declared_javascript_types_are_correct(built: Path) -> None:
    done = subprocess.run(
        ["npm", "run", "--silent", "check"], cwd=built, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
