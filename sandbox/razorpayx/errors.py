"""The provider's error envelope (`MD:errors.md`, `MD:errors/x.md`) and its errors by name."""

from __future__ import annotations

import itertools
import json
from typing import Any

# `step` is null, "null" or "NA", depending on the page (`MD:errors.md`). Clients must accept all, so all
# occur.
_steps = itertools.cycle((None, "null", "NA"))

NOT_FOUND = "The requested URL was not found on the server."
TROUBLE = "We are facing some trouble completing your request at the moment. Please try again shortly."
IN_FLIGHT = "Another request with the same idempotency key is still in progress."


class ApiError(Exception):
    """An error in the provider's words, which becomes the HTTP response."""

    def __init__(
        self,
        description: str,
        *,
        status: int = 400,
        code: str = "BAD_REQUEST_ERROR",
        field: str | None = None,
        reason: str | None = "input_validation_failed",
        source: str | None = "business",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(description)
        self.status = status
        self.headers = headers or {}
        self.error: dict[str, Any] = {
            "code": code,
            "description": description,
            "source": source,
            "step": next(_steps),
            "reason": reason,
            "metadata": {},
            "field": field,
        }

    def body(self) -> bytes:
        """The envelope as bytes."""
        return json.dumps({"error": self.error}).encode()


def required(field: str) -> ApiError:
    """`The <field> field is required` (`MD:errors/x.md`)."""
    return ApiError(f"The {field.replace('_', ' ').replace('.', ' ')} field is required", field=field)


def url_not_found() -> ApiError:
    """A wrong URL, a wrong method, or a feature that is not enabled: 400, not 404 (`MD:errors/common.md`)."""
    return ApiError(NOT_FOUND, source="NA", reason="NA")


def unauthorized() -> ApiError:
    """`MD:api/x/account-validation/balance-fetch.md`."""
    return ApiError("Authentication failed", status=401, reason="authentication_failed", source="NA")


def throttled(retry_after_seconds: int | None = None) -> ApiError:
    """429 (`MD:api/x.md`); neither its body nor Retry-After is documented."""
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    return ApiError(
        "Request failed. Please try after sometime.", status=429, reason=None, source=None, headers=headers
    )


def server_error() -> ApiError:
    """`MD:errors/x.md`."""
    return ApiError(TROUBLE, status=500, code="SERVER_ERROR", reason="server_error", source="internal")


def gateway_timeout() -> ApiError:
    """504 with an envelope (`MD:api/x/account-validation/balance-fetch.md` lists 502, 503 and 504)."""
    return ApiError(TROUBLE, status=504, code="GATEWAY_ERROR", reason=None, source="gateway")


def in_flight() -> ApiError:
    """409, as in the refund API (`MD:api/refunds/normal-refunds-idempotent.md`); not documented
    for payouts.
    """
    return ApiError(IN_FLIGHT, status=409, reason=None)


def other_body(status: int) -> ApiError:
    """Same key, different body (`MD:errors/x.md`)."""
    return ApiError(
        "Different request body sent for the same Idempotency Header",
        status=status,
        field="X-Payout-Idempotency",
        reason=None,
    )


def insufficient_funds() -> ApiError:
    """`MD:api/x/error-codes.md` (reason); the text is the community's."""
    return ApiError(
        "Your account does not have enough balance to carry out the payout operation.",
        reason="insufficient_funds",
    )
