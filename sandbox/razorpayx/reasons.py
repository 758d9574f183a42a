"""The documented `status_details`, which explain a payout's status, as data.

Source: `MD:errors/x/payout-status-details.md` (the complete list; here are only those that a UPI payout can
have).
"""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """One `status_details` value: its source, and the sentence shown to people."""

    source: str
    description: str


# The provider's descriptions contain dates and bank names too: clients must never match on them.
UPI_FAILURES: dict[str, Reason] = {
    "beneficiary_vpa_invalid": Reason("business", "The UPI id is invalid. Check the VPA and retry."),
    "beneficiary_psp_offline": Reason(
        "beneficiary_bank", "The beneficiary's PSP is offline. Retry after 30 min."
    ),
    "npci_beneficiary_timeout": Reason("beneficiary_bank", "NPCI or the beneficiary bank timed out."),
    "beneficiary_bank_offline": Reason("beneficiary_bank", "The beneficiary bank is offline."),
    "beneficiary_bank_failure": Reason("beneficiary_bank", "The payout failed at the beneficiary bank."),
    "beneficiary_bank_technical_error": Reason(
        "beneficiary_bank", "Technical error at the beneficiary bank."
    ),
    "beneficiary_bank_rejected": Reason("beneficiary_bank", "The beneficiary bank rejected the payout."),
    "transaction_limit_exceeded": Reason(
        "beneficiary_bank", "The beneficiary's transaction limit is exceeded."
    ),
    "bank_account_closed": Reason("beneficiary_bank", "The beneficiary's bank account is closed."),
    "bank_account_frozen": Reason("beneficiary_bank", "The beneficiary's bank account is frozen."),
    "beneficiary_account_dormant": Reason("beneficiary_bank", "The beneficiary's bank account is dormant."),
    "bank_account_invalid": Reason("beneficiary_bank", "The beneficiary's bank account is invalid."),
    "gateway_down": Reason("gateway", "The partner bank is down. Retry."),
    "gateway_technical_error": Reason("gateway", "Technical error at the partner bank. Retry after 30 min."),
    "gateway_timeout": Reason("gateway", "The partner bank timed out. Retry after 30 min."),
    "insufficient_funds": Reason("business", "The account does not have enough balance for this payout."),
    "server_error": Reason("internal", "The payout failed at Razorpay. Contact support."),
    "server_error_temporary": Reason("internal", "The payout failed at Razorpay for a moment. Retry."),
}

OTHER_REASONS: dict[str, Reason] = {
    "payout_bank_processing": Reason("gateway", "The payout is being processed by the partner bank."),
    "beneficiary_bank_confirmation_pending": Reason(
        "beneficiary_bank",
        "Confirmation of credit is pending from HDFC bank. Please check after 3 working days.",
    ),
    "partner_bank_pending": Reason("internal", "The payout is pending at the partner bank."),
    "payout_processed": Reason("beneficiary_bank", "The payout is credited to the beneficiary's account."),
    "pending_approval": Reason("business", "The payout awaits approval."),
    "low_balance": Reason("business", "The payout is queued: the account's balance is low."),
    "gateway_degraded": Reason("gateway", "The payout is queued: the partner bank's systems are degraded."),
    "syncing_balance": Reason("gateway", "The payout is queued: the balance is being fetched."),
}

REASONS: dict[str, Reason] = {**UPI_FAILURES, **OTHER_REASONS}

# The default reason of each status (`MD:errors/x/payout-status-details.md`).
USUAL_REASON: dict[str, str | None] = {
    "pending": "pending_approval",
    "queued": "gateway_degraded",
    "processing": "payout_bank_processing",
    "processed": "payout_processed",
    "failed": "beneficiary_bank_rejected",
    "reversed": "beneficiary_bank_rejected",
    "cancelled": None,
    "rejected": None,
}
STATUSES = frozenset(USUAL_REASON)
