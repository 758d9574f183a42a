"""RazorpayX: its address, and our account there."""

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from shared.settings.types import web_address

LIVE = "rzp_live_"  # the prefix of live key ids: real money


class ProviderSettings(BaseSettings):
    """The account that pays."""

    razorpayx_base_url: str = Field("https://api.razorpay.com", description="URL of RazorpayX")
    razorpayx_key_id: str = Field(description="API key id: `rzp_live_…` or `rzp_test_…`")
    razorpayx_key_secret: SecretStr = Field(description="Secret of the API key")
    razorpayx_account_number: str = Field(description="Account that pays; not the payee's")
    razorpayx_webhook_secret: SecretStr = Field(description="Secret that signs RazorpayX's webhooks")
    razorpayx_webhook_secret_previous: SecretStr | None = Field(
        None, description="The previous webhook secret, while you rotate it"
    )
    webhook_days: float = Field(
        400, ge=30, description="Days for which RazorpayX's webhooks are kept after they came"
    )
    razorpayx_connect_seconds: float = Field(3.05, gt=0, description="Timeout for a connection")
    razorpayx_read_seconds: float = Field(20, gt=0, description="Timeout for a response")
    razorpayx_narration: str = Field(
        "Coin withdrawal", pattern=r"^[A-Za-z0-9 ]{1,30}$", description="Text on the payee's bank statement"
    )
    razorpayx_purpose: str = Field("payout", min_length=1, description="Purpose of payouts at RazorpayX")

    @field_validator("razorpayx_base_url", mode="after")
    @classmethod
    def _valid_base_url(cls, url: str) -> str:
        return web_address(url, "https://api.razorpay.com")

    @property
    def razorpayx_identity(self) -> str:
        """Our key and the provider's address. Requests and payees of one identity are unknown to another."""
        return f"{self.razorpayx_key_id}@{self.razorpayx_base_url}"


def provider_faults(settings: ProviderSettings) -> list[str]:
    """Return the faults of settings that contradict each other."""
    if settings.razorpayx_key_id.startswith(LIVE) and not settings.razorpayx_base_url.startswith("https://"):
        return ["RAZORPAYX_BASE_URL: must begin with https:// with a live key"]
    return []
