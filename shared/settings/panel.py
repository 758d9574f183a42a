"""The admin panel: its key, its sessions, and when it requires a second person or a second factor."""

from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from shared.roles import Role

MIN_SECRET_CHARACTERS = 32  # an HMAC key of the hash's size


def _roles(text: str) -> tuple[str, ...]:
    return () if text == "off" else tuple(part.strip() for part in text.split(",") if part.strip())


def safety_warnings(second_admin_required: str, totp_required_roles: str) -> list[str]:
    """Return a warning for each setting that is not safe with real money."""
    warnings = []
    if second_admin_required == "off":
        warnings.append(
            "one person alone can add operators, API keys and imports, and so pay themselves "
            "(SECOND_ADMIN_REQUIRED=off)"
        )
    missing = [role for role in (Role.FINANCE, Role.ADMIN) if role not in _roles(totp_required_roles)]
    if missing:
        warnings.append(
            f"{' and '.join(missing)} can sign in without a second factor (ADMIN_TOTP_REQUIRED_ROLES)"
        )
    return warnings


class PanelSettings(BaseSettings):
    """The panel at `/admin/`."""

    admin_secret_key: SecretStr | None = Field(
        None, description="Signs the panel's sessions; at least 32 characters. Without it the panel is off"
    )
    admin_cookie_secure: Literal["on", "off"] = Field(
        "on", description="Whether the panel's cookie requires HTTPS; `off` is allowed only on loopback"
    )
    admin_idle_seconds: float = Field(
        1800, ge=1, description="Time without a request after which an operator must sign in again"
    )
    admin_session_seconds: float = Field(
        43_200, ge=1, description="Time after sign-in after which an operator must sign in again"
    )

    second_admin_required: Literal["on", "off"] = Field(
        "on",
        description="Whether a second person must confirm operators, API keys, endpoints and imports; "
        "`off` is for evaluation only",
    )
    admin_proposal_hours: float = Field(
        72, gt=0, le=720, description="Time until a proposal expires without a second person's decision"
    )
    admin_invitation_hours: float = Field(72, gt=0, le=720, description="How long an invitation link works")
    admin_totp_required_roles: str = Field(
        f"{Role.FINANCE},{Role.ADMIN}",
        description="Roles that must use a second factor (TOTP), comma-separated, or `off`",
    )
    admin_code_seconds: float = Field(
        900, ge=30, le=43_200, description="How long a code counts for actions that move money"
    )

    @property
    def totp_roles(self) -> tuple[str, ...]:
        """The roles that must use a second factor."""
        return _roles(self.admin_totp_required_roles)

    @field_validator("admin_totp_required_roles", mode="after")
    @classmethod
    def _known_roles(cls, text: str) -> str:
        if not set(_roles(text)) <= set(Role):
            raise ValueError(f"each role must be one of {', '.join(Role)}; or use off")
        return text

    @field_validator("admin_secret_key", mode="after")
    @classmethod
    def _long_enough_to_sign(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < MIN_SECRET_CHARACTERS:
            raise ValueError(f"needs at least {MIN_SECRET_CHARACTERS} characters")
        return secret
