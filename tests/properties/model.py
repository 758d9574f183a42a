"""The small model: a provider with its true list of payouts, and what the system was told of each attempt.

Nothing of ours decides here. `Provider` is RazorpayX as it really is: a worker's call may be taken, refused,
lost or late, whatever the worker is then told. `Belief` follows what was told about one attempt, and knows
which ends that justifies. Times are seconds of the model's own clock.
"""

import itertools
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shared.razorpayx.answers import (
    Accepted,
    Answer,
    Found,
    PayoutReport,
    Prepared,
    Refused,
    Throttled,
    Unknown,
    parse_report,
)
from shared.steps import LookUp, Poll, Prepare, Send, Step

HOUR, DAY = 3600, 86_400
DEAD = frozenset({"failed", "reversed"})  # no money of ours is out, and none goes out any more
# A request that is stuck on its way still arrives within the hour, or never (razorpayx.md §3).
STUCK_SECONDS = 3300
# A bank sends money back within three working days (razorpayx.md §2).
SENDS_BACK_SECONDS = 5 * DAY

# What the provider does with a send, and what the worker hears of it.
FATES = {
    "accepted": "taken, and says so",
    "lost": "taken, and the reply is lost",
    "stuck": "on its way: may still be taken, within the hour",
    "never": "not taken, and no reply",
    "refused": "not taken, and says so",
    "held": "not taken, for a reason that calls a person",
    "no_money": "taken, and waits for money of ours",
    "busy": "not looked at: too many requests",
    "refuses_us": "not looked at: our credentials",
    "refuses_request": "not looked at: our settings, or this payee",
    "unreachable": "no connection at all",
}
BANK = {  # (a payout's status, what the bank does) -> its next status
    ("queued", "takes"): "processing",
    ("queued", "fails"): "failed",
    ("processing", "pays"): "processed",
    ("processing", "fails"): "failed",
    ("processing", "sends_back"): "reversed",
    ("processed", "sends_back"): "reversed",
    ("failed", "sends_back"): "reversed",
}


@dataclass
class Payout:
    """A payout that truly exists. `history` has every status that it ever had, with its reason and time."""

    id: str
    reference: str
    amount_paise: int
    history: list[tuple[str, str | None, float]]

    @property
    def status(self) -> str:
        """How it truly stands."""
        return self.history[-1][0]

    def entity(self, moment: int = -1) -> dict[str, Any]:
        """The payout as RazorpayX writes it; `moment` picks one of its past statuses."""
        status, reason, _ = self.history[moment]
        return entity(self.id, status, self.amount_paise, self.reference, reason)

    def report(self) -> PayoutReport:
        """The payout as it stands, as our side reads it."""
        return read(self.entity())


def entity(
    payout_id: str, status: str, amount_paise: int, reference: str | None, reason: str | None = None
) -> dict[str, Any]:
    """A payout in RazorpayX's words."""
    return {
        "id": payout_id,
        "entity": "payout",
        "status": status,
        "amount": amount_paise,
        "reference_id": reference,
        "status_details": {"reason": reason, "description": "…", "source": "gateway"},
        "utr": payout_id[-12:] if status == "processed" else None,
    }


def read(told: dict[str, Any]) -> PayoutReport:
    """The report in an entity."""
    report = parse_report(told)
    assert report is not None
    return report


@dataclass
class Held:
    """A step in a worker's hands. `answer` is what the call brought, once it was made."""

    step: Step
    claimed_at: float
    may_call_until: float
    answer: Answer | None = None


