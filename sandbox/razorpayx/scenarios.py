"""The scenarios of payouts, as one table.

A test compares it with the table in README.md. A scenario is a walk through the documented states
(`MD:x/payouts/states-life-cycle.md`), optionally a fault for the first calls of an idempotency key, and
optionally misbehaving webhooks.
"""

from __future__ import annotations

from dataclasses import dataclass

from .reasons import UPI_FAILURES

SIM_HANDLE = "sim"  # ours: `<scenario>[-suffix]@sim`


@dataclass(frozen=True, slots=True)
class Step:
    """After `after` simulated seconds, the payout goes to `status` with this reason."""

    after: float
    status: str
    reason: str | None
    credit: bool = True  # False: the money comes back only with a later `reversed`


@dataclass(frozen=True, slots=True)
class Refusal:
    """A definite 400 on create (`MD:errors/x.md`; undocumented texts are plausible ones)."""

    description: str
    field: str | None = None
    reason: str = "input_validation_failed"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault instead of a good response, for the first `calls` calls of a key (None: all)."""

    kind: str
    accepted: bool
    calls: int | None = 1
    refusal: Refusal | None = None

    def applies(self, call_number: int) -> bool:
        """True if this call (1 = the first with the key) fails."""
        return self.calls is None or call_number <= self.calls


@dataclass(frozen=True, slots=True)
class Hooks:
    """How the webhooks of a payout misbehave."""

    copies: int = 1
    delay_factor: float = 1.0
    lost: bool = False
    disorder: bool = False
    early: bool = False
    bad_first_signature: bool = False
    old_secret: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table."""

    name: str
    summary: str
    walk: tuple[Step, ...]
    fault: Fault | None = None
    hooks: Hooks = Hooks()
    at_fund_account: bool = False


# A quick pace for tests: UPI payouts are "generally" processed "immediately" (`MD:webhooks/payouts.md`).
STEP_SECONDS = 1.5

PROCESSING = Step(0, "processing", "payout_bank_processing")
PROCESSED = Step(STEP_SECONDS, "processed", "payout_processed")
SUCCESS = (PROCESSING, PROCESSED)
DEEMED = Step(STEP_SECONDS, "processing", "beneficiary_bank_confirmation_pending")
QUEUED = Step(0, "queued", "gateway_degraded")
PENDING = Step(0, "pending", "pending_approval")
LATER_PROCESSING = Step(STEP_SECONDS, "processing", "payout_bank_processing")


def failing_walk(reason: str, credit: bool = True) -> tuple[Step, ...]:
    """Accepted, then definitely not paid."""
    return PROCESSING, Step(STEP_SECONDS, "failed", reason, credit)


REFUSALS: dict[str, Refusal] = {
    "invalid_vpa": Refusal("The VPA address is invalid.", "vpa"),
    "amount_limit": Refusal("The amount exceeds the maximum allowed for this mode.", "amount"),
    "mode": Refusal("Payout mode is not valid for the fund account type.", "mode"),
    "inactive": Refusal("The fund account is currently inactive.", "fund_account_id"),
    "account_number": Refusal("The RazorpayX Account number is invalid.", "account_number"),
    "insufficient_funds": Refusal(
        "Your account does not have enough balance to carry out the payout operation.",
        None,
        "insufficient_funds",
    ),
    "ip": Refusal("Transactions from this IP are not allowed. Contact support for help."),
    "url": Refusal("The requested URL was not found on the server."),
}


def _refusing(name: str, refusal: Refusal) -> Scenario:
    return Scenario(
        f"refuse.{name}",
        f"400 on every create: {refusal.description}",
        (),
        Fault("refuse", accepted=False, calls=None, refusal=refusal),
    )


def _faulty(name: str, kind: str, summary: str, *, accepted: bool, calls: int | None = 1) -> Scenario:
    return Scenario(name, summary, SUCCESS, Fault(kind, accepted, calls))


def _hooked(name: str, summary: str, hooks: Hooks) -> Scenario:
    return Scenario(f"hook.{name}", summary, SUCCESS, hooks=hooks)


