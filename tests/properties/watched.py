"""Performs each action and checks after it that the rows, the provider's true list and the reports agree.

`test_verbs.py` has the rules that choose the order.
"""

import base64
import contextlib
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from uuid import UUID

from hypothesis.stateful import RuleBasedStateMachine

from shared import withdrawals
from shared.db.engines import engine
from shared.db.transactions import transaction
from shared.errors import BadRequest, Conflict
from shared.proof import checks
from shared.providers.answers import ALIVE, Accepted, Found, PayoutReport, Refused
from shared.providers.steps import Prepare, Send, Step
from shared.queues import messages, redis_broker, soon
from shared.queues.names import BACKLOG, PAYOUTS, POLLS, QUEUES, WEBHOOKS
from shared.settings import settings
from shared.states import Decision
from shared.withdrawals import blocks, inbox, review
from shared.withdrawals.paid_outside import NO_PAYMENT
from shared.withdrawals.record import ERRORS_BEFORE_HOLD
from tests.properties.facts import (
    EMPTY,
    ENDED,
    OPEN,
    REFUNDED,
    Facts,
    Row,
    find_faults,
    find_forbidden_changes,
    moved_twice,
)
from tests.properties.model import DAY_SECONDS, DEAD, Belief, Held, Payout, Provider, read
from tests.support import steps
from tests.support.world import World, payment

USERS = {"asha": "asha@okaxis", "ravi": "ravi@ybl"}
MAX_WITHDRAWALS = 5
MAX_OPEN = 3
PEOPLE = ("operator:meera", "operator:noor", "operator:asha")  # one of them has a wallet
# Like `World.advance`, but rows age too. Due work stays due, and none becomes overdue.
AGE = """
    UPDATE withdrawals SET created_at = created_at - by.t, completed_at = completed_at - by.t,
        not_before = not_before - by.t, due_at = CASE WHEN due_at IS NOT NULL THEN greatest(due_at - by.t, now() - interval '500 s') END
        FROM (SELECT interval '{0} seconds' AS t) by;
    UPDATE payout_attempts SET created_at = created_at - by.t, absent_since = absent_since - by.t,
        recheck_at = recheck_at - by.t FROM (SELECT interval '{0} seconds' AS t) by;
    UPDATE hints SET due_at = due_at - interval '{0} seconds', asked_at = asked_at - interval '{0} seconds';
    UPDATE webhook_events SET due_at = due_at - interval '{0} seconds';
    UPDATE switches SET probe_at = probe_at - interval '{0} seconds'
"""
DUE_EVENTS = (
    "SELECT event_id FROM webhook_events WHERE applied_at IS NULL AND due_at <= now() ORDER BY due_at"
)
UNMATCHED = """
    SELECT event_id FROM webhook_events e JOIN payout_attempts a ON e.reference_id = a.id::text
    WHERE e.outcome = 'unmatched'
"""


