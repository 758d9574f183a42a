"""The API as an app sees it: its addresses, and the shape of its errors."""

from typing import Any

from werkzeug.test import TestResponse

WITHDRAW, HISTORY = "/api/razorpay/withdraw/", "/api/razorpay/withdraw/history/"
STATUS, CANCEL = "/api/razorpay/withdraw/status/", "/api/razorpay/withdraw/cancel/"
BATCH = "/api/razorpay/withdraw/batch/"
CREDIT, WALLET = "/api/razorpay/wallet/credit/", "/api/razorpay/wallet/"
LINES = "/api/razorpay/wallet/transactions/"
GOOD = {"user_id": "user123", "amount": 500, "upi_id": "user@okhdfcbank"}


def assert_refused(answer: TestResponse, status: int, error: str) -> dict[str, Any]:
    """The error answer, after a look at its shape."""
    body = answer.get_json()
    assert answer.status_code == status, body
    assert body["success"] is False
    assert error in body["error"], body
    assert body["details"] not in ("", body["error"]), "one more sentence"
    assert body["code"] and body["request_id"] == answer.headers["X-Request-Id"]
    return body
