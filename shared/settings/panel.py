"""The admin panel: its key, its sessions."""

from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

MIN_SECRET_CHARACTERS = 32  # signs sessions with HMAC: a key of the hash's size


class Panel(BaseSettings):
    """The panel at `/admin/`."""

    admin_secret_key: SecretStr | None = Field(
        None, description="Signs the panel's sessions: at least 32 characters; without it there is no panel"
    )
    admin_cookie_secure: Literal["on", "off"] = Field(
        "on", description="Whether the panel's cookie needs HTTPS; `off` only on loopback"
    )
    admin_idle_seconds: float = Field(
        1800, ge=1, description="After so long without a request an operator signs in again"
    )
    admin_session_seconds: float = Field(
        43_200, ge=1, description="So long after signing in an operator signs in again"
    )

    @field_validator("admin_secret_key", mode="after")
    @classmethod
    def _hard_to_find(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < MIN_SECRET_CHARACTERS:
            raise ValueError(f"needs at least {MIN_SECRET_CHARACTERS} characters")
        return secret
