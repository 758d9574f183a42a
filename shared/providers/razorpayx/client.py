"""The client: the official razorpay SDK, wrapped once. Only the worker may import it.

The SDK has no payout resource and no timeout, loses the HTTP status, follows redirects, prints to stdout and
trusts a list of certificates from 2015 (razorpayx.md §7). So we give it our own session, which takes each
response before the SDK reads it, and call it through its generic request method.
"""

import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from time import perf_counter
from typing import Any

import certifi
import razorpay

from shared.providers import rate_limit
from shared.providers.answers import Answer, Found, NotAccepted, Prepared, Throttled, Unknown
from shared.providers.razorpayx import answers, bodies, pages
from shared.providers.razorpayx.answers import Reply
from shared.providers.razorpayx.listing import Listing
from shared.providers.razorpayx.polls import poll_many
from shared.providers.razorpayx.provider import RazorpayX
from shared.providers.razorpayx.wire import Answered, NoReply, Wire
from shared.providers.steps import LookUp, Poll, Prepare, Send, Step
from shared.settings import Settings
from shared.telemetry import metrics

TOO_MANY_REQUESTS = 429
SDK_VERSION = version("razorpay")


class _Sdk(razorpay.Client):  # type: ignore[misc]
    def _get_version(self) -> str:
        return SDK_VERSION  # the SDK reads it from the disk for each call


class RazorpayXClient:
    """Calls RazorpayX within the rate limit (`rate_limit.py`).

    Every method returns an answer; network errors never raise. Raises Unavailable if the database cannot
    assign a slot.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._local = threading.local()  # a session per thread: requests does not promise thread safety

    def perform(self, step: Step) -> Answer:
        """Perform the step and return the answer."""
        match step:
            case Prepare():
                return self.prepare(step)
            case Send():
                return self.send(step)
            case LookUp():
                return self.look_up(step)
            case Poll():
                return self.poll(step)

    def prepare(self, step: Prepare) -> Prepared | NotAccepted:
        """Create the contact and its fund account. The same fields return the existing ones."""
        contact_id = self._create(
            "contact", "/v1/contacts", bodies.contact(step.user_id, step.name), prefix="cont_"
        )
        if not isinstance(contact_id, str):
            return contact_id
        fund_account = bodies.fund_account(contact_id, step.upi_id)
        fund_account_id = self._create("fund_account", "/v1/fund_accounts", fund_account, prefix="fa_")
        if not isinstance(fund_account_id, str):
            return fund_account_id
        return Prepared(contact_id, fund_account_id)

    def send(self, step: Send) -> Answer:
        """Create the payout from the stored bytes, under the attempt's key."""
        key = str(step.attempt_id)
        reply = self._call(
            "send", "post", "/v1/payouts", deadline=step.deadline, data=step.body, headers=_json_headers(key)
        )
        if not isinstance(reply, Reply):
            return reply
        return answers.read_payout(reply, reference_id=key, amount_paise=step.amount_paise)

    def look_up(self, step: LookUp) -> Found | NotAccepted:
        """Return every payout with the attempt's reference."""
        reference_id = str(step.attempt_id)
        query = {"account_number": step.account_number, "reference_id": reference_id}
        reply = self._call("look_up", "get", "/v1/payouts", params=query)
        return pages.read_list(reply, reference_id=reference_id) if isinstance(reply, Reply) else reply

    def poll(self, step: Poll) -> Answer:
        """Return the payout as it is now."""
        reply = self._call("poll", "get", f"/v1/payouts/{step.payout_id}")
        if not isinstance(reply, Reply):
            return reply
        return answers.read_payout(reply, reference_id=str(step.attempt_id), amount_paise=step.amount_paise)

    def poll_many(self, polls: Sequence[Poll]) -> dict[Poll, Answer]:
        """Return the answers to those of these polls that the list of payouts shows paid."""
        return poll_many(self, self._settings.razorpayx_account_number, polls)

    def balance(self) -> int | NotAccepted:
        """Return what our account can pay, in paise. The provider's number is some minutes old (§1.7)."""
        reply = self._call("balance", "get", "/v1/banking_balances", params={"count": 100})
        if not isinstance(reply, Reply):
            return reply
        return pages.read_balance(reply, account_number=self._settings.razorpayx_account_number)

    def listing(self) -> Listing:
        """Return the lists of our account."""
        return Listing(self, self._settings.razorpayx_account_number)

    def get(self, path: str, query: dict[str, str | int]) -> Reply | Throttled | Unknown:
        """Fetch one page of a list, or one payout, for `listing.py`."""
        return self._call("list", "get", path, params=query)

    def _create(self, operation: str, path: str, body: bytes, *, prefix: str) -> str | NotAccepted:
        reply = self._call(operation, "post", path, data=body, headers=_json_headers())
        return answers.read_id(reply, prefix=prefix) if isinstance(reply, Reply) else reply

    def _call(
        self, operation: str, verb: str, path: str, *, deadline: float | None = None, **options: Any
    ) -> Reply | Throttled | Unknown:
        with metrics.timed(metrics.RATE_LIMIT_WAIT_SECONDS):
            slot_at = rate_limit.wait_for_slot(RazorpayX.code, self._settings.lease_seconds / 3)
        if slot_at is None:
            return Throttled("paced", "Too many calls wait for the rate limit")
        if deadline is not None and time.time() > deadline:
            # This process was suspended since the claim. Another worker may have continued, and may already
            # have refunded the coins.
            return Throttled("paced", "The lease expired before the call")
        sdk = self._sdk()
        sdk.session.on_sent(lambda: rate_limit.delay_slots_if_late(RazorpayX.code, slot_at))
        started = perf_counter()
        try:
            # `request` and not `post`: the SDK's verbs would encode the stored bytes again.
            sdk.request(verb, path, **options)
        except Answered as answered:
            _observe(operation, _status_class(answered.reply.status), started)
            if answered.reply.status == TOO_MANY_REQUESTS:
                rate_limit.back_off(RazorpayX.code, answers.retry_after(answered.reply.retry_after))
            return answered.reply
        except NoReply as error:
            _observe(operation, "no_answer" if error.sent else "unreachable", started)
            if error.sent:
                return Unknown(str(error)[:500])
            return Throttled("unreachable", str(error)[:500])
        raise AssertionError("the session returns only by raising")

    def _sdk(self) -> razorpay.Client:
        if not hasattr(self._local, "sdk"):
            wire = Wire(
                self._settings.razorpayx_connect_seconds,
                self._settings.razorpayx_read_seconds,
                certifi.where(),
            )
            sdk = _Sdk(
                session=wire,
                auth=(
                    self._settings.razorpayx_key_id,
                    self._settings.razorpayx_key_secret.get_secret_value(),
                ),
                base_url=self._settings.razorpayx_base_url.rstrip("/"),
            )
            self._local.sdk = sdk
        return self._local.sdk


def _observe(operation: str, outcome: str, started: float) -> None:
    metrics.CALL_SECONDS.labels(operation, outcome).observe(perf_counter() - started)


def _status_class(status: int) -> str:
    if status == TOO_MANY_REQUESTS:
        return "429"
    return f"{status // 100}xx" if 100 <= status < 600 else metrics.OTHER


def _json_headers(idempotency_key: str | None = None) -> dict[str, str]:
    # A new dict each time: the SDK writes into it.
    headers = {"Content-Type": "application/json"}
    if idempotency_key:
        headers["X-Payout-Idempotency"] = idempotency_key
    return headers
