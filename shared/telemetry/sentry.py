"""Reports of unexpected errors to Sentry, if SENTRY_DSN is set. Needs the extra `sentry`.

A report holds only selected fields: the error's type, where it was raised, its message with personal data and
secrets masked, and our request id. It holds no body, header, variable or breadcrumb. Expected errors (the
database is away, an invalid request) are not reported.
"""

import importlib.util
import re
from typing import Any

import structlog

from shared.errors import PayoutsError, SettingsError
from shared.settings import Settings

EVENT_FIELDS = (
    "event_id",
    "timestamp",
    "platform",
    "level",
    "exception",
    "tags",
    "release",
    "environment",
    "sdk",
)
FRAME_FIELDS = ("filename", "abs_path", "module", "function", "lineno", "in_app")
MASK = "[masked]"
SECRETS = re.compile(
    r"[^\s'\"(),;=/]+@[^\s'\"(),;/]+"  # UPI ids, e-mail addresses, users and passwords in URLs
    r"|(?i:bearer|basic)\s+\S+"
    r"|\b(?:cpk_|whsec_|rzp_|eyJ)[\w.+/=-]+"  # API keys, webhook secrets, the provider's keys, tokens
    r"|\b[0-9a-fA-F]{32,}\b|\+?\d{10,}"  # secrets in hex; phone, account and card numbers
)

_is_on = False


def require_extra(settings: Settings) -> None:
    """Check that the extra is installed if the settings need it. Raises SettingsError."""
    if settings.sentry_dsn and importlib.util.find_spec("sentry_sdk") is None:
        raise SettingsError(["SENTRY_DSN: needs the extra `sentry`: pip install 'coin-payouts[sentry]'"])


def start(process: str, settings: Settings) -> None:
    """Report this process's unexpected errors to Sentry, if the settings say so. Raises SettingsError."""
    global _is_on  # noqa: PLW0603  one fact for the whole process
    dsn = settings.sentry_dsn
    if _is_on or dsn is None:
        return
    require_extra(settings)
    import sentry_sdk
    from sentry_sdk.integrations.atexit import AtexitIntegration
    from sentry_sdk.integrations.celery import CeleryIntegration

    sentry_sdk.init(
        dsn=dsn.get_secret_value(),
        default_integrations=False,  # they would add requests, variables and log lines
        integrations=[CeleryIntegration(), AtexitIntegration(callback=lambda _pending, _timeout: None)],
        before_send=_filter_event,
        ignore_errors=[PayoutsError],
        include_local_variables=False,
        include_source_context=False,
        max_breadcrumbs=0,
        send_default_pii=False,
        auto_session_tracking=False,
        send_client_reports=False,
    )
    sentry_sdk.set_tag("process", process)
    _is_on = True


def report(error: BaseException) -> None:
    """Report an unexpected error. Never raises, never blocks."""
    if _is_on:
        import sentry_sdk

        with sentry_sdk.new_scope() as scope:
            request_id = structlog.contextvars.get_contextvars().get("request_id")
            scope.set_tag("request_id", mask(str(request_id)) if request_id else None)
            sentry_sdk.capture_exception(error)


def mask(message: str) -> str:
    """Mask what may be a UPI id, an e-mail address, a personal number or a secret."""
    return SECRETS.sub(MASK, message)


def _filter_event(event: Any, hint: dict[str, Any]) -> Any:
    kept = {name: event[name] for name in EVENT_FIELDS if name in event}
    for value in kept.get("exception", {}).get("values", []):
        # The database's message quotes the row that it refuses.
        is_of_database = "sqlalchemy" in str(value.get("module")) or "psycopg" in str(value.get("module"))
        value["value"] = MASK if is_of_database else mask(str(value.get("value", "")))
        value["stacktrace"] = {"frames": [_frame(frame) for frame in _frames(value)]}
    return kept


def _frames(value: dict[str, Any]) -> list[dict[str, Any]]:
    return (value.get("stacktrace") or {}).get("frames") or []


def _frame(frame: dict[str, Any]) -> dict[str, Any]:
    return {name: frame[name] for name in FRAME_FIELDS if name in frame}
