"""The worker's Celery app: `celery --app worker.app worker`."""

from typing import Any

from celery import Celery, signals
from kombu.entity import Exchange, Queue

from shared.queues import messages
from shared.queues.names import EVERY_QUEUE
from shared.settings import settings
from shared.telemetry import log, sentry, tracing
from worker import broker, consumer, metrics
from worker.queue_order import UrgentFirst
from worker.schedule import schedule
from worker.task_class import ObservedTask

broker.install()
# The tasks by name, because they import this module: Celery imports them when it starts.
celery = Celery("coin-payouts", include=["worker.tasks"], task_cls=ObservedTask)
celery.steps["consumer"].add(consumer.Heartbeat)


def _settings() -> dict[str, Any]:
    common = messages.celery_settings()
    return {
        **common,
        "broker_transport_options": {
            **common["broker_transport_options"],
            "queue_order_strategy": UrgentFirst,
        },
        "beat_schedule": schedule(),
        # The same queues that Celery creates on first use; Flower lists only those configured here.
        "task_queues": [
            Queue(name, Exchange(name), routing_key=name)  # type: ignore[no-untyped-call]
            for name in EVERY_QUEUE
        ],
        # Acknowledge a message after its task, so that a worker's death leaves it for another worker.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        # For Flower.
        "worker_send_task_events": settings().task_events == "on",
        "task_track_started": True,
        "worker_hijack_root_logger": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Neither an unexpected answer of Redis nor an invalid message stops the worker (consumer.py,
        # broker.py).
        "broker_channel_error_retry": True,
        "worker_consumer": consumer.Consumer,
        # Anyone with access to Redis could stop workers or limit their rate, without an audit entry. Flower
        # does not need it: it shows what events report.
        "worker_enable_remote_control": False,
        "worker_disable_rate_limits": True,
        # Finish tasks that have started; a message redelivered meanwhile finds nothing due.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "enable_utc": True,
    }


# A function, so that the settings are read when Celery first needs them, not at import.
celery.add_defaults(_settings)


@signals.setup_logging.connect
def _configure_logging(**_: Any) -> None:
    log.configure()


@signals.worker_init.connect
def _start_telemetry(**_: Any) -> None:
    tracing.start("payouts-worker", settings())
    sentry.start("worker", settings())


@signals.worker_ready.connect
def _serve_metrics(**_: Any) -> None:
    metrics.serve(settings())
