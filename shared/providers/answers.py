"""The answers of a provider, as values that mean the same for every provider. Amounts in paise."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

# A payout's outcome: on its way, arrived, certain not to arrive, or returned after it had arrived.
Outcome = Literal["waiting", "paid", "not_paid", "reversed"]
ALIVE: frozenset[Outcome] = frozenset({"waiting", "paid"})  # the rupees arrived, or may still arrive


@dataclass(frozen=True, slots=True)
class PayoutReport:
    """The provider's report on one payout, through whichever channel it arrived.

    `status` is the provider's own status, and `outcome` its meaning. `progress` orders the statuses of
    payouts on their way: a report never moves a payout back to a smaller number.
    """

    payout_id: str
    status: str
    amount_paise: int
    outcome: Outcome
    progress: int
    reference_id: str | None = None
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    utr: str | None = None
    fees_paise: int | None = None
    tax_paise: int | None = None
    created_at: datetime | None = None  # by the provider's clock


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has the payout."""

    report: PayoutReport


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider processed this request and refused it: there is no payout."""

    reason: str
    description: str
    http_status: int


@dataclass(frozen=True, slots=True)
class Throttled:
    """The provider did not process the request: send the same key and body again later.

    `refuses_us`: the provider rejects our key or IP address. `refuses_request`: it rejects a field that our
    settings fill in, or gives no reason; then either the settings or this request is wrong.
    """

    cause: Literal["busy", "refuses_us", "refuses_request", "unreachable", "paced"]
    description: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer that we understand: it may have been paid."""

    description: str
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """The provider knows the payee under these ids."""

    contact_id: str
    fund_account_id: str


@dataclass(frozen=True, slots=True)
class Found:
    """Every payout that a look-up by `reference_id` found, possibly none."""

    reports: tuple[PayoutReport, ...]


NotAccepted = Refused | Throttled | Unknown
Answer = Accepted | Prepared | Found | NotAccepted


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """One webhook: its name, its report if it is about a payout, and when it happened."""

    name: str
    is_about_payout: bool
    report: PayoutReport | None
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class ListedPayout:
    """A payout in the provider's list: its report, and when the provider created it."""

    report: PayoutReport
    created_at: datetime

    @property
    def id(self) -> str:
        """The payout's id."""
        return self.report.payout_id


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One line of the account's statement; either debit or credit is 0."""

    id: str
    debit_paise: int
    credit_paise: int
    source: Literal["payout", "reversal", "bank_transfer", "other"]
    source_id: str | None
    payout_id: str | None  # the payout that was debited or reversed; None if the line is about no payout
    created_at: datetime

    @property
    def net_paise(self) -> int:
        """The amount that left the account."""
        return self.debit_paise - self.credit_paise
