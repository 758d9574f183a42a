"""The states of a withdrawal and of an attempt, and the moves between them, as data."""

from enum import StrEnum


class Status(StrEnum):
    """A withdrawal's status: the five words that clients see (CONTRACT.md)."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


# Everything that may happen to a withdrawal. What is not here is refused by `journey.move`.
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
    """How far one try at the provider is."""

    SENDING = "sending"  # claimed; a worker is on the wire, or died there
    THROTTLED = "throttled"  # the provider did not look at it: same key, same body, later
    UNKNOWN = "unknown"  # no answer that we understand: it may be paid
    ACCEPTED = "accepted"  # the provider has it and will say how it ends
    PAID = "paid"
    REFUSED = "refused"  # the provider never took it
    FAILED = "failed"  # the provider took it and did not pay
    REVERSED = "reversed"  # the money came back


# A payout that is one of these may exist, or come to exist, at the provider.
# The database allows one such attempt per withdrawal, and no refund beside it.
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


# Why a withdrawal fails although no payment did: people did not approve it, or gave its coins back.
BY_PEOPLE = frozenset({"rejected_in_review", "resolved"})


class Decision(StrEnum):
    """What two people can decide about a withdrawal that the system cannot end (`withdrawals.propose`)."""

    GO_ON = "go_on"  # it is explained: the system takes it up again where it stands
    PAID = "paid"  # the rupees have arrived, whatever the provider says
    REFUND = "refund"  # they have not and will not: the coins go back
    TAKE_BACK = "take_back"  # the coins are back, and the rupees arrived all the same: the coins go again
    GIVE_BACK = "give_back"  # the coins were taken back, and the rupees did not stay: they come back again


class PaidVia(StrEnum):
    """By which way the rupees of a withdrawal went (`withdrawals.paid_via`)."""

    RAZORPAYX = "razorpayx"
    UPI = "upi"
    IMPS = "imps"
    NEFT = "neft"
    RTGS = "rtgs"
    UNKNOWN = "unknown"  # paid outside before people had to say how

    @property
    def label(self) -> str:
        """As people write it."""
        return {"razorpayx": "RazorpayX", "unknown": "an unknown way"}.get(self, self.upper())


class Awaits(StrEnum):
    """Why a withdrawal awaits a person's approval before anything is sent (`withdrawals.approve_review`)."""

    AMOUNT = "amount"  # above REVIEW_ABOVE_COINS
    EVERY = "every"  # REVIEW_ALL
    UPI_BLOCKED = "upi_blocked"  # the payee came onto the block list while it waited
    WALLET_FROZEN = "wallet_frozen"  # its user's wallet was frozen while it waited


class Reason(StrEnum):
    """Why a withdrawal that is not final waits (`status_reason`)."""

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
    IN_REVIEW = "in_review"


# It is being sent, or will be: a payout that goes round among these is no further than at the first of them.
TRYING = frozenset(
    {
        Reason.PREPARING,
        Reason.SENDING,
        Reason.PROVIDER_BUSY,
        Reason.PROVIDER_REFUSES_US,
        Reason.PACED,
    }
)
HOUR, DAY = 3600, 86_400

# Reason -> the sentence for the user, and within how many seconds we expect to be past it.
# A bank that cannot say has three working days (razorpayx.md §2): five days cover any weekend.
WAITING: dict[Reason, tuple[str, int]] = {
    Reason.CANCEL_WINDOW: ("You can still cancel; the payment starts after that.", 60),
    Reason.AWAITING_REVIEW: (
        "An admin looks at this withdrawal before it is paid; you can still cancel.",
        DAY,
    ),
    Reason.NEW_UPI_ID: (
        "The first payment to a UPI id waits for a while, for your safety; you can cancel.",
        60,
    ),
    Reason.PACED: ("Many payments are being made; this one waits for its turn.", HOUR),
    Reason.PAUSED: ("Payments are paused; your coins are safe and it is paid as soon as they go on.", DAY),
    Reason.HANDLE_PAUSED: ("Your UPI app's bank has problems; it is paid as soon as they are over.", DAY),
    Reason.PREPARING: ("The payment is being prepared.", 5 * 60),
    Reason.SENDING: ("The payment is being sent.", 5 * 60),
    Reason.PROVIDER_BUSY: ("The payment service is busy; the payment is sent again by itself.", HOUR),
    Reason.PROVIDER_REFUSES_US: ("The payment service is not available to us; your coins are safe.", DAY),
    Reason.CONFIRMING: (
        "We are confirming with the payment service whether the payment went through.",
        2 * HOUR,
    ),
    Reason.BANK_PROCESSING: ("The bank is processing the payment.", 5 * DAY),
    Reason.PROVIDER_QUEUED: ("The payment waits in the payment service's queue.", DAY),
    Reason.RETRY_LATER: ("The payment could not be made now; it is tried again later.", 2 * HOUR),
    Reason.IN_REVIEW: ("A person is looking at this payment.", 3 * DAY),
}


def sentence(reason: str | None) -> str | None:
    """The words for a `status_reason`, or None when there is none to tell."""
    return WAITING[Reason(reason)][0] if reason and reason in set(Reason) else None


# The same for operators, where the user's words are not theirs.
TO_OPERATORS: dict[Reason, str] = {
    Reason.CANCEL_WINDOW: "The user can still cancel; the payment starts after that.",
    Reason.AWAITING_REVIEW: "It waits for your approval, or a colleague's; the user can still cancel.",
    Reason.NEW_UPI_ID: "The first payment to a UPI id waits for a while; the user can cancel.",
    Reason.PAUSED: "Payouts are paused; it is paid as soon as they go on.",
    Reason.HANDLE_PAUSED: "Payouts to this UPI handle are paused; it is paid as soon as they go on.",
    Reason.PROVIDER_REFUSES_US: "RazorpayX does not accept our key, account or address; mend that.",
    Reason.CONFIRMING: "No clear answer: it may be paid. It is sent again with the same key, then looked up.",
    Reason.IN_REVIEW: "Something contradicts itself: nothing moves until two people decide.",
}


def for_operators(reason: str | None) -> str | None:
    """The words for a `status_reason` as operators read them, or None when there is none to tell."""
    return TO_OPERATORS.get(Reason(reason), sentence(reason)) if reason and reason in set(Reason) else None
