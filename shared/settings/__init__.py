"""Every setting, typed, from the environment. All faults are named at once; secrets have no default."""

from functools import cache

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsConfigDict

from shared.errors import SettingsError
from shared.settings.access import OFF, Access
from shared.settings.mailing import Mailing, mail_faults
from shared.settings.observing import Observing
from shared.settings.panel import Panel, relaxed
from shared.settings.paying import Paying
from shared.settings.people import People
from shared.settings.places import Places
from shared.settings.provider import LIVE, Provider, provider_faults
from shared.settings.telling import Telling
from shared.settings.values import is_loopback, of_32_bytes

__all__ = ["OFF", "Settings", "is_loopback", "load", "relaxed", "settings"]

MIN_PAYOUT_PAISE, MAX_PAYOUT_PAISE = 100, 100_00_000  # UPI, one payout (razorpayx.md §6)
ABSENT_LIVE_SECONDS = 3600


class Settings(Places, Access, Panel, People, Paying, Provider, Telling, Mailing, Observing):
    """The system's settings; a field's name in capitals is its environment variable."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore", allow_inf_nan=False)

    # --- proof
    certificate_key: SecretStr | None = Field(
        None, description="Signs a day's certificate: base64 of 32 bytes; `payouts certificate-key` makes one"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_blanks_around(cls, value: object) -> object:
        # Copied along with a secret they count, and then no signature fits and nothing says why.
        if isinstance(value, str) and value != value.strip():
            raise ValueError("has a blank or a line break at its beginning or end")
        return value

    @field_validator("certificate_key", mode="after")
    @classmethod
    def _seed_of_a_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not of_32_bytes(key.get_secret_value()):  # RFC 8032 §5.1.5
            raise ValueError("must be the base64 of 32 bytes; `payouts certificate-key` makes one")
        return key

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        faults = mail_faults(self) + provider_faults(self)
        if self.api_auth == "off" and not is_loopback(self.api_host):
            faults.append(f"API_AUTH: off is accepted only on loopback, and API_HOST is {self.api_host}")
        if self.admin_cookie_secure == "off" and not is_loopback(self.api_host):
            faults.append(f"ADMIN_COOKIE_SECURE: off is accepted only on loopback, not on {self.api_host}")
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
        if self.razorpayx_key_id.startswith(LIVE) and self.absent_seconds < ABSENT_LIVE_SECONDS:
            # An absent payout counts as failed after an hour, and not a minute sooner (razorpayx.md §3).
            faults.append(f"ABSENT_SECONDS: must be at least {ABSENT_LIVE_SECONDS} where money is real")
        patience = self.razorpayx_connect_seconds + self.razorpayx_read_seconds
        if self.lease_seconds <= patience:
            # A lease that ends while a call may still be under way hands one payout to two workers.
            faults.append(
                f"LEASE_SECONDS: must be more than the {patience:g} s that a call to RazorpayX may take"
            )
        if self.metrics_port and self.metrics_token is None and not is_loopback(self.metrics_host):
            faults.append(f"METRICS_TOKEN: is required where METRICS_HOST is {self.metrics_host}")
        if faults:
            raise ValueError("; ".join(faults))
        return self


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
