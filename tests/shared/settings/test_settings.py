"""Settings: every fault is reported at start; no secret is printed or has a default."""

import os

import pytest
from click.testing import CliRunner

from cli import main
from shared.errors import SettingsError
from shared.settings import Settings, addresses, is_loopback, load, settings
from tests.support.paths import ROOT

REQUIRED = {
    "DATABASE_URL": "postgresql://u:p@h/d",
    "REDIS_URL": "redis://h",
    "RAZORPAYX_KEY_ID": "rzp_test_x",
    "RAZORPAYX_KEY_SECRET": "s",
    "RAZORPAYX_ACCOUNT_NUMBER": "1",
    "RAZORPAYX_WEBHOOK_SECRET": "w",
}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def faults(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    for name, value in {**REQUIRED, **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        load()
    return error.value.faults


def test_by_default_a_dead_workers_withdrawals_continue_within_ninety_seconds() -> None:
    default = {name: Settings.model_fields[name].default for name in ("lease_seconds", "sweep_seconds")}
    assert sum(default.values()) <= 90


def test_all_missing_settings_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        load()
    assert {fault.split(":")[0] for fault in error.value.faults} == set(REQUIRED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://secret-value"),
        ("DATABASE_URL", "postgresql://u:p@h/d?sslmod=secret-value"),
        ("DATABASE_URL", "postgresql://u:p@h/d?sslmode=secret-value"),
        ("DATABASE_URL", "postgresql://u:secret-value/x@h/d"),
        ("DATABASE_URL", "postgresql://u:secret-value@h:port/d"),
        ("DATABASE_URL", "postgresql://u:secret-value@h"),
        ("DATABASE_URL", "postgresql://u:secret-value@h/d "),
        ("REDIS_URL", "amqp://secret-value"),
        ("REDIS_URL", "redis://:secret-value/x@h"),
        ("REDIS_URL", "redis://:secret-value@h1:6379,h2:6379/0"),
        ("REDIS_URL", "redis://h/secret-value"),
        ("REDIS_URL", "redis://h?timeout=secret-value"),
        ("REDIS_URL", "redis://h?ssl_cert_reqs=required"),
        ("REDIS_URL", "rediss://h?ssl_cert_reqs=secret-value"),
        ("REDIS_URL", "rediss://h?ssl_ca_certs=/secret-value"),
        ("REDIS_URL", "unix://"),
        ("RAZORPAYX_WEBHOOK_SECRET", "secret-value\n"),
        ("RAZORPAYX_WEBHOOK_SECRET_PREVIOUS", " secret-value"),
        ("RAZORPAYX_KEY_SECRET", "secret-value\t"),
        ("RAZORPAYX_BASE_URL", "secret-value"),
        ("RAZORPAYX_BASE_URL", "https://u:secret-value@api.razorpay.com"),
        ("RAZORPAYX_KEY_ID", "rzp_live_x"),  # with an address that is not encrypted
        ("FLOWER_BASIC_AUTH", "secret-value"),
        ("FLOWER_BASIC_AUTH", "asha:secret,value"),
        ("FLOWER_BASIC_AUTH", ":secret-value"),
        ("API_KEYS", "secret-value"),
        ("API_KEYS", "long-enough-0123456789,secret-value"),
        ("API_PORT", "secret-value"),
        ("API_AUTH", "secret-value"),
        ("CANCEL_WINDOW_SECONDS", "-1"),
        ("RESEND_SECONDS", "60,0"),
        ("RESEND_SECONDS", "secret-value"),
        ("LEASE_SECONDS", "20"),
        ("DATABASE_POOL_SIZE", "4"),
        ("MIN_WITHDRAWAL_COINS", "100001"),
        ("COIN_VALUE_PAISE", "1000"),
        ("MIN_WITHDRAWAL_COINS", "1"),
        ("RAZORPAYX_NARRATION", "secret-value!"),
        ("USER_TOKEN_SECRET", "secret-value"),
        ("USER_TOKEN_SECRET", "secret-value-of-32-characters-and-more"),
        ("USER_TOKEN_JWKS_URL", "http://example.com/keys"),
        ("USER_TOKEN_JWKS_URL", "ftp://secret-value"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://app.example/"),
        ("CORS_ORIGINS", "https://app.example,app.example"),
        ("CORS_ORIGINS", "https://*.app.example"),  # it would allow https://app.example.evil.example
        ("CORS_ORIGINS", "https://app.example$"),
        ("CORS_ORIGINS", "https://a@app.example"),
        ("RATE_LIMIT_PER_KEY", "secret-value"),
        ("RATE_LIMIT_PER_USER", "sixty"),
        ("TRUSTED_PROXIES", "-1"),
        ("METRICS_TOKEN", "secret-value"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "secret-value"),
        ("SENTRY_DSN", "secret-value"),
        ("SENTRY_DSN", "https://secret-value/1"),
        ("FLOWER_BASIC_AUTH", "admin:secret"),
        ("FLOWER_BASIC_AUTH", "admin:ssssssssssssssss"),
        ("FLOWER_URL", "secret-value"),
        ("FLOWER_URL", "javascript:secret-value"),
        ("FLOWER_URL", "https://admin:secret-value@flower.example.com"),
        ("ADMIN_URL", "https://payouts.example.com/admin/?next=secret-value"),
        ("ADMIN_URL", 'https://payouts.example.com/"secret-value'),
    ],
)
def test_an_invalid_setting_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("RAZORPAYX_BASE_URL", "http://127.0.0.1:1")
    reported = faults(monkeypatch, **{name: value})
    assert len(reported) == 1
    assert "secret-value" not in reported[0]


@pytest.mark.parametrize(
    ("url", "normalized"),
    [
        ("postgres://u:p%40%2F@h/d", "postgresql+psycopg://u:p%40%2F@h/d"),
        (
            "postgresql://u@[::1]:5/d?sslmode=verify-full",
            "postgresql+psycopg://u@[::1]:5/d?sslmode=verify-full",
        ),
        ("postgresql:///d?host=/run/pg", "postgresql+psycopg:///d?host=%2Frun%2Fpg"),
        (
            "postgresql://u:p@h1:1,h2:2/d",
            "postgresql+psycopg://u:p@/d?target_session_attrs=read-write&host=h1%2Ch2&port=1%2C2",
        ),
    ],
)
def test_database_urls_that_libpq_accepts_are_accepted(url: str, normalized: str) -> None:
    """Of several hosts, the first writable one is used."""
    assert addresses.parse_postgresql_url(url) == addresses.parse_postgresql_url(normalized) == normalized


@pytest.mark.parametrize(
    ("host", "address"), [("localhost", "127.0.0.1"), ("[::1]", "::1"), ("0.0.0.0", "0.0.0.0")]
)
def test_the_api_can_listen_on_a_host_name(monkeypatch: pytest.MonkeyPatch, host: str, address: str) -> None:
    """granian accepts only addresses."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _program, arguments: commands.append(arguments))
    unreachable = {
        "DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d",
        "REDIS_URL": "redis://127.0.0.1:1",
        "API_PORT": "0",
    }
    for name, value in {**REQUIRED, **unreachable, "API_HOST": host}.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    done = CliRunner().invoke(main, ["api"])
    assert commands and commands[0][commands[0].index("--host") + 1] == address, done.output
    monkeypatch.setenv("API_HOST", "no.such.host.invalid")
    settings.cache_clear()
    done = CliRunner().invoke(main, ["api"])
    settings.cache_clear()
    assert (done.exit_code, len(commands)) == (
        1,
        1,
    ) and "API_HOST: no.such.host.invalid cannot" in done.output


def test_unencrypted_connections_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    safe = {
        "DATABASE_URL": "postgresql://u:p@db.example.com/d?sslmode=verify-full",
        "REDIS_URL": "rediss://redis.example.com",
    }
    near = {"DATABASE_URL": "postgresql://u:p@postgres/d", "REDIS_URL": "redis://127.0.0.1"}
    far = {"DATABASE_URL": "postgresql://u:p@db.example.com/d", "REDIS_URL": "redis://10.0.0.7"}
    unsure = {**safe, "REDIS_URL": "rediss://redis.example.com?ssl_cert_reqs=none"}
    warned = {}
    for case, environment in {"safe": safe, "near": near, "far": far, "unsure": unsure}.items():
        for name, value in {**REQUIRED, **environment}.items():
            monkeypatch.setenv(name, value)
        warned[case] = [warning.partition(":")[0] for warning in addresses.unencrypted_connections(load())]
    assert warned == {
        "safe": [], "near": [], "far": ["DATABASE_URL", "REDIS_URL"], "unsure": ["REDIS_URL"],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["RESEND_SECONDS", "RECHECK_SECONDS", "NOTIFY_RETRY_SECONDS"])
def test_lists_of_waits_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable, value in {**REQUIRED, name: "1, 2.5,3"}.items():
        monkeypatch.setenv(variable, value)
    assert getattr(load(), name.lower()) == (1.0, 2.5, 3.0)
    for wrong in ("60,0", "secret-value"):
        assert name in faults(monkeypatch, **{name: wrong})[0]


def test_several_faults_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(faults(monkeypatch, API_PORT="x", DATABASE_URL="x", REDIS_URL="x")) == 3


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "example.com"])
def test_auth_off_is_refused_on_a_reachable_address(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert "loopback" in faults(monkeypatch, API_AUTH="off", API_HOST=host)[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_auth_off_is_accepted_on_loopback(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    for name, value in {**REQUIRED, "API_AUTH": "off", "API_HOST": host}.items():
        monkeypatch.setenv(name, value)
    assert is_loopback(host) and load().api_auth == "off"


def test_metrics_on_a_reachable_address_need_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "METRICS_TOKEN" in faults(monkeypatch, METRICS_PORT="9100", METRICS_HOST="0.0.0.0")[0]


def test_auth_off_is_refused_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "TRUSTED_PROXIES" in faults(monkeypatch, API_AUTH="off", TRUSTED_PROXIES="1")[0]


def test_secrets_have_no_default_and_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**REQUIRED, "API_KEYS": "printed-nowhere-0123456789"}.items():
        monkeypatch.setenv(name, value)
    assert "printed-nowhere" not in repr(load())
    for name, field in Settings.model_fields.items():
        if "SecretStr" in str(field.annotation) and "tuple" not in str(field.annotation):
            assert field.is_required() or field.default is None, name


def test_env_example_names_every_setting_with_its_default() -> None:
    example = (ROOT / ".env.example").read_text()
    defaults = {}
    for line in example.splitlines():
        name, equals, value = line.removeprefix("# ").partition("=")
        if equals and name.isupper():
            defaults[name] = value
    for name, field in Settings.model_fields.items():
        assert name.upper() in defaults, f"{name.upper()} is missing in .env.example"
        if not field.is_required() and field.default not in (None, ()) and name != "razorpayx_base_url":
            default = (
                ",".join(f"{v:g}" for v in field.default)
                if isinstance(field.default, tuple)
                else field.default
            )
            assert defaults[name.upper()] == str(default), name
    assert set(defaults) - {name.upper() for name in Settings.model_fields} == {
        "POSTGRES_PASSWORD",
        "GRAFANA_PASSWORD",
    }
