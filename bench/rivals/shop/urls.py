"""The paths, which are ours."""

from django.urls import path

from bench.rivals.shop.api import WebhookView, WithdrawView, ready

urlpatterns = [
    path("api/razorpay/withdraw/", WithdrawView.as_view()),
    path("api/razorpay/webhook/", WebhookView.as_view()),
    path("readyz", ready),
]
