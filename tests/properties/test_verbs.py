"""All actions in any order: money moves once, and only for a reason.

Two state machines run on a real PostgreSQL against the model in `model.py`. `make test` runs a few fixed
examples, the same ones every time. For longer runs with more seeds, and for random runs without end:

    HYPOTHESIS_PROFILE=long .venv/bin/python -m pytest -n 0 tests/properties
    HYPOTHESIS_PROFILE=thorough .venv/bin/python -m pytest -n 0 tests/properties

A failure is reported as the shortest list of rules that causes it.
"""

import logging
import os
from collections.abc import Iterator
from uuid import UUID

import pytest
import structlog
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from shared import ids, withdrawals
from shared.providers.answers import Accepted, Found
from shared.providers.steps import LookUp, Prepare, Send
from shared.states import Decision
from tests.properties.facts import OPEN, Row
from tests.properties.model import BANK, DAY_SECONDS, FATES, entity, read
from tests.properties.watched import PEOPLE, USERS, Watched
from tests.support.databases import EmptyDatabases
from tests.support.world import World

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "usual")
USUAL = settings(
    # The first examples of a seed differ most: more seeds find more than more examples per seed.
    max_examples=6,
    stateful_step_count=20,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(USUAL, max_examples=10, stateful_step_count=30)
THOROUGH = settings(USUAL, max_examples=2000, stateful_step_count=50, print_blob=True)
# Profile -> (seeds, settings); a thorough run has a new seed each time.
RUNS = {"usual": ((1,), USUAL), "long": ((1, 2, 3), LONG), "thorough": ((None,), THOROUGH)}

# Small numbers, so that short examples reach far: two sends and then look-ups, few strikes, two rechecks.
ENVIRONMENT = {
    "RESEND_SECONDS": "60",
    "RECHECK_SECONDS": "3600,691200",
    "AUTO_PAUSE_UNKNOWNS": "4",
    "AUTO_PAUSE_HANDLE_FAILURES": "2",
    "PAYOUTS_PER_USER": "1",
    "REVIEW_ALL": "off",
}
MAX_HELD = 4
# Temporary, briefly temporary, of the handle, our balance, permanent, held for people, unknown, missing.
REASONS = (
    "beneficiary_bank_failure",
    "gateway_down",
    "beneficiary_psp_offline",
    "insufficient_funds",
    "bank_account_closed",
    "invalid_ifsc_code",
    "not_in_the_catalogue",
    None,
)
CHANNELS = ("webhook", "poll", "lookup", "reply", "reconciliation")
SWITCHES = ("payouts", "handle:okaxis", "handle:ybl")

indexes = st.integers(0, 4)
fates = st.sampled_from(["accepted"] * 3 + list(FATES))
waits = st.sampled_from([100, 0, 2000])
has_steps = precondition(lambda self: self.held)
has_payouts = precondition(lambda self: self.provider.payouts)
has_proposals = precondition(lambda self: self._proposals())


class Verbs(Watched):
    """An honest provider that may be silent or late; people propose only what is true there."""

    honest = True

    @initialize(first=st.sampled_from([None, *FATES]), second=st.sampled_from([None, *FATES]))
    def begin(self, first: str | None, second: str | None) -> None:
        """Start in the middle: payees are known, and a first send may have been made."""
        for user_id, fate in zip(USERS, (first, second), strict=True):
            self._credit(user_id, 3000)
            key = self._request(user_id, 500)
            if fate:
                self._wait(100)
                self._work([key], fate, only=Send)

    # --- users, and random events

    @rule(
        i=indexes,
        what=st.sampled_from(["cancel", "credit", "worker error", "somebody else's webhook"]),
    )
    def odd_things(self, i: int, what: str) -> None:
        key = self._pick(i)
        match what:
            case "cancel":
                self._cancel(key)
            case "credit":
                self._credit(self.facts.withdrawals[key]["user_id"], 700)
            case "worker error":
                withdrawals.postpone_after_error(UUID(key), RuntimeError("our own fault"))
                self.worker_errors[key] += 1
                self._check()
            case "somebody else's webhook":
                before = self.facts.journal
                self._webhook(entity("pout_foreign000001", "processed", 5000, str(ids.new_id())))
                assert self.facts.journal == before

    @precondition(lambda self: self._has_room())
    @rule(user_id=st.sampled_from(list(USERS)), coins=st.sampled_from([500, 1900]))
    def request(self, user_id: str, coins: int) -> None:
        self._request(user_id, coins)

    # --- workers: a step is claimed, called and recorded, with anything in between

    @precondition(lambda self: len(self.held) < MAX_HELD)
    @rule(i=indexes, seconds=waits)
    def claim(self, i: int, seconds: int) -> None:
        self._wait(seconds)
        self.held += self._claim([self._pick(i)])

    @has_steps
    @rule(n=indexes, fate=fates)
    def call(self, n: int, fate: str) -> None:
        held = self.held[n % len(self.held)]
        if held.answer is None:
            self._call(held, fate)

    @has_steps
    @rule(n=indexes, fate=fates)
    def record(self, n: int, fate: str) -> None:
        held = self.held.pop(n % len(self.held))
        if held.answer is None:
            self._call(held, fate)
        self.held += self._record([held])

    @has_steps
    @rule(n=indexes)
    def die(self, n: int) -> None:
        self.held.pop(n % len(self.held))

    @rule(i=indexes, fate=fates, seconds=waits)
    def work(self, i: int, fate: str, seconds: int) -> None:
        self._wait(seconds)
        self._work([self._pick(i)], fate)

    @rule(first=fates, second=fates, seconds=waits)
    def work_on_a_batch(self, first: str, second: str, seconds: int) -> None:
        """All withdrawals in one message."""
        self._wait(seconds)
        self._work(list(self.facts.withdrawals), first, second)

    @has_steps
    @rule(fate=fates)
    def record_a_batch(self, fate: str) -> None:
        """The answers of all steps that workers hold arrive at once, one for each withdrawal."""
        batch = list({held.step.withdrawal_id: held for held in self.held}.values())
        self.held = [held for held in self.held if held not in batch]
        for held in batch:
            if held.answer is None:
                self._call(held, fate)
        self.held += self._record(batch)

    @rule(i=indexes, silent=st.integers(0, 12), arrives=st.integers(0, 12))
    def look_for_an_hour(self, i: int, silent: int, arrives: int) -> None:
        """Look up an unanswered payout for an hour; one look-up may fail, and a delayed request may arrive."""
        key = self._pick(i)
        for n in range(9):
            if self.facts.withdrawals[key]["status"] not in OPEN:
                break
            self._wait(640)
            self._work([key], "never" if n == silent else "accepted", only=LookUp)
            if n == arrives:
                self._arrive_all(self.facts.keys(key))

    # --- queues

    @rule(what=st.sampled_from(["sweep and work", "sweep", "work", "redis is wiped"]), fate=fates)
    def queue(self, what: str, fate: str) -> None:
        if "sweep" in what:
            self._sweep()
        if "work" in what:
            self._next_message(fate)
        if "wiped" in what:
            self._forget_messages()

    # --- time

    @rule(seconds=st.sampled_from([95, 11, 700, 3700, 7200, 2 * DAY_SECONDS]))
    def wait(self, seconds: int) -> None:
        self._wait(seconds)

    # --- the provider

    @precondition(lambda self: self.provider.stuck)
    @rule(n=indexes)
    def arrive(self, n: int) -> None:
        keys = list(self.provider.stuck)
        self._arrive_all([keys[n % len(keys)]])

    @has_payouts
    @rule(
        n=indexes,
        what=st.sampled_from(["fails", *sorted({what for _, what in BANK})]),
        reason=st.sampled_from(REASONS),
        tells=st.booleans(),
    )
    def bank(self, n: int, what: str, reason: str | None, tells: bool) -> None:
        payout = self._payout(n)
        if self.provider.bank(payout, what, reason) and tells:
            self._webhook(payout.entity())

    @has_payouts
    @rule(n=indexes, moment=st.integers(-4, -1), again=st.booleans(), at_once=st.booleans())
    def webhook(self, n: int, moment: int, again: bool, at_once: bool) -> None:
        """Any past event: at once or late, in any order, repeated under its own id or another."""
        payout = self._payout(n)
        event = payout.entity(max(moment, -len(payout.history)))
        self._webhook(event, event_id=f"{payout.id}-{event['status']}" if again else None, at_once=at_once)

    @has_payouts
    @rule(n=indexes, moment=st.integers(-4, -1), channel=st.sampled_from(CHANNELS))
    def report(self, n: int, moment: int, channel: str) -> None:
        payout = self._payout(n)
        event = payout.entity(max(moment, -len(payout.history)))
        if channel == "webhook":
            self._webhook(event)
        else:
            self._tell(read(event), channel)

    # --- operators

    @rule(name=st.sampled_from(SWITCHES))
    def pause_or_resume(self, name: str) -> None:
        is_off = name in {row["name"] for row in self.facts.switches if not row["is_on"]}
        (withdrawals.resume if is_off else withdrawals.pause)(name, reason="trying", actor=PEOPLE[0])
        self._check()

    @rule(
        i=indexes,
        what=st.sampled_from(["ask", "approve", "reject", "approve what has changed"]),
        who=st.sampled_from(PEOPLE),
    )
    def review(self, i: int, what: str, who: str) -> None:
        """Request a withdrawal that needs approval, or decide on any withdrawal."""
        if what == "ask":
            self._set_review_all(True)
            if self._has_room():
                self._request(list(USERS)[i % len(USERS)], 500)
            self._set_review_all(False)
            return
        verb = withdrawals.reject_review if what == "reject" else withdrawals.approve_review
        self._review(self._pick(i), verb, who, stale="changed" in what)

    @rule(user_id=st.sampled_from(list(USERS)), what=st.sampled_from(["block", "freeze"]))
    def forbid_or_allow(self, user_id: str, what: str) -> None:
        self._forbid(user_id, what)

    @rule(i=indexes, decision=st.sampled_from(list(Decision)), who=st.sampled_from(PEOPLE))
    def propose(self, i: int, decision: Decision, who: str) -> None:
        key = self._pick(i)
        if not self.honest or self._is_true(key, decision):
            self._propose(key, decision, who)

    @has_proposals
    @rule(n=indexes, who=st.sampled_from(PEOPLE))
    def approve(self, n: int, who: str) -> None:
        proposals = self._proposals()
        self._approve(proposals[n % len(proposals)], who)

    @rule(i=indexes, decision=st.sampled_from(list(Decision)))
    def decide(self, i: int, decision: Decision) -> None:
        """Two people propose and approve; open proposals are rejected first."""
        if not self.facts.keys(self._pick(i)):
            return
        for proposal in self._proposals():
            withdrawals.reject(UUID(proposal["id"]), actor=PEOPLE[0])
        self.propose(i, decision, PEOPLE[0])
        for proposal in self._proposals():
            self._approve(proposal, PEOPLE[1])


lies = st.fixed_dictionaries(
    {
        "payout": st.integers(0, 4),
        "status": st.sampled_from(["queued", "processing", "processed", "failed", "reversed"]),
        "wrong_amount": st.sampled_from([False, False, True]),
        "about": st.integers(0, 5),
        "reason": st.sampled_from(REASONS),
    }
)


class VerbsAmongLiars(Verbs):
    """A provider that reports anything, and people who propose anything: the remaining promises must hold."""

    honest = False

    @rule(lie=lies, channel=st.sampled_from(CHANNELS), at_once=st.booleans())
    def lie_by_report(self, lie: Row, channel: str, at_once: bool) -> None:
        references = [*self.facts.attempts, self._next_attempt(lie["payout"]), None, str(ids.new_id())]
        event = self._entity(lie, references[lie["about"] % len(references)])
        if channel == "webhook":
            self._webhook(event, at_once=at_once)
        else:
            self._tell(read(event), channel)

    @has_steps
    @rule(n=indexes, first=lies, second=st.none() | lies, absent=st.sampled_from([False, False, True]))
    def lie_in_an_answer(self, n: int, first: Row, second: Row | None, absent: bool) -> None:
        """`answers.py` drops answers to another query; this one answers ours but is untrue."""
        held = self.held[n % len(self.held)]
        if isinstance(held.step, Prepare):
            return
        reference = str(held.step.attempt_id)
        reports = [read(self._entity(lie, reference)) for lie in (first, second) if lie]
        if isinstance(held.step, LookUp):
            held.answer = Found(() if absent else tuple(reports))
        else:
            with_the_amount = [report for report in reports if report.amount_paise == held.step.amount_paise]
            held.answer = Accepted(with_the_amount[0]) if with_the_amount else None

    def _next_attempt(self, i: int) -> str:
        """The reference of an attempt that does not exist yet."""
        key = self._pick(i)
        return str(ids.attempt_id(UUID(key), len(self.facts.keys(key)) + 1))

    def _entity(self, lie: Row, reference: str | None) -> Row:
        payouts = list(self.provider.payouts.values())
        payout_ids = [payout.id for payout in payouts] + [f"pout_lie0000000000{n}" for n in range(3)]
        amount_paise = self.facts.withdrawals[self._pick(lie["about"])]["amount_paise"]
        if reference in self.facts.attempts:
            owner = self.facts.attempts[reference]["withdrawal_id"]
            amount_paise = self.facts.withdrawals[owner]["amount_paise"]
        payout_id = payout_ids[lie["payout"] % len(payout_ids)]
        return entity(payout_id, lie["status"], amount_paise + lie["wrong_amount"], reference, lie["reason"])


class NoProvider:
    """Stands in for the simulator: the model is the provider, and nothing is called."""

    url = "http://127.0.0.1:9"


@pytest.fixture
def quiet_world(
    empty_databases: EmptyDatabases, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    # Suppress a hundred thousand log lines.
    before = structlog.get_config()
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet, cache_logger_on_first_use=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    try:
        with World.create(empty_databases, redis_url, NoProvider(), monkeypatch) as world:  # type: ignore[arg-type]
            world.operators(*(person.removeprefix("operator:") for person in PEOPLE))
            yield world
    finally:
        structlog.configure(**before)


@pytest.mark.timeout(0 if PROFILE == "thorough" else 900)
@pytest.mark.parametrize("machine", [Verbs, VerbsAmongLiars])
def test_money_moves_once_and_only_for_a_reason(quiet_world: World, machine: type[Verbs]) -> None:
    seeds, profile = RUNS[PROFILE]
    for number in seeds:
        run = seed(number)(lambda: machine(quiet_world)) if number else lambda: machine(quiet_world)
        run_state_machine_as_test(run, settings=profile)
