"""All settings, typed, from the environment. All faults are reported at once; secrets have no default."""

from functools import cache

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shared.errors import SettingsError
from shared.settings.access import OFF, ApiSettings
from shared.settings.addresses import AddressSettings
from shared.settings.mail import MailSettings, find_mail_faults
from shared.settings.operators import PeopleSettings
from shared.settings.panel import PanelSettings, safety_warnings
from shared.settings.payouts import PayoutSettings
from shared.settings.provider import LIVE, ProviderSettings, provider_faults
from shared.settings.telemetry import TelemetrySettings
from shared.settings.types import is_base64_of_32_bytes, is_loopback
from shared.settings.webhooks import WebhookSettings

__all__ = ["OFF", "Settings", "is_loopback", "load", "safety_warnings", "settings"]

MIN_PAYOUT_PAISE = 100  # the limits of one UPI payout (provider reference §6)
MAX_PAYOUT_PAISE = 100_00_000
# The provider counts an absent payout as failed after an hour, not sooner (provider reference §3).
MIN_LIVE_ABSENT_SECONDS = 3600


class Settings(
    AddressSettings,
    ApiSettings,
    PanelSettings,
    PeopleSettings,
    PayoutSettings,
    ProviderSettings,
    WebhookSettings,
    MailSettings,
    TelemetrySettings,
):
    """The system's settings; a field's name in capitals is its environment variable."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment only: each further source reads all fields once more."""
        return (env_settings,)

    # --- proof
    certificate_key: SecretStr | None = Field(
        None, description="Signs each day's certificate: base64 of 32 bytes, from `payouts certificate-key`"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_blanks_around(cls, value: object) -> object:
        # Copied with a secret they would be part of it, and every signature would fail without explanation.
        if isinstance(value, str) and value != value.strip():
            raise ValueError("has a space or a line break at the start or end")
        return value

    @field_validator("certificate_key", mode="after")
    @classmethod
    def _valid_certificate_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not is_base64_of_32_bytes(key.get_secret_value()):  # RFC 8032 §5.1.5
            raise ValueError("must be base64 of 32 bytes; `payouts certificate-key` generates one")
        return key

    @model_validator(mode="after")
    def _are_consistent(self) -> "Settings":
        faults = find_mail_faults(self) + provider_faults(self)
        if self.api_auth == "off" and not is_loopback(self.api_host):
            faults.append(f"API_AUTH: off is allowed only on loopback, but API_HOST is {self.api_host}")
        if self.admin_cookie_secure == "off" and not is_loopback(self.api_host):
            faults.append(
                f"ADMIN_COOKIE_SECURE: off is allowed only on loopback, but API_HOST is {self.api_host}"
            )
        if self.min_withdrawal_coins > self.max_withdrawal_coins:
            faults.append("MIN_WITHDRAWAL_COINS: must not be above MAX_WITHDRAWAL_COINS")
        for coins in (self.min_withdrawal_coins, self.max_withdrawal_coins):
            paise = coins * self.coin_value_paise
            if not MIN_PAYOUT_PAISE <= paise <= MAX_PAYOUT_PAISE:
                faults.append(
                    f"COIN_VALUE_PAISE: {coins} coins would be {paise} paise; UPI allows 100 to 10000000"
                )
        if self.api_auth == "off" and self.trusted_proxies:
            faults.append("TRUSTED_PROXIES: requires API_AUTH=on: behind a proxy no request is on loopback")
        uses_tokens = self.user_token_secret or self.user_token_jwks_url
        if uses_tokens and not (self.user_token_audience and self.user_token_issuer):
            faults.append("USER_TOKEN_AUDIENCE, USER_TOKEN_ISSUER: are required for user tokens")
        threads = max(self.api_threads, self.worker_threads)
        if self.database_pool_size < threads:
            faults.append(f"DATABASE_POOL_SIZE: must be at least {threads}, the number of threads")
        if self.razorpayx_key_id.startswith(LIVE) and self.absent_seconds < MIN_LIVE_ABSENT_SECONDS:
            faults.append(f"ABSENT_SECONDS: must be at least {MIN_LIVE_ABSENT_SECONDS} with a live key")
        call_seconds = self.razorpayx_connect_seconds + self.razorpayx_read_seconds
        if self.lease_seconds <= call_seconds:
            # A lease that ends during a call would give one payout to two workers.
            faults.append(
                f"LEASE_SECONDS: must be more than the {call_seconds:g} s that a call to RazorpayX may take"
            )
        if self.metrics_port and self.metrics_token is None and not is_loopback(self.metrics_host):
            faults.append(f"METRICS_TOKEN: is required if METRICS_HOST is {self.metrics_host}")
        if faults:
            raise ValueError("; ".join(faults))
        return self


def load() -> Settings:
    """Read the settings from the environment. Raises SettingsError with all faults."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError([_describe(fault) for fault in error.errors()]) from None


@cache
def settings() -> Settings:
    """Return this process's settings, read once."""
    return load()


def _describe(fault: ErrorDetails) -> str:
    # The value itself is never repeated: it may be a secret.
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    name = str(fault["loc"][0]).upper()
    return f"{name}: is missing" if fault["type"] == "missing" else f"{name}: {message}"
