"""The states of a withdrawal and of an attempt, and the transitions between them, as data."""

from enum import StrEnum


class Status(StrEnum):
    """A withdrawal's status: the five words that clients see (CONTRACT.md)."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


# Every transition of a withdrawal. `transitions.transition` refuses all others.
EDGES: frozenset[tuple[Status, Status]] = frozenset(
    {
        (Status.PENDING, Status.PROCESSING),  # claimed
        (Status.PENDING, Status.CANCELLED),  # by the user or an operator
        (Status.PENDING, Status.FAILED),  # refused before anything was sent
        (Status.PROCESSING, Status.COMPLETED),  # paid
        (Status.PROCESSING, Status.FAILED),  # definitely not paid
        (Status.COMPLETED, Status.FAILED),  # reversed by the bank
    }
)
FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})
OPEN = frozenset({Status.PENDING, Status.PROCESSING})
REFUNDED = frozenset({Status.FAILED, Status.CANCELLED})


class AttemptState(StrEnum):
    """The state of one attempt at the provider."""

    SENDING = "sending"  # claimed; a worker is calling the provider, or died while calling
    THROTTLED = "throttled"  # the provider did not process it: same key, same body, later
    UNKNOWN = "unknown"  # no answer that we understand: it may be paid
    ACCEPTED = "accepted"  # the provider has it and will report its result
    PAID = "paid"
    REFUSED = "refused"  # the provider never accepted it
    FAILED = "failed"  # the provider accepted it and did not pay
    REVERSED = "reversed"  # the money came back


# In these states a payout may exist, or come to exist, at the provider.
# The database allows one such attempt per withdrawal, and no refund next to it.
LIVE = frozenset(
    {
        AttemptState.SENDING,
        AttemptState.THROTTLED,
        AttemptState.UNKNOWN,
        AttemptState.ACCEPTED,
        AttemptState.PAID,
    }
)
# Live, and not yet known to be paid: the attempts that still need work.
UNSETTLED = LIVE - {AttemptState.PAID}


# Reasons of failed withdrawals for which no payment failed: people rejected them, or refunded the coins.
DECIDED_BY_PEOPLE = frozenset({"rejected_in_review", "resolved"})


class Decision(StrEnum):
    """What two operators can decide about a withdrawal the system cannot settle (`withdrawals.propose`)."""

    GO_ON = "go_on"  # it is explained: the system continues with it
    PAID = "paid"  # the rupees arrived, whatever the provider says
    REFUND = "refund"  # the rupees did not and will not arrive: refund the coins
    TAKE_BACK = "take_back"  # the coins were refunded and the rupees arrived too: debit the coins again
    GIVE_BACK = "give_back"  # the coins were debited again, but the rupees did not stay: refund them again


class PaidVia(StrEnum):
    """How the rupees of a withdrawal were paid (`withdrawals.paid_via`)."""

    PROVIDER = "razorpayx"  # the first provider's code: existing rows hold it
    UPI = "upi"
    IMPS = "imps"
    NEFT = "neft"
    RTGS = "rtgs"
    UNKNOWN = "unknown"  # paid outside before operators had to state how

    @property
    def label(self) -> str:
        """The name that people read."""
        return {self.PROVIDER: "RazorpayX", "unknown": "an unknown way"}.get(self, self.upper())


class ReviewReason(StrEnum):
    """Why a withdrawal needs an operator's approval before it is sent (`withdrawals.approve_review`)."""

    AMOUNT = "amount"  # above REVIEW_ABOVE_COINS
    EVERY = "every"  # REVIEW_ALL
    UPI_BLOCKED = "upi_blocked"  # the payee was blocked while it waited
    WALLET_FROZEN = "wallet_frozen"  # the user's wallet was frozen while it waited


class Reason(StrEnum):
    """Why a withdrawal that is not final is waiting (`status_reason`)."""

    CANCEL_WINDOW = "cancel_window"
    AWAITING_REVIEW = "awaiting_review"
    NEW_UPI_ID = "new_upi_id"
    PACED = "paced"
    PAUSED = "paused"
    HANDLE_PAUSED = "handle_paused"
    PREPARING = "preparing"
    SENDING = "sending"
    PROVIDER_BUSY = "provider_busy"
    PROVIDER_REFUSES_US = "provider_refuses_us"
    CONFIRMING = "confirming"
    BANK_PROCESSING = "bank_processing"
    PROVIDER_QUEUED = "provider_queued"
    RETRY_LATER = "retry_later"
    ON_HOLD = "in_review"


