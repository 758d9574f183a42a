"""A client for Coin Payouts in one file. Copy it into your app. It needs `requests`.

    payouts = CoinPayouts("http://localhost:8000", app_key)
    taken = payouts.withdraw("user123", 500, "user@okhdfcbank", idempotency_key=order.key)
    for withdrawal in payouts.follow(taken.withdrawal_id):
        print(withdrawal.status)

If a request gets no answer, the client retries it with the same idempotency key, so it runs once. Each error
says what the caller must do:

PayoutsError
├── Refused     tell the user, or correct the request; nothing was done
├── NoAccess    correct the key or the token, then retry with the same idempotency key
└── TryLater    it may have run or not: retry later with the same idempotency key
"""

import json
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

import requests

FINAL = frozenset({"completed", "failed", "cancelled"})
TIMEOUT_SECONDS = (
    3.05,
    15.0,
)  # to connect, and for the response: the API itself waits up to 6 s for its database
MAX_TRIES = 6
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 8.0  # all waits of six attempts together take at most 15 s
PATIENCE_SECONDS = 10.0  # if the server asks for a longer wait, the caller retries later
FOLLOW_SECONDS, FOLLOW_MAX_SECONDS = 0.5, 30.0
NOT_YET = frozenset({"idempotency_key_running", "limit_moved"})  # refusals that may pass on a retry


class PayoutsError(Exception):
    """An error that the caller must act on. `code` is for programs; `error` and `details` are sentences.

    `extra` has the response's other fields (`available_coins`, `min_amount`, …). `http_status` is 0 if there
    was no response. Use `request_id` to find the request in the server's log.
    """

    def __init__(self, http_status: int, told: dict[str, Any]) -> None:
        known = ("success", "error", "details", "code", "request_id")
        self.http_status = http_status
        self.error, self.details = str(told.get("error", "")), str(told.get("details", ""))
        self.code, self.request_id = str(told.get("code", "")), told.get("request_id")
        self.extra = {name: value for name, value in told.items() if name not in known}
        super().__init__(f"{self.error}: {self.details}" if self.details else self.error)


class Refused(PayoutsError):
    """Tell the user, or correct the request. Nothing was done; the same request would be refused again."""


class NoAccess(PayoutsError):
    """Correct the key or the token (401), or its scopes (403); then retry with the same idempotency key."""


class TryLater(PayoutsError):
    """Retry later with the same idempotency key: it may have run, and it does not run twice.

    `retry_after` is the number of seconds that the server asked for, or None.
    """

    retry_after: float | None = None


class _Answer:
    """The base of all typed responses. It ignores unknown fields, because the API may add some."""

    @classmethod
    def of(cls, told: dict[str, Any]) -> Self:
        """Return the response's `data`, typed."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # each is a dataclass
        return cls(**{name: _typed(name, value) for name, value in told.items() if name in known})


@dataclass(frozen=True, slots=True)
class Taken(_Answer):
    """A withdrawal that was requested: the coins are taken, the rupees will follow."""

    withdrawal_id: str
    amount: int
    rupees_amount: Decimal
    upi_id: str
    status: str
    remaining_coins: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Withdrawal(_Answer):
    """The current state of a withdrawal. Show the user `status_message`, `expected_by`, `failure_reason`."""

    id: str
    amount: int
    rupees_amount: Decimal
    upi_id: str
    status: str
    created_at: datetime
    completed_at: datetime | None = None
    status_reason: str | None = None
    status_message: str | None = None
    expected_by: datetime | None = None
    failure_reason: str | None = None
    utr: str | None = None
    admin_notes: str | None = None
    user_id: str | None = None

    @property
    def is_final(self) -> bool:
        """True if it has ended. (A bank may return the money days after completion: then it is failed.)"""
        return self.status in FINAL


@dataclass(frozen=True, slots=True)
class Cancelled(_Answer):
    """A withdrawal that was cancelled."""

    withdrawal_id: str
    status: str
    refunded_coins: int
    remaining_coins: int


@dataclass(frozen=True, slots=True)
class Credited(_Answer):
    """Coins that were credited, now or earlier with the same reference."""

    user_id: str
    coins: int
    reference: str
    transaction_id: int
    available_coins: int
    lifetime_coins: int


@dataclass(frozen=True, slots=True)
class Wallet(_Answer):
    """A user's wallet."""

    user_id: str
    available_coins: int
    lifetime_coins: int
    created_at: datetime
    name: str | None = None
    email: str | None = None
    phone: str | None = None


def new_key() -> str:
    """Return a new idempotency key. Store it with the user's request before the first call."""
    return str(uuid.uuid4())


class _Bearer(requests.auth.AuthBase):
    """Sends the key even if a .netrc has a password for this host, which would replace a plain header."""

    def __init__(self, key: str) -> None:
        self._value = f"Bearer {key}"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        requests.utils.check_header_validity(("Authorization", self._value))
        request.headers["Authorization"] = self._value
        return request


