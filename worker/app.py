"""Makes the worker: `celery --app worker.app worker`."""

from typing import Any

from celery import Celery, signals
from kombu.entity import Exchange, Queue

from shared import log, queues, sentry, tracing
from shared.settings import settings
from worker import broker, consumer, metrics
from worker.schedule import schedule

broker.use()
celery = Celery("coin-payouts", include=["worker.tasks"], task_cls="worker.shown:ShownTask")
celery.steps["consumer"].add(consumer.Heartbeat)


def _settings() -> dict[str, Any]:
    ours = queues.celery_settings()
    return {
        **ours,
        "broker_transport_options": {
            **ours["broker_transport_options"],
            "queue_order_strategy": "worker.turns:UrgentFirst",
        },
        "beat_schedule": schedule(),
        # As Celery would make them when they are first named; Flower lists those that stand here.
        "task_queues": [
            Queue(name, Exchange(name), routing_key=name)  # type: ignore[no-untyped-call]
            for name in queues.EVERY_QUEUE
        ],
        # A message is done when its task is: a worker that dies leaves it for another.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        # For Flower.
        "worker_send_task_events": settings().task_events == "on",
        "task_track_started": True,
        "worker_hijack_root_logger": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A wrong answer of Redis is no reason to end, nor is a message that is none (consumer.py, broker.py).
        "broker_channel_error_retry": True,
        "worker_consumer": "worker.consumer:Consumer",
        # Whoever can write into Redis could stop workers, or change how often they work, and no book would
        # say who did. Flower learns what it shows from events, which stay.
        "worker_enable_remote_control": False,
        "worker_disable_rate_limits": True,
        # What was begun is finished; a message that comes twice meanwhile finds nothing due.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "enable_utc": True,
    }


# A function, so that the settings are read when Celery first needs them, not when this file is imported.
celery.add_defaults(_settings)


@signals.setup_logging.connect
def _logs(**_: Any) -> None:
    log.configure()


@signals.worker_init.connect
def _is_looked_at(**_: Any) -> None:
    tracing.start("payouts-worker", settings())
    sentry.start("worker", settings())


@signals.worker_ready.connect
def _may_be_watched(**_: Any) -> None:
    metrics.serve(settings())
