"""The tables, named as ours: the same facts, without the rules that ours keeps in the database."""

import uuid
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class Wallet(models.Model):
    """A user's wallet."""

    user_id = models.CharField(max_length=500, primary_key=True)
    balance_coins = models.BigIntegerField(default=0)
    lifetime_coins = models.BigIntegerField(default=0)

    class Meta:
        """The table."""

        db_table = "wallets"


class Destination(models.Model):
    """A payee as the provider knows them."""

    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, db_column="user_id")
    upi_id = models.CharField(max_length=100)
    contact_id = models.CharField(max_length=50)
    fund_account_id = models.CharField(max_length=50)

    class Meta:
        """One for each payee."""

        db_table = "destinations"
        constraints: ClassVar = [models.UniqueConstraint(fields=["wallet", "upi_id"], name="one_destination")]


class Withdrawal(models.Model):
    """A request to turn coins into rupees."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, db_column="user_id")
    coins_amount = models.BigIntegerField()
    amount_paise = models.BigIntegerField()
    upi_id = models.CharField(max_length=100)
    status = models.CharField(max_length=20, default="pending", db_index=True)
    failure_reason = models.CharField(max_length=100, null=True)
    utr = models.CharField(max_length=50, null=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    updated_at = models.DateTimeField(auto_now=True)
    completed_at = models.DateTimeField(null=True)

    class Meta:
        """The table."""

        db_table = "withdrawals"


class CoinTransaction(models.Model):
    """A line of the journal."""

    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, db_column="user_id")
    withdrawal = models.ForeignKey(Withdrawal, on_delete=models.PROTECT, null=True)
    kind = models.CharField(max_length=20)
    coins = models.BigIntegerField()
    balance_after = models.BigIntegerField()
    reference = models.CharField(max_length=200, null=True)
    actor = models.CharField(max_length=50)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        """The table."""

        db_table = "coin_transactions"


class Attempt(models.Model):
    """A payout at the provider."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    withdrawal = models.OneToOneField(Withdrawal, on_delete=models.PROTECT)
    request_body = models.BinaryField()
    state = models.CharField(max_length=20, default="sending")
    payout_id = models.CharField(max_length=50, null=True, unique=True)
    utr = models.CharField(max_length=50, null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        """The table."""

        db_table = "payout_attempts"


class Event(models.Model):
    """What happened to a withdrawal."""

    withdrawal = models.ForeignKey(Withdrawal, on_delete=models.PROTECT)
    from_status = models.CharField(max_length=20, null=True)
    to_status = models.CharField(max_length=20)
    actor = models.CharField(max_length=50)
    reason = models.CharField(max_length=100)
    data = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        """The table."""

        db_table = "withdrawal_events"


class WebhookEvent(models.Model):
    """A webhook, stored once."""

    event_id = models.CharField(max_length=200, primary_key=True)
    body = models.BinaryField()
    received_at = models.DateTimeField(auto_now_add=True)
    applied_at = models.DateTimeField(null=True)

    class Meta:
        """The table."""

        db_table = "webhook_events"
