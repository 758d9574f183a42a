"""The endpoints: request a withdrawal, receive a webhook."""

import hashlib
import hmac
import logging

from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpResponse
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from bench.rivals.shop.limits import KeyThrottle, UserThrottle
from bench.rivals.shop.models import CoinTransaction, Event, Wallet, WebhookEvent, Withdrawal
from bench.rivals.shop.tasks import apply_webhook, pay

COIN_VALUE_PAISE = 10

log = logging.getLogger(__name__)


class WithdrawSerializer(serializers.Serializer):
    """The body of a request."""

    user_id = serializers.CharField(max_length=500)
    amount = serializers.IntegerField(min_value=100, max_value=100_000)
    upi_id = serializers.RegexField(r"^[A-Za-z0-9._-]{2,}@[A-Za-z0-9]{2,}$", max_length=100)


class WithdrawView(APIView):
    """Request a withdrawal."""

    throttle_classes = (KeyThrottle, UserThrottle) if settings.LIMITS == "on" else ()

    def post(self, request: Request) -> Response:
        """Debit the coins and create the withdrawal."""
        serializer = WithdrawSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        data = serializer.validated_data
        with transaction.atomic():
            wallet = Wallet.objects.select_for_update().filter(pk=data["user_id"]).first()
            if wallet is None or wallet.balance_coins < data["amount"]:
                return Response({"success": False, "error": "Insufficient coin balance"}, status=400)
            wallet.balance_coins -= data["amount"]
            wallet.save(update_fields=["balance_coins"])
            withdrawal = Withdrawal.objects.create(
                wallet=wallet,
                coins_amount=data["amount"],
                amount_paise=data["amount"] * COIN_VALUE_PAISE,
                upi_id=data["upi_id"],
            )
            CoinTransaction.objects.create(
                wallet=wallet,
                withdrawal=withdrawal,
                kind="withdrawal",
                coins=-data["amount"],
                balance_after=wallet.balance_coins,
                actor="app",
            )
            Event.objects.create(withdrawal=withdrawal, to_status="pending", actor="app", reason="requested")
        pay.apply_async([str(withdrawal.id)], countdown=settings.CANCEL_WINDOW_SECONDS or None)
        log.info("withdrawal created id=%s user=%s", withdrawal.id, wallet.user_id)
        body = {
            "withdrawal_id": str(withdrawal.id),
            "amount": withdrawal.coins_amount,
            "rupees_amount": withdrawal.amount_paise / 100,
            "upi_id": withdrawal.upi_id,
            "status": withdrawal.status,
            "remaining_coins": wallet.balance_coins,
            "created_at": withdrawal.created_at.isoformat(),
        }
        return Response({"success": True, "data": body}, status=status.HTTP_201_CREATED)


class WebhookView(APIView):
    """Receive a webhook of the provider: verify it, store it once, apply it later."""

    authentication_classes = ()
    throttle_classes = ()

    def post(self, request: Request) -> Response:
        """Return 200 as soon as it is stored."""
        body = request.body
        signature = hmac.new(settings.WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature, request.headers.get("X-Razorpay-Signature", "")):
            return Response({"success": False}, status=400)
        event_id = request.headers["X-Razorpay-Event-Id"]
        try:
            with transaction.atomic():
                WebhookEvent.objects.create(event_id=event_id, body=body)
        except IntegrityError:
            return Response({"success": True})
        apply_webhook.delay(event_id)
        log.info("webhook received id=%s", event_id)
        return Response({"success": True})


def ready(_request: object) -> HttpResponse:
    """Answer that the process runs."""
    return HttpResponse("ok")
