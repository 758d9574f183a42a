"""The tables, in the order money flows. The rules stand in the migrations too; a test compares the two."""

from shared.models.access import AppKey, IdempotentRequest
from shared.models.base import Base, one_of
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
from shared.models.proof import DayCertificate, SealBlock, SealLeaf
from shared.models.provider import Destination, PayoutAttempt, WebhookEvent
from shared.models.reconciliation import ReconciliationRun

__all__ = [
    "AppKey",
    "Base",
    "CoinTransaction",
    "DayCertificate",
    "Delivery",
    "Destination",
    "Endpoint",
    "ExceptionRecord",
    "IdempotentRequest",
    "Pace",
    "PayoutAttempt",
    "ProviderBalance",
    "ReconciliationRun",
    "Resolution",
    "SealBlock",
    "SealLeaf",
    "SpotCheck",
    "Switch",
    "Wallet",
    "WebhookEvent",
    "Withdrawal",
    "WithdrawalEvent",
    "one_of",
]