# It is being sent, or will be. A payout that moves among these has made no progress since the first of them.
TRYING = frozenset(
    {
        Reason.PREPARING,
        Reason.SENDING,
        Reason.PROVIDER_BUSY,
        Reason.PROVIDER_REFUSES_US,
        Reason.PACED,
    }
)
HOUR_SECONDS = 3600
DAY_SECONDS = 86_400

# Reason -> the message for the user, and within how many seconds we expect the reason to end.
# A bank may take three working days to answer (provider reference §2): five days cover any weekend.
WAITING: dict[Reason, tuple[str, int]] = {
    Reason.CANCEL_WINDOW: (
        "You can still cancel. The payment starts when the cancellation window closes.",
        60,
    ),
    Reason.AWAITING_REVIEW: (
        "An admin reviews this withdrawal before it is paid. You can still cancel.",
        DAY_SECONDS,
    ),
    Reason.NEW_UPI_ID: (
        "For your safety, the first payment to a new UPI id waits for a while. You can still cancel.",
        60,
    ),
    Reason.PACED: ("We are making many payments right now. This one is in the queue.", HOUR_SECONDS),
    Reason.PAUSED: (
        "Payments are paused. Your coins are safe, and we pay you as soon as payments resume.",
        DAY_SECONDS,
    ),
    Reason.HANDLE_PAUSED: (
        "Your UPI app's bank has problems. We pay you as soon as they are resolved.",
        DAY_SECONDS,
    ),
    Reason.PREPARING: ("We are preparing the payment.", 5 * 60),
    Reason.SENDING: ("We are sending the payment.", 5 * 60),
    Reason.PROVIDER_BUSY: ("The payment service is busy. We retry automatically.", HOUR_SECONDS),
    Reason.PROVIDER_REFUSES_US: (
        "The payment service is not available right now. Your coins are safe.",
        DAY_SECONDS,
    ),
    Reason.CONFIRMING: (
        "We are confirming with the payment service whether the payment went through.",
        2 * HOUR_SECONDS,
    ),
    Reason.BANK_PROCESSING: ("The bank is processing the payment.", 5 * DAY_SECONDS),
    Reason.PROVIDER_QUEUED: ("The payment is in the payment service's queue.", DAY_SECONDS),
    Reason.RETRY_LATER: ("The payment could not be made now. We retry it later.", 2 * HOUR_SECONDS),
    Reason.ON_HOLD: ("Our team is checking this payment.", 3 * DAY_SECONDS),
}


def status_message(reason: str | None) -> str | None:
    """Return the user's message for a `status_reason`, or None if it has none."""
    return WAITING[Reason(reason)][0] if reason and reason in set(Reason) else None


# The messages for operators, where they differ from the user's.
OPERATOR_MESSAGES: dict[Reason, str] = {
    Reason.CANCEL_WINDOW: "The user can still cancel. The payment starts when the cancel window closes.",
    Reason.AWAITING_REVIEW: "It is waiting for approval. The user can still cancel.",
    Reason.NEW_UPI_ID: "The first payment to a new UPI id waits for a while. The user can still cancel.",
    Reason.PAUSED: "Payouts are paused. It is paid as soon as they resume.",
    Reason.HANDLE_PAUSED: "Payouts to this UPI handle are paused. It is paid as soon as they resume.",
    Reason.PROVIDER_REFUSES_US: "RazorpayX does not accept our key, account or IP address. Correct that.",
    Reason.CONFIRMING: "No clear answer: it may be paid. It is sent again with the same key, then looked up.",
    Reason.ON_HOLD: "The evidence is contradictory: nothing moves until two operators decide.",
}


def operator_message(reason: str | None) -> str | None:
    """Return the operators' message for a `status_reason`, or None if it has none."""
    return (
        OPERATOR_MESSAGES.get(Reason(reason), status_message(reason))
        if reason and reason in set(Reason)
        else None
    )
