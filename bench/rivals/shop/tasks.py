"""The Celery tasks: pay a withdrawal, with a transaction before and one after the call; apply a webhook."""

import json
import logging
import os
import threading
from typing import Any

import requests
from celery import Celery
from django.conf import settings
from django.db import transaction
from django.utils import timezone

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.rivals.shop.settings")

CALL_SECONDS = 20

celery = Celery("rival")
celery.config_from_object("django.conf:settings", namespace="CELERY")
celery.conf["CELERY_DB_REUSE_MAX"] = 10**9  # by default, each task opens a new connection: 20 ms of CPU more

log = logging.getLogger(__name__)
_local = threading.local()


def call(path: str, body: bytes, **headers: str) -> dict[str, Any]:
    """POST to the provider on this thread's connection; returns the answer. Raises RequestException."""
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
        _local.session.auth = settings.PROVIDER_AUTH
    reply = _local.session.post(
        f"{settings.PROVIDER_URL}{path}",
        data=body,
        headers={"Content-Type": "application/json", **headers},
        timeout=CALL_SECONDS,
    )
    reply.raise_for_status()
    return dict(reply.json())


@celery.task(name="rival.pay", autoretry_for=(requests.RequestException,), retry_backoff=5, max_retries=10)
def pay(withdrawal_id: str) -> None:
    """Pay one withdrawal. A repeated call sends the same bytes under the same key."""
    from bench.rivals.shop.models import Attempt, Event, Withdrawal

    withdrawal = Withdrawal.objects.get(pk=withdrawal_id)
    fund_account_id = find_or_create_payee(withdrawal.wallet_id, withdrawal.upi_id)
    with transaction.atomic():
        withdrawal = Withdrawal.objects.select_for_update().get(pk=withdrawal_id)
        attempt = Attempt.objects.filter(withdrawal=withdrawal).first()
        if withdrawal.status not in ("pending", "processing") or (attempt and attempt.state != "sending"):
            return
        if attempt is None:
            attempt = Attempt(withdrawal=withdrawal)
            attempt.request_body = payout_body(str(attempt.id), withdrawal.amount_paise, fund_account_id)
            attempt.save(force_insert=True)
            withdrawal.status = "processing"
            withdrawal.save(update_fields=["status", "updated_at"])
            Event.objects.create(
                withdrawal=withdrawal,
                from_status="pending",
                to_status="processing",
                actor="worker",
                reason="claimed",
                data={"attempt_id": str(attempt.id)},
            )
    payout = call("/v1/payouts", bytes(attempt.request_body), **{"X-Payout-Idempotency": str(attempt.id)})
    with transaction.atomic():
        attempt = Attempt.objects.select_for_update().get(pk=attempt.id)
        if attempt.state != "sending":
            return  # its webhook came first
        attempt.payout_id = payout["id"]
        attempt.state = "accepted"
        attempt.save(update_fields=["payout_id", "state", "updated_at"])
        Event.objects.create(
            withdrawal=withdrawal,
            from_status="processing",
            to_status="processing",
            actor="reply",
            reason=f"payout_{payout['status']}",
            data={"payout_id": payout["id"]},
        )
    log.info("payout sent id=%s payout=%s", withdrawal_id, payout["id"])


def find_or_create_payee(user_id: str, upi_id: str) -> str:
    """Return the payee's fund account; create it at the provider for the first payment."""
    from bench.rivals.shop.models import Destination

    destination = Destination.objects.filter(wallet_id=user_id, upi_id=upi_id).first()
    if destination is None:
        contact = {"name": user_id[:50], "type": "customer", "reference_id": user_id[:40]}
        contact_id = call("/v1/contacts", json.dumps(contact).encode())["id"]
        account = {"contact_id": contact_id, "account_type": "vpa", "vpa": {"address": upi_id}}
        fund_account_id = call("/v1/fund_accounts", json.dumps(account).encode())["id"]
        destination, _ = Destination.objects.get_or_create(
            wallet_id=user_id,
            upi_id=upi_id,
            defaults={"contact_id": contact_id, "fund_account_id": fund_account_id},
        )
    return str(destination.fund_account_id)


def payout_body(reference_id: str, amount_paise: int, fund_account_id: str) -> bytes:
    """Return the body of the provider's create."""
    return json.dumps(
        {
            "account_number": settings.PROVIDER_ACCOUNT,
            "fund_account_id": fund_account_id,
            "amount": amount_paise,
            "currency": "INR",
            "mode": "UPI",
            "purpose": "payout",
            "queue_if_low_balance": True,
            "reference_id": reference_id,
        }
    ).encode()


@celery.task(name="rival.apply_webhook")
def apply_webhook(event_id: str) -> None:
    """Apply one stored webhook, in one transaction."""
    from bench.rivals.shop.models import WebhookEvent

    with transaction.atomic():
        stored = WebhookEvent.objects.select_for_update().get(pk=event_id)
        if stored.applied_at is not None:
            return
        event = json.loads(bytes(stored.body))
        if event.get("event", "").startswith("payout."):
            apply_payout(event["payload"]["payout"]["entity"])
        stored.applied_at = timezone.now()
        stored.save(update_fields=["applied_at"])


def apply_payout(payout: dict[str, Any]) -> None:
    """Apply what the provider reports about a payout."""
    from bench.rivals.shop.models import Attempt, Withdrawal

    attempt = Attempt.objects.filter(pk=payout["reference_id"]).first()
    if attempt is None:
        return
    withdrawal = Withdrawal.objects.select_for_update().get(pk=attempt.withdrawal_id)
    attempt = Attempt.objects.select_for_update().get(pk=attempt.id)
    if withdrawal.status != "processing":
        return
    if payout["status"] == "processed":
        _complete(withdrawal, attempt, payout)
    elif payout["status"] in ("failed", "reversed", "rejected"):
        _refund(withdrawal, attempt, payout)


def _complete(withdrawal: Any, attempt: Any, payout: dict[str, Any]) -> None:
    attempt.utr = withdrawal.utr = payout["utr"]
    _end(withdrawal, attempt, payout, "completed", "paid")


def _refund(withdrawal: Any, attempt: Any, payout: dict[str, Any]) -> None:
    from bench.rivals.shop.models import CoinTransaction, Wallet

    withdrawal.failure_reason = payout["status"]
    _end(withdrawal, attempt, payout, "failed", payout["status"])
    wallet = Wallet.objects.select_for_update().get(pk=withdrawal.wallet_id)
    wallet.balance_coins += withdrawal.coins_amount
    wallet.save(update_fields=["balance_coins"])
    CoinTransaction.objects.create(
        wallet=wallet,
        withdrawal=withdrawal,
        kind="refund",
        coins=withdrawal.coins_amount,
        balance_after=wallet.balance_coins,
        actor="webhook",
    )


def _end(withdrawal: Any, attempt: Any, payout: dict[str, Any], status: str, state: str) -> None:
    from bench.rivals.shop.models import Event

    attempt.payout_id = payout["id"]
    attempt.state = state
    attempt.save(update_fields=["payout_id", "state", "utr", "updated_at"])
    withdrawal.status = status
    withdrawal.completed_at = timezone.now() if status == "completed" else None
    withdrawal.save(update_fields=["status", "utr", "failure_reason", "completed_at", "updated_at"])
    Event.objects.create(
        withdrawal=withdrawal,
        from_status="processing",
        to_status=status,
        actor="webhook",
        reason=state,
        data={"payout_id": payout["id"]},
    )
