"""The commands for endpoints and webhooks and their output, and the tasks that beat sends."""

import re

import pytest
import redis
from celery.beat import ScheduleEntry
from click.testing import Result

from shared.notifications.webhooks import fan_out
from shared.notifications.webhooks.signing import derive_secret
from shared.queues import messages, redis_broker
from shared.queues.names import NOTIFICATIONS
from tests.support.receiver import Receiver, webhook_receiver
from tests.support.shell import invoke
from tests.support.webhook_steps import rows, run_notifier, run_until_done
from tests.support.world import World
from worker import tasks
from worker.app import celery
from worker.beat import MAX_WAITING_MESSAGES, Scheduler


def payouts(*arguments: object) -> Result:
    return invoke(*arguments)


def run(*arguments: object) -> str:
    done = payouts(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def app(world: World):  # type: ignore[no-untyped-def]
    """An app with a registered endpoint."""
    with webhook_receiver() as receiver:
        receiver.secret = run("endpoints", "add", receiver.url, "--allow-private", "--as", "asha").strip()
        yield receiver


def test_add_prints_only_the_secret_and_list_never_prints_it(world: World, app: Receiver) -> None:
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", app.secret)
    listed = run("endpoints", "list")
    assert app.url in listed and "operator:asha" in listed and "works" in listed
    assert "whsec" not in listed


def test_no_secret_is_stored(world: World, app: Receiver) -> None:
    [row] = world.sql("SELECT to_json(e)::text AS text FROM endpoints e")
    assert app.secret.removeprefix("whsec_") not in row.text


def test_a_secret_depends_on_key_endpoint_and_generation(
    world: World, app: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint_id = world.sql("SELECT id FROM endpoints")[0].id
    assert derive_secret(endpoint_id, 1) == app.secret != derive_secret(endpoint_id, 2)
    monkeypatch.setenv("WEBHOOK_SIGNING_KEY", "A" * 43 + "=")
    world.forget_settings()
    assert derive_secret(endpoint_id, 1) != app.secret


def test_adding_twice_is_refused_and_adding_after_removal_gives_a_new_secret(
    world: World, app: Receiver
) -> None:
    again = payouts("endpoints", "add", app.url, "--allow-private")
    assert again.exit_code == 1 and "Endpoint already exists" in again.output
    assert "`payouts endpoints rotate` gives it a new secret" in again.output
    assert "is removed" in run("endpoints", "remove", app.url)
    assert run("endpoints", "add", app.url, "--allow-private").strip() != app.secret
    assert "removed" in run("endpoints", "list", "--all") and "removed" not in run("endpoints", "list")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add", "http://app.example/"), "must begin with https://"),
        (("add", "https://127.0.0.1/"), "not a public address"),
        (("rotate", "https://nobody.example/"), "No such endpoint"),
        (("remove", "01a20a05-9d4e-77da-b748-75df5672da03"), "No such endpoint"),
    ],
)
def test_errors_say_what_is_wrong(world: World, words: tuple[str, ...], message: str) -> None:
    done = payouts("endpoints", *words)
    assert done.exit_code == 1 and message in done.output


def test_removing_twice_is_refused(world: World, app: Receiver) -> None:
    endpoint_id = world.sql("SELECT id FROM endpoints")[0].id
    run("endpoints", "remove", endpoint_id)
    assert "Endpoint already removed" in payouts("endpoints", "remove", endpoint_id).output
    assert "Endpoint already removed" in payouts("endpoints", "rotate", endpoint_id).output


def test_rotate_prints_a_new_secret_and_records_the_operator(world: World, app: Receiver) -> None:
    new = run("endpoints", "rotate", app.url, "--grace-hours", "2", "--as", "ravi").strip()
    assert new.startswith("whsec_") and new != app.secret
    [row] = world.sql(
        "SELECT generation, rotated_by, extract(epoch FROM previous_until - now())::int AS left FROM endpoints"
    )
    assert (row.generation, row.rotated_by) == (2, "operator:ravi") and 7190 <= row.left <= 7200


def test_webhooks_are_listed_and_replayed(world: World, app: Receiver) -> None:
    world.paid()
    app.status = 500
    run_until_done(world)
    listed = run("webhooks", "list", "--state", "failed", "--endpoint", app.url)
    assert listed.count("HTTP 500") == 3 and "withdrawal.completed #3 of" in listed
    assert run("webhooks", "list", "--state", "delivered") == "There are no deliveries.\n"
    app.status = 204
    first, *_ = rows(world)
    assert run("webhooks", "replay", first.id) == "Queued for sending: 1.\n"
    run_notifier()
    assert "delivered" in run("webhooks", "list", "--limit", "1", "--state", "delivered")
    assert run("webhooks", "replay", "--endpoint", app.url, "--failed") == "Queued for sending: 2.\n"
    run_notifier()
    assert {row.state for row in rows(world)} == {"delivered"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "give ids"),
        (("--failed",), 2, "give ids"),
        (("--endpoint", "https://x.example/"), 2, "give ids"),
        (("01a20a05-9d4e-77da-b748-75df5672da03",), 1, "No such delivery"),
        (("--endpoint", "https://x.example/", "--failed"), 1, "No such endpoint"),
        (("no-id",), 2, "not a valid UUID"),
    ],
)
def test_a_replay_that_is_not_possible_says_why(
    world: World, words: tuple[str, ...], code: int, message: str
) -> None:
    done = payouts("webhooks", "replay", *words)
    assert done.exit_code == code and message in done.output


