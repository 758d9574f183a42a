"""The apps: many at once, each with its own users, and each remembers the responses that it got.

Each app keeps one `Request` per withdrawal. A user's requests all differ in their coins, so the pair (user, coins)
identifies a request in the database even if its response was lost.
"""

import http.client
import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

from tests.chaos.faults import PAYEES_OF_A_BANK

CLIENTS = 24
ANSWER_SECONDS = 8  # the API waits for an absent database for up to 3 s, twice
REQUESTS_PER_USER = 20
PAYEES_PER_USER = 4
FIRST_COINS = 100
CREDIT_COINS = 1500
TOO_MANY_COINS = 90_000  # more than any wallet has: must be refused and take nothing
CANCELLED_SHARE = 0.08  # of the requests
OVERDRAWN_SHARE = 0.02  # of the requests, each followed by one for TOO_MANY_COINS
AGAIN_SECONDS = (0.1, 0.8)

# Weights of the scenarios of payees. Not here: scenarios that end only when a person acts (`never`,
# `fail.server_error`), refusals of our account, and a network that stays down for one payee: when only such
# are left, each failure correctly pauses all payouts. The schedule has the temporary ones.
SCENARIOS = {
    "success": 35,
    "hook.lost": 35,  # no webhook arrives: only polls find the result
    **dict.fromkeys(("drop", "drop.before", "reversed", "queued", "500"), 3),
    **dict.fromkeys(("failed.reversed", "pending", "rejected", "cancelled", "slow"), 2),
    **dict.fromkeys(("silent.after", "silent.before", "silent.late", "504", "504.json", "504.before"), 1),
    **dict.fromkeys(("500.after", "500.always", "429", "409", "garbage", "empty", "wrong"), 1),
    **dict.fromkeys(
        ("refuse.invalid_vpa", "refuse.amount_limit", "refuse.fund_account", "500.fund_account"), 1
    ),
    **dict.fromkeys(("hook.twice", "hook.disorder", "hook.early"), 2),
    **dict.fromkeys(("hook.badsign", "hook.oldsecret", "hook.late"), 2),
    **dict.fromkeys(
        (
            "fail.beneficiary_vpa_invalid",
            "fail.beneficiary_bank_rejected",
            "fail.transaction_limit_exceeded",
            "fail.bank_account_closed",
            "fail.bank_account_frozen",
            "fail.beneficiary_account_dormant",
            "fail.bank_account_invalid",
            "fail.beneficiary_bank_failure",
            "fail.beneficiary_bank_technical_error",
            "fail.server_error_temporary",
        ),
        1,
    ),
}

Temper = Literal["looks first", "asks again"]


@dataclass
class Request:
    """One withdrawal that an app requested, and what the app knows about it."""

    user_id: str
    coins: int
    upi_id: str
    temper: Temper  # what the app does if a response is lost
    cancel_after: float | None = None  # seconds after the response; None: never
    withdrawal_id: str | None = None  # from the response: this withdrawal exists
    unknown: int = 0  # calls whose result the app never got
    refused: bool = False
    cancelled: bool = False  # from the response: the coins are back and nothing is paid


@dataclass
class Ledger:
    """What all apps know together."""

    requests: list[Request]
    credited: dict[str, int] = field(default_factory=dict)  # user -> coins, each credit confirmed
    answers: dict[str, int] = field(default_factory=dict)

    @property
    def accepted(self) -> int:
        """How many requests were accepted, as far as the apps know."""
        return sum(request.withdrawal_id is not None for request in self.requests)


