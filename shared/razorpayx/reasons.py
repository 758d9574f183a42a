"""Why RazorpayX did not pay: what we do about it, and how we say it. One table.

The catalogue is `status_details` (razorpayx.md §4.3, from razorpay/markdown-docs
`errors/x/payout-status-details.md`). Where that page advises to retry, which after a failure means a new
attempt with a new key, we do, after the time it names (30 minutes, or at once where it names none: then 5).
What is not listed is taken as lasting: a needless refund can be asked for again, a needless payment cannot
be asked back.
"""

from dataclasses import dataclass
from typing import Literal

Action = Literal["refund", "retry", "hold"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What follows a definite failure: `refund` now, a new attempt after `minutes` up to `attempts` in all,
    or `hold` the coins and tell an operator. `words` are for the user. `whose` trouble it is decides what
    pauses when it goes on: the UPI handle's (that handle), the network's or ours (everything), or nobody's.
    """

    action: Action
    words: str
    minutes: float = 0
    attempts: int = 1
    whose: Literal["handle", "network", "ours", "nobody"] = "nobody"


HALF_AN_HOUR, SOON = 30, 5


def _refund(words: str) -> Policy:
    return Policy("refund", words)


def _retry(words: str, minutes: float = HALF_AN_HOUR, attempts: int = 3, whose: str = "nobody") -> Policy:
    return Policy("retry", words, minutes, attempts, whose)  # type: ignore[arg-type]  # one of three words


def _hold(words: str) -> Policy:
    return Policy("hold", words)


POLICIES: dict[str, Policy] = {
    # --- passing: the page says retry
    "beneficiary_psp_offline": _retry("Your UPI app's bank was offline.", whose="handle"),
    "npci_beneficiary_timeout": _retry("Your bank did not answer in time.", whose="handle"),
    "beneficiary_bank_offline": _retry("Your bank was offline.", whose="handle"),
    "beneficiary_bank_failure": _retry("Your bank could not take the payment."),
    "beneficiary_bank_technical_error": _retry("Your bank had a technical problem."),
    "gateway_technical_error": _retry("The payment network had a technical problem.", whose="network"),
    "gateway_timeout": _retry("The payment network did not answer in time.", whose="network"),
    "gateway_down": _retry("The payment network was down.", attempts=4, whose="network"),
    "server_error_temporary": _retry("The payment service had a passing problem.", SOON, 4),
    # Ours to mend, and no fault of the user: tried for two days, while operators are told what is missing.
    "insufficient_funds": _retry("The payment could not be made at our side.", 30, 96, whose="ours"),
    # Not of their catalogue: what we remembered of the payee is no longer valid. It is made known anew.
    "fund_account_invalid": _retry("The payment could not be addressed; it is addressed anew."),
    # --- lasting: the user can do something, or nobody can
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
    # --- a person must look: none of these can happen to a UPI payout, so something of ours is set up wrongly
    "imps_not_allowed": _hold("The payment could not be made."),
    "invalid_ifsc_code": _hold("The payment could not be made."),
    "invalid_beneficiary": _hold("The payment could not be made."),
    "amount_limit_exhausted_neft": _hold("The payment could not be made."),
}

REVERSED = "Your bank sent the payment back."
UNLISTED = _refund("The payment could not be made.")


def policy(reason: str | None) -> Policy:
    """What to do about a failure for this reason."""
    return POLICIES.get(reason or "", UNLISTED)


def in_plain_words(reason: str | None) -> str:
    """Why the payment did not happen, for the user."""
    return policy(reason).words
