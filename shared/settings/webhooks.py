"""Webhooks to apps, and the retries that mail shares with them."""

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from shared.settings.types import DelaysSeconds, is_base64_of_32_bytes


class WebhookSettings(BaseSettings):
    """Webhooks to apps."""

    webhook_signing_key: SecretStr | None = Field(
        None, description="Key from which each endpoint's secret is derived: base64 of 32 random bytes"
    )
    notify_seconds: float = Field(
        1, ge=0.1, description="Interval between two reads of new changes for webhooks and mail"
    )
    notify_at_once: int = Field(4, ge=1, le=64, description="Most concurrent deliveries to one endpoint")
    notify_connect_seconds: float = Field(
        3.05, gt=0, description="Longest wait for an app's host name or connection"
    )
    notify_answer_seconds: float = Field(10, gt=0, le=60, description="Longest time for one delivery")
    notify_retry_seconds: DelaysSeconds = Field(
        (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0),
        min_length=1,
        description="Backoff of a delivery or a mail, attempt by attempt; the last one repeats",
    )
    notify_give_up_seconds: float = Field(
        86_400, gt=0, description="How long a delivery or a mail is retried"
    )

    @field_validator("webhook_signing_key", mode="after")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not is_base64_of_32_bytes(key.get_secret_value()):
            raise ValueError("must be the base64 of 32 random bytes")
        return key