def make_requests(seed: int, number: int) -> list[Request]:
    """The requests in the order of their sending; those of one user belong to one client."""
    chance = random.Random(f"{seed} wishes")
    users = max(CLIENTS, -(-number // REQUESTS_PER_USER))
    payees = {f"user{n}": [_payee(chance) for _ in range(PAYEES_PER_USER)] for n in range(users)}
    requests = []
    for n in range(number):
        user_id = f"user{n % users}"
        coins = FIRST_COINS + n // users
        temper: Temper = chance.choice(("looks first", "looks first", "asks again"))
        cancel_after = chance.uniform(0, 0.8) if chance.random() < CANCELLED_SHARE else None
        requests.append(Request(user_id, coins, chance.choice(payees[user_id]), temper, cancel_after))
        if chance.random() < OVERDRAWN_SHARE:
            requests.append(Request(user_id, TOO_MANY_COINS + coins, "success@sim", "asks again"))
    return requests


def _payee(chance: random.Random) -> str:
    if chance.random() < 0.05:
        return chance.choice(PAYEES_OF_A_BANK)
    name = chance.choices(list(SCENARIOS), list(SCENARIOS.values()))[0]
    return f"{name}-{chance.randrange(1000)}@sim"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of the API."""

    status: int
    body: bytes

    @property
    def data(self) -> dict[str, Any]:
        """The JSON body; empty if it is not JSON."""
        try:
            return dict(json.loads(self.body))
        except ValueError:
            return {}


NO_CONNECTION = Answer(503, b"{}")  # nothing of the request was sent


class Load:
    """Sends all requests, spread evenly over `seconds`; delayed ones are sent late."""

    def __init__(self, api: str, key: str, requests: list[Request], seconds: float, seed: int) -> None:
        self.ledger = Ledger(requests)
        self.address = urlsplit(api).netloc
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._seconds = seconds
        self._seed = seed
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start all clients; `join` waits for their end."""
        started = time.monotonic()
        interval = self._seconds / max(1, len(self.ledger.requests))
        due = [(started + n * interval, request) for n, request in enumerate(self.ledger.requests)]
        for client in range(CLIENTS):
            own = [(at, request) for at, request in due if _client_of(request.user_id) == client]
            chance = random.Random(f"{self._seed} client {client}")
            thread = threading.Thread(target=_Client(self, chance).run, args=(own,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self, seconds: float) -> bool:
        """True if every client finished within so many seconds."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def count(self, answer: str) -> None:
        """One more answer of this kind."""
        with self._lock:
            self.ledger.answers[answer] = self.ledger.answers.get(answer, 0) + 1


def _client_of(user_id: str) -> int:
    return int(user_id.removeprefix("user")) % CLIENTS


class _Client:
    """One app server: sends its users' requests one after the other over one connection."""

    def __init__(self, load: Load, chance: random.Random) -> None:
        self._load = load
        self._chance = chance
        self._connection: http.client.HTTPConnection | None = None
        self._left: dict[str, int] = {}  # user -> minimum coins in the wallet

    def run(self, own: list[tuple[float, Request]]) -> None:
        for at, request in own:
            time.sleep(max(0.0, at - time.monotonic()))
            if request.coins < TOO_MANY_COINS:
                self._provide(request)
            self._send(request)
            if request.cancel_after is not None and request.withdrawal_id:
                time.sleep(request.cancel_after)
                self._cancel(request)

    def _provide(self, request: Request) -> None:
        """Repeat a credit under one reference until it is confirmed: it must count once."""
        # A call with an unknown result may have taken coins too: twice the coins are always enough.
        if self._left.get(request.user_id, 0) >= 2 * request.coins:
            return
        so_far = self._load.ledger.credited.get(request.user_id, 0)
        body = {
            "user_id": request.user_id,
            "coins": CREDIT_COINS,
            "reference": f"quiz{so_far}",
            "reason": "Quiz",
        }
        for _ in self._retries():
            answer = self._post("wallet/credit/", body)
            if answer is not None and answer.status in (200, 201):
                break
        self._load.ledger.credited[request.user_id] = so_far + CREDIT_COINS
        self._left[request.user_id] = self._left.get(request.user_id, 0) + CREDIT_COINS

    def _send(self, request: Request) -> None:
        body = {"user_id": request.user_id, "amount": request.coins, "upi_id": request.upi_id}
        for _ in self._retries():
            answer = self._post("withdraw/", body)
            if self._is_final(request, answer):
                return
            if request.unknown and request.temper == "looks first" and self._find(request):
                return
            if request.unknown and self._left[request.user_id] < request.coins:
                self._provide(request)

    def _is_final(self, request: Request, answer: Answer | None) -> bool:
        """Record the response; True if the app now knows the result."""
        data = answer.data if answer else {}
        if answer is not None and answer.status == 201:
            request.withdrawal_id = data["data"]["withdrawal_id"]
            self._take(request)
            return True
        if answer is not None and 400 <= answer.status < 500:
            request.refused = True
            return True
        if answer is None or answer.status != 503 or data.get("code") == "outcome_unknown":
            request.unknown += 1
            self._take(request)
        return False  # any other 503 means that nothing was taken, so it is sent again

    def _take(self, request: Request) -> None:
        self._left[request.user_id] = self._left.get(request.user_id, 0) - request.coins

    def _find(self, request: Request) -> bool:
        """Query the history, until it is answered, for the request whose response was lost."""
        for _ in self._retries():
            answer = self._get("withdraw/history/", user_id=request.user_id, limit=100)
            if answer is not None and answer.status == 200:
                same = [item["id"] for item in answer.data["data"] if item["amount"] == request.coins]
                if same:
                    request.withdrawal_id = same[0]
                    request.unknown -= 1
                return bool(same)
        return False

    def _cancel(self, request: Request) -> None:
        for _ in self._retries():
            answer = self._post("withdraw/cancel/", {"withdrawal_id": request.withdrawal_id})
            if answer is not None and answer.status == 200:
                request.cancelled = True
                return
            if answer is not None and answer.status == 400:
                # After a lost response, the first call may have cancelled it.
                request.cancelled = answer.data.get("current_status") == "cancelled"
                return

    def _post(self, path: str, body: dict[str, Any]) -> Answer | None:
        return self._call("POST", path, path, json.dumps(body).encode())

    def _get(self, path: str, **query: Any) -> Answer | None:
        return self._call("GET", path, f"{path}?{urlencode(query)}")

    def _call(self, method: str, name: str, path: str, body: bytes | None = None) -> Answer | None:
        """The response, or None without one. http.client takes a tenth of the time of requests."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._load.address, timeout=ANSWER_SECONDS)
        try:
            self._connection.request(method, f"/api/razorpay/{path}", body, self._load.headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._connection = None
            self._load.count(f"{name} {type(error).__name__}")
            return NO_CONNECTION if isinstance(error, ConnectionRefusedError) else None
        self._load.count(f"{name} {answer.status}")
        return Answer(answer.status, content)

    def _retries(self) -> Iterator[None]:
        """Endless retries with pauses in between; the faults end at some time."""
        while True:
            yield
            time.sleep(self._chance.uniform(*AGAIN_SECONDS))
