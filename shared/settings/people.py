"""Operators: how independent two of them must be, how long they are known at a shell."""

from pydantic import Field
from pydantic_settings import BaseSettings


class People(BaseSettings):
    """Who may agree with whom, and who is at the shell."""

    maker_checker_independence_days: float = Field(
        30,
        ge=0,
        le=3650,
        description="So long an operator and whoever gave them power cannot approve each other's proposals",
    )
    operator_token_seconds: float = Field(
        900, ge=1, le=28_800, description="How long `payouts operator sign-in` counts; at most eight hours"
    )
