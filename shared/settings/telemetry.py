"""Monitoring: Prometheus metrics, traces, Sentry and Flower."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, StringConstraints, field_validator
from pydantic_settings import BaseSettings

from shared.settings.types import web_address

MIN_METRICS_TOKEN_CHARACTERS = 16  # shorter tokens can be guessed
# Flower does not limit failed sign-ins, so its password must be strong.
MIN_FLOWER_PASSWORD_CHARACTERS = 12
MIN_FLOWER_PASSWORD_DIFFERENT_CHARACTERS = 5


class TelemetrySettings(BaseSettings):
    """Monitoring of the running system."""

    metrics_token: SecretStr | None = Field(
        None, description="Bearer token for /metrics; without it only direct local requests can read them"
    )
    metrics_host: str = Field("127.0.0.1", description="Address on which workers serve /metrics")
    metrics_port: int = Field(0, ge=0, le=65535, description="Port on which workers serve /metrics; 0: off")

    otel_exporter_otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^https?://")] | None = Field(
        None, description="URL for traces (OTLP over HTTP); requires the extra `tracing`"
    )
    sentry_dsn: SecretStr | None = Field(
        None, description="DSN for unexpected errors; requires the extra `sentry`"
    )

    flower_host: str = Field("127.0.0.1", description="Address that Flower listens on")
    flower_port: int = Field(5555, ge=0, le=65535, description="Port that Flower listens on")
    flower_basic_auth: SecretStr | None = Field(
        None, description="`user:password` for Flower; required to start it"
    )
    flower_url: str | None = Field(None, description="Public URL of Flower, for the panel's link to it")
    admin_url: str | None = Field(
        None, description="Public URL of the panel, `https://…/admin/`, for Flower's link to it"
    )

    @field_validator("metrics_token", mode="after")
    @classmethod
    def _hard_to_guess_token(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and len(token.get_secret_value()) < MIN_METRICS_TOKEN_CHARACTERS:
            raise ValueError(f"needs at least {MIN_METRICS_TOKEN_CHARACTERS} characters")
        return token

    @field_validator("flower_basic_auth", mode="after")
    @classmethod
    def _hard_to_guess_password(cls, auth: SecretStr | None) -> SecretStr | None:
        password = auth.get_secret_value().partition(":")[2] if auth else ""
        if auth is not None and len(password) < MIN_FLOWER_PASSWORD_CHARACTERS:
            raise ValueError(f"the password needs at least {MIN_FLOWER_PASSWORD_CHARACTERS} characters")
        if auth is not None and len(set(password)) < MIN_FLOWER_PASSWORD_DIFFERENT_CHARACTERS:
            raise ValueError(
                f"the password needs at least {MIN_FLOWER_PASSWORD_DIFFERENT_CHARACTERS} different characters"
            )
        return auth

    @field_validator("flower_url", "admin_url", mode="after")
    @classmethod
    def _valid_public_url(cls, url: str | None) -> str | None:
        return web_address(url, "https://flower.example.com") if url else None

    @field_validator("flower_basic_auth", mode="after")
    @classmethod
    def _names_and_passwords(cls, auth: SecretStr | None) -> SecretStr | None:
        # Flower accepts several users, separated by commas, and treats one without a colon as having no
        # password.
        for pair in auth.get_secret_value().split(",") if auth else ():
            name, _, password = pair.partition(":")
            if not (name.strip() and password.strip()):
                raise ValueError("must be like user:password, without a comma: it would start another user")
        return auth

    @field_validator("sentry_dsn", mode="after")
    @classmethod
    def _valid_dsn(cls, dsn: SecretStr | None) -> SecretStr | None:
        parts = urlsplit(dsn.get_secret_value() if dsn else "https://key@none/1")
        if parts.scheme not in ("http", "https") or not parts.username or not parts.path.strip("/"):
            raise ValueError("must be like https://key@host/project")
        return dsn
