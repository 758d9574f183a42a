"""What a worker has to do next for a withdrawal: the value between claim, call and record.

`sends` and `checks` are the attempt's counters at the claim. A worker that comes back when they have gone on
has been overtaken: what it knows counts, what it does not know does not.
"""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make the payee known at the provider. `version` is the row's: a change since then ends this step."""

    withdrawal_id: UUID
    version: int
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
    until: float  # Unix seconds; a worker that was asleep until later does not call any more


@dataclass(frozen=True, slots=True)
class LookUp:
    """Ask for every payout with this attempt's reference, on the account that was to pay it."""

    withdrawal_id: UUID
    attempt_id: UUID
    account_number: str
    checks: int
    hints: int | None = None  # asked because of so many webhooks, and of nothing else; what is due stays due


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask how this payout stands."""

    withdrawal_id: UUID
    attempt_id: UUID
    payout_id: str
    amount_paise: int
    checks: int
    hints: int | None = None  # as above


Step = Prepare | Send | LookUp | Poll
