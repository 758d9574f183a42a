"""An operator's work in a real browser, by labels and keyboard, with a second person where it takes two."""

import csv
import json
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Page, expect

from sandbox.processes import wait_until
from tests.e2e.system import System
from tests.panel.conftest import PASSWORD, Opened

pytestmark = pytest.mark.exhaustive


def sign_in(page: Page, name: str, password: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Dashboard", exact=True)).to_be_visible()


def decide(page: Page, action: str, reason: str) -> None:
    """Send the form of an action and confirm it."""
    page.get_by_role("link", name=action).click()
    page.get_by_role("textbox").last.fill(reason)
    page.get_by_role("button", name="Continue …").click()
    expect(page.get_by_role("heading", name="What will happen")).to_be_visible()
    page.get_by_role("button", name=action, exact=True).click()


def age_last_report(system: System, withdrawal_id: str) -> None:
    """Let two days pass without a report about the payout: from then on, operators can decide."""
    with psycopg.connect(system.info["database_url"]) as connection:
        connection.execute(
            "UPDATE payout_attempts SET answered_at = answered_at - interval '2 days' WHERE withdrawal_id = %s",
            (withdrawal_id,),
        )
        connection.execute(
            "UPDATE withdrawals SET due_at = now() + interval '1 hour' WHERE id = %s", (withdrawal_id,)
        )


def stuck(system: System, user_id: str) -> str:
    """A withdrawal whose payout never ends."""
    withdrawal_id = system.withdraw(user_id, f"never-{user_id}@sim", 500)
    wait_until(
        lambda: system.status(withdrawal_id)["status_reason"] == "bank_processing",
        30,
        lambda: AssertionError(system.status(withdrawal_id)),
    )
    return withdrawal_id


def test_a_stuck_payout_is_found_and_resolved_by_two_people(
    system: System, opened: Opened, shots: Path, tmp_path: Path
) -> None:
    user_id = system.user()
    withdrawal_id = stuck(system, user_id)
    system.wait_for(system.withdraw(user_id, "success@sim", 700))
    asha, ravi = opened(), opened("dark")
    asha.screenshot(path=shots / "panel-sign-in.png")
    sign_in(asha, system.info["admin_user"], system.info["admin_password"])
    # Finds the withdrawal.
    asha.get_by_role("link", name="Withdrawals").click()
    asha.get_by_label("Search").fill(user_id)
    asha.get_by_label("Search").press("Enter")
    expect(asha.get_by_role("row")).to_have_count(3)
    asha.screenshot(path=shots / "panel-list.png")
    # Exports the list.
    with asha.expect_download() as download:
        asha.get_by_role("link", name="Export as CSV").click()
    download.value.save_as(tmp_path / "list.csv")
    with (tmp_path / "list.csv").open() as file:
        assert {row["status"] for row in csv.DictReader(file)} == {"processing", "completed"}
    # Proposes a refund, though not while RazorpayX says that it is processing; cannot approve it herself.
    asha.get_by_role("link", name=withdrawal_id).click()
    expect(asha.get_by_role("link", name="Propose as paid")).to_be_visible()
    expect(asha.get_by_role("link", name="Propose refund")).to_have_count(0)
    age_last_report(system, withdrawal_id)
    asha.reload()
    asha.screenshot(path=shots / "panel-withdrawal.png")
    asha.get_by_role("link", name="Propose refund").click()
    asha.get_by_role("textbox").last.fill("The bank says it never came")
    asha.get_by_role("button", name="Continue …").click()
    expect(asha.get_by_text("₹50.00 is lost")).to_be_visible()
    asha.screenshot(path=shots / "panel-confirm.png")
    asha.get_by_role("button", name="Propose refund").click()
    expect(asha.get_by_role("status")).to_contain_text("A second person must approve it")
    expect(asha.get_by_role("link", name="Approve proposal")).to_have_count(0)
    # A second person approves it.
    sign_in(ravi, "ravi", PASSWORD)
    ravi.get_by_role("link", name=withdrawal_id).click()
    ravi.screenshot(path=shots / "panel-second-person.png")
    decide(ravi, "Approve proposal", "I called the bank as well")
    expect(ravi.get_by_role("status")).to_contain_text("Approved. The withdrawal is failed")
    expect(ravi.get_by_text("operator:ravi").first).to_be_visible()
    assert system.status(withdrawal_id)["status"] == "failed" and system.balance(user_id) == 1300
    # The audit log shows the approval.
    asha.get_by_role("link", name="Audit log").click()
    expect(asha.get_by_role("cell", name="approve").first).to_be_visible()
    asha.screenshot(path=shots / "panel-audit.png")


def test_the_panel_works_by_keyboard_and_without_javascript(system: System, opened: Opened) -> None:
    """Sign in, select two of a list and cancel both with Tab, Space, Enter and typing."""
    user_id = system.user()
    page = opened(scripts=False)
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("ravi")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Dashboard", exact=True)).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    system.stack.parts["worker"].stop()
    try:
        for _ in range(2):
            system.withdraw(user_id, "success@sim", 100)
        page.goto(f"{system.info['admin']}withdrawals/?user={user_id}")
        page.get_by_role("link", name="Clear filters").focus()
        for _ in range(2):
            while (
                not page.locator("input[type=checkbox]:focus").count()
                or page.locator(":checked:focus").count()
            ):
                page.keyboard.press("Tab")
            page.keyboard.press("Space")
        while not page.locator("button:focus", has_text="Cancel selected").count():
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Cancel withdrawal: 2 withdrawals, ₹20.00 in total")).to_be_visible()
        page.get_by_label("Reason").focus()
        page.keyboard.type("A mistake of the app")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("cell", name="done", exact=True)).to_have_count(2)
    finally:
        system.stack.parts["worker"].start()
        system.stack.parts["worker"].wait_ready()
    assert system.balance(user_id) == 2000


