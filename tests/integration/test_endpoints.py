"""What operators type: endpoints and webhooks; what they read of them; and what beat sends."""

import re

import pytest
import redis
from celery.beat import ScheduleEntry
from click.testing import Result

from shared import queues
from shared.notifications import following
from shared.notifications.signing import secret_of
from tests.integration.telling import rows, tell, tell_all
from tests.receiver import Receiver, receiving
from tests.shell import invoke
from tests.world import World
from worker import tasks
from worker.app import celery
from worker.beat import MOST_WAITING, Scheduler


def payouts(*words: object) -> Result:
    return invoke(*words)


def said(*words: object) -> str:
    done = payouts(*words)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def app(world: World):  # type: ignore[no-untyped-def]
    """An app that listens."""
    with receiving() as receiver:
        receiver.secret = said("endpoints", "add", receiver.url, "--allow-private", "--as", "asha").strip()
        yield receiver


def test_add_shows_the_secret_alone_and_list_never(world: World, app: Receiver) -> None:
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", app.secret)
    listed = said("endpoints", "list")
    assert app.url in listed and "operator:asha" in listed and "works" in listed
    assert "whsec" not in listed


def test_no_secret_stands_in_the_database(world: World, app: Receiver) -> None:
    [row] = world.sql("SELECT to_json(e)::text AS text FROM endpoints e")
    assert app.secret.removeprefix("whsec_") not in row.text


def test_a_secret_hangs_on_key_endpoint_and_number(
    world: World, app: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = world.sql("SELECT id FROM endpoints")[0].id
    assert secret_of(one, 1) == app.secret != secret_of(one, 2)
    monkeypatch.setenv("WEBHOOK_SIGNING_KEY", "A" * 43 + "=")
    world.forget_settings()
    assert secret_of(one, 1) != app.secret


def test_added_twice_is_refused_and_added_anew_after_it_was_removed_is_another(
    world: World, app: Receiver
) -> None:
    again = payouts("endpoints", "add", app.url, "--allow-private")
    assert again.exit_code == 1 and "There already" in again.output
    assert "`payouts endpoints rotate` shows a new secret" in again.output
    assert "is removed" in said("endpoints", "remove", app.url)
    assert said("endpoints", "add", app.url, "--allow-private").strip() != app.secret
    assert "removed" in said("endpoints", "list", "--all") and "removed" not in said("endpoints", "list")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("add", "http://app.example/"), "must begin with https://"),
        (("add", "https://127.0.0.1/"), "not a public address"),
        (("rotate", "https://nobody.example/"), "No such endpoint"),
        (("remove", "01a20a05-9d4e-77da-b748-75df5672da03"), "No such endpoint"),
    ],
)
def test_what_is_wrong_is_a_sentence(world: World, words: tuple[str, ...], told: str) -> None:
    done = payouts("endpoints", *words)
    assert done.exit_code == 1 and told in done.output


def test_removed_twice_is_said(world: World, app: Receiver) -> None:
    one = world.sql("SELECT id FROM endpoints")[0].id
    said("endpoints", "remove", one)
    assert "Removed already" in payouts("endpoints", "remove", one).output
    assert "Removed already" in payouts("endpoints", "rotate", one).output


def test_rotate_shows_another_secret_and_who_did_it_is_kept(world: World, app: Receiver) -> None:
    new = said("endpoints", "rotate", app.url, "--grace-hours", "2", "--as", "ravi").strip()
    assert new.startswith("whsec_") and new != app.secret
    [row] = world.sql(
        "SELECT generation, rotated_by, extract(epoch FROM previous_until - now())::int AS left FROM endpoints"
    )
    assert (row.generation, row.rotated_by) == (2, "operator:ravi") and 7190 <= row.left <= 7200


def test_webhooks_are_listed_and_told_again(world: World, app: Receiver) -> None:
    world.paid()
    app.status = 500
    tell_all(world)
    listed = said("webhooks", "list", "--state", "failed", "--endpoint", app.url)
    assert listed.count("HTTP 500") == 3 and "withdrawal.completed #3 of" in listed
    assert said("webhooks", "list", "--state", "delivered") == "There are no deliveries.\n"
    app.status = 204
    one, *_ = rows(world)
    assert said("webhooks", "replay", one.id) == "1 are told again.\n"
    tell()
    assert "delivered" in said("webhooks", "list", "--limit", "1", "--state", "delivered")
    assert said("webhooks", "replay", "--endpoint", app.url, "--failed") == "2 are told again.\n"
    tell()
    assert {row.state for row in rows(world)} == {"delivered"}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "give ids"),
        (("--failed",), 2, "give ids"),
        (("--endpoint", "https://x.example/"), 2, "give ids"),
        (("01a20a05-9d4e-77da-b748-75df5672da03",), 1, "No such delivery"),
        (("--endpoint", "https://x.example/", "--failed"), 1, "No such endpoint"),
        (("no-id",), 2, "not a valid UUID"),
    ],
)
def test_what_cannot_be_told_again_is_said(
    world: World, words: tuple[str, ...], code: int, told: str
) -> None:
    done = payouts("webhooks", "replay", *words)
    assert done.exit_code == code and told in done.output


