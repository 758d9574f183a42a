"""How apps are told of their withdrawals: webhooks out."""

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from shared.settings.values import Waits, of_32_bytes


class Telling(BaseSettings):
    """Webhooks to apps."""

    webhook_signing_key: SecretStr | None = Field(
        None, description="What each endpoint's secret is derived from: base64 of 32 bytes"
    )
    notify_seconds: float = Field(
        1, ge=0.1, description="How often changes are looked for that apps and users are told"
    )
    notify_at_once: int = Field(4, ge=1, le=64, description="Most deliveries under way to one endpoint")
    notify_connect_seconds: float = Field(
        3.05, gt=0, description="Longest wait for an app's name or connection"
    )
    notify_answer_seconds: float = Field(10, gt=0, le=60, description="Longest that one delivery may take")
    notify_retry_seconds: Waits = Field(
        (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0),
        min_length=1,
        description="Waits before a delivery or a mail is tried again; the last one again and again",
    )
    notify_give_up_seconds: float = Field(86_400, gt=0, description="How long a delivery or a mail is tried")

    @field_validator("webhook_signing_key", mode="after")
    @classmethod
    def _whole_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not of_32_bytes(key.get_secret_value()):
            raise ValueError("must be the base64 of 32 random bytes")
        return key
