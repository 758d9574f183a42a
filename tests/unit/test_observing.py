"""What leaves the house for Sentry and for collectors, and that nothing of it is there when nobody asked."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared import sentry, tracing
from shared.errors import SettingsError
from shared.settings import load

ROOT = Path(__file__).parents[2]


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
def test_what_may_be_a_persons_or_a_secret_is_masked(secret: str) -> None:
    for words in (
        f"no payee {secret}",
        f"key '{secret}' is odd",
        f"({secret})",
        f"Bearer {secret}",
        f"u={secret}",
    ):
        masked = sentry.masked(words)
        assert secret not in masked and sentry.MASK in masked


def test_words_that_say_what_happened_stay() -> None:
    words = "list index out of range in step 3 of submit_withdrawal: KeyError: 'fund_account_id'"
    assert sentry.masked(words) == words


def test_only_what_was_chosen_leaves() -> None:
    frame = {
        "filename": "wallet.py",
        "function": "credit",
        "lineno": 3,
        "vars": {"upi_id": "a@b"},
        "context_line": "x",
    }
    value = {"type": "ValueError", "value": "asha@ybl", "stacktrace": {"frames": [frame]}}
    of_database = {"type": "DataError", "module": "sqlalchemy.exc", "value": "Failing row contains (asha)"}
    event: Any = {
        "event_id": "1",
        "request": {"data": "asha"},
        "user": {"id": "asha"},
        "extra": {"args": "asha"},
        "breadcrumbs": ["asha"],
        "server_name": "host",
        "exception": {"values": [value, of_database]},
    }
    told = sentry._chosen(event, {})
    assert set(told) == {"event_id", "exception"}
    assert "asha" not in str(told) and "a@b" not in str(told)
    assert told["exception"]["values"][0]["stacktrace"]["frames"] == [
        {"filename": "wallet.py", "function": "credit", "lineno": 3}
    ]


def test_nothing_of_it_is_imported_when_nobody_asked() -> None:
    # redis-py looks for a meter by itself where the SDK is installed; spans and exporters are ours.
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
def test_an_extra_that_is_missing_is_said_at_start(
    name: str, value: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {
        "DATABASE_URL": "postgresql://u:p@h/d",
        "REDIS_URL": "redis://h",
        "RAZORPAYX_KEY_ID": "rzp_test_x",
        "RAZORPAYX_KEY_SECRET": "s",
        "RAZORPAYX_ACCOUNT_NUMBER": "1",
        "RAZORPAYX_WEBHOOK_SECRET": "w",
    }
    for variable, given in {**needed, name: value}.items():
        monkeypatch.setenv(variable, given)
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    with pytest.raises(SettingsError, match=name):
        tracing.require(load())
        sentry.require(load())
