"""Logs: one JSON line per event on stdout, from our code and from the libraries alike."""

import json
import logging
import sys
from typing import Any

import structlog

PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
# At INFO these libraries repeat what our own log lines say better.
ENCODER = json.JSONEncoder(default=str)  # made once, and not for each line
QUIET_LOGGERS = ("celery.worker.strategy", "celery.app.trace", "werkzeug", "urllib3", "alembic")


def configure(level: str = "INFO") -> None:
    """Send every log line of this process to stdout as JSON."""
    structlog.configure(
        processors=[
            *PROCESSORS,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(_to_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _to_json(line: Any, **_: Any) -> str:
    return ENCODER.encode(line)


def _formatter() -> logging.Formatter:
    processors: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(_to_json),
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*PROCESSORS, structlog.stdlib.add_logger_name], processors=processors
    )
