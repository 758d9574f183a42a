"""The steps that a worker claims, performs at the provider, and records.

`sends` and `queries` are the attempt's counters at the time of the claim. If they have moved on when the
worker records, another worker has overtaken it: its answer still counts, but a missing answer does not.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Prepare:
    """Register the payee with the provider. If the row's `due_at` is no longer `leased_until`, it is void."""

    withdrawal_id: UUID
    leased_until: datetime
    user_id: str
    name: str | None
    upi_id: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send this attempt's stored bytes under its key, for the first time or again."""

    withdrawal_id: UUID
    attempt_id: UUID
    body: bytes
    amount_paise: int
    sends: int
    deadline: float  # Unix seconds; a worker that was suspended until later must not call


@dataclass(frozen=True, slots=True)
class LookUp:
    """Query every payout with this attempt's reference, on the account that was to pay it."""

    withdrawal_id: UUID
    attempt_id: UUID
    account_number: str
    queries: int
    hint_count: int | None = None  # set if webhooks caused this query: how many; other due work stays due


@dataclass(frozen=True, slots=True)
class Poll:
    """Query the status of this payout."""

    withdrawal_id: UUID
    attempt_id: UUID
    payout_id: str
    amount_paise: int
    queries: int
    created_at: datetime | None  # of the payout, by the provider's clock
    hint_count: int | None = None  # as above


Step = Prepare | Send | LookUp | Poll
