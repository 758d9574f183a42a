"""The tables, in the order money flows. The rules stand in the migrations too; a test compares the two."""

from shared.models.access import AppKey, IdempotentRequest
from shared.models.base import Base, one_of
from shared.models.mail import Email, MailListener, ToldRecord
from shared.models.money import CoinTransaction, Wallet, Withdrawal, WithdrawalEvent
from shared.models.notifications import Delivery, Endpoint
from shared.models.operations import (
    ExceptionRecord,
    Pace,
    ProviderBalance,
    Resolution,
    SpotCheck,
    Switch,
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
from shared.models.rulings import Adjustment, Block, BlockRemoval, Review
from shared.models.totals import CountedDay, DayTotal

__all__ = [
    "Adjustment",
    "AdminProposal",
    "AppKey",
    "AuditEntry",
    "Base",
    "Block",
    "BlockRemoval",
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
    "MailListener",
    "Operator",
    "OperatorToken",
    "Pace",
    "PayoutAttempt",
    "ProviderBalance",
    "ReconciliationRun",
    "RecoveryCode",
    "Resolution",
    "Review",
    "SealBlock",
    "SealLeaf",
    "SpotCheck",
    "Switch",
    "ToldRecord",
    "Wallet",
    "WebhookEvent",
    "Withdrawal",
    "WithdrawalEvent",
    "one_of",
]