@dataclass
class Provider:
    """RazorpayX: every payout that exists, and every request that is still on its way to it."""

    payouts: dict[str, Payout] = field(default_factory=dict)  # by idempotency key
    stuck: dict[str, tuple[int, float]] = field(default_factory=dict)  # key -> amount in paise, lost at
    bodies: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    _passed: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _numbers: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    def now(self) -> float:
        """The moment, on the clock that the rows were moved by."""
        return self._passed + time.monotonic() - self._began

    def wait(self, seconds: float) -> None:
        """Let time pass; what was stuck too long is lost for good."""
        self._passed += seconds
        self.stuck = {key: (a, lost_at) for key, (a, lost_at) in self.stuck.items() if lost_at > self.now()}

    def perform(self, held: Held, fate: str) -> Answer:
        """A worker's call."""
        match held.step:
            case Send() as send:
                # The client's own promise: a worker that slept over its lease does not call.
                if self.now() > held.may_call_until:
                    return Throttled("paced", "The lease ran out before the call")
                return self._send(send, fate)
            case LookUp(attempt_id=attempt_id):
                found = self.payouts.get(str(attempt_id))
                return _silence(fate) or Found((found.report(),) if found else ())
            case Poll(attempt_id=attempt_id, payout_id=payout_id):
                payout = self.payouts.get(str(attempt_id))
                if payout is None or payout.id != payout_id:
                    return Refused("input_validation_failed", "The id provided does not exist", 400)
                return _silence(fate) or Accepted(payout.report())
            case Prepare():
                if fate == "refused":
                    return Refused("input_validation_failed", "The VPA is invalid", 400)
                return _silence(fate) or Prepared("cont_00000000000001", "fa_00000000000001")

    def _send(self, send: Send, fate: str) -> Answer:
        key, body = str(send.attempt_id), json.loads(send.body)
        if self.bodies.setdefault(key, send.body) != send.body:
            self.faults.append(f"other bytes under key {key}")
        if (body["reference_id"], body["amount"]) != (key, send.amount_paise):
            self.faults.append(f"the body under key {key} asks for something else")
        if fate in ("accepted", "lost", "no_money"):
            payout = self._take(key, body["amount"], "queued" if fate == "no_money" else "processing")
            return Unknown("The reply is lost") if fate == "lost" else Accepted(payout.report())
        if fate == "stuck" and key not in self.payouts:
            self.stuck[key] = (body["amount"], self.now() + STUCK_SECONDS)
        return _not_taken(fate)

    def _take(self, key: str, amount_paise: int, status: str = "processing") -> Payout:
        self.stuck.pop(key, None)
        if key not in self.payouts:
            reason = "low_balance" if status == "queued" else None
            number = next(iter(self._numbers))
            first = [(status, reason, self.now())]
            self.payouts[key] = Payout(f"pout_{number:014d}", key, amount_paise, first)
        return self.payouts[key]

    def arrive(self, key: str) -> None:
        """What was stuck comes through."""
        self._take(key, self.stuck[key][0])

    def bank(self, payout: Payout, what: str, reason: str | None = None) -> bool:
        """The bank's next word about a payout; False when it cannot be said now."""
        to = BANK.get((payout.status, what))
        if to is None or (payout.status in ("processed", "failed") and self._is_old(payout)):
            return False
        payout.history.append((to, reason if to == "failed" else None, self.now()))
        return True

    def _is_old(self, payout: Payout) -> bool:
        return self.now() - payout.history[-1][2] > SENDS_BACK_SECONDS

    def settle(self) -> None:
        """Calm: what is stuck is lost, and every payout is paid that can be."""
        self.stuck.clear()
        for payout in self.payouts.values():
            for what in ("takes", "pays"):
                self.bank(payout, what)

    def statuses(self, keys: Iterable[str]) -> list[str]:
        """How the payouts under these keys truly stand."""
        return [self.payouts[key].status for key in keys if key in self.payouts]

    def could_still_pay(self, keys: Iterable[str]) -> bool:
        """Whether a payout under these keys lives, or is on its way."""
        keys = set(keys)
        return bool(keys & self.stuck.keys()) or any(s not in DEAD for s in self.statuses(keys))


def _not_taken(fate: str) -> Answer:
    match fate:
        case "refused":
            return Refused("input_validation_failed", "This is not taken", 400)
        case "held":
            return Refused("invalid_ifsc_code", "This cannot be", 400)
        case "busy":
            return Throttled("busy", "Too many requests", 20)
        case "refuses_us":
            return Throttled("refuses_us", "Authentication failed")
        case "refuses_request":
            return Throttled("refuses_request", "Payout mode is not valid")
        case "unreachable":
            return Throttled("unreachable", "No connection")
    return Unknown("No reply")


