"""Error responses in the contract's format, for every kind of error."""

from typing import Any

import structlog
from apiflask import APIFlask
from flask import Response, g, jsonify, request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import Forbidden, HTTPException

from shared.access.idempotency import StillRunning
from shared.db import causes
from shared.db.transactions import as_unavailable
from shared.errors import PayoutsError, Unavailable
from shared.telemetry import sentry

log = structlog.get_logger()

HTTP_ERRORS = {
    400: ("Bad request", "The request could not be understood", "bad_request"),
    401: ("Authentication required", "Send your key as Authorization: Bearer <key>", "unauthorized"),
    403: ("Not allowed", "This key does not allow this request", "forbidden"),
    404: ("Not found", "Nothing exists at this URL. Check the path", "not_found"),
    405: ("Method not allowed", "This URL does not accept this method", "method_not_allowed"),
    411: ("Length required", "Send a Content-Length header", "length_required"),
    413: ("Request body too large", "The body is larger than this endpoint accepts", "body_too_large"),
    415: (
        "Unsupported content type",
        "Send JSON with Content-Type: application/json",
        "unsupported_content_type",
    ),
    429: ("Too many requests", "Wait the seconds in Retry-After, then retry", "rate_limited"),
}
INTERNAL_ERROR = (
    "Internal error",
    "The error is on our side and has been recorded. The request was not partly applied",
    "internal_error",
)


def problem(status: int, error: str, details: str, code: str, **extra: Any) -> Response:
    """Return an error response in the contract's format."""
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
    """Turn every exception that leaves a view into an error response."""
    app.register_error_handler(PayoutsError, _handle_payouts_error)
    app.register_error_handler(HTTPException, _handle_http_error)
    app.register_error_handler(DBAPIError, _handle_database_error)
    app.register_error_handler(PoolTimeout, _handle_database_error)
    app.register_error_handler(Exception, _handle_unexpected_error)


def to_response(error: PayoutsError) -> Response:
    """Return the error response for a PayoutsError."""
    return problem(error.http_status, error.error, error.details, error.code, **error.extra)


def _handle_payouts_error(error: PayoutsError) -> Response:
    response = to_response(error)
    if isinstance(error, Unavailable | StillRunning):
        response.headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unavailable):
        log.warning("[API] unavailable", path=request.path, code=error.code, cause=causes.message_of(error))
    return response


def _handle_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400 and error.response is not None:  # a redirect is not an error
        return error.response  # type: ignore[return-value]
    unlisted = (error.name, error.name, error.name.lower().replace(" ", "_"))
    title, details, code = HTTP_ERRORS.get(status) or unlisted
    if isinstance(error, Forbidden):
        details = error.description or details
    response = problem(status, title, details, code)
    for name, value in error.get_headers(request.environ):
        if name in ("Allow", "WWW-Authenticate", "Retry-After"):
            response.headers[name] = value
    return response


def _handle_database_error(error: DBAPIError | PoolTimeout) -> Response:
    unavailable = as_unavailable(error)
    return _handle_payouts_error(unavailable) if unavailable else _handle_unexpected_error(error)


def _handle_unexpected_error(error: Exception) -> Response:
    sentry.report(error)
    if isinstance(error, DBAPIError):
        # The database's message quotes the row, and with it the UPI id.
        sqlstate = getattr(error.orig, "sqlstate", None)
        log.error("[API] unexpected error", path=request.path, error=type(error).__name__, sqlstate=sqlstate)
    else:
        log.error("[API] unexpected error", path=request.path, exc_info=error)
    return problem(500, *INTERNAL_ERROR)
