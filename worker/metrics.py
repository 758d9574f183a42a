"""A worker's `/metrics`: the duration of its tasks, and a small server on METRICS_PORT."""

import hmac
import threading
import time
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from celery import Task, signals

from shared.monitoring import exposition
from shared.settings import Settings
from shared.telemetry import metrics

IDLE_TIMEOUT_SECONDS = 5  # an idle client must not occupy a thread
PLAIN_TEXT = ("Content-Type", "text/plain; charset=utf-8")

log = structlog.get_logger()
_local = threading.local()


@signals.task_prerun.connect
def _start_timer(**_: Any) -> None:
    _local.started_at = time.perf_counter()


@signals.task_postrun.connect
def _observe_duration(task: Task, state: str | None = None, **_: Any) -> None:
    started_at = getattr(_local, "started_at", None)
    _local.started_at = None
    if started_at is not None:
        outcome = "done" if state == "SUCCESS" else "failed"
        metrics.TASK_SECONDS.labels(task.name, outcome).observe(time.perf_counter() - started_at)


def serve(settings: Settings) -> WSGIServer | None:
    """Serve `/metrics` in threads of its own. Returns None if that is off, or if the port is taken.

    A port that is taken is logged and does not stop the worker.
    """
    if not settings.metrics_port:
        return None
    exposition.initialize()
    host = settings.metrics_host
    port = settings.metrics_port
    try:
        server = make_server(host, port, _application(settings), _Server, _Handler)
    except OSError as error:
        log.error("[METRICS] not served by this worker", host=host, port=port, error=str(error))
        return None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def _application(settings: Settings) -> Any:
    token = settings.metrics_token

    def answer(environ: dict[str, Any], start: Any) -> list[bytes]:
        if environ["PATH_INFO"].rstrip("/") != "/metrics" or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start("404 Not Found", [PLAIN_TEXT])
            return [b"Only GET /metrics\n"]
        sent_token = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ").strip()
        if token and not hmac.compare_digest(sent_token.encode(), token.get_secret_value().encode()):
            start("401 Unauthorized", [PLAIN_TEXT])
            return [b"Send METRICS_TOKEN as Authorization: Bearer <token>\n"]
        body, content_type = exposition.worker_metrics(environ.get("HTTP_ACCEPT", ""))
        start("200 OK", [("Content-Type", content_type)])
        return [body]

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = IDLE_TIMEOUT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: Prometheus sends a request every few seconds."""
