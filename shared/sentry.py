"""Unforeseen errors, told to Sentry where SENTRY_DSN is set. The extra `sentry` has what this needs.

What leaves the house is chosen, not cleaned: the error's type, where in the code it was raised, its words
with everything masked that may be a person's or a secret, and our request id. No body, no header, no
variable, no breadcrumb. What is foreseen (the database is away, a request that is wrong) is not told.
"""

import importlib.util
import re
from typing import Any

import structlog

from shared.errors import PayoutsError, SettingsError
from shared.settings import Settings

KEPT = ("event_id", "timestamp", "platform", "level", "exception", "tags", "release", "environment", "sdk")
OF_A_FRAME = ("filename", "abs_path", "module", "function", "lineno", "in_app")
MASK = "[masked]"
SECRETS = re.compile(
    r"[^\s'\"(),;=/]+@[^\s'\"(),;/]+"  # UPI ids, addresses, users and passwords of a URL
    r"|(?i:bearer|basic)\s+\S+"
    r"|\b(?:cpk_|whsec_|rzp_|eyJ)[\w.+/=-]+"  # our keys, secrets of webhooks, RazorpayX's, tokens
    r"|\b[0-9a-fA-F]{32,}\b|\+?\d{10,}"  # secrets in hex; phone, account and card numbers
)

_is_on = False


def require(settings: Settings) -> None:
    """See that what the settings ask for is installed. Raises SettingsError."""
    if settings.sentry_dsn and importlib.util.find_spec("sentry_sdk") is None:
        raise SettingsError(["SENTRY_DSN: needs the extra `sentry`: pip install 'coin-payouts[sentry]'"])


def start(process: str, settings: Settings) -> None:
    """Tell Sentry of what this process does not foresee, if the settings say so. Raises SettingsError."""
    global _is_on  # noqa: PLW0603  one fact for the whole process
    dsn = settings.sentry_dsn
    if _is_on or dsn is None:
        return
    require(settings)
    import sentry_sdk
    from sentry_sdk.integrations.atexit import AtexitIntegration
    from sentry_sdk.integrations.celery import CeleryIntegration

    sentry_sdk.init(
        dsn=dsn.get_secret_value(),
        default_integrations=False,  # they would add requests, variables and log lines
        integrations=[CeleryIntegration(), AtexitIntegration(callback=lambda _pending, _timeout: None)],
        before_send=_chosen,
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
    """Tell of an error that nobody foresaw. Never raises, and waits for nobody."""
    if _is_on:
        import sentry_sdk

        with sentry_sdk.new_scope() as scope:
            request_id = structlog.contextvars.get_contextvars().get("request_id")
            scope.set_tag("request_id", masked(str(request_id)) if request_id else None)
            sentry_sdk.capture_exception(error)


def masked(words: str) -> str:
    """The words without what may be a UPI id, an address, a number of a person, or a secret."""
    return SECRETS.sub(MASK, words)


def _chosen(event: Any, hint: dict[str, Any]) -> Any:
    kept = {name: event[name] for name in KEPT if name in event}
    for value in kept.get("exception", {}).get("values", []):
        # What the database says quotes the row that it refuses.
        is_of_database = "sqlalchemy" in str(value.get("module")) or "psycopg" in str(value.get("module"))
        value["value"] = MASK if is_of_database else masked(str(value.get("value", "")))
        value["stacktrace"] = {"frames": [_frame(frame) for frame in _frames(value)]}
    return kept


def _frames(value: dict[str, Any]) -> list[dict[str, Any]]:
    return (value.get("stacktrace") or {}).get("frames") or []


def _frame(frame: dict[str, Any]) -> dict[str, Any]:
    return {name: frame[name] for name in OF_A_FRAME if name in frame}