class Watched(RuleBasedStateMachine):
    """The system driven by the model. With an honest provider its true list is checked too."""

    honest = True

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        with engine().begin() as connection:
            connection.exec_driver_sql(EMPTY)
        self.broker = redis_broker.client()
        self._forget_messages()
        self.provider = Provider()
        self.beliefs: dict[str, Belief] = {}  # by attempt id
        self.held: list[Held] = []  # steps that workers hold
        self.events: dict[str, PayoutReport] = {}  # the report in each stored webhook
        self.worker_errors: Counter[str] = Counter()
        self.unpayable: set[str] = set()  # withdrawals whose payee was refused
        self.decided: set[str] = set()  # by people, ever
        self.blocked: set[str] = set()  # UPI ids
        self.frozen: set[str] = set()  # users
        self.counter = 0
        self.facts = Facts.read(world)

    # --- the actions

    def _credit(self, user_id: str, coins: int) -> None:
        self.counter += 1
        before = self.facts.balance(user_id) or 0
        self.world.credit(user_id, coins, reference=f"credit-{self.counter}")
        self._check()
        assert self.facts.balance(user_id) == before + coins

    def _request(self, user_id: str, coins: int) -> str:
        before = self.facts.balance(user_id) or 0
        try:
            self.world.request(user_id, coins, USERS[user_id])
            assert before >= coins, "more coins were taken than the balance"
            assert not self._forbidden(user_id), "accepted for a user who must not be paid"
        except BadRequest:
            assert before < coins or self._forbidden(user_id), "refused although the balance was sufficient"
        self._check()
        return list(self.facts.withdrawals)[-1]

    def _has_room(self) -> bool:
        """True if one more withdrawal keeps the example short."""
        rows = self.facts.withdrawals.values()
        return len(rows) < MAX_WITHDRAWALS and sum(row["status"] in OPEN for row in rows) < MAX_OPEN

    def _cancel(self, key: str) -> None:
        may = self.facts.withdrawals[key]["status"] == "pending"
        try:
            withdrawals.cancel(UUID(key), reason="changed my mind", actor="app:test")
            assert may, f"{key} was cancelled although it was not pending"
        except BadRequest:
            assert not may, f"{key} is pending and could not be cancelled"
        self._check()

    def _claim(self, keys: list[str]) -> list[Held]:
        claimed = steps.claim_all([UUID(key) for key in keys])
        for step in claimed:
            row = self.facts.withdrawals[str(step.withdrawal_id)]
            may = (
                row["is_due"] or row["status"] == "completed" or getattr(step, "hint_count", None) is not None
            )
            assert may, f"{step.withdrawal_id} was not due: {step}"
        assert len({step.withdrawal_id for step in claimed}) == len(claimed), "two steps for one withdrawal"
        held = [self._hold(step) for step in claimed]
        self._check()
        return held

    def _hold(self, step: Step) -> Held:
        key = str(step.withdrawal_id)
        now = self.provider.now()
        if isinstance(step, Prepare | Send):
            off = {s["name"] for s in self.facts.switches if not s["is_on"] and not s["probes"]}
            upi_id = self.facts.withdrawals[key]["upi_id"]
            assert not off & {"payouts", "handle:" + upi_id.partition("@")[2]}, (
                f"{key} is sent during a pause"
            )
            assert not self.facts.is_blocked(key), f"{key} is on hold but is sent"
            assert not self.facts.withdrawals[key]["awaits_approval"], f"{key} awaits approval but is sent"
            assert not self._forbidden(self.facts.withdrawals[key]["user_id"]), f"{key} must not be paid"
        if isinstance(step, Prepare):
            return Held(step, now, now)
        amount_paise = self.facts.withdrawals[key]["amount_paise"]
        self.beliefs.setdefault(str(step.attempt_id), Belief(key, amount_paise)).claimed(step)
        until = now + step.deadline - time.time() if isinstance(step, Send) else now
        return Held(step, now, until)

    def _call(self, held: Held, fate: str) -> None:
        held.answer = self.provider.perform(held, fate)
        self._check_the_provider()

    def _record(self, answered: list[Held]) -> list[Held]:
        flagged: set[str] = set()
        for held in answered:
            flagged |= self._record_in_model(held)
        following = steps.record_all([(held.step, held.answer) for held in answered if held.answer])
        next_held = [self._hold(step) for step in following]
        self._check()
        self._must_be_flagged(flagged)
        return next_held

    def _record_in_model(self, held: Held) -> set[str]:
        """Pass an answer to the model; returns the withdrawals that it contradicts."""
        assert held.answer is not None
        flagged: set[str] = set()
        match held.answer:
            case Accepted(report=report) | Found(reports=(report,)):
                flagged |= self._report_to_model(report)
            case Found(reports=(_, _, *_) as reports):
                flagged.add(str(held.step.withdrawal_id))
                if any(report.outcome in ALIVE for report in reports):
                    self._must_freeze(str(held.step.withdrawal_id))
            case _ if isinstance(held.step, Prepare):
                if isinstance(held.answer, Refused):
                    self.unpayable.add(str(held.step.withdrawal_id))
            case _:
                self.beliefs[str(held.step.attempt_id)].recorded(held, self.provider.now())
        return flagged

    def _work(self, keys: list[str], *fates: str, only: type = object) -> None:
        """Claim, call and record these withdrawals as one batch; their calls have these fates in turn."""
        batch = self._claim(keys)
        while batch:
            for held, fate in zip(batch, itertools.cycle(fates), strict=False):
                others = "accepted" if isinstance(held.step, Prepare) else "never"
                self._call(held, fate if isinstance(held.step, only) else others)
            batch = self._record(batch)

    def _sweep(self) -> None:
        withdrawals.sweep()
        self._check()

    def _next_message(self, fate: str) -> bool:
        """Process the next message as a worker does; False if there is none."""
        soon.flush()
        for queue in (WEBHOOKS, PAYOUTS, POLLS, BACKLOG):
            raw = self.broker.rpop(queue)
            if raw is None:
                continue
            message = json.loads(raw)
            keys = json.loads(base64.b64decode(message["body"]))[0]
            if message["headers"]["task"] == messages.APPLY:
                messages.clear_nudge_marks([messages.APPLY])
                self._apply([row.event_id for row in self.world.sql(DUE_EVENTS)])
            else:
                messages.clear_nudge_marks(keys)
                self._work([key for key in keys if key in self.facts.withdrawals], fate, "accepted")
            return True
        return False

    def _forget_messages(self) -> None:
        # Delete the messages and their marks only: the server may have other data.
        self.broker.delete(*QUEUES, *self.broker.scan_iter("nudged:*"))

    def _wait(self, seconds: int) -> None:
        if seconds:
            with engine().begin() as connection:
                connection.exec_driver_sql(AGE.format(seconds))
            self.provider.wait(seconds)
            self._check()

    def _arrive_all(self, keys: list[str]) -> None:
        for key in set(keys) & self.provider.stuck.keys():
            self.provider.arrive(key)
        self._check_the_provider()

    def _webhook(self, payout: Row, event_id: str | None = None, *, at_once: bool = True) -> None:
        self.counter += 1
        event_id = event_id or f"event-{self.counter}"
        name = f"payout.{payout['status']}"
        body = {"entity": "event", "event": name, "payload": {"payout": {"entity": payout}}}
        is_new = inbox.receive(event_id, json.dumps(body).encode())
        assert is_new == (event_id not in self.events), "an event is stored once"
        self.events[event_id] = read(payout)
        if at_once:
            self._apply([event_id])
        self._check()

    def _apply(self, event_ids: list[str]) -> None:
        query = "SELECT event_id FROM webhook_events WHERE event_id = ANY(:ids) AND applied_at IS NULL"
        waiting = {row.event_id for row in self.world.sql(query, ids=event_ids)}
        before = self.facts
        outcomes = inbox.apply(event_ids)
        assert outcomes.keys() == waiting, "an event is applied once"
        for event_id, outcome in outcomes.items():
            if outcome == "pay":
                report = self.events[event_id]
                belief = self.beliefs[str(report.reference_id)]
                assert belief.may_trust_webhook(report), f"{belief} was paid by a webhook alone"
                belief.state = "paid"
                belief.unconfirmed = True
        self._check()
        if "pay" not in outcomes.values():
            assert before.without_hints() == self.facts.without_hints(), "a webhook alone changed something"

    def _tell(self, report: PayoutReport, channel: str) -> None:
        flagged = self._report_to_model(report)
        with transaction() as session:
            withdrawals.apply_report(session, report, channel)
        self._check()
        self._must_be_flagged(flagged)

    def _report_to_model(self, report: PayoutReport) -> set[str]:
        """Pass a report to the model; returns the withdrawal that it contradicts."""
        own = [key for key in self.beliefs if key == report.reference_id]
        same_payout = [key for key, belief in self.beliefs.items() if belief.payout_id == report.payout_id]
        if not own + same_payout:
            return set()
        key = (own + same_payout)[0]
        belief = self.beliefs[key]
        is_blocked = self.facts.is_blocked(belief.withdrawal_id)
        is_others = bool(set(same_payout) - {key}) or report.reference_id not in (None, key)
        is_acted_on = report.outcome == "paid" and self.facts.taken_back(belief.withdrawal_id) > 0
        contradicts = belief.reported(
            report, is_others=is_others, is_blocked=is_blocked, is_acted_on=is_acted_on
        )
        if contradicts and report.outcome in ALIVE:
            self._must_freeze(belief.withdrawal_id)
        return {belief.withdrawal_id} if contradicts else set()

    def _must_freeze(self, key: str) -> None:
        """A refunded withdrawal has a live payout: its user's wallet must be frozen from the next check on."""
        if self.facts.withdrawals[key]["status"] in REFUNDED:
            self.frozen.add(self.facts.withdrawals[key]["user_id"])

    def _propose(self, key: str, decision: Decision, actor: str) -> None:
        paid = payment(f"{UUID(key).int % 10**12:012}") if decision is Decision.PAID else NO_PAYMENT
        with contextlib.suppress(BadRequest, Conflict):
            withdrawals.propose(UUID(key), decision, evidence="seen", actor=actor, paid=paid)
        self._check()

    def _approve(self, proposal: Row, actor: str) -> None:
        key = proposal["withdrawal_id"]
        try:
            withdrawals.approve(UUID(proposal["id"]), actor=actor)
        except (BadRequest, Conflict):
            self._check()
            return
        assert proposal["proposed_by"] != actor, "one person decided alone"
        owner = f"operator:{self.facts.withdrawals[key]['user_id']}"
        assert owner not in (proposal["proposed_by"], actor), "a person decided about their own wallet"
        self.decided.add(key)
        for attempt in self.facts.keys(key):
            self.beliefs[attempt].queries = -1  # a look-up in progress no longer counts
        self._check(by_people={key})

    def _forbidden(self, user_id: str) -> bool:
        """True if this user must not be paid: frozen, or their only UPI id is blocked."""
        return user_id in self.frozen or USERS[user_id] in self.blocked

    def _forbid(self, user_id: str, what: str) -> None:
        """Block or freeze, or end that."""
        forbidden, begin, propose_end, subject = (
            (self.blocked, blocks.add, blocks.propose_unblock, USERS[user_id])
            if what == "block"
            else (self.frozen, blocks.freeze, blocks.propose_unfreeze, user_id)
        )
        with transaction() as session:
            if subject in forbidden:
                proposal = propose_end(session, subject, reason="seen", actor=PEOPLE[0])
                blocks.approve(session, proposal.id, actor=PEOPLE[1])
            else:
                begin(session, subject, reason="seen", actor=PEOPLE[0])
        forbidden ^= {subject}
        self._check()

    def _review(self, key: str, verb: Callable[..., object], actor: str, *, stale: bool = False) -> None:
        """Decide a review, with the current facts or, if `stale`, with outdated ones."""
        row = self.facts.withdrawals[key]
        with transaction() as session:
            shown = review.facts_hash(session, withdrawals.find(session, UUID(key)))
        may = row["status"] == "pending" and row["awaits_approval"] and not stale
        if verb is withdrawals.approve_review:
            is_own = actor == f"operator:{row['user_id']}"
            may = may and not is_own and not self._forbidden(row["user_id"])
        try:
            verb(UUID(key), shown="" if stale else shown, reason="seen", actor=actor)
            assert may, f"{key} was decided although that was not allowed"
            if verb is withdrawals.reject_review:
                self.decided.add(key)
        except Conflict:
            assert not may, f"{key} awaits approval but could not be decided"
        self._check()

    def _set_review_all(self, yes: bool) -> None:
        """Turn REVIEW_ALL on or off for new requests."""
        os.environ["REVIEW_ALL"] = "on" if yes else "off"
        settings.cache_clear()

    def _is_true(self, key: str, decision: Decision) -> bool:
        """True if people can have seen this at the provider."""
        keys = self.facts.keys(key)
        if decision is Decision.REFUND:
            return not self.provider.could_still_pay(keys)
        if decision is Decision.GIVE_BACK:
            return False  # with an honest provider no coins are ever taken back
        return decision is Decision.GO_ON or "processed" in self.provider.statuses(keys)

    def _pick(self, i: int) -> str:
        keys = list(self.facts.withdrawals)
        return keys[i % len(keys)]

    def _payout(self, n: int) -> Payout:
        payouts = list(self.provider.payouts.values())
        return payouts[n % len(payouts)]

    def _proposals(self) -> list[Row]:
        return [row for row in self.facts.resolutions if row["outcome"] is None]

    # --- the checks

    def _check(self, by_people: set[str] | frozenset[str] = frozenset()) -> None:
        """Check the rows, their changes, the reports and the provider's true list after every action."""
        before = self.facts
        self.facts = Facts.read(self.world)
        faults = [*find_faults(self.facts), *find_forbidden_changes(before, self.facts, set(by_people))]
        faults += [f"two moves in one step: {key}" for key in moved_twice(before, self.facts)]
        faults += self._ends_without_evidence(set(by_people))
        assert not faults, faults
        self._check_frozen_wallets()
        self._check_the_provider()

    def _check_frozen_wallets(self) -> None:
        frozen = {wallet["user_id"] for wallet in self.facts.wallets if wallet["is_frozen"]}
        rows = self.facts.withdrawals.items()
        # Frozen by a contradiction that the model does not know: it knows only part of the reports.
        odd = {
            row["user_id"] for key, row in rows if row["status"] in REFUNDED and self.facts.is_blocked(key)
        }
        assert self.frozen <= frozen <= self.frozen | odd, f"frozen: {frozen}, expected: {self.frozen}"
        self.frozen = frozen

    def _ends_without_evidence(self, by_people: set[str]) -> list[str]:
        faults = []
        for key, row in self.facts.attempts.items():
            belief = self.beliefs.get(key)
            state = row["state"]
            if belief is None or belief.state == state:
                continue  # its step is being recorded right now
            certain = belief.withdrawal_id in by_people or (state == "refused" and self._is_certain(belief))
            if state in ENDED and certain:
                belief.state = state
                belief.payout_id = row["payout_id"]
            elif state in ENDED or belief.state in ENDED:
                faults.append(f"attempt {key} is {state}, but the reports say {belief}")
        for key, row in self.facts.withdrawals.items():
            unsent = row["status"] == "failed" and not self.facts.keys(key)
            if unsent and key not in self.unpayable | self.decided:
                faults.append(f"{key} failed before anything was sent, without a reason")
        return faults

    def _is_certain(self, belief: Belief) -> bool:
        return belief.may_be_refused(self.provider.now())

    def _must_be_flagged(self, keys: set[str]) -> None:
        for key in keys:
            assert self.facts.is_blocked(key), f"{key} is contradictory but not flagged"

    def _check_the_provider(self) -> None:
        assert not self.provider.faults, self.provider.faults
        if not self.honest:
            return
        for key, row in self.facts.withdrawals.items():
            keys = self.facts.keys(key)
            alive = [status for status in self.provider.statuses(keys) if status not in DEAD]
            assert len(alive) + len(self.provider.stuck.keys() & set(keys)) <= 1, f"{key} may be paid twice"
            if self.facts.refunds(key):
                assert not self.provider.could_still_pay(keys), f"{key} was refunded but may be paid"
                assert not self._may_still_be_sent(key), f"{key} was refunded but a worker may send it"
            flag = row["hold"] or "unanswered"
            known = ["unanswered", "upi_blocked", "wallet_frozen"]
            known += ["worker_error"] * (self.worker_errors[key] >= ERRORS_BEFORE_HOLD)
            expected = flag in known or flag.startswith("held:") or key in self.decided
            assert expected, f"{key} is flagged {flag} without a contradiction"

    def _may_still_be_sent(self, key: str) -> bool:
        mine = (h for h in self.held if str(h.step.withdrawal_id) == key and isinstance(h.step, Send))
        return any(h.answer is None and h.may_call_until > self.provider.now() for h in mine)

    # --- the end of an example: everything settles

    def teardown(self) -> None:
        self.held.clear()  # the workers are gone
        old = {key for key, row in self.facts.withdrawals.items() if row["is_old"]}
        for proposal in self._proposals():
            withdrawals.reject(UUID(proposal["id"]), actor=PEOPLE[0])
        for switch in self.facts.switches:
            if not switch["is_on"] and not switch["probes"]:
                withdrawals.resume(switch["name"], reason="calm", actor=PEOPLE[0])
        self._set_review_all(False)
        for user_id, upi_id in USERS.items():
            for what in ["block"] * (upi_id in self.blocked) + ["freeze"] * (user_id in self.frozen):
                self._forbid(user_id, what)
        for key, row in self.facts.withdrawals.items():
            if row["status"] == "pending" and row["awaits_approval"]:
                other = next(person for person in PEOPLE if person != f"operator:{row['user_id']}")
                self._review(key, withdrawals.approve_review, other)
        self._check()
        for _ in range(40):
            if self._is_settled():
                break
            self._settle_round()
        assert self._is_settled(), f"still waiting: {self._waiting()}"
        unmatched = self.world.sql(UNMATCHED)
        assert not unmatched, f"events that came before their attempt were never applied: {unmatched}"
        if self.honest:
            self._agrees_with_the_provider(old)
        self.world.sql("UPDATE withdrawals SET due_at = now() WHERE due_at < now()")
        result = checks.run()
        assert result.holds, [(finding.check.invariant, finding.ids) for finding in result.findings]

    def _settle_round(self) -> None:
        # If only rechecks are left, let the days pass at once.
        self._wait(4000 if self._waiting() else 9 * DAY_SECONDS)
        self.provider.settle()
        for _ in range(2):  # first the due work, then the queries that webhooks asked for
            self._sweep()
            while self._next_message("accepted"):
                pass
        for key in [key for key in self.facts.withdrawals if self.facts.is_blocked(key)] * self.honest:
            self._people_decide(key)

    def _people_decide(self, key: str) -> None:
        for decision in (Decision.PAID, Decision.REFUND, Decision.GO_ON):
            if self.facts.is_blocked(key) and self._is_true(key, decision):
                self._propose(key, decision, PEOPLE[0])
                for proposal in self._proposals():
                    self._approve(proposal, PEOPLE[1])

    def _waiting(self) -> list[object]:
        rows = self.facts.withdrawals.items()
        flagged = {key for key, _ in rows if self.facts.is_blocked(key)}
        unfinished = {key: row for key, row in rows if row["status"] in OPEN and key not in flagged}
        waiting = [*self.facts.waiting_events, *self.facts.hints]
        return [*unfinished.items(), *(flagged if self.honest else ()), *waiting]

    def _is_settled(self) -> bool:
        rechecks = any(row["has_recheck"] for row in self.facts.attempts.values())
        return not self._waiting() and not rechecks

    def _agrees_with_the_provider(self, old: set[str]) -> None:
        """`old`: completed so long ago that no recheck was left when the bank returned the money."""
        for key, row in self.facts.withdrawals.items():
            paid = "processed" in self.provider.statuses(self.facts.keys(key))
            assert paid == (row["status"] == "completed") or key in old, f"{row}, {self.provider.payouts}"
            assert row["hold"] is None, f"{key} is final but still flagged"