def test_the_dashboard_and_analytics_work_by_keyboard(
    system: System, opened: Opened, shots: Path, tmp_path: Path
) -> None:
    """Each chart is a named image beside its numbers, in light and dark; Enter downloads the export."""
    user_id = system.user()
    system.wait_for(system.withdraw(user_id, "success@sim", 700))
    stuck(system, user_id)
    light, dark = opened(), opened("dark")
    for page, scheme in ((light, "light"), (dark, "dark")):
        sign_in(page, "ravi", PASSWORD)
        expect(page.get_by_role("heading", name="Paid today (IST)")).to_be_visible()
        expect(page.get_by_role("img")).to_have_count(3)
        for name in ("held", "hours", "handles"):
            part = page.locator(f"section[aria-labelledby={name}]")
            expect(part.get_by_role("img")).to_be_visible()
            expect(part.get_by_role("table")).to_be_visible()
        inks = page.locator("svg text").evaluate_all(
            "all => [...new Set(all.map(t => getComputedStyle(t).fill))]"
        )
        assert inks == ["rgb(230, 233, 238)" if scheme == "dark" else "rgb(27, 31, 39)"]
        name = "panel-dashboard.png" if scheme == "light" else "panel-dashboard-dark.png"
        page.screenshot(path=shots / name, full_page=True)
    row = light.get_by_role("row").filter(
        has=light.get_by_role("rowheader", name="processing, bank_processing")
    )
    expect(row).to_contain_text("₹50.00")
    # From here on by keyboard.
    while not light.locator("a:focus", has_text="Analytics").count():
        light.keyboard.press("Tab")
    light.keyboard.press("Enter")
    expect(light.get_by_role("heading", name="Time from request to paid, by day")).to_be_visible()
    light.screenshot(path=shots / "panel-analytics.png")
    while not light.locator("a:focus", has_text="Export as CSV").count():
        light.keyboard.press("Tab")
    with light.expect_download() as download:
        light.keyboard.press("Enter")
    download.value.save_as(tmp_path / "totals.csv")
    with (tmp_path / "totals.csv").open() as file:
        assert {"asked", "completed"} <= {row["what"] for row in csv.DictReader(file)}


NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 800}
TO_THE_SIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
NARROWEST = "all => Math.min(...all.map(e => e.clientWidth || 999))"
HIGHEST = "all => Math.max(0, ...all.map(e => e.clientHeight))"
TWICE = "all => all.map(e => e.id).filter((id, place, ids) => ids.indexOf(id) !== place)"


def test_every_page_labels_its_fields_and_tables(system: System, opened: Opened) -> None:
    """Screen readers find a language, one h1, labels and table headers; nothing comes from other sites.

    No page scrolls sideways on a phone or a small screen.
    """
    requested: list[str] = []
    page = opened()
    page.on("request", lambda request: requested.append(request.url))
    user_id = system.user(50_000)
    # The dashboard and analytics need a payment.
    system.wait_for(system.withdraw(user_id, "success@sim", 700))
    withdrawal_id = stuck(system, user_id)
    sign_in(page, system.info["admin_user"], system.info["admin_password"])
    links = page.locator("nav a").evaluate_all("links => links.map(link => link.href)")
    more = [
        "account/",
        f"users/?user={user_id}",
        f"withdrawal/{withdrawal_id}/",
        f"withdrawal/{withdrawal_id}/mark-paid/",
        f"exceptions/{record(system, withdrawal_id)}/",
        "withdrawals/?q=nobody",
    ]
    for address in [*links, *(system.info["admin"] + path for path in more)]:
        page.goto(address)
        fits(page)
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.locator("h1").count() == 1 and page.locator("main").count() == 1
        unnamed = page.locator("input:not([type=hidden]), select, textarea").evaluate_all(
            "fields => fields.filter(f => !f.labels.length && !f.ariaLabel).map(f => f.name)"
        )
        assert unnamed == [], address
        assert page.locator("th:not([scope])").count() == 0
    # The pages after a form.
    page.goto(f"{system.info['admin']}withdrawal/{withdrawal_id}/note/")
    page.get_by_role("textbox").last.fill("x" * 500)
    page.get_by_role("button", name="Continue …").click()
    fits(page)
    page.goto(f"{system.info['admin']}withdrawals/?user={user_id}")
    page.get_by_role("link", name="Select all 2 on this page").click()
    page.get_by_role("button", name="Cancel selected …").click()
    expect(page.get_by_text("Not possible for these, which are left out:")).to_be_visible()
    fits(page)
    assert {url.split("/")[2] for url in requested} == {system.info["api"].split("/")[2]}


def fits(page: Page) -> None:
    """No page scrolls sideways, and each id is unique."""
    for size in (NARROW, WIDE):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert page.evaluate(TO_THE_SIDE) <= 0, (page.url, size)
        assert page.locator("dd:visible").evaluate_all(NARROWEST) > 120, (page.url, size)
    # On a wide screen each withdrawal is one line.
    assert page.locator(".list tr").evaluate_all(HIGHEST) < 45
    assert page.locator("[id]").evaluate_all(TWICE) == [], page.url


def record(system: System, withdrawal_id: str) -> int:
    """Insert an exception record with long values; returns its id."""
    with psycopg.connect(system.info["database_url"]) as connection:
        row = connection.execute(
            "INSERT INTO exception_records (kind, subject, source, ours, theirs, resolved_at, resolved_by, resolution)"
            " VALUES ('two_payouts', %s, 'test', %s, '{}', now(), 'test', 'a test') RETURNING id",
            [withdrawal_id, json.dumps({"amount_paise": 51300, "payouts": ["pout_" + "x" * 60] * 3})],
        )
        return int(row.fetchone()[0])  # type: ignore[index]
