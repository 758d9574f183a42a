"""Every error as the contract writes it: one shape, whatever went wrong."""

from typing import Any

import structlog
from apiflask import APIFlask
from flask import Response, g, jsonify, request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import Forbidden, HTTPException

from shared import causes, sentry
from shared.db import unavailable
from shared.errors import PayoutsError, Unavailable
from shared.idempotency import StillRunning

log = structlog.get_logger()

WORDS = {
    400: ("Bad request", "The request could not be understood", "bad_request"),
    401: ("Authentication required", "Send your key as Authorization: Bearer <key>", "unauthorized"),
    403: ("Not allowed", "This key may not do that", "forbidden"),
    404: ("Not found", "There is nothing at this address", "not_found"),
    405: ("Method not allowed", "This address does not take this method", "method_not_allowed"),
    411: ("Length required", "Send a Content-Length", "length_required"),
    413: ("Request body too large", "The body is larger than this address takes", "body_too_large"),
    415: (
        "Unsupported content type",
        "Send JSON with Content-Type: application/json",
        "unsupported_content_type",
    ),
    429: ("Too many requests", "Wait as long as Retry-After says, then send it again", "rate_limited"),
}
INTERNAL = (
    "Internal error",
    "The fault is ours and has been recorded; nothing was half done",
    "internal_error",
)


def problem(status: int, error: str, details: str, code: str, **extra: Any) -> Response:
    """An error answer in the contract's shape."""
    body = {
        "success": False,
        "error": error,
        "details": details,
        "code": code,
        "request_id": g.get("request_id"),
        **extra,
    }
    response = jsonify(body)
    response.status_code = status
    return response


def register(app: APIFlask) -> None:
    """Answer every exception that leaves a view in the contract's shape."""
    app.register_error_handler(PayoutsError, _ours)
    app.register_error_handler(HTTPException, _of_http)
    app.register_error_handler(DBAPIError, _of_database)
    app.register_error_handler(PoolTimeout, _of_database)
    app.register_error_handler(Exception, _unforeseen)


def told(error: PayoutsError) -> Response:
    """The answer to an error of ours."""
    return problem(error.http_status, error.error, error.details, error.code, **error.extra)


def _ours(error: PayoutsError) -> Response:
    response = told(error)
    if isinstance(error, Unavailable | StillRunning):
        response.headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unavailable):
        log.warning("[API] unavailable", path=request.path, code=error.code, cause=causes.words_of(error))
    return response


def _of_http(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400 and error.response is not None:  # a redirect is no error
        return error.response  # type: ignore[return-value]
    words = WORDS.get(status) or (error.name, error.name, error.name.lower().replace(" ", "_"))
    error_word, details, code = words
    if isinstance(error, Forbidden):
        details = error.description or details
    response = problem(status, error_word, details, code)
    for name, value in error.get_headers(request.environ):
        if name in ("Allow", "WWW-Authenticate", "Retry-After"):
            response.headers[name] = value
    return response


def _of_database(error: DBAPIError | PoolTimeout) -> Response:
    told = unavailable(error)
    return _ours(told) if told else _unforeseen(error)


def _unforeseen(error: Exception) -> Response:
    sentry.report(error)
    if isinstance(error, DBAPIError):
        # The database's own words quote the row, and with it the UPI id.
        sqlstate = getattr(error.orig, "sqlstate", None)
        log.error("[API] unforeseen", path=request.path, error=type(error).__name__, sqlstate=sqlstate)
    else:
        log.error("[API] unforeseen", path=request.path, exc_info=error)
    return problem(500, *INTERNAL)
