"""The API: its server, API keys, user tokens and rate limits."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import limits
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from shared.settings.types import comma_separated, is_loopback

MIN_KEY_CHARACTERS = 16  # shorter keys can be guessed
MIN_TOKEN_SECRET_CHARACTERS = 32  # HS256 requires a key of the hash's size (RFC 7518 §3.2)
ORIGIN_PATTERN = re.compile(r"https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?")
OFF = "off"


class ApiSettings(BaseSettings):
    """The API's settings."""

    api_host: str = Field("127.0.0.1", description="Address that the API listens on")
    api_port: int = Field(8000, ge=0, le=65535, description="Port that the API listens on")
    api_workers: int = Field(1, ge=1, le=64, description="API processes")
    api_threads: int = Field(
        8, ge=1, le=64, description="Requests that an API process handles at once; each may use the database"
    )
    api_bodies: int = Field(
        256,
        ge=4,
        le=4096,
        description="Further requests whose bodies an API process receives or sends at once",
    )
    api_connections: int = Field(
        4096, ge=16, le=65_536, description="Maximum connections to an API process; further ones wait"
    )
    api_head_seconds: float = Field(
        10,
        ge=0.1,
        le=60,
        description="Timeout for a request's headers, and for a connection without a request",
    )
    api_request_seconds: float = Field(
        60, ge=0.5, le=3600, description="Timeout for a whole request until its response starts"
    )
    api_auth: Literal["on", "off"] = Field("on", description="`off` is allowed only on loopback")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="API keys with all scopes, comma-separated; for others see `payouts keys`"
    )
    user_token_secret: SecretStr | None = Field(
        None,
        description="Signs your users' tokens (JWT, HS256); at least 32 characters, shared with your app",
    )
    user_token_secret_previous: SecretStr | None = Field(
        None, description="The previous secret, while you rotate it"
    )
    user_token_jwks_url: str | None = Field(
        None, description="URL of the public keys (JWKS) of your users' tokens (RS256, ES256)"
    )
    user_token_audience: str | None = Field(None, description="Required value of `aud` in user tokens")
    user_token_issuer: str | None = Field(None, description="Required value of `iss` in user tokens")
    user_token_leeway_seconds: float = Field(
        30, ge=0, le=300, description="Allowed difference between the clocks of app and API"
    )
    user_token_max_seconds: int = Field(
        86_400,
        ge=60,
        le=31_536_000,
        description="Longest allowed time until a token's `exp`; tokens that last longer are refused",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Web origins that may call the API, comma-separated: `https://app.example`"
    )
    rate_limit_per_key: str = Field("6000/minute", description="Requests with one API key, or `off`")
    rate_limit_per_user: str = Field(
        "60/minute",
        description="Requests with one user's tokens, plus single requests by apps for that user, or `off`. "
        "Items of a batch are not counted",
    )
    rate_limit_per_address: str = Field(
        "1200/minute",
        description="Requests from one IP address (IPv6: /64), with or without a user token each, or `off`",
    )
    rate_limit_failed_auth: str = Field(
        "60/minute", description="Failed authentications from one IP address, or `off`"
    )
    rate_limit_health: str = Field(
        "600/minute", description="/healthz and /readyz from one IP address to one API process, or `off`"
    )
    rate_limit_bad_webhooks: str = Field(
        "60/minute",
        description="Webhooks with an invalid signature from one IP address to one API process, or `off`",
    )
    rate_limit_sign_in: str = Field(
        "10/minute", description="Failed panel sign-ins for one name, and from one IP address, or `off`"
    )
    trusted_proxies: int = Field(
        0, ge=0, le=10, description="Your own proxies in front of the API that add to X-Forwarded-For"
    )
    max_body_bytes: int = Field(64 * 1024, ge=1024, description="Maximum size of a request body")
    max_webhook_bytes: int = Field(512 * 1024, ge=1024, description="Maximum size of a provider webhook")

    @field_validator("api_keys", "cors_origins", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return comma_separated(value)

    @field_validator("api_keys", mode="after")
    @classmethod
    def _hard_to_guess(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < MIN_KEY_CHARACTERS for key in keys):
            raise ValueError(f"each key needs at least {MIN_KEY_CHARACTERS} characters")
        return keys

    @field_validator("user_token_secret", "user_token_secret_previous", mode="after")
    @classmethod
    def _long_enough(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < MIN_TOKEN_SECRET_CHARACTERS:
            raise ValueError(f"needs at least {MIN_TOKEN_SECRET_CHARACTERS} characters")
        return secret

    @field_validator("user_token_jwks_url", mode="after")
    @classmethod
    def _https_or_loopback(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "https://none")
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
        if not is_safe or not parts.hostname:
            raise ValueError("must begin with https://")
        return url

    @field_validator("cors_origins", mode="after")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        # Flask-CORS treats an origin with * or [ as a regular expression, and matches only its start.
        if not all(ORIGIN_PATTERN.fullmatch(origin) for origin in origins):
            raise ValueError("each must be like https://app.example, without a wildcard or a path")
        return origins

    @field_validator(
        "rate_limit_per_key",
        "rate_limit_per_user",
        "rate_limit_per_address",
        "rate_limit_failed_auth",
        "rate_limit_health",
        "rate_limit_bad_webhooks",
        "rate_limit_sign_in",
    )
    @classmethod
    def _a_rate(cls, rate: str) -> str:
        if rate != OFF:
            try:
                limits.parse(rate)
            except ValueError:
                raise ValueError("must be like 60/minute, or off") from None
        return rate
