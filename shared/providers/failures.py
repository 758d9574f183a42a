"""The failure reasons of a provider in one table: what we do about each, and what the user reads.

The reasons are the provider's `status_details` (provider reference §4.3, from its page
`payout-status-details`). If that page advises a retry, which after a failure means a new attempt with a new
key, we retry after the time that it names (30 minutes; 5 if it names none). A reason that is not listed
counts as permanent: after a needless refund the user can request again, but a needless payment cannot be
recovered.
"""

from dataclasses import dataclass
from typing import Literal

Action = Literal["refund", "retry", "hold"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What follows a definite failure.

    `refund` now; `retry` with a new attempt after `wait_minutes`, up to `max_attempts` in all; or `hold` for
    an operator. `fault_domain` decides which circuit breaker counts the failure: the UPI handle's, the
    network's, the one for all payouts (`ours`), or none (`nobody`).
    """

    action: Action
    user_message: str
    wait_minutes: float = 0
    max_attempts: int = 1
    fault_domain: Literal["handle", "network", "ours", "nobody"] = "nobody"


HALF_HOUR_MINUTES = 30
SOON_MINUTES = 5


def _refund(message: str) -> Policy:
    return Policy("refund", message)


def _retry(
    message: str, minutes: float = HALF_HOUR_MINUTES, attempts: int = 3, domain: str = "nobody"
) -> Policy:
    return Policy("retry", message, minutes, attempts, domain)  # type: ignore[arg-type]  # a fault domain


def _hold(message: str) -> Policy:
    return Policy("hold", message)


POLICIES: dict[str, Policy] = {
    # --- temporary: the provider advises a retry
    "beneficiary_psp_offline": _retry("Your UPI app's bank was offline.", domain="handle"),
    "npci_beneficiary_timeout": _retry("Your bank did not answer in time.", domain="handle"),
    "beneficiary_bank_offline": _retry("Your bank was offline.", domain="handle"),
    "beneficiary_bank_failure": _retry("Your bank could not take the payment."),
    "beneficiary_bank_technical_error": _retry("Your bank had a technical problem."),
    "gateway_technical_error": _retry("The payment network had a technical problem.", domain="network"),
    "gateway_timeout": _retry("The payment network did not answer in time.", domain="network"),
    "gateway_down": _retry("The payment network was down.", attempts=4, domain="network"),
    "server_error_temporary": _retry("The payment service had a temporary problem.", SOON_MINUTES, 4),
    # Our fault and not the user's: retried for two days, while operators are notified that money is missing.
    "insufficient_funds": _retry("We could not make the payment.", 30, 96, domain="ours"),
    # Our own reason: the stored payee is no longer valid, so the next attempt prepares the payee again.
    "fund_account_invalid": _retry("The payment service had outdated details for your UPI id."),
    # --- permanent: the user must act, or no one can
    "beneficiary_vpa_invalid": _refund("This UPI id does not exist. Please check it."),
    "beneficiary_bank_rejected": _refund("Your bank rejected the payment."),
    "transaction_limit_exceeded": _refund("The payment is above a limit of your bank account."),
    "bank_account_closed": _refund("The bank account behind this UPI id is closed."),
    "bank_account_frozen": _refund("The bank account behind this UPI id is frozen."),
    "beneficiary_account_dormant": _refund("The bank account behind this UPI id is dormant."),
    "bank_account_invalid": _refund("The bank account behind this UPI id is not valid."),
    "beneficiary_account_invalid": _refund("The bank account behind this UPI id is not valid."),
    "server_error": _refund("The payment service could not make the payment."),
    "input_validation_failed": _refund("The payment service does not accept this UPI id."),
    "never_arrived": _refund("The payment did not reach the payment service."),
    "cancelled": _refund("The payment was cancelled."),
    "rejected": _refund("The payment was not approved."),
    # --- for an operator: a UPI payout cannot fail this way, so something of ours is configured wrongly
    "imps_not_allowed": _hold("The payment could not be made."),
    "invalid_ifsc_code": _hold("The payment could not be made."),
    "invalid_beneficiary": _hold("The payment could not be made."),
    "amount_limit_exhausted_neft": _hold("The payment could not be made."),
}

REVERSED = "Your bank sent the payment back."
UNLISTED = _refund("The payment could not be made.")


def policy_for(reason: str | None) -> Policy:
    """Return the policy for this failure reason."""
    return POLICIES.get(reason or "", UNLISTED)


def user_message(reason: str | None) -> str:
    """Return why the payment did not happen, for the user."""
    return policy_for(reason).user_message