def _silence(fate: str) -> Answer | None:
    """What a call that asks is told when it is not told the truth; None when it is."""
    return (
        _not_taken(fate)
        if fate in ("never", "busy", "refuses_us", "refuses_request", "unreachable")
        else None
    )


@dataclass
class Belief:
    """What the system was told of one attempt. `state` is an end only where that was told or proved."""

    withdrawal_id: str
    amount_paise: int
    state: str = "open"  # open, accepted, paid, failed, reversed, refused
    unconfirmed: bool = False  # paid, as only a webhook has told so far
    payout_id: str | None = None
    open_sends: set[int] = field(default_factory=set)  # handed out, and no certain end was written down
    was_refused: bool = False
    checks: int = 0  # look-ups handed out
    absent_since: float | None = None
    absent_looks: int = 0

    def hands_out(self, step: Step) -> None:
        """A worker got this step."""
        if isinstance(step, Send):
            self.open_sends.add(step.sends)
            self.absent_since, self.absent_looks = None, 0
        elif isinstance(step, LookUp) and step.hints is None:
            self.checks = step.checks

    def learns(self, held: Held, now: float) -> None:
        """A worker wrote down an answer that is no report."""
        step, answer = held.step, held.answer
        if isinstance(step, LookUp) and step.hints is not None:
            return  # asked beside all else
        if isinstance(step, Send) and isinstance(answer, Refused | Throttled):
            self.open_sends.discard(step.sends)
            self.was_refused = self.was_refused or isinstance(answer, Refused)
        elif isinstance(step, LookUp) and isinstance(answer, Found):
            self.absent_since = now if self.absent_since is None else self.absent_since
            self.absent_looks += 1
        elif isinstance(step, LookUp) and step.checks == self.checks and now - held.claimed_at < 60:
            self.absent_since, self.absent_looks = None, 0

    def may_believe(self, report: PayoutReport) -> bool:
        """Whether a webhook may complete it: our own call named this payout, and it is on its way."""
        same = (report.payout_id, report.amount_paise) == (self.payout_id, self.amount_paise)
        return self.state == "accepted" and report.outcome == "paid" and same

    def hears(
        self, report: PayoutReport, *, is_others: bool, is_blocked: bool, is_acted_on: bool = False
    ) -> bool:
        """A report about this attempt was applied; True when it contradicts what was known.

        `is_acted_on`: people have taken its coins back, for it was paid.
        """
        known = self.payout_id
        if is_others or report.amount_paise != self.amount_paise or known not in (None, report.payout_id):
            return True
        said = report.outcome
        if (
            self.state == "paid"
            and self.unconfirmed
            and not (is_blocked and said in ("not_paid", "reversed"))
        ):
            self.unconfirmed = said == "waiting"
            self.state = {"not_paid": "failed", "reversed": "reversed"}.get(said, self.state)
            return False
        if self.state in ("open", "accepted"):
            self.payout_id = report.payout_id
            ends = {"waiting": "accepted", "paid": "paid", "not_paid": "failed", "reversed": "reversed"}
            self.state = ends[said]
            return False
        if self.state == "paid" and said == "reversed" and not is_blocked:
            self.state = "reversed"
            return False
        against = {"paid": ("not_paid", "reversed"), "failed": ("paid",), "refused": ("waiting", "paid")}
        return not is_acted_on and said in against.get(self.state, ())

    def may_be_refused(self, now: float) -> bool:
        """Whether it is certain that nothing was ever taken: told so, or absent an hour long."""
        if self.state not in ("open", "refused"):
            return False
        told = self.was_refused and not self.open_sends
        absent = self.absent_since is not None and now - self.absent_since > HOUR - 5
        return told or (absent and self.absent_looks >= 6)
