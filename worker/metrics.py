"""A worker's own `/metrics`: what its tasks cost, and a small server that tells it on METRICS_PORT."""

import hmac
import threading
import time
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from celery import Task, signals

from shared import exposition, metrics
from shared.settings import Settings

IDLE_SECONDS = 5  # who asks and then says nothing must not hold a thread
PLAIN = ("Content-Type", "text/plain; charset=utf-8")

log = structlog.get_logger()
_began = threading.local()


@signals.task_prerun.connect
def _begins(**_: Any) -> None:
    _began.at = time.perf_counter()


@signals.task_postrun.connect
def _ends(task: Task, state: str | None = None, **_: Any) -> None:
    began, _began.at = getattr(_began, "at", None), None
    if began is not None:
        outcome = "done" if state == "SUCCESS" else "failed"
        metrics.TASK_SECONDS.labels(task.name, outcome).observe(time.perf_counter() - began)


def serve(settings: Settings) -> WSGIServer | None:
    """Answer `/metrics` from threads of its own; None when that is off, or the port is taken.

    A port that is taken stops no payout: it is said, and the worker works.
    """
    if not settings.metrics_port:
        return None
    exposition.begin()
    where = (settings.metrics_host, settings.metrics_port)
    try:
        server = make_server(*where, _application(settings), _Server, _Handler)
    except OSError as error:
        log.error("[METRICS] nobody can ask this worker", host=where[0], port=where[1], error=str(error))
        return None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def _application(settings: Settings) -> Any:
    token = settings.metrics_token

    def answer(environ: dict[str, Any], start: Any) -> list[bytes]:
        if environ["PATH_INFO"].rstrip("/") != "/metrics" or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start("404 Not Found", [PLAIN])
            return [b"Only GET /metrics\n"]
        given = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ").strip()
        if token and not hmac.compare_digest(given.encode(), token.get_secret_value().encode()):
            start("401 Unauthorized", [PLAIN])
            return [b"Send METRICS_TOKEN as Authorization: Bearer <token>\n"]
        body, content_type = exposition.of_worker(environ.get("HTTP_ACCEPT", ""))
        start("200 OK", [("Content-Type", content_type)])
        return [body]

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: somebody asks every few seconds."""
