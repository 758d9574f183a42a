"""What is sent to Sentry and to collectors; without the settings their packages are not imported."""

import subprocess
import sys
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.settings import load
from shared.telemetry import sentry, tracing
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    "secret",
    [
        "asha.k@okhdfcbank",
        "asha@example.com",
        "cpk_1a2b3c_secretpart",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "rzp_live_1DP5mmOlF5G5ag",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhc2hhIn0.sig-nature",
        "+919876543210",
        "2323230041626905",
        "9f86d081884c7d659a2feaa0c55ad015",
    ],
)
def test_personal_data_and_secrets_are_masked(secret: str) -> None:
    for text in (
        f"no payee {secret}",
        f"key '{secret}' is odd",
        f"({secret})",
        f"Bearer {secret}",
        f"u={secret}",
    ):
        masked = sentry.mask(text)
        assert secret not in masked and sentry.MASK in masked


def test_error_messages_without_personal_data_are_unchanged() -> None:
    message = "list index out of range in step 3 of submit_withdrawal: KeyError: 'fund_account_id'"
    assert sentry.mask(message) == message


def test_only_allowed_fields_are_sent() -> None:
    frame = {
        "filename": "wallet.py",
        "function": "credit",
        "lineno": 3,
        "vars": {"upi_id": "a@b"},
        "context_line": "x",
    }
    value = {"type": "ValueError", "value": "asha@ybl", "stacktrace": {"frames": [frame]}}
    database_error = {"type": "DataError", "module": "sqlalchemy.exc", "value": "Failing row contains (asha)"}
    event: Any = {
        "event_id": "1",
        "request": {"data": "asha"},
        "user": {"id": "asha"},
        "extra": {"args": "asha"},
        "breadcrumbs": ["asha"],
        "server_name": "host",
        "exception": {"values": [value, database_error]},
    }
    sent = sentry._filter_event(event, {})
    assert set(sent) == {"event_id", "exception"}
    assert "asha" not in str(sent) and "a@b" not in str(sent)
    assert sent["exception"]["values"][0]["stacktrace"]["frames"] == [
        {"filename": "wallet.py", "function": "credit", "lineno": 3}
    ]


def test_sentry_and_opentelemetry_are_imported_only_if_they_are_set_up() -> None:
    # redis-py itself looks for a meter if the SDK is installed; spans and exporters are ours.
    code = """
import sys, api.app, worker.tasks
ours = ("sentry_sdk", "opentelemetry.exporter", "opentelemetry.instrumentation", "opentelemetry.sdk.trace")
print([name for name in sys.modules if name.startswith(ours)])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "value", "package"),
    [
        ("SENTRY_DSN", "https://key@sentry.example/1", "sentry_sdk"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318", tracing.PACKAGE),
    ],
)
def test_a_missing_extra_is_reported_at_start(
    name: str, value: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    required = {
        "DATABASE_URL": "postgresql://u:p@h/d",
        "REDIS_URL": "redis://h",
        "RAZORPAYX_KEY_ID": "rzp_test_x",
        "RAZORPAYX_KEY_SECRET": "s",
        "RAZORPAYX_ACCOUNT_NUMBER": "1",
        "RAZORPAYX_WEBHOOK_SECRET": "w",
    }
    for variable, setting in {**required, name: value}.items():
        monkeypatch.setenv(variable, setting)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(SettingsError, match=name):
        tracing.require_extra(load())
        sentry.require_extra(load())