_SCENARIOS: tuple[Scenario, ...] = (
    Scenario("success", "processing, then processed with a UTR after about 1.5 s", SUCCESS),
    Scenario(
        "slow",
        "deemed success: stays processing about 20 times longer, then processed",
        (PROCESSING, DEEMED, Step(19 * STEP_SECONDS, "processed", "payout_processed")),
    ),
    Scenario(
        "never", "stays processing forever (beneficiary_bank_confirmation_pending)", (PROCESSING, DEEMED)
    ),
    Scenario(
        "reversed",
        "processed, then reversed a bit later, with a reversal transaction",
        (*SUCCESS, Step(STEP_SECONDS, "reversed", "beneficiary_bank_rejected")),
    ),
    Scenario(
        "failed.reversed",
        "failed, and the money only comes back when it turns reversed a bit later",
        (
            *failing_walk("beneficiary_bank_failure", credit=False),
            Step(STEP_SECONDS, "reversed", "beneficiary_bank_failure"),
        ),
    ),
    Scenario(
        "queued",
        "queued by downtime (gateway_degraded), then processing, then processed",
        (QUEUED, LATER_PROCESSING, PROCESSED),
    ),
    Scenario(
        "queued.failed",
        "queued by downtime, then failed when the SLA ends (gateway_down)",
        (QUEUED, Step(STEP_SECONDS, "failed", "gateway_down")),
    ),
    Scenario(
        "pending", "awaits approval, then processing, then processed", (PENDING, LATER_PROCESSING, PROCESSED)
    ),
    Scenario("rejected", "awaits approval, then rejected", (PENDING, Step(STEP_SECONDS, "rejected", None))),
    Scenario(
        "cancelled",
        "queued, then cancelled by the merchant; no webhook exists for it",
        (QUEUED, Step(STEP_SECONDS, "cancelled", None)),
    ),
    *(
        Scenario(f"fail.{reason}", f"accepted, then failed: {detail.description}", failing_walk(reason))
        for reason, detail in UPI_FAILURES.items()
    ),
    *(_refusing(name, refusal) for name, refusal in REFUSALS.items()),
    _faulty(
        "drop", "drop", "accepted, then the connection closes without a reply, first call", accepted=True
    ),
    _faulty(
        "drop.before", "drop", "the connection closes before anything is accepted, first call", accepted=False
    ),
    _faulty(
        "silent.after",
        "hold",
        "accepted, then no answer: held until the client goes away, first call",
        accepted=True,
    ),
    _faulty(
        "silent.before",
        "hold",
        "no answer and nothing accepted: held until the client goes away, first call",
        accepted=False,
    ),
    _faulty(
        "silent.late",
        "hold_late",
        "no answer: held until the client goes away, and accepted only 5 s after the call, first call",
        accepted=False,
    ),
    _faulty("504", "html504", "accepted, then 504 with an HTML body, first call", accepted=True),
    _faulty("504.json", "json504", "accepted, then 504 with a JSON envelope, first call", accepted=True),
    _faulty(
        "504.before", "html504", "504 with an HTML body and nothing accepted, first call", accepted=False
    ),
    _faulty("500", "json500", "500 envelope and nothing accepted, first 2 calls", accepted=False, calls=2),
    _faulty("500.after", "json500", "accepted, then a 500 envelope, first call", accepted=True),
    _faulty(
        "500.always", "json500", "500 envelope and nothing accepted, every call", accepted=False, calls=None
    ),
    _faulty(
        "429",
        "throttle",
        "429 with Retry-After: 1 and nothing accepted, first 2 calls",
        accepted=False,
        calls=2,
    ),
    _faulty("401", "unauthorized", "401 and nothing accepted, first call", accepted=False),
    _faulty("409", "in_flight", "accepted, but answers 409 (still in progress), first call", accepted=True),
    _faulty(
        "garbage",
        "garbage",
        "accepted, but the reply is 200 with a body that is not JSON, first call",
        accepted=True,
    ),
    _faulty("empty", "empty", "accepted, but the reply is 200 with {}, first call", accepted=True),
    _faulty(
        "wrong",
        "wrong",
        "accepted, but the reply is a payout with another id and reference_id, first call",
        accepted=True,
    ),
    _hooked("lost", "success, and no webhook is ever sent", Hooks(lost=True)),
    _hooked("twice", "success, every event is delivered twice with the same event id", Hooks(copies=2)),
    _hooked("many", "success, every event is delivered 10 times with the same event id", Hooks(copies=10)),
    _hooked(
        "disorder",
        "success, the last event is delivered first and the earlier ones after it, newest first",
        Hooks(disorder=True),
    ),
    _hooked(
        "early",
        "success, every webhook up to processed is answered before the create reply is written",
        Hooks(early=True),
    ),
    _hooked(
        "badsign",
        "success, the first delivery of each event has a wrong signature, its retry a right one",
        Hooks(bad_first_signature=True),
    ),
    _hooked("oldsecret", "success, every event is signed with the previous secret", Hooks(old_secret=True)),
    _hooked(
        "late", "success, every event is sent about 15 s late (10 times the pace)", Hooks(delay_factor=10)
    ),
    Scenario(
        "refuse.fund_account",
        "400 when the fund account is created (composite payouts too)",
        SUCCESS,
        Fault("refuse", False, None, Refusal("The VPA address is invalid.", "vpa.address")),
        at_fund_account=True,
    ),
    Scenario(
        "500.fund_account",
        "500 on the first creation of the fund account, then success",
        SUCCESS,
        Fault("json500", False, 1),
        at_fund_account=True,
    ),
)

SCENARIOS: dict[str, Scenario] = {row.name: row for row in _SCENARIOS}
DEFAULT = SCENARIOS["success"]


def find(name: str) -> Scenario | None:
    """The scenario with this name. `refuse.<anything>` always exists."""
    if name in SCENARIOS:
        return SCENARIOS[name]
    verb, _, subject = name.partition(".")
    if verb != "refuse" or not subject:
        return None
    return _refusing(subject, Refusal(f"The {subject.replace('_', ' ')} is invalid.", subject))


def named_by_vpa(address: str) -> str | None:
    """`fail.gateway_down-7@sim` names `fail.gateway_down`. VPAs with other handles name no scenario."""
    name, _, handle = address.rpartition("@")
    return name.split("-", 1)[0].lower() if handle.lower() == SIM_HANDLE else None