class CoinPayouts:
    """The API at `url`, with an app's key or a user's token. Use one instance per thread.

    Every method raises Refused, NoAccess and TryLater, and ValueError for a request that can never be sent: a
    key with a line break, a URL without `https://`.
    """

    def __init__(self, url: str, key: str, *, max_tries: int = MAX_TRIES) -> None:
        self._url, self._max_tries = f"{url.rstrip('/')}/api/razorpay/", max_tries
        self._http = requests.Session()
        self._http.auth = _Bearer(key)

    def withdraw(self, user_id: str, amount: int, upi_id: str, *, idempotency_key: str) -> Taken:
        """Request a withdrawal to a UPI id. A repeated key returns the same withdrawal, not a second one."""
        if not idempotency_key:  # without a key, a retry after a lost response would pay again
            raise ValueError("withdraw needs an idempotency_key: create it with new_key() and store it")
        body = {"user_id": user_id, "amount": amount, "upi_id": upi_id}
        return Taken.of(self._post("withdraw/", body, idempotency_key)["data"])

    def cancel(self, withdrawal_id: str, reason: str | None = None) -> Cancelled:
        """Cancel a pending withdrawal; the coins come back."""
        body = {"withdrawal_id": withdrawal_id} | ({"reason": reason} if reason else {})
        return Cancelled.of(self._post("withdraw/cancel/", body, new_key())["data"])

    def status(self, withdrawal_id: str) -> Withdrawal:
        """Return one withdrawal."""
        return Withdrawal.of(self._get("withdraw/status/", withdrawal_id=withdrawal_id)["data"])

    def history(
        self, user_id: str, *, status: str | None = None, page_size: int = 100
    ) -> Iterator[Withdrawal]:
        """Yield all withdrawals of a user, newest first, page by page."""
        cursor = None
        while True:
            query = {"user_id": user_id, "status": status, "limit": page_size, "cursor": cursor}
            page = self._get("withdraw/history/", **query)
            yield from map(Withdrawal.of, page["data"])
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def follow(self, withdrawal_id: str, *, seconds: float = 300) -> Iterator[Withdrawal]:
        """Yield the withdrawal now and after each change, until it ends or `seconds` have passed.

        For scripts. On a server use webhooks, because a bank may take days.
        """
        until, wait, last = time.monotonic() + seconds, FOLLOW_SECONDS, None
        while True:
            now = self.status(withdrawal_id)
            if last is None or (now.status, now.status_reason) != (last.status, last.status_reason):
                yield now
                last, wait = now, FOLLOW_SECONDS
            if now.is_final or time.monotonic() + wait > until:
                return
            time.sleep(wait)
            wait = min(wait * 1.5, FOLLOW_MAX_SECONDS)

    def credit(self, user_id: str, coins: int, *, reference: str, reason: str | None = None) -> Credited:
        """Credit coins, once per reference, which says what they are for, such as `quiz-42`."""
        body = {"user_id": user_id, "coins": coins, "reference": reference}
        return Credited.of(
            self._post("wallet/credit/", body | ({"reason": reason} if reason else {}))["data"]
        )

    def wallet(self, user_id: str) -> Wallet:
        """Return a user's wallet."""
        return Wallet.of(self._get("wallet/", user_id=user_id)["data"])

    # --- HTTP

    def _get(self, path: str, **query: Any) -> dict[str, Any]:
        return self._ask("GET", path, params=query)

    def _post(self, path: str, body: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        return self._ask("POST", path, json=body, headers={"Idempotency-Key": key} if key else {})

    def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """Send the request; without an answer, retry it unchanged, with the same idempotency key."""
        tries = 0
        while True:
            try:
                return self._once(method, path, request)
            except TryLater as error:
                tries += 1
                wait = _wait(tries, error.retry_after)
                if tries == self._max_tries or wait > PATIENCE_SECONDS:
                    raise
            time.sleep(wait)

    def _once(self, method: str, path: str, request: dict[str, Any]) -> dict[str, Any]:
        # A redirect would turn a POST into a GET and send the key to another server.
        careful: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "allow_redirects": False}
        try:
            answer = self._http.request(method, self._url + path, **request, **careful)
        except requests.RequestException as error:
            if isinstance(error, ValueError) and error.request is None:
                raise  # it was not sent and can never be sent
            words = {"error": "No answer", "details": type(error).__name__, "code": "no_answer"}
            raise TryLater(0, words) from error
        told = _parsed(answer.text)
        if answer.ok and told.get("success") is True:
            return told
        raise _error(answer, told)


def _wait(tries: int, retry_after: float | None) -> float:
    """Return the wait: doubled each time, with jitter so that clients do not all return at once."""
    longest = min(FIRST_WAIT_SECONDS * 2 ** (tries - 1), LONGEST_WAIT_SECONDS)
    chance = random.uniform(longest / 2, longest)  # noqa: S311  # no secret
    return chance if retry_after is None else retry_after + chance / 4


def _error(answer: requests.Response, told: dict[str, Any]) -> PayoutsError:
    status = answer.status_code
    if told.get("success") is not False or "code" not in told:
        # It is not from the API: a proxy answered, or a network's sign-in page.
        words = {"error": "Not a response from the API", "details": f"HTTP {status}", "code": "not_ours"}
        return TryLater(status, words)
    if status in (401, 403):
        return NoAccess(status, told)
    if status == 429 or status >= 500 or told["code"] in NOT_YET:
        error = TryLater(status, told)
        error.retry_after = _seconds(answer.headers.get("Retry-After"))
        return error
    return Refused(status, told)


def _parsed(text: str) -> dict[str, Any]:
    try:
        told = json.loads(text, parse_float=Decimal)  # rupees are exact
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdecimal() else None


def _typed(name: str, value: Any) -> Any:
    if name in ("created_at", "completed_at", "expected_by"):
        return datetime.fromisoformat(value) if value else None
    return Decimal(value) if name == "rupees_amount" else value
