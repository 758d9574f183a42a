"""Who looks at the running system: Prometheus, a collector of traces, Sentry, people with Flower."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, StringConstraints, field_validator
from pydantic_settings import BaseSettings

from shared.settings.values import web_address

MIN_METRICS_TOKEN_CHARACTERS = 16  # shorter ones can be guessed by trying
MIN_FLOWER_PASSWORD_CHARACTERS, MIN_FLOWER_PASSWORD_LETTERS = 12, 5  # Flower counts no failed tries


class Observing(BaseSettings):
    """What is told about the running system, and to whom."""

    metrics_token: SecretStr | None = Field(
        None, description="Lets Prometheus read /metrics; without it only this machine may, past no proxy"
    )
    metrics_host: str = Field("127.0.0.1", description="Address on which a worker answers /metrics")
    metrics_port: int = Field(0, ge=0, le=65535, description="Port for that; 0: a worker answers nobody")

    otel_exporter_otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^https?://")] | None = Field(
        None, description="Where traces go (OTLP over HTTP); needs the extra `tracing`"
    )
    sentry_dsn: SecretStr | None = Field(
        None, description="Where unforeseen errors go; needs the extra `sentry`"
    )

    flower_host: str = Field("127.0.0.1", description="Address that Flower listens on")
    flower_port: int = Field(5555, ge=0, le=65535, description="Port that Flower listens on")
    flower_basic_auth: SecretStr | None = Field(
        None, description="`user:password` for Flower; required to start it"
    )
    flower_url: str | None = Field(
        None, description="Where operators reach Flower: the panel links to it; none: no link"
    )
    admin_url: str | None = Field(
        None,
        description="Where operators reach the panel: `https://…/admin/`; Flower links to it; none: no link",
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
        if auth is not None and len(set(password)) < MIN_FLOWER_PASSWORD_LETTERS:
            raise ValueError(
                f"the password needs at least {MIN_FLOWER_PASSWORD_LETTERS} different characters"
            )
        return auth

    @field_validator("flower_url", "admin_url", mode="after")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        return web_address(url, "https://flower.example.com") if url else None

    @field_validator("flower_basic_auth", mode="after")
    @classmethod
    def _names_and_passwords(cls, given: SecretStr | None) -> SecretStr | None:
        # Flower takes several with commas, and one that has no colon it takes for a name without a password.
        for pair in given.get_secret_value().split(",") if given else ():
            name, _, password = pair.partition(":")
            if not (name.strip() and password.strip()):
                raise ValueError("must be like user:password; no comma in it, for that begins another user")
        return given

    @field_validator("sentry_dsn", mode="after")
    @classmethod
    def _a_dsn(cls, dsn: SecretStr | None) -> SecretStr | None:
        parts = urlsplit(dsn.get_secret_value() if dsn else "https://key@none/1")
        if parts.scheme not in ("http", "https") or not parts.username or not parts.path.strip("/"):
            raise ValueError("must be like https://key@host/project")
        return dsn
