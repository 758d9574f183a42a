"""The tables. The migrations define them too, with all their constraints; a test compares the two."""

from shared.models.access import AppKey, IdempotentRequest
from shared.models.base import Base, one_of
from shared.models.controls import Adjustment, Block, BlockRemoval, Review
from shared.models.mail import Email, MailedRecord, MailSubscriber
from shared.models.money import CoinTransaction, Wallet, Withdrawal, WithdrawalEvent
from shared.models.notifications import Delivery, Endpoint
from shared.models.operations import (
    CircuitBreaker,
    ExceptionRecord,
    ProviderBalance,
    RateLimit,
    Resolution,
    SpotCheck,
)
from shared.models.operators import (
    AdminProposal,
    AuditEntry,
    Invitation,
    Operator,
    OperatorToken,
    RecoveryCode,
)
from shared.models.proof import DayCertificate, Evidence, SealBlock, SealLeaf
from shared.models.provider import Destination, Hint, PayoutAttempt, WebhookEvent
from shared.models.reconciliation import ReconciliationRun
from shared.models.totals import CountedDay, DayTotal

__all__ = [
    "Adjustment",
    "AdminProposal",
    "AppKey",
    "AuditEntry",
    "Base",
    "Block",
    "BlockRemoval",
    "CircuitBreaker",
    "CoinTransaction",
    "CountedDay",
    "DayCertificate",
    "DayTotal",
    "Delivery",
    "Destination",
    "Email",
    "Endpoint",
    "Evidence",
    "ExceptionRecord",
    "Hint",
    "IdempotentRequest",
    "Invitation",
    "MailSubscriber",
    "MailedRecord",
    "Operator",
    "OperatorToken",
    "PayoutAttempt",
    "ProviderBalance",
    "RateLimit",
    "ReconciliationRun",
    "RecoveryCode",
    "Resolution",
    "Review",
    "SealBlock",
    "SealLeaf",
    "SpotCheck",
    "Wallet",
    "WebhookEvent",
    "Withdrawal",
    "WithdrawalEvent",
    "one_of",
]
