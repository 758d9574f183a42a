"""The model: a provider with its true list of payouts, and the reports that the system received per attempt.

No product code decides here. `Provider` is the true provider: it may accept, refuse, lose or delay a worker's
call, whatever the worker is then told. `Belief` follows the reports about one attempt and knows which final
states they justify. Times are seconds of the model's own clock.
"""

import itertools
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shared.providers.answers import (
    Accepted,
    Answer,
    Found,
    PayoutReport,
    Prepared,
    Refused,
    Throttled,
    Unknown,
)
from shared.providers.razorpayx.answers import parse_report
from shared.providers.steps import LookUp, Poll, Prepare, Send, Step

HOUR_SECONDS = 3600
DAY_SECONDS = 86_400
DEAD = frozenset({"failed", "reversed"})  # the money is back or never left, and it cannot leave any more
# A delayed request arrives within the hour or never (provider reference §3).
STUCK_SECONDS = 3300
# A bank returns money within three working days (provider reference §2).
SENDS_BACK_SECONDS = 5 * DAY_SECONDS

# What the provider does with a send, and which answer the worker gets.
FATES = {
    "accepted": "accepted, and answered",
    "lost": "accepted, and the reply is lost",
    "stuck": "delayed: may still be accepted within the hour",
    "never": "not accepted, and no reply",
    "refused": "refused, and answered",
    "held": "refused for a reason that puts it on hold",
    "no_money": "accepted, and queued for a low balance",
    "busy": "not processed: too many requests",
    "refuses_us": "not processed: our credentials",
    "refuses_request": "not processed: our settings, or this payee",
    "unreachable": "no connection",
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
    """A payout that exists at the provider. `history` has each of its statuses with reason and time."""

    id: str
    reference: str
    amount_paise: int
    history: list[tuple[str, str | None, float]]

    @property
    def status(self) -> str:
        """The true status."""
        return self.history[-1][0]

    def entity(self, moment: int = -1) -> dict[str, Any]:
        """The payout as the provider sends it; `moment` selects one of its past statuses."""
        status, reason, _ = self.history[moment]
        return entity(self.id, status, self.amount_paise, self.reference, reason)

    def report(self) -> PayoutReport:
        """The current payout as our code parses it."""
        return read(self.entity())


def entity(
    payout_id: str, status: str, amount_paise: int, reference: str | None, reason: str | None = None
) -> dict[str, Any]:
    """A payout in the provider's format."""
    return {
        "id": payout_id,
        "entity": "payout",
        "status": status,
        "amount": amount_paise,
        "reference_id": reference,
        "status_details": {"reason": reason, "description": "…", "source": "gateway"},
        "utr": payout_id[-12:] if status == "processed" else None,
    }


def read(entity: dict[str, Any]) -> PayoutReport:
    """Parse an entity."""
    report = parse_report(entity)
    assert report is not None
    return report


@dataclass
class Held:
    """A step that a worker holds. `answer` is the result of its call, once it was made."""

    step: Step
    claimed_at: float
    may_call_until: float
    answer: Answer | None = None


@dataclass
class Provider:
    """The provider: every payout that exists and every delayed request."""

    payouts: dict[str, Payout] = field(default_factory=dict)  # by idempotency key
    stuck: dict[str, tuple[int, float]] = field(
        default_factory=dict
    )  # key -> (amount in paise, time at which it is lost)
    bodies: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    _passed: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _numbers: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    def now(self) -> float:
        """The time on the clock by which the rows are moved."""
        return self._passed + time.monotonic() - self._began

    def wait(self, seconds: float) -> None:
        """Let time pass; requests that were delayed too long are lost."""
        self._passed += seconds
        self.stuck = {key: request for key, request in self.stuck.items() if request[1] > self.now()}

    def perform(self, held: Held, fate: str) -> Answer:
        """Answer a worker's call."""
        match held.step:
            case Send() as send:
                # As the client does: a worker whose lease expired does not call.
                if self.now() > held.may_call_until:
                    return Throttled("paced", "The lease expired before the call")
                return self._send(send, fate)
            case LookUp(attempt_id=attempt_id):
                payout = self.payouts.get(str(attempt_id))
                return _answer_unless_reached(fate) or Found((payout.report(),) if payout else ())
            case Poll(attempt_id=attempt_id, payout_id=payout_id):
                payout = self.payouts.get(str(attempt_id))
                if payout is None or payout.id != payout_id:
                    return Refused("input_validation_failed", "The id provided does not exist", 400)
                return _answer_unless_reached(fate) or Accepted(payout.report())
            case Prepare():
                if fate == "refused":
                    return Refused("input_validation_failed", "The VPA is invalid", 400)
                return _answer_unless_reached(fate) or Prepared("cont_00000000000001", "fa_00000000000001")

    def _send(self, send: Send, fate: str) -> Answer:
        key = str(send.attempt_id)
        body = json.loads(send.body)
        if self.bodies.setdefault(key, send.body) != send.body:
            self.faults.append(f"different bytes under key {key}")
        if (body["reference_id"], body["amount"]) != (key, send.amount_paise):
            self.faults.append(f"the body under key {key} has another reference or amount")
        if fate in ("accepted", "lost", "no_money"):
            payout = self._accept(key, body["amount"], "queued" if fate == "no_money" else "processing")
            return Unknown("The reply is lost") if fate == "lost" else Accepted(payout.report())
        if fate == "stuck" and key not in self.payouts:
            self.stuck[key] = (body["amount"], self.now() + STUCK_SECONDS)
        return _answer_not_accepted(fate)

    def _accept(self, key: str, amount_paise: int, status: str = "processing") -> Payout:
        self.stuck.pop(key, None)
        if key not in self.payouts:
            reason = "low_balance" if status == "queued" else None
            number = next(iter(self._numbers))
            first = [(status, reason, self.now())]
            self.payouts[key] = Payout(f"pout_{number:014d}", key, amount_paise, first)
        return self.payouts[key]

    def arrive(self, key: str) -> None:
        """A delayed request arrives."""
        self._accept(key, self.stuck[key][0])

    def bank(self, payout: Payout, what: str, reason: str | None = None) -> bool:
        """Apply the bank's next action to a payout; False if that action is impossible now."""
        to = BANK.get((payout.status, what))
        if to is None or (payout.status in ("processed", "failed") and self._is_old(payout)):
            return False
        payout.history.append((to, reason if to == "failed" else None, self.now()))
        return True

    def _is_old(self, payout: Payout) -> bool:
        return self.now() - payout.history[-1][2] > SENDS_BACK_SECONDS

    def settle(self) -> None:
        """End the disturbance: delayed requests are lost, and every payout that can be paid is paid."""
        self.stuck.clear()
        for payout in self.payouts.values():
            for what in ("takes", "pays"):
                self.bank(payout, what)

    def statuses(self, keys: Iterable[str]) -> list[str]:
        """The true statuses of the payouts under these keys."""
        return [self.payouts[key].status for key in keys if key in self.payouts]

    def could_still_pay(self, keys: Iterable[str]) -> bool:
        """True if a payout under these keys is live or delayed."""
        keys = set(keys)
        return bool(keys & self.stuck.keys()) or any(s not in DEAD for s in self.statuses(keys))


def _answer_not_accepted(fate: str) -> Answer:
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


def _answer_unless_reached(fate: str) -> Answer | None:
    """The answer to a query that fails; None if the query succeeds."""
    return (
        _answer_not_accepted(fate)
        if fate in ("never", "busy", "refuses_us", "refuses_request", "unreachable")
        else None
    )


@dataclass
class Belief:
    """What was reported about one attempt. `state` is final only if that was reported or proved."""

    withdrawal_id: str
    amount_paise: int
    state: str = "open"  # open, accepted, paid, failed, reversed, refused
    unconfirmed: bool = False  # paid, but only a webhook reported it so far
    payout_id: str | None = None
    open_sends: set[int] = field(default_factory=set)  # claimed by a worker, with no certain result recorded
    was_refused: bool = False
    queries: int = 0  # look-ups claimed by workers
    absent_since: float | None = None
    absent_replies: int = 0

    def claimed(self, step: Step) -> None:
        """A worker claimed this step."""
        if isinstance(step, Send):
            self.open_sends.add(step.sends)
            self.absent_since = None
            self.absent_replies = 0
        elif isinstance(step, LookUp) and step.hint_count is None:
            self.queries = step.queries

    def recorded(self, held: Held, now: float) -> None:
        """A worker recorded an answer that is not a report."""
        step, answer = held.step, held.answer
        if isinstance(step, LookUp) and step.hint_count is not None:
            return  # a query for a hint does not count
        if isinstance(step, Send) and isinstance(answer, Refused | Throttled):
            self.open_sends.discard(step.sends)
            self.was_refused = self.was_refused or isinstance(answer, Refused)
        elif isinstance(step, LookUp) and isinstance(answer, Found):
            self.absent_since = now if self.absent_since is None else self.absent_since
            self.absent_replies += 1
        elif isinstance(step, LookUp) and step.queries == self.queries and now - held.claimed_at < 60:
            self.absent_since = None
            self.absent_replies = 0

    def may_trust_webhook(self, report: PayoutReport) -> bool:
        """True if a webhook may complete it: our own call named this payout, and it is processing."""
        same = (report.payout_id, report.amount_paise) == (self.payout_id, self.amount_paise)
        return self.state == "accepted" and report.outcome == "paid" and same

    def reported(
        self, report: PayoutReport, *, is_others: bool, is_blocked: bool, is_acted_on: bool = False
    ) -> bool:
        """Apply a report about this attempt; True if it contradicts an earlier one.

        `is_acted_on`: people took its coins back because it was paid.
        """
        known = self.payout_id
        if is_others or report.amount_paise != self.amount_paise or known not in (None, report.payout_id):
            return True
        outcome = report.outcome
        if (
            self.state == "paid"
            and self.unconfirmed
            and not (is_blocked and outcome in ("not_paid", "reversed"))
        ):
            self.unconfirmed = outcome == "waiting"
            self.state = {"not_paid": "failed", "reversed": "reversed"}.get(outcome, self.state)
            return False
        if self.state in ("open", "accepted"):
            self.payout_id = report.payout_id
            states = {"waiting": "accepted", "paid": "paid", "not_paid": "failed", "reversed": "reversed"}
            self.state = states[outcome]
            return False
        if self.state == "paid" and outcome == "reversed" and not is_blocked:
            self.state = "reversed"
            return False
        contradictions = {
            "paid": ("not_paid", "reversed"),
            "failed": ("paid",),
            "refused": ("waiting", "paid"),
        }
        return not is_acted_on and outcome in contradictions.get(self.state, ())

    def may_be_refused(self, now: float) -> bool:
        """True if it is certain that no payout exists: refused, or absent for an hour of look-ups."""
        if self.state not in ("open", "refused"):
            return False
        refused = self.was_refused and not self.open_sends
        absent = self.absent_since is not None and now - self.absent_since > HOUR_SECONDS - 5
        return refused or (absent and self.absent_replies >= 6)
