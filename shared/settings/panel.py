"""The admin panel: its key, its sessions, and when a second person or a second factor is needed."""

from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from shared.roles import Role

MIN_SECRET_CHARACTERS = 32  # signs sessions with HMAC: a key of the hash's size


def _roles(written: str) -> tuple[str, ...]:
    return () if written == "off" else tuple(part.strip() for part in written.split(",") if part.strip())


def relaxed(second_admin_required: str, totp_required_roles: str) -> list[str]:
    """What is allowed that a system with real money should not allow, in words."""
    found = []
    if second_admin_required == "off":
        found.append(
            "one person alone can add operators, app keys and imports, and so pay themselves "
            "(SECOND_ADMIN_REQUIRED=off)"
        )
    missing = [role for role in (Role.FINANCE, Role.ADMIN) if role not in _roles(totp_required_roles)]
    if missing:
        words = " and ".join(missing)
        found.append(f"{words} sign in without a second factor (ADMIN_TOTP_REQUIRED_ROLES)")
    return found


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

    second_admin_required: Literal["on", "off"] = Field(
        "on",
        description="Whether a second person confirms operators, app keys, endpoints and imports; "
        "`off` only to try things out",
    )
    admin_proposal_hours: float = Field(
        72, gt=0, le=720, description="How long a proposal waits for a second person before it expires"
    )
    admin_invitation_hours: float = Field(
        72, gt=0, le=720, description="How long the link works with which an operator chooses a password"
    )
    admin_totp_required_roles: str = Field(
        f"{Role.FINANCE},{Role.ADMIN}",
        description="Roles that need a second factor (TOTP), comma-separated, or `off`",
    )
    admin_code_seconds: float = Field(
        900, ge=30, le=43_200, description="After so long a code is asked again before money moves"
    )

    @property
    def totp_roles(self) -> tuple[str, ...]:
        """The roles that need a second factor."""
        return _roles(self.admin_totp_required_roles)

    @field_validator("admin_totp_required_roles", mode="after")
    @classmethod
    def _known_roles(cls, written: str) -> str:
        if not set(_roles(written)) <= set(Role):
            raise ValueError(f"each is one of {', '.join(Role)}; or `off`")
        return written

    @field_validator("admin_secret_key", mode="after")
    @classmethod
    def _hard_to_find(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < MIN_SECRET_CHARACTERS:
            raise ValueError(f"needs at least {MIN_SECRET_CHARACTERS} characters")
        return secret