def test_nothing_is_told_to_an_endpoint_that_was_removed(world: World, app: Receiver) -> None:
    world.credit()
    world.request()
    tell()
    said("endpoints", "remove", app.url)
    assert "Endpoint removed" in payouts("webhooks", "replay", rows(world)[0].id).output


def test_status_names_an_endpoint_that_fails(world: World, app: Receiver) -> None:
    assert f"{app.url}: works; 0 waiting; 0 failed" in said("status")
    world.credit()
    world.request()
    app.status = 500
    tell()
    told = said("status")
    assert f"{app.url}: FAILING since" in told and "HTTP 500; 1 waiting, oldest" in told
    tell_all(world)
    told = said("status")
    assert "0 waiting; 1 failed" in told and "1 × webhooks_out" in told


def test_status_asks_for_a_notifier_when_nobody_follows(world: World, app: Receiver) -> None:
    world.credit()
    world.request()
    assert "does a notifier run?" not in said("status")
    world.sql_without_rules("UPDATE withdrawal_events SET created_at = now() - interval '2 minutes'")
    world.broken_on_purpose = True  # sealed or not: an event was altered
    assert "does a notifier run?" in said("status")


def test_explain_tells_what_apps_were_told(world: World, app: Receiver) -> None:
    withdrawal_id = world.paid()
    tell()
    story = said("explain", withdrawal_id)
    assert story.count("withdrawal.") == 3 and f"to: {app.url}" in story
    assert "user@okhdfcbank" not in story


# --- the tasks, and beat


def test_a_beat_follows_and_nudges_and_a_message_delivers(world: World, app: Receiver) -> None:
    world.paid()
    tasks.notify()
    assert queues.depth(queues.NOTIFICATIONS) == 3, "as many places as deliveries"
    tasks.notify()
    assert queues.depth(queues.NOTIFICATIONS) == 3, "and no more while they wait"
    tasks.deliver(f"{rows(world)[0].endpoint_id}#0")
    assert len(app.told(app.secret)) == 3
    tasks.deliver("no id")


def test_what_is_by_the_clock_forgets_old_deliveries(world: World, app: Receiver) -> None:
    world.credit()
    world.request()
    tell()
    following.follow()
    world.sql(
        "UPDATE deliveries SET created_at = now() - interval '8 days', delivered_at = now() - interval '8 days'"
    )
    tasks.watch()
    assert rows(world) == []


def test_beat_does_not_fill_a_queue_that_nobody_works(world: World) -> None:
    beat = Scheduler(app=celery, lazy=True)
    entry = ScheduleEntry(name="notify", task=queues.NOTIFY, schedule=1, app=celery)
    for _ in range(MOST_WAITING + 5):
        beat.apply_entry(entry)
    assert queues.depth(queues.NOTIFICATIONS) == MOST_WAITING
    queues.broker().delete(queues.NOTIFICATIONS)
    beat.apply_entry(entry)
    assert queues.depth(queues.NOTIFICATIONS) == 1


def test_beat_sends_what_is_ours_and_nothing_else(world: World) -> None:
    beat = Scheduler(app=celery, lazy=True)
    beat.setup_schedule()
    assert {entry.task for entry in beat.schedule.values()} <= queues.QUEUE_OF.keys()


def test_beat_goes_on_without_a_broker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.point_broker_at_nothing(monkeypatch)
    from worker import beat

    assert beat._is_full(queues.NOTIFICATIONS) is False
    with pytest.raises(redis.RedisError):
        queues.depth(queues.NOTIFICATIONS)


def test_a_notifier_without_its_key_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEBHOOK_SIGNING_KEY")
    world.forget_settings()
    done = payouts("worker", "--queues", "notifications")
    assert done.exit_code == 1 and "WEBHOOK_SIGNING_KEY: is missing" in done.output
    assert payouts("endpoints", "add", "https://93.184.216.34/").exit_code == 1
    assert world.sql("SELECT FROM endpoints") == [], "none without a secret"


def test_a_key_that_is_none_is_named_at_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("WEBHOOK_SIGNING_KEY", "c2hvcnQ=")
        world.forget_settings()
        done = payouts("endpoints", "list")
    world.forget_settings()
    assert done.exit_code == 1 and "WEBHOOK_SIGNING_KEY: must be the base64 of 32" in done.output
    assert "c2hvcnQ" not in done.output
