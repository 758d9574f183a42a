"""Withdrawals: their limits, and how payouts are sent, retried, paced and paused."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from shared.settings.types import DelaysSeconds


class PayoutSettings(BaseSettings):
    """Withdrawals and their payouts."""

    # --- limits of a withdrawal
    coin_value_paise: int = Field(10, ge=1, description="Value of one coin, in paise")
    min_withdrawal_coins: int = Field(100, ge=1, description="Minimum withdrawal, in coins")
    max_withdrawal_coins: int = Field(100_000, ge=1, description="Maximum withdrawal, in coins")
    cancel_window_seconds: float = Field(
        10, ge=0, le=86_400, description="How long a user can cancel before the payment starts"
    )

    # --- review and limits
    review_above_coins: int | None = Field(
        None, ge=0, description="Withdrawals of more coins than this need an operator's approval"
    )
    review_all: Literal["on", "off"] = Field("off", description="Whether every withdrawal needs approval")
    limit_withdrawals_per_day: int | None = Field(
        None, ge=0, description="Maximum withdrawals of a user per day (IST)"
    )
    limit_coins_per_day: int | None = Field(
        None, ge=0, description="Maximum coins withdrawn by a user per day (IST)"
    )
    limit_withdrawals_per_month: int | None = Field(
        None, ge=0, description="Maximum withdrawals of a user per month (IST)"
    )
    limit_coins_per_month: int | None = Field(
        None, ge=0, description="Maximum coins withdrawn by a user per month (IST)"
    )
    new_upi_wait_hours: float = Field(
        0, ge=0, le=720, description="How long the first withdrawals to a user's new UPI id wait"
    )
    adjust_alone_max_coins: int = Field(
        0, ge=0, description="Maximum coins that an operator can credit or adjust per day without approval"
    )
    adjust_alone_sum_coins: int = Field(
        5000,
        ge=0,
        description="Maximum coins that all operators can credit or adjust per day without approval",
    )

    # --- paying
    worker_threads: int = Field(8, ge=1, le=256, description="Payouts that a worker process handles at once")
    task_events: Literal["on", "off"] = Field(
        "on", description="Whether workers report tasks to Flower; turn it off if you do not use Flower"
    )
    lease_seconds: float = Field(
        80, ge=1, description="Lease of a claimed step: afterwards another worker can claim it"
    )
    sweep_seconds: float = Field(5, ge=0.1, description="Interval of the sweep for due work")
    sweep_batch: int = Field(1000, ge=1, description="Maximum messages that the sweep keeps in one queue")
    resend_seconds: DelaysSeconds = Field(
        (60.0, 120.0, 300.0),
        description="Delays before an unanswered payout is sent again (provider reference §3)",
    )
    lookup_seconds: float = Field(
        300, gt=0, description="Interval of look-ups of an unanswered payout after that"
    )
    throttle_seconds: float = Field(5, gt=0, description="First delay after RazorpayX throttles a call")
    poll_seconds: float = Field(
        60, gt=0, description="First delay before an accepted payout is polled; it doubles each time"
    )
    poll_max_seconds: float = Field(1800, gt=0, description="Maximum delay between two polls")
    recheck_seconds: DelaysSeconds = Field(
        (3600.0, 86_400.0, 259_200.0, 432_000.0, 691_200.0),
        description="Delays after completion at which a payout is queried again: a bank may return it",
    )
    confirm_seconds: float = Field(
        120, gt=0, description="Delay before a payout that only a webhook reported as paid is queried"
    )
    retry_seconds: float = Field(
        1800, gt=0, description="Delay for retries of half an hour in the failure policies; scales the others"
    )
    max_attempts: int = Field(
        100, ge=1, le=1000, description="Maximum attempts for a withdrawal, whatever the failure policies say"
    )

    absent_seconds: float = Field(
        3600,
        gt=0,
        description="How long look-ups must find no payout before it counts as failed",
    )

    # --- pacing and pauses
    payouts_per_second: float = Field(
        8, gt=0, le=10_000, description="Maximum calls to RazorpayX per second, for all workers together"
    )
    pace_hold_seconds: float = Field(
        60, ge=0, le=60, description="Maximum time for which all calls back off after RazorpayX answers 429"
    )
    payouts_per_user: int = Field(
        10,
        ge=1,
        description="Due payouts of one user in the shared queue; the others wait in the backlog queue",
    )
    auto_pause: Literal["on", "off"] = Field(
        "on", description="Whether the system pauses payouts automatically"
    )
    auto_pause_unknowns: int = Field(
        10, ge=1, description="Consecutive unanswered payouts after which all payouts pause"
    )
    auto_pause_handle_failures: int = Field(
        5,
        ge=1,
        description="Consecutive failures of a UPI handle's bank, or of the network, after which it pauses",
    )
    probe_seconds: float = Field(
        60,
        gt=0,
        description="First delay before one payout probes whether a pause can end; it doubles each time",
    )
    probe_max_seconds: float = Field(3600, gt=0, description="Maximum delay between two probes")
    webhook_silence_seconds: float = Field(
        1800, gt=0, description="Time without a webhook, while payouts end, after which operators are warned"
    )
    seal_seconds: float = Field(15, ge=0.1, description="Interval of sealing new journal lines and events")
    watch_seconds: float = Field(60, ge=0.1, description="Interval of the periodic duties")
