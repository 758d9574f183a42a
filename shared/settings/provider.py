"""RazorpayX: where it is, and who we are there."""

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from shared.settings.values import web_address

LIVE = "rzp_live_"  # what a key id begins with where money is real


class Provider(BaseSettings):
    """The account that pays."""

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

    @field_validator("razorpayx_base_url", mode="after")
    @classmethod
    def _where_it_is(cls, url: str) -> str:
        return web_address(url, "https://api.razorpay.com")

    @property
    def razorpayx_identity(self) -> str:
        """As whom we speak, and to whom. What one identity was told, another may never have heard of."""
        return f"{self.razorpayx_key_id}@{self.razorpayx_base_url}"


def provider_faults(here: Provider) -> list[str]:
    """What of it does not fit together."""
    if here.razorpayx_key_id.startswith(LIVE) and not here.razorpayx_base_url.startswith("https://"):
        return ["RAZORPAYX_BASE_URL: must begin with https:// where money is real"]
    return []
