"""The interface of a provider, so that nothing outside its folder depends on which one pays.

`Provider` is pure and available in every process: statuses, request bodies, signatures. `ProviderClient`
calls the provider, and only the worker has one. A new provider needs a folder with both, a settings file, a
migration, a simulator and its lines in `registry.py` and `clients.py`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from shared.providers.answers import (
    Answer,
    ListedPayout,
    NotAccepted,
    Outcome,
    ProviderEvent,
    StatementLine,
)
from shared.providers.steps import Poll, Step
from shared.settings import Settings


class NotReadable(Exception):
    """A list could not be read completely; the message says what the provider answered."""


class Headers(Protocol):
    """The headers of a request; names are case-insensitive."""

    def get(self, key: str, /) -> str | None:
        """Return the header, or None."""
        ...


class Provider(Protocol):
    """The part of a provider that every process may use. It makes no calls."""

    name: str  # for people
    code: str  # for stored rows
    payout_id_prefix: str  # how its payout ids begin
    key_lifetime_days: float  # how long a repeated idempotency key returns the first payout

    def identity(self) -> str:
        """Return our credentials' identity at this provider: an attempt is never resent under another one."""
        ...

    def account(self) -> str:
        """Return the account that pays."""
        ...

    def call_seconds(self) -> float:
        """Return the longest time that one call may take."""
        ...

    def payout_request(self, *, attempt_id: str, fund_account_id: str, amount_paise: int) -> bytes:
        """Return the exact bytes of a payout request: built once, stored, sent unchanged."""
        ...

    def is_current(self, request: bytes) -> bool:
        """True if a stored payout request matches the settings of today."""
        ...

    def account_of(self, request: bytes) -> str:
        """Return the account in a stored payout request."""
        ...

    def payee_of(self, request: bytes) -> str:
        """Return the payee's id (`Prepared.fund_account_id`) in a stored payout request."""
        ...

    def outcome_of(self, status: str) -> Outcome:
        """Return the outcome that a payout status means."""
        ...

    def progress_of(self, status: str | None) -> int:
        """Return how far on its way a payout with this status is; 0 if that is unknown."""
        ...

    def statuses(self, *outcomes: Outcome) -> frozenset[str]:
        """Return the payout statuses with these outcomes."""
        ...

    def is_signed(self, settings: Settings, body: bytes, headers: Headers) -> bool:
        """True if the provider signed exactly these bytes of a webhook."""
        ...

    def event_id(self, headers: Headers) -> str | None:
        """Return the id of a webhook, which is the same for each delivery; None if it has none."""
        ...

    def parse_event(self, body: bytes) -> ProviderEvent | None:
        """Parse a webhook; None if the body is not an event."""
        ...


class Listing(Protocol):
    """The lists of one account, each read completely. Every method raises NotReadable."""

    calls: int  # made so far

    def payouts(self, since: datetime, until: datetime) -> dict[str, ListedPayout]:
        """Return, by id, every payout created from `since` to `until`, and perhaps some around them."""
        ...

    def lines(self, since: datetime, until: datetime) -> dict[str, StatementLine]:
        """Return, by id, every statement line from `since` to `until`, and perhaps some around them."""
        ...

    def payout(self, payout_id: str) -> ListedPayout | None:
        """Return one payout as it is now; None if the provider reports that it does not exist."""
        ...


class ProviderClient(Protocol):
    """Calls the provider. Every method returns an answer; network errors never raise."""

    def perform(self, step: Step) -> Answer:
        """Perform the step and return the answer."""
        ...

    def poll_many(self, polls: Sequence[Poll]) -> dict[Poll, Answer]:
        """Return the answers that fewer calls than polls give; the other steps are to be performed."""
        ...

    def balance(self) -> int | NotAccepted:
        """Return what our account can pay, in paise."""
        ...

    def listing(self) -> Listing:
        """Return the lists of our account."""
        ...
