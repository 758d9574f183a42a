"""The official razorpay SDK, wrapped once. Only the worker may import this.

The SDK has no payout resource, no timeout, loses the HTTP status, follows redirects, prints to stdout
and trusts a list of certificates from 2015 (razorpayx.md §7). So we give it a session of ours that takes
each answer before the SDK reads it, and call it through its generic verbs.
"""

import threading
import time
from time import perf_counter
from typing import Any

import certifi
import razorpay

from shared import metrics, pace
from shared.razorpayx import answers, bodies, lists
from shared.razorpayx.answers import Answer, Found, NotTaken, Prepared, Reply, Throttled, Unknown
from shared.razorpayx.wire import Answered, NoReply, Wire
from shared.settings import Settings
from shared.steps import LookUp, Poll, Prepare, Send, Step

TOO_MANY = 429


class RazorpayX:
    """Asks RazorpayX, each call in its turn (`pace.py`). Every method returns an answer and never raises for
    the wire; Unavailable when the database cannot say whose turn it is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own = threading.local()  # requests promises no thread safety: a session per thread

    def perform(self, step: Step) -> Answer:
        """Do what `step` says and return what came of it."""
        match step:
            case Prepare():
                return self.prepare(step)
            case Send():
                return self.send(step)
            case LookUp():
                return self.look_up(step)
            case Poll():
                return self.poll(step)

    def prepare(self, step: Prepare) -> Prepared | NotTaken:
        """Create the contact and its fund account. The provider gives the same ones for the same fields."""
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
        """Create the payout: the stored bytes, under the attempt's key."""
        key = str(step.attempt_id)
        reply = self._call(
            "send", "post", "/v1/payouts", until=step.until, data=step.body, headers=_json_headers(key)
        )
        if not isinstance(reply, Reply):
            return reply
        return answers.read_payout(reply, reference_id=key, amount_paise=step.amount_paise)

    def look_up(self, step: LookUp) -> Found | NotTaken:
        """Every payout with the attempt's reference."""
        reference_id = str(step.attempt_id)
        query = {"account_number": step.account_number, "reference_id": reference_id}
        reply = self._call("look_up", "get", "/v1/payouts", params=query)
        return lists.read_list(reply, reference_id=reference_id) if isinstance(reply, Reply) else reply

    def poll(self, step: Poll) -> Answer:
        """The payout as it stands."""
        reply = self._call("poll", "get", f"/v1/payouts/{step.payout_id}")
        if not isinstance(reply, Reply):
            return reply
        return answers.read_payout(reply, reference_id=str(step.attempt_id), amount_paise=step.amount_paise)

    def balance(self) -> int | NotTaken:
        """What our account can pay, in paise. The provider's own number is some minutes old (§1.7)."""
        reply = self._call("balance", "get", "/v1/banking_balances", params={"count": 100})
        if not isinstance(reply, Reply):
            return reply
        return lists.read_balance(reply, account_number=self._settings.razorpayx_account_number)

    def get(self, path: str, query: dict[str, str | int]) -> Reply | Throttled | Unknown:
        """One page of a list, or one payout: what `listing.py` asks for."""
        return self._call("list", "get", path, params=query)

    def _create(self, operation: str, path: str, body: bytes, *, prefix: str) -> str | NotTaken:
        reply = self._call(operation, "post", path, data=body, headers=_json_headers())
        return answers.read_id(reply, prefix=prefix) if isinstance(reply, Reply) else reply

    def _call(
        self, operation: str, verb: str, path: str, *, until: float | None = None, **options: Any
    ) -> Reply | Throttled | Unknown:
        with metrics.timed(metrics.TURN_SECONDS):
            turn = pace.wait_for_turn(self._settings.lease_seconds / 3)
        if turn is None:
            return Throttled("paced", "Too many calls wait for their turn")
        if until is not None and time.time() > until:
            # Asleep since the claim (a stopped process, a frozen machine): others have gone on without us,
            # and may by now have given the coins back.
            return Throttled("paced", "The lease ran out before the call")
        sdk = self._sdk()
        sdk.session.tell(lambda: pace.has_left(turn))
        began = perf_counter()
        try:
            # `request` and not `post`: the SDK's verbs would encode the stored bytes anew.
            sdk.request(verb, path, **options)
        except Answered as answered:
            _measure(operation, _kind(answered.reply.status), began)
            if answered.reply.status == TOO_MANY:
                pace.hold(answers.retry_after(answered.reply.retry_after))
            return answered.reply
        except NoReply as broken:
            _measure(operation, "no_answer" if broken.sent else "unreachable", began)
            if broken.sent:
                return Unknown(str(broken)[:500])
            return Throttled("unreachable", str(broken)[:500])
        raise AssertionError("the wire returns only by raising")

    def _sdk(self) -> razorpay.Client:
        if not hasattr(self._own, "sdk"):
            wire = Wire(self._settings.razorpayx_connect_seconds, self._settings.razorpayx_read_seconds)
            sdk = razorpay.Client(
                session=wire,
                auth=(
                    self._settings.razorpayx_key_id,
                    self._settings.razorpayx_key_secret.get_secret_value(),
                ),
                base_url=self._settings.razorpayx_base_url.rstrip("/"),
            )
            sdk.cert_path = certifi.where()
            self._own.sdk = sdk
        return self._own.sdk


def _measure(operation: str, outcome: str, began: float) -> None:
    metrics.CALL_SECONDS.labels(operation, outcome).observe(perf_counter() - began)


def _kind(status: int) -> str:
    return "429" if status == TOO_MANY else f"{status // 100}xx" if 100 <= status < 600 else metrics.OTHER


def _json_headers(idempotency_key: str | None = None) -> dict[str, str]:
    # A new dict each time: the SDK writes into it.
    headers = {"Content-Type": "application/json"}
    if idempotency_key:
        headers["X-Payout-Idempotency"] = idempotency_key
    return headers
