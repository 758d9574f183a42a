"""Why RazorpayX did not pay, in its words and in ours.

The catalogue is `status_details` (razorpayx.md §4.3, from razorpay/markdown-docs
`errors/x/payout-status-details.md`). "Passing" means that the page advises to try again later,
which after a failure is a new attempt with a new key. What is not listed is taken as lasting:
a needless refund can be asked for again, a needless payment cannot be asked back.
"""

PASSING: dict[str, str] = {
    "beneficiary_psp_offline": "Your UPI app's bank was offline.",
    "npci_beneficiary_timeout": "Your bank did not answer in time.",
    "beneficiary_bank_offline": "Your bank was offline.",
    "beneficiary_bank_failure": "Your bank could not take the payment.",
    "beneficiary_bank_technical_error": "Your bank had a technical problem.",
    "gateway_down": "The payment network was down.",
    "gateway_technical_error": "The payment network had a technical problem.",
    "gateway_timeout": "The payment network did not answer in time.",
    "server_error_temporary": "The payment service had a passing problem.",
    "fund_account_invalid": "The payment could not be addressed; it is addressed anew.",
    "insufficient_funds": "The payment could not be made at our side.",
}

LASTING: dict[str, str] = {
    "beneficiary_vpa_invalid": "This UPI id does not exist. Please check it.",
    "beneficiary_bank_rejected": "Your bank rejected the payment.",
    "transaction_limit_exceeded": "The payment is above a limit of your bank account.",
    "bank_account_closed": "The bank account behind this UPI id is closed.",
    "bank_account_frozen": "The bank account behind this UPI id is frozen.",
    "beneficiary_account_dormant": "The bank account behind this UPI id is dormant.",
    "bank_account_invalid": "The bank account behind this UPI id is not valid.",
    "beneficiary_account_invalid": "The bank account behind this UPI id is not valid.",
    "server_error": "The payment service could not make the payment.",
    "input_validation_failed": "The payment service does not accept this UPI id.",
    "never_arrived": "The payment did not reach the payment service.",
    "cancelled": "The payment was cancelled.",
    "rejected": "The payment was not approved.",
}

REVERSED = "Your bank sent the payment back."
OTHERWISE = "The payment could not be made."


def is_passing(reason: str | None) -> bool:
    """Whether a later, new attempt may succeed where this one failed."""
    return reason in PASSING


def in_plain_words(reason: str | None) -> str:
    """Why the payment did not happen, for the user."""
    return PASSING.get(reason or "") or LASTING.get(reason or "") or OTHERWISE
