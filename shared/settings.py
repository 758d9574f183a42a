"""Every setting, typed, from the environment. All faults are named at once; secrets have no default."""

import base64
import ipaddress
from functools import cache
from typing import Annotated, Literal
from urllib.parse import urlsplit

import limits
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.errors import SettingsError

MIN_PAYOUT_PAISE, MAX_PAYOUT_PAISE = 100, 100_00_000  # UPI, one payout (razorpayx.md §6)
ABSENT_LIVE_SECONDS = 3600
MIN_KEY_CHARACTERS = 16  # shorter keys can be guessed by trying
MIN_TOKEN_SECRET_CHARACTERS = 32  # HS256 wants a key of the hash's size (RFC 7518 §3.2)
OFF = "off"
CERTIFICATE_KEY_BYTES = 32  # the seed of an Ed25519 key (RFC 8032 §5.1.5)


class Settings(BaseSettings):
    """The system's settings; a field's name in capitals is its environment variable."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore", allow_inf_nan=False)

    # --- where things are
    database_url: SecretStr = Field(description="PostgreSQL, `postgresql://user:password@host/database`")
    redis_url: SecretStr = Field(description="Redis, the broker: `redis://host:6379/0`")
    database_pool_size: int = Field(16, ge=1, le=200, description="Database connections per process")

    # --- the API
    api_host: str = Field("127.0.0.1", description="Address that the API listens on")
    api_port: int = Field(8000, ge=0, le=65535, description="Port that the API listens on")
    api_workers: int = Field(1, ge=1, le=64, description="API processes")
    api_threads: int = Field(8, ge=1, le=64, description="Threads per API process")
    api_auth: Literal["on", "off"] = Field("on", description="`off` only where the API listens on loopback")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="App keys that may do everything, comma-separated; others: `payouts keys`"
    )
    user_token_secret: SecretStr | None = Field(
        None,
        description="Signs your users' tokens (JWT, HS256): at least 32 characters; shared with your app",
    )
    user_token_secret_previous: SecretStr | None = Field(
        None, description="The secret before, while changing it"
    )
    user_token_jwks_url: str | None = Field(
        None, description="Where your app publishes the keys of its users' tokens (RS256, ES256)"
    )
    user_token_audience: str | None = Field(None, description="What `aud` must be; required with tokens")
    user_token_issuer: str | None = Field(None, description="What `iss` must be; required with tokens")
    user_token_leeway_seconds: float = Field(
        30, ge=0, le=300, description="How far the clocks of app and API may differ"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins whose pages may call the API, comma-separated: `https://app.example`"
    )
    rate_limit_per_key: str = Field("6000/minute", description="Requests with one app key, or `off`")
    rate_limit_per_user: str = Field(
        "60/minute", description="Requests with one user's tokens, and wishes of apps for that user, or `off`"
    )
    rate_limit_per_address: str = Field(
        "1200/minute", description="Requests without a known app key from one address, or `off`"
    )
    rate_limit_failed_auth: str = Field(
        "60/minute", description="Wrong keys and tokens from one address, or `off`"
    )
    trusted_proxies: int = Field(
        0, ge=0, le=10, description="Proxies of your own before the API, each adding to X-Forwarded-For"
    )
    max_body_bytes: int = Field(64 * 1024, ge=1024, description="Largest body that an app may send")
    max_webhook_bytes: int = Field(512 * 1024, ge=1024, description="Largest webhook taken from the provider")

    # --- what may be withdrawn
    coin_value_paise: int = Field(10, ge=1, description="What one coin is worth, in paise")
    min_withdrawal_coins: int = Field(100, ge=1, description="Smallest withdrawal, in coins")
    max_withdrawal_coins: int = Field(100_000, ge=1, description="Largest withdrawal, in coins")
    cancel_window_seconds: float = Field(
        10, ge=0, le=86_400, description="How long a user may change their mind"
    )

    # --- paying
    worker_threads: int = Field(8, ge=1, le=256, description="Payouts in hand at once per worker process")
    task_events: Literal["on", "off"] = Field(
        "on", description="Whether workers tell Flower of each task; without Flower they need not"
    )
    lease_seconds: float = Field(
        90, ge=1, description="How long a claimed step may take before another worker takes it"
    )
    sweep_seconds: float = Field(5, ge=0.1, description="How often due work is looked for in the database")
    sweep_batch: int = Field(1000, ge=1, description="Most messages the sweep keeps waiting in one queue")
    resend_seconds: Annotated[tuple[float, ...], NoDecode] = Field(
        (60.0, 120.0, 300.0), description="Waits before an unanswered payout is sent again (razorpayx.md §3)"
    )
    lookup_seconds: float = Field(300, gt=0, description="How often an unanswered payout is then looked up")
    throttle_seconds: float = Field(5, gt=0, description="First wait after the provider asks for patience")
    poll_seconds: float = Field(60, gt=0, description="First look at an accepted payout; each wait doubles")
    poll_max_seconds: float = Field(1800, gt=0, description="Longest wait between two looks")
    recheck_seconds: Annotated[tuple[float, ...], NoDecode] = Field(
        (3600.0, 86_400.0, 259_200.0, 432_000.0, 691_200.0),
        description="How long after completion a payout is looked at once more: a bank may send it back",
    )
    retry_seconds: float = Field(
        1800, gt=0, description="Wait where the table of reasons says half an hour; its others in proportion"
    )
    max_attempts: int = Field(
        100, ge=1, le=1000, description="Most attempts for a withdrawal, whatever the table of reasons says"
    )

    absent_seconds: float = Field(
        3600,
        gt=0,
        description="How long look-ups must be answered with none before a payout counts as failed",
    )

    # --- pacing and pauses
    payouts_per_second: float = Field(
        8, gt=0, le=10_000, description="Most calls to RazorpayX in any second, all workers together"
    )
    payouts_per_user: int = Field(
        10,
        ge=1,
        description="Waiting payouts of one user that queue with everybody's; the others wait behind",
    )
    auto_pause: Literal["on", "off"] = Field(
        "on", description="Whether the system may pause payouts by itself"
    )
    auto_pause_unknowns: int = Field(
        10, ge=1, description="Unanswered payouts in a row after which all payouts pause"
    )
    auto_pause_handle_failures: int = Field(
        5,
        ge=1,
        description="Payouts in a row that a handle's bank, or the network, could not take before a pause",
    )
    probe_seconds: float = Field(
        60,
        gt=0,
        description="First wait before one payout tries whether a pause is over; each doubles",
    )
    probe_max_seconds: float = Field(3600, gt=0, description="Longest wait between such tries")
    webhook_silence_seconds: float = Field(
        1800, gt=0, description="How long payouts may end without any webhook before operators are warned"
    )
    seal_seconds: float = Field(60, ge=0.1, description="How often new journal lines and events are sealed")
    watch_seconds: float = Field(60, ge=0.1, description="How often webhooks and balance are looked after")

    # --- RazorpayX
    razorpayx_base_url: str = Field("https://api.razorpay.com", description="Where RazorpayX is")
    razorpayx_key_id: str = Field(description="`rzp_live_…` or `rzp_test_…`")
    razorpayx_key_secret: SecretStr = Field(description="Goes with the key id")
    razorpayx_account_number: str = Field(description="The account that pays; not the payee's")
    razorpayx_webhook_secret: SecretStr = Field(description="Signs the provider's webhooks")
    razorpayx_webhook_secret_previous: SecretStr | None = Field(
        None, description="The secret before, while rotating"
    )
    razorpayx_connect_seconds: float = Field(3.05, gt=0, description="Longest wait for a connection")
    razorpayx_read_seconds: float = Field(20, gt=0, description="Longest wait for an answer")
    razorpayx_narration: str = Field(
        "Coin withdrawal", pattern=r"^[A-Za-z0-9 ]{1,30}$", description="What the payee's bank shows"
    )
    razorpayx_purpose: str = Field("payout", min_length=1, description="RazorpayX's word for why")

    # --- proof
    certificate_key: SecretStr | None = Field(
        None, description="Signs a day's certificate: base64 of 32 bytes; `payouts certificate-key` makes one"
    )

    # --- Flower
    flower_host: str = Field("127.0.0.1", description="Address that Flower listens on")
    flower_port: int = Field(5555, ge=0, le=65535, description="Port that Flower listens on")
    flower_basic_auth: SecretStr | None = Field(
        None, description="`user:password` for Flower; required to start it"
    )

    @field_validator("database_url", mode="after")
    @classmethod
    def _postgresql_by_psycopg(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        for prefix in ("postgresql+psycopg://", "postgresql://", "postgres://"):
            if text.startswith(prefix):
                return SecretStr("postgresql+psycopg://" + text.removeprefix(prefix))
        raise ValueError("must begin with postgresql://")

    @field_validator("redis_url", mode="after")
    @classmethod
    def _redis(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url

    @field_validator("certificate_key", mode="after")
    @classmethod
    def _seed_of_a_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is None:
            return None
        try:
            is_whole = len(base64.b64decode(key.get_secret_value(), validate=True)) == CERTIFICATE_KEY_BYTES
        except ValueError:
            is_whole = False
        if not is_whole:
            raise ValueError("must be the base64 of 32 bytes; `payouts certificate-key` makes one")
        return key

    @field_validator("api_keys", "cors_origins", "resend_seconds", "recheck_seconds", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

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
    def _not_read_on_the_way(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "https://none")
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
        if not is_safe or not parts.hostname:
            raise ValueError("must begin with https://")
        return url

    @field_validator("cors_origins", mode="after")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}":
                raise ValueError("each is like https://app.example, without anything behind it")
        return origins

    @field_validator(
        "rate_limit_per_key", "rate_limit_per_user", "rate_limit_per_address", "rate_limit_failed_auth"
    )
    @classmethod
    def _a_rate(cls, rate: str) -> str:
        if rate != OFF:
            try:
                limits.parse(rate)
            except ValueError:
                raise ValueError("must be like 60/minute, or off") from None
        return rate

    @field_validator("resend_seconds", "recheck_seconds", mode="after")
    @classmethod
    def _all_positive(cls, waits: tuple[float, ...]) -> tuple[float, ...]:
        if any(wait <= 0 for wait in waits):
            raise ValueError("each wait must be more than 0 seconds")
        return waits

    @property
    def razorpayx_identity(self) -> str:
        """As whom we speak, and to whom. What one identity was told, another may never have heard of."""
        return f"{self.razorpayx_key_id}@{self.razorpayx_base_url}"

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        faults = []
        if self.api_auth == "off" and not is_loopback(self.api_host):
            faults.append(f"API_AUTH: off is accepted only on loopback, and API_HOST is {self.api_host}")
        if self.min_withdrawal_coins > self.max_withdrawal_coins:
            faults.append("MIN_WITHDRAWAL_COINS: is above MAX_WITHDRAWAL_COINS")
        for coins in (self.min_withdrawal_coins, self.max_withdrawal_coins):
            paise = coins * self.coin_value_paise
            if not MIN_PAYOUT_PAISE <= paise <= MAX_PAYOUT_PAISE:
                faults.append(
                    f"COIN_VALUE_PAISE: {coins} coins would be {paise} paise; UPI pays 100 to 10000000"
                )
        if self.api_auth == "off" and self.trusted_proxies:
            faults.append("TRUSTED_PROXIES: goes with API_AUTH on only; behind a proxy nobody is on loopback")
        uses_tokens = self.user_token_secret or self.user_token_jwks_url
        if uses_tokens and not (self.user_token_audience and self.user_token_issuer):
            faults.append("USER_TOKEN_AUDIENCE, USER_TOKEN_ISSUER: are required with users' tokens")
        threads = max(self.api_threads, self.worker_threads)
        if self.database_pool_size < threads:
            faults.append(f"DATABASE_POOL_SIZE: must be at least the {threads} threads that share it")
        if self.razorpayx_key_id.startswith("rzp_live_") and self.absent_seconds < ABSENT_LIVE_SECONDS:
            # An absent payout counts as failed after an hour, and not a minute sooner (razorpayx.md §3).
            faults.append(f"ABSENT_SECONDS: must be at least {ABSENT_LIVE_SECONDS} where money is real")
        patience = self.razorpayx_connect_seconds + self.razorpayx_read_seconds
        if self.lease_seconds <= patience:
            # A lease that ends while a call may still be under way hands one payout to two workers.
            faults.append(
                f"LEASE_SECONDS: must be more than the {patience:g} s that a call to RazorpayX may take"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load() -> Settings:
    """The settings of this environment. Raises SettingsError that names every fault."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError([_sentence(fault) for fault in error.errors()]) from None


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return load()


def _sentence(fault: ErrorDetails) -> str:
    # The value itself is never repeated: it may be a secret.
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    name = str(fault["loc"][0]).upper()
    return f"{name}: is missing" if fault["type"] == "missing" else f"{name}: {message}"
