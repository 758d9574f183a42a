"""Operators: the independence of two of them, and sign-ins at a shell."""

from pydantic import Field
from pydantic_settings import BaseSettings


class PeopleSettings(BaseSettings):
    """Maker-checker independence, and operator tokens."""

    maker_checker_independence_days: float = Field(
        30,
        ge=0,
        le=3650,
        description="How long an operator and the one who gave them a right cannot approve each other",
    )
    operator_token_seconds: float = Field(
        900, ge=1, le=28_800, description="How long `payouts operator sign-in` is valid; at most eight hours"
    )
