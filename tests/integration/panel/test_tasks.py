"""The way from a withdrawal to its tasks in Flower."""

from datetime import UTC, datetime
from types import SimpleNamespace
from urllib.parse import unquote
from uuid import UUID

import pytest
from flower.utils.search import TaskSearchEngine

from api.admin.tasks import MOST_EVENTS, in_flower
from shared import queues
from shared.explaining import Line, Story
from shared.settings import Settings, settings
from tests.integration.panel.conftest import Signed
from tests.world import World

ONE = UUID("01a208a5-b724-779f-a85a-7688d7fa28bd")
OTHER = UUID("01a208a5-b724-779f-a85a-7688d7fa28be")
FLOWER = "https://flower.example.com"


def story(*event_ids: str) -> Story:
    return Story({}, [Line(datetime.now(UTC), "webhook", "", {"event_id": one}) for one in event_ids])


def found(address: str, *tasks: tuple[str, object]) -> set[tuple[str, object]]:
    """What Flower's own search finds of these, asked as its page does."""
    engine = TaskSearchEngine()
    engine.rebuild(
        (str(n), SimpleNamespace(uuid=str(n), name=name, args=f"['{key}']"))
        for n, (name, key) in enumerate(tasks)
    )
    search = "name:" + unquote(address.removeprefix(f"{FLOWER}/tasks?name="))
    return {tasks[int(n)] for n in engine.matching_ids(search)}


def test_flower_finds_what_belongs_to_the_withdrawal_and_nothing_else() -> None:
    ours = [(queues.SUBMIT, ONE), (queues.POLL, ONE), (queues.APPLY, "Q7gm0eXv2uKbVd")]
    others = [
        (queues.SUBMIT, OTHER),
        (queues.POLL, OTHER),
        (queues.APPLY, "Q7gm0eXv2uKbVe"),
        (queues.WATCH, ""),
    ]
    address = in_flower(FLOWER, ONE, story("Q7gm0eXv2uKbVd"))
    assert found(address, *ours, *others) == set(ours)


def test_no_webhook_changes_the_search() -> None:
    address = in_flower(FLOWER, ONE, story('x" OR name:w', "a b", ") OR (", "é", "x" * 500, "", "good"))
    everything = [(name, OTHER) for name in queues.QUEUE_OF]
    assert found(address, *everything, (queues.APPLY, "good")) == {(queues.APPLY, "good")}


def test_of_very_many_webhooks_the_last_are_asked_for() -> None:
    address = in_flower(FLOWER, ONE, story(*(f"{n:064}" for n in range(1000))))
    tasks = [(queues.APPLY, f"{n:064}") for n in range(1000)]
    assert found(address, *tasks) == set(tasks[-MOST_EVENTS:])


def test_the_page_has_the_link_where_flower_is_told(
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


def test_each_task_of_a_withdrawal_leads_back(panel: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook's knows only the event: the panel's search finds whose it was."""
    from worker import flower_pages

    monkeypatch.setenv("ADMIN_URL", "https://panel.example/admin")
    panel.forget_settings()
    assert settings().admin_url
    for name, argument, address in (
        (queues.SUBMIT, ONE, f"withdrawal/{ONE}/"),
        (queues.POLL, ONE, f"withdrawal/{ONE}/"),
        (queues.APPLY, "Q7gm0eXv2uKbVd", "withdrawals/?q=Q7gm0eXv2uKbVd"),
        (queues.APPLY, '"><script>', "withdrawals/?q=%22%3E%3Cscript%3E"),
        (queues.WATCH, "", None),
        (queues.SUBMIT, "nonsense", None),
    ):
        link = flower_pages._link(SimpleNamespace(name=name, args=f"['{argument}']"))
        assert link == (
            f'<a class="btn btn-primary" href="https://panel.example/admin/{address}">Withdrawal in the panel</a>'
            if address
            else None
        )