def test_a_delivery_of_a_removed_endpoint_cannot_be_replayed(world: World, app: Receiver) -> None:
    world.credit()
    world.request()
    run_notifier()
    run("endpoints", "remove", app.url)
    assert "Endpoint removed" in payouts("webhooks", "replay", rows(world)[0].id).output


def test_status_names_an_endpoint_that_fails(world: World, app: Receiver) -> None:
    assert f"{app.url}: works; 0 pending; 0 failed" in run("status")
    world.credit()
    world.request()
    app.status = 500
    run_notifier()
    status = run("status")
    assert f"{app.url}: FAILING since" in status and "HTTP 500; 1 pending, oldest" in status
    run_until_done(world)
    status = run("status")
    assert "0 pending; 1 failed" in status and "1 × webhooks_out" in status


def test_status_asks_for_a_notifier_when_events_are_not_processed(world: World, app: Receiver) -> None:
    world.credit()
    world.request()
    assert "is a notifier running?" not in run("status")
    world.sql_without_rules("UPDATE withdrawal_events SET created_at = now() - interval '2 minutes'")
    world.broken_on_purpose = True  # an event was altered
    assert "is a notifier running?" in run("status")


def test_explain_shows_the_deliveries(world: World, app: Receiver) -> None:
    withdrawal_id = world.paid()
    run_notifier()
    timeline = run("explain", withdrawal_id)
    assert timeline.count("withdrawal.") == 3 and f"to: {app.url}" in timeline
    assert "user@okhdfcbank" not in timeline


# --- tasks and beat


def test_notify_creates_deliveries_and_nudges_and_deliver_sends_them(world: World, app: Receiver) -> None:
    world.paid()
    tasks.notify()
    assert redis_broker.depth(NOTIFICATIONS) == 3, "one message per delivery"
    tasks.notify()
    assert redis_broker.depth(NOTIFICATIONS) == 3, "no more while those are queued"
    tasks.deliver(f"{rows(world)[0].endpoint_id}#0")
    assert len(app.verified(app.secret)) == 3
    tasks.deliver("no id")


def test_the_periodic_duties_delete_old_deliveries(world: World, app: Receiver) -> None:
    world.credit()
    world.request()
    run_notifier()
    fan_out.create_deliveries()
    world.sql(
        "UPDATE deliveries SET created_at = now() - interval '8 days', delivered_at = now() - interval '8 days'"
    )
    tasks.watch()
    assert rows(world) == []


def test_beat_does_not_fill_a_queue_without_workers(world: World) -> None:
    beat = Scheduler(app=celery, lazy=True)
    entry = ScheduleEntry(name="notify", task=messages.NOTIFY, schedule=1, app=celery)
    for _ in range(MAX_WAITING_MESSAGES + 5):
        beat.apply_entry(entry)
    assert redis_broker.depth(NOTIFICATIONS) == MAX_WAITING_MESSAGES
    redis_broker.client().delete(NOTIFICATIONS)
    beat.apply_entry(entry)
    assert redis_broker.depth(NOTIFICATIONS) == 1


def test_beat_sends_only_our_tasks(world: World) -> None:
    beat = Scheduler(app=celery, lazy=True)
    beat.setup_schedule()
    assert {entry.task for entry in beat.schedule.values()} <= messages.QUEUE_OF.keys()


def test_beat_keeps_running_without_a_broker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.point_broker_at_nothing(monkeypatch)
    from worker import beat

    assert beat._is_full(NOTIFICATIONS) is False
    with pytest.raises(redis.RedisError):
        redis_broker.depth(NOTIFICATIONS)


def test_a_notifier_without_a_signing_key_does_not_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WEBHOOK_SIGNING_KEY")
    world.forget_settings()
    done = payouts("worker", "--queues", "notifications")
    assert done.exit_code == 1 and "WEBHOOK_SIGNING_KEY: is missing" in done.output
    assert payouts("endpoints", "add", "https://93.184.216.34/").exit_code == 1
    assert world.sql("SELECT FROM endpoints") == [], "no endpoint without a secret"


def test_an_invalid_key_is_reported_at_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("WEBHOOK_SIGNING_KEY", "c2hvcnQ=")
        world.forget_settings()
        done = payouts("endpoints", "list")
    world.forget_settings()
    assert done.exit_code == 1 and "WEBHOOK_SIGNING_KEY: must be the base64 of 32" in done.output
    assert "c2hvcnQ" not in done.output
