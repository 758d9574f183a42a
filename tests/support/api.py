"""The API's paths, and the format of its errors."""

from typing import Any

from werkzeug.test import TestResponse

WITHDRAW = "/api/razorpay/withdraw/"
HISTORY = "/api/razorpay/withdraw/history/"
STATUS = "/api/razorpay/withdraw/status/"
CANCEL = "/api/razorpay/withdraw/cancel/"
BATCH = "/api/razorpay/withdraw/batch/"
CREDIT = "/api/razorpay/wallet/credit/"
WALLET = "/api/razorpay/wallet/"
LINES = "/api/razorpay/wallet/transactions/"
GOOD = {"user_id": "user123", "amount": 500, "upi_id": "user@okhdfcbank"}


def assert_refused(answer: TestResponse, status: int, error: str) -> dict[str, Any]:
    """Check the format of an error response; returns its body."""
    body = answer.get_json()
    assert answer.status_code == status, body
    assert body["success"] is False
    assert error in body["error"], body
    assert body["details"] not in ("", body["error"]), "details must add to the error"
    assert body["code"] and body["request_id"] == answer.headers["X-Request-Id"]
    return body
