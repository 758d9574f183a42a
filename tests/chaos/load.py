"""The apps: many at once, each for users of its own, and each remembers what it was told.

What an app knows afterwards is one line per wish (`Wish`). A user's wishes all differ in their coins, so the
pair (user, coins) finds a wish again in the database, whatever became of the answer.
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
ANSWER_SECONDS = 8  # a database that is away is waited for up to 3 s, twice
WISHES_PER_USER, PAYEES_PER_USER = 20, 4
FIRST_COINS, CREDIT_COINS = 100, 1500
TOO_MANY_COINS = 90_000  # nobody ever has so many: must be refused, and take nothing
CANCELS, TOO_MANY = 0.08, 0.02  # share of the wishes
AGAIN_SECONDS = (0.1, 0.8)

# How often each is chosen as a payee's scenario. Not here: what ends only when a person acts (`never`,
# `fail.server_error`), refusals of ourselves, and a network that is down for one payee alone and for ever: when
# only such are left, each failure rightly pauses all. The schedule has those that pass.
SCENARIOS = {
    "success": 35,
    "hook.lost": 35,  # no webhook ever comes: only polls can tell
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
class Wish:
    """One withdrawal that an app asked for, and what it knows of it. Coins are coins."""

    user_id: str
    coins: int
    upi_id: str
    temper: Temper  # what the app does when an answer is lost
    cancel_after: float | None = None  # seconds after it was told, or never
    withdrawal_id: str | None = None  # told: this one exists
    unknown: int = 0  # askings whose end the app was never told
    refused: bool = False
    cancelled: bool = False  # told: these coins are back, and nothing is ever paid


@dataclass
class Ledger:
    """What all apps together know."""

    wishes: list[Wish]
    credited: dict[str, int] = field(default_factory=dict)  # user -> coins, each credit confirmed
    answers: dict[str, int] = field(default_factory=dict)

    @property
    def told(self) -> int:
        """How many wishes were granted, as far as the apps know."""
        return sum(wish.withdrawal_id is not None for wish in self.wishes)


def wishes(seed: int, number: int) -> list[Wish]:
    """So many wishes, in the order in which they are asked; each user's belong to one client."""
    chance = random.Random(f"{seed} wishes")
    users = max(CLIENTS, -(-number // WISHES_PER_USER))
    payees = {f"user{n}": [_payee(chance) for _ in range(PAYEES_PER_USER)] for n in range(users)}
    made = []
    for n in range(number):
        user_id, coins = f"user{n % users}", FIRST_COINS + n // users
        temper: Temper = chance.choice(("looks first", "looks first", "asks again"))
        cancel_after = chance.uniform(0, 0.8) if chance.random() < CANCELS else None
        made.append(Wish(user_id, coins, chance.choice(payees[user_id]), temper, cancel_after))
        if chance.random() < TOO_MANY:
            made.append(Wish(user_id, TOO_MANY_COINS + coins, "success@sim", "asks again"))
    return made


def _payee(chance: random.Random) -> str:
    if chance.random() < 0.05:
        return chance.choice(PAYEES_OF_A_BANK)
    name = chance.choices(list(SCENARIOS), list(SCENARIOS.values()))[0]
    return f"{name}-{chance.randrange(1000)}@sim"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said."""

    status: int
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        """The JSON; empty when it is none."""
        try:
            return dict(json.loads(self.body))
        except ValueError:
            return {}


NOBODY = Answer(503, b"{}")  # no connection at all: nothing of the request has left


class Load:
    """Asks for all wishes, spread evenly over `seconds`; what could not be asked in time is asked late."""

    def __init__(self, api: str, key: str, all_wishes: list[Wish], seconds: float, seed: int) -> None:
        self.ledger = Ledger(all_wishes)
        self.address = urlsplit(api).netloc
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._seconds, self._seed = seconds, seed
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin; `join` waits for the end."""
        began = time.monotonic()
        every = self._seconds / max(1, len(self.ledger.wishes))
        due = [(began + n * every, wish) for n, wish in enumerate(self.ledger.wishes)]
        for client in range(CLIENTS):
            own = [(at, wish) for at, wish in due if _client_of(wish.user_id) == client]
            chance = random.Random(f"{self._seed} client {client}")
            thread = threading.Thread(target=_Client(self, chance).run, args=(own,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self, seconds: float) -> bool:
        """Whether every client came to its end within so many seconds."""
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
    """One app server: its users' wishes, one after the other, over one connection."""

    def __init__(self, load: Load, chance: random.Random) -> None:
        self._load, self._chance = load, chance
        self._connection: http.client.HTTPConnection | None = None
        self._left: dict[str, int] = {}  # user -> coins that must be there at least

    def run(self, own: list[tuple[float, Wish]]) -> None:
        for at, wish in own:
            time.sleep(max(0.0, at - time.monotonic()))
            if wish.coins < TOO_MANY_COINS:
                self._provide(wish)
            self._ask(wish)
            if wish.cancel_after is not None and wish.withdrawal_id:
                time.sleep(wish.cancel_after)
                self._cancel(wish)

    def _provide(self, wish: Wish) -> None:
        """Credit until it was confirmed, under one reference: the same credit twice must count once."""
        # An asking with an unknown end may have taken coins as well: twice the coins are always enough.
        if self._left.get(wish.user_id, 0) >= 2 * wish.coins:
            return
        so_far = self._load.ledger.credited.get(wish.user_id, 0)
        body = {
            "user_id": wish.user_id,
            "coins": CREDIT_COINS,
            "reference": f"quiz{so_far}",
            "reason": "Quiz",
        }
        for _ in self._patiently():
            answer = self._post("wallet/credit/", body)
            if answer is not None and answer.status in (200, 201):
                break
        self._load.ledger.credited[wish.user_id] = so_far + CREDIT_COINS
        self._left[wish.user_id] = self._left.get(wish.user_id, 0) + CREDIT_COINS

    def _ask(self, wish: Wish) -> None:
        body = {"user_id": wish.user_id, "amount": wish.coins, "upi_id": wish.upi_id}
        for _ in self._patiently():
            answer = self._post("withdraw/", body)
            if self._understood(wish, answer):
                return
            if wish.unknown and wish.temper == "looks first" and self._find(wish):
                return
            if wish.unknown and self._left[wish.user_id] < wish.coins:
                self._provide(wish)

    def _understood(self, wish: Wish, answer: Answer | None) -> bool:
        """Whether the app now knows how this asking ended for good."""
        said = answer.said if answer else {}
        if answer is not None and answer.status == 201:
            wish.withdrawal_id = said["data"]["withdrawal_id"]
            self._take(wish)
            return True
        if answer is not None and 400 <= answer.status < 500:
            wish.refused = True
            return True
        if answer is None or answer.status != 503 or said.get("code") == "outcome_unknown":
            wish.unknown += 1
            self._take(wish)
        return False  # any other 503 says that nothing was taken, so it is asked again

    def _take(self, wish: Wish) -> None:
        self._left[wish.user_id] = self._left.get(wish.user_id, 0) - wish.coins

    def _find(self, wish: Wish) -> bool:
        """Look into the history, until it is answered, for the wish whose answer was lost."""
        for _ in self._patiently():
            answer = self._get("withdraw/history/", user_id=wish.user_id, limit=100)
            if answer is not None and answer.status == 200:
                same = [one["id"] for one in answer.said["data"] if one["amount"] == wish.coins]
                if same:
                    wish.withdrawal_id = same[0]
                    wish.unknown -= 1
                return bool(same)
        return False

    def _cancel(self, wish: Wish) -> None:
        for _ in self._patiently():
            answer = self._post("withdraw/cancel/", {"withdrawal_id": wish.withdrawal_id})
            if answer is not None and answer.status == 200:
                wish.cancelled = True
                return
            if answer is not None and answer.status == 400:
                # After a lost reply: it was cancelled the first time.
                wish.cancelled = answer.said.get("current_status") == "cancelled"
                return

    def _post(self, path: str, body: dict[str, Any]) -> Answer | None:
        return self._call("POST", path, path, json.dumps(body).encode())

    def _get(self, path: str, **query: Any) -> Answer | None:
        return self._call("GET", path, f"{path}?{urlencode(query)}")

    def _call(self, method: str, name: str, path: str, body: bytes | None = None) -> Answer | None:
        """The answer; None when there was none. By http.client: it takes a tenth of what requests takes."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._load.address, timeout=ANSWER_SECONDS)
        try:
            self._connection.request(method, f"/api/razorpay/{path}", body, self._load.headers)
            answer = self._connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._connection = None
            self._load.count(f"{name} {type(error).__name__}")
            return NOBODY if isinstance(error, ConnectionRefusedError) else None
        self._load.count(f"{name} {answer.status}")
        return Answer(answer.status, said)

    def _patiently(self) -> Iterator[None]:
        """Again and again, with pauses in between; for ever, for calm returns."""
        while True:
            yield
            time.sleep(self._chance.uniform(*AGAIN_SECONDS))
