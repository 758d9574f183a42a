"""The link from a withdrawal to its tasks in Flower."""

from datetime import UTC, datetime
from types import SimpleNamespace
from urllib.parse import unquote
from uuid import UUID

import pytest
from flower.utils.search import TaskSearchEngine

from api.admin.flower_links import MAX_EVENTS, tasks_url
from shared.monitoring.explain import Timeline, TimelineEntry
from shared.queues import messages
from shared.settings import Settings, settings
from tests.api.admin.conftest import Signed
from tests.support.world import World

ONE = UUID("01a208a5-b724-779f-a85a-7688d7fa28bd")
OTHER = UUID("01a208a5-b724-779f-a85a-7688d7fa28be")
FLOWER = "https://flower.example.com"


def story(*event_ids: str) -> Timeline:
    return Timeline(
        {}, [TimelineEntry(datetime.now(UTC), "webhook", "", {"event_id": one}) for one in event_ids]
    )


def matching_tasks(address: str, *tasks: tuple[str, object]) -> set[tuple[str, object]]:
    """The tasks that Flower's own search finds, with the query of its page."""
    engine = TaskSearchEngine()
    engine.rebuild(
        (str(n), SimpleNamespace(uuid=str(n), name=name, args=f"['{key}']"))
        for n, (name, key) in enumerate(tasks)
    )
    search = "name:" + unquote(address.removeprefix(f"{FLOWER}/tasks?name="))
    return {tasks[int(n)] for n in engine.matching_ids(search)}


def test_flower_finds_exactly_the_withdrawals_tasks() -> None:
    ours = [(messages.SUBMIT, ONE), (messages.POLL, ONE), (messages.APPLY, "Q7gm0eXv2uKbVd")]
    others = [
        (messages.SUBMIT, OTHER),
        (messages.POLL, OTHER),
        (messages.APPLY, "Q7gm0eXv2uKbVe"),
        (messages.WATCH, ""),
    ]
    address = tasks_url(FLOWER, ONE, story("Q7gm0eXv2uKbVd"))
    assert matching_tasks(address, *ours, *others) == set(ours)


def test_no_webhook_changes_the_search() -> None:
    address = tasks_url(FLOWER, ONE, story('x" OR name:w', "a b", ") OR (", "é", "x" * 500, "", "good"))
    everything = [(name, OTHER) for name in messages.QUEUE_OF]
    assert matching_tasks(address, *everything, (messages.APPLY, "good")) == {(messages.APPLY, "good")}


def test_only_the_latest_webhooks_are_searched() -> None:
    address = tasks_url(FLOWER, ONE, story(*(f"{n:064}" for n in range(1000))))
    tasks = [(messages.APPLY, f"{n:064}") for n in range(1000)]
    assert matching_tasks(address, *tasks) == set(tasks[-MAX_EVENTS:])


def test_the_page_has_the_link_if_flower_is_set_up(
    panel: World, signed_in: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel.credit()
    path = f"/admin/withdrawal/{panel.request()}/"
    person = signed_in()
    assert "Flower" not in person.get(path).text
    monkeypatch.setenv("FLOWER_URL", f"{FLOWER}/")
    panel.forget_settings()
    assert f'<a href="{FLOWER}/tasks?name=submit_withdrawal%20args%3A' in person.get(path).text
    assert Settings().flower_url == FLOWER


def test_each_task_of_a_withdrawal_links_back(panel: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook's task knows only the event; the panel's search finds the withdrawal."""
    from worker import flower_pages

    monkeypatch.setenv("ADMIN_URL", "https://panel.example/admin")
    panel.forget_settings()
    assert settings().admin_url
    for name, argument, address in (
        (messages.SUBMIT, ONE, f"withdrawal/{ONE}/"),
        (messages.POLL, ONE, f"withdrawal/{ONE}/"),
        (messages.APPLY, "Q7gm0eXv2uKbVd", "withdrawals/?q=Q7gm0eXv2uKbVd"),
        (messages.APPLY, '"><script>', "withdrawals/?q=%22%3E%3Cscript%3E"),
        (messages.WATCH, "", None),
        (messages.SUBMIT, "nonsense", None),
    ):
        link = flower_pages._link(SimpleNamespace(name=name, args=f"['{argument}']"))
        assert link == (
            f'<a class="btn btn-primary" href="https://panel.example/admin/{address}">Withdrawal in the panel</a>'
            if address
            else None
        )
