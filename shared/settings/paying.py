"""What may be withdrawn, and with how much patience and at what pace it is paid."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from shared.settings.values import Waits


class Paying(BaseSettings):
    """Withdrawals and their payouts."""

    # --- what may be withdrawn
    coin_value_paise: int = Field(10, ge=1, description="What one coin is worth, in paise")
    min_withdrawal_coins: int = Field(100, ge=1, description="Smallest withdrawal, in coins")
    max_withdrawal_coins: int = Field(100_000, ge=1, description="Largest withdrawal, in coins")
    cancel_window_seconds: float = Field(
        10, ge=0, le=86_400, description="How long a user may change their mind"
    )

    # --- review and limits
    review_above_coins: int | None = Field(
        None, ge=0, description="Withdrawals of more coins than this await an admin's approval"
    )
    review_all: Literal["on", "off"] = Field("off", description="Whether every withdrawal awaits approval")
    limit_withdrawals_per_day: int | None = Field(
        None, ge=0, description="Most withdrawals of one user in a day in India"
    )
    limit_coins_per_day: int | None = Field(
        None, ge=0, description="Most coins of one user in a day in India"
    )
    limit_withdrawals_per_month: int | None = Field(
        None, ge=0, description="Most withdrawals of one user in a month in India"
    )
    limit_coins_per_month: int | None = Field(
        None, ge=0, description="Most coins of one user in a month in India"
    )
    new_upi_wait_hours: float = Field(
        0, ge=0, le=720, description="How long a withdrawal to a UPI id waits that the user never was paid at"
    )
    adjust_alone_max_coins: int = Field(
        0, ge=0, description="Most coins that one person may credit or adjust in a day without a second"
    )
    adjust_alone_sum_coins: int = Field(
        5000, ge=0, description="Most coins that all people together may credit or adjust so in a day"
    )

    # --- paying
    worker_threads: int = Field(8, ge=1, le=256, description="Payouts in hand at once per worker process")
    task_events: Literal["on", "off"] = Field(
        "on", description="Whether workers tell Flower of each task; without Flower they need not"
    )
    lease_seconds: float = Field(
        80, ge=1, description="How long a claimed step may take before another worker takes it"
    )
    sweep_seconds: float = Field(5, ge=0.1, description="How often due work is looked for in the database")
    sweep_batch: int = Field(1000, ge=1, description="Most messages the sweep keeps waiting in one queue")
    resend_seconds: Waits = Field(
        (60.0, 120.0, 300.0), description="Waits before an unanswered payout is sent again (razorpayx.md §3)"
    )
    lookup_seconds: float = Field(300, gt=0, description="How often an unanswered payout is then looked up")
    throttle_seconds: float = Field(5, gt=0, description="First wait after the provider asks for patience")
    poll_seconds: float = Field(60, gt=0, description="First look at an accepted payout; each wait doubles")
    poll_max_seconds: float = Field(1800, gt=0, description="Longest wait between two looks")
    recheck_seconds: Waits = Field(
        (3600.0, 86_400.0, 259_200.0, 432_000.0, 691_200.0),
        description="How long after completion a payout is looked at once more: a bank may send it back",
    )
    confirm_seconds: float = Field(
        120, gt=0, description="How soon RazorpayX is asked for a payout that only a webhook called paid"
    )
    retry_seconds: float = Field(
        1800, gt=0, description="Wait where the table of reasons says half an hour; its others in proportion"
    )
    max_attempts: int = Field(
        100, ge=1, le=1000, description="Most attempts for a withdrawal, whatever the table of reasons says"
    )

    absent_seconds: float = Field(
        3600,
        gt=0,
        description="How long look-ups must be answered with none before a payout counts as failed",
    )

    # --- pacing and pauses
    payouts_per_second: float = Field(
        8, gt=0, le=10_000, description="Most calls to RazorpayX in any second, all workers together"
    )
    pace_hold_seconds: float = Field(
        60, ge=0, le=60, description="Longest that all calls wait together after RazorpayX has answered 429"
    )
    payouts_per_user: int = Field(
        10,
        ge=1,
        description="Waiting payouts of one user that queue with everybody's; the others wait behind",
    )
    auto_pause: Literal["on", "off"] = Field(
        "on", description="Whether the system may pause payouts by itself"
    )
    auto_pause_unknowns: int = Field(
        10, ge=1, description="Unanswered payouts in a row after which all payouts pause"
    )
    auto_pause_handle_failures: int = Field(
        5,
        ge=1,
        description="Payouts in a row that a handle's bank, or the network, could not take before a pause",
    )
    probe_seconds: float = Field(
        60,
        gt=0,
        description="First wait before one payout tries whether a pause is over; each doubles",
    )
    probe_max_seconds: float = Field(3600, gt=0, description="Longest wait between such tries")
    webhook_silence_seconds: float = Field(
        1800, gt=0, description="How long payouts may end without any webhook before operators are warned"
    )
    seal_seconds: float = Field(15, ge=0.1, description="How often new journal lines and events are sealed")
    watch_seconds: float = Field(60, ge=0.1, description="How often webhooks and balance are looked after")
