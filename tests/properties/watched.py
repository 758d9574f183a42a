"""Every verb done, and looked at: after each one the rows, the provider's true list and what was told must agree.

`test_verbs.py` has the rules that say in which order.
"""

import base64
import contextlib
import json
import os
import time
from collections.abc import Callable
from uuid import UUID

from hypothesis.stateful import RuleBasedStateMachine

from shared import blocks, checks, db, inbox, queues, withdrawals
from shared.errors import BadRequest, Conflict
from shared.razorpayx.answers import ALIVE, Accepted, Found, PayoutReport, Refused
from shared.settings import settings
from shared.states import Decision
from shared.steps import Prepare, Send, Step
from shared.withdrawals import reviewing
from shared.withdrawals.paid_outside import NOT_TOLD
from tests.properties.facts import EMPTY, ENDED, OPEN, REFUNDED, Facts, Row, broken, broken_moves, two_changes
from tests.properties.model import DAY, DEAD, Belief, Held, Payout, Provider, read
from tests.world import World, payment

USERS = {"asha": "asha@okaxis", "ravi": "ravi@ybl"}
MOST_WITHDRAWALS, MOST_OPEN = 5, 3
PEOPLE = ("operator:meera", "operator:noor", "operator:asha")  # of whom one has a wallet
# What `World.advance` does, and the ages that rows reach besides. Due work stays due, and nobody was late.
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
UNHEARD = """
    SELECT event_id FROM webhook_events e JOIN payout_attempts a ON e.reference_id = a.id::text
    WHERE e.outcome = 'unmatched'
"""


class Watched(RuleBasedStateMachine):
    """The system in the hands of the model. In an honest world the provider's true list is a judge too."""

    honest = True

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        with db.engine().begin() as connection:
            connection.exec_driver_sql(EMPTY)
        self.broker = queues.broker()
        self._forget_messages()
        self.provider = Provider()
        self.beliefs: dict[str, Belief] = {}  # by attempt id
        self.held: list[Held] = []  # steps in workers' hands
        self.events: dict[str, PayoutReport] = {}  # what each kept webhook says
        self.unpayable: set[str] = set()  # withdrawals whose payee was refused
        self.decided: set[str] = set()  # by people, ever
        self.blocked: set[str] = set()  # UPI ids
        self.frozen: set[str] = set()  # users
        self.counter = 0
        self.facts = Facts.of(world)

    # --- how each is done

    def _credit(self, user_id: str, coins: int) -> None:
        self.counter += 1
        before = self.facts.balance(user_id) or 0
        self.world.credit(user_id, coins, reference=f"credit-{self.counter}")
        self._look()
        assert self.facts.balance(user_id) == before + coins

    def _request(self, user_id: str, coins: int) -> str:
        before = self.facts.balance(user_id) or 0
        try:
            self.world.request(user_id, coins, USERS[user_id])
            assert before >= coins, "more coins were taken than there were"
            assert not self._forbidden(user_id), "taken for somebody who is not paid"
        except BadRequest:
            assert before < coins or self._forbidden(user_id), "there were coins enough"
        self._look()
        return list(self.facts.withdrawals)[-1]

    def _has_room(self) -> bool:
        """Whether one more withdrawal keeps the game short."""
        rows = self.facts.withdrawals.values()
        return len(rows) < MOST_WITHDRAWALS and sum(row["status"] in OPEN for row in rows) < MOST_OPEN

    def _cancel(self, key: str) -> None:
        may = self.facts.withdrawals[key]["status"] == "pending"
        try:
            withdrawals.cancel(UUID(key), reason="changed my mind", actor="app:test")
            assert may, f"{key} was cancelled although it was not pending"
        except BadRequest:
            assert not may, f"{key} is pending and could not be cancelled"
        self._look()

    def _claim(self, key: str) -> Held | None:
        step = withdrawals.claim(UUID(key))
        row = self.facts.withdrawals[key]
        may = row["is_due"] or row["status"] == "completed" or getattr(step, "hints", None) is not None
        assert not step or may, f"{key} was not due: {step}"
        held = self._hold(step) if step else None
        self._look()
        return held

    def _hold(self, step: Step) -> Held:
        key, now = str(step.withdrawal_id), self.provider.now()
        if isinstance(step, Prepare | Send):
            off = {s["name"] for s in self.facts.switches if not s["is_on"] and not s["probes"]}
            upi_id = self.facts.withdrawals[key]["upi_id"]
            assert not off & {"payouts", "handle:" + upi_id.partition("@")[2]}, f"{key} is sent in a pause"
            assert not self.facts.is_blocked(key), f"{key} needs a person and is sent"
            assert not self.facts.withdrawals[key]["awaits_approval"], f"{key} awaits approval and is sent"
            assert not self._forbidden(self.facts.withdrawals[key]["user_id"]), f"{key} must not be paid"
        if isinstance(step, Prepare):
            return Held(step, now, now)
        amount_paise = self.facts.withdrawals[key]["amount_paise"]
        self.beliefs.setdefault(str(step.attempt_id), Belief(key, amount_paise)).hands_out(step)
        until = now + step.until - time.time() if isinstance(step, Send) else now
        return Held(step, now, until)

    def _call(self, held: Held, fate: str) -> None:
        held.answer = self.provider.perform(held, fate)
        self._look_at_the_provider()

    def _record(self, held: Held) -> Held | None:
        assert held.answer is not None
        flagged: set[str] = set()
        match held.answer:
            case Accepted(report=report) | Found(reports=(report,)):
                flagged |= self._hear(report)
            case Found(reports=(_, _, *_) as reports):
                flagged.add(str(held.step.withdrawal_id))
                if any(report.outcome in ALIVE for report in reports):
                    self._must_freeze(str(held.step.withdrawal_id))
            case _ if isinstance(held.step, Prepare):
                if isinstance(held.answer, Refused):
                    self.unpayable.add(str(held.step.withdrawal_id))
            case _:
                self.beliefs[str(held.step.attempt_id)].learns(held, self.provider.now())
        step = withdrawals.record_answer(held.step, held.answer)
        following = self._hold(step) if step else None
        self._look()
        self._must_be_flagged(flagged)
        return following

    def _work(self, key: str, fate: str, only: type = object) -> None:
        held = self._claim(key)
        while held:
            others = "accepted" if isinstance(held.step, Prepare) else "never"
            self._call(held, fate if isinstance(held.step, only) else others)
            held = self._record(held)

    def _sweep(self) -> None:
        withdrawals.sweep()
        self._look()

    def _next_message(self, fate: str) -> bool:
        """Do what the next message asks for, as a worker would; False when none waits."""
        for queue in (queues.WEBHOOKS, queues.PAYOUTS, queues.POLLS, queues.BACKLOG):
            raw = self.broker.rpop(queue)
            if raw is None:
                continue
            message = json.loads(raw)
            key = json.loads(base64.b64decode(message["body"]))[0][0]
            queues.taken(key)
            if message["headers"]["task"] == queues.APPLY:
                self._apply(key)
            elif key in self.facts.withdrawals:
                self._work(key, fate)
            return True
        return False

    def _forget_messages(self) -> None:
        # The messages, and the marks that say that they wait. No more: the server may be somebody's own.
        self.broker.delete(*queues.QUEUES, *self.broker.scan_iter("nudged:*"))

    def _wait(self, seconds: int) -> None:
        if seconds:
            with db.engine().begin() as connection:
                connection.exec_driver_sql(AGE.format(seconds))
            self.provider.wait(seconds)
            self._look()

    def _arrive_all(self, keys: list[str]) -> None:
        for key in set(keys) & self.provider.stuck.keys():
            self.provider.arrive(key)
        self._look_at_the_provider()

    def _webhook(self, told: Row, event_id: str | None = None, *, at_once: bool = True) -> None:
        self.counter += 1
        event_id = event_id or f"event-{self.counter}"
        name = f"payout.{told['status']}"
        body = {"entity": "event", "event": name, "payload": {"payout": {"entity": told}}}
        is_new = inbox.receive(event_id, json.dumps(body).encode())
        assert is_new == (event_id not in self.events), "an event is kept once"
        self.events[event_id] = read(told)
        if at_once:
            self._apply(event_id)
        self._look()

    def _apply(self, event_id: str) -> None:
        kept = "SELECT FROM webhook_events WHERE event_id = :id AND applied_at IS NULL"
        waits = bool(self.world.sql(kept, id=event_id))
        before, report = self.facts, self.events[event_id]
        outcome = inbox.apply(event_id)
        assert (outcome is not None) == waits, "an event is applied once"
        if outcome == "pay":
            belief = self.beliefs[str(report.reference_id)]
            assert belief.may_believe(report), f"{belief} was paid on a webhook's word"
            belief.state, belief.unconfirmed = "paid", True
        self._look()
        if outcome != "pay":
            assert before.but_for_hints() == self.facts.but_for_hints(), "a webhook's word changed something"

    def _tell(self, report: PayoutReport, channel: str) -> None:
        flagged = self._hear(report)
        with db.transaction() as session:
            withdrawals.apply_report(session, report, channel)
        self._look()
        self._must_be_flagged(flagged)

    def _hear(self, report: PayoutReport) -> set[str]:
        """The model hears a report; returns the withdrawal that it contradicts."""
        mine = [key for key in self.beliefs if key == report.reference_id]
        known = [key for key, belief in self.beliefs.items() if belief.payout_id == report.payout_id]
        if not mine + known:
            return set()
        key = (mine + known)[0]
        belief = self.beliefs[key]
        is_blocked = self.facts.is_blocked(belief.withdrawal_id)
        is_others = bool(set(known) - {key}) or report.reference_id not in (None, key)
        is_acted_on = report.outcome == "paid" and self.facts.taken_back(belief.withdrawal_id) > 0
        against = belief.hears(report, is_others=is_others, is_blocked=is_blocked, is_acted_on=is_acted_on)
        if against and report.outcome in ALIVE:
            self._must_freeze(belief.withdrawal_id)
        return {belief.withdrawal_id} if against else set()

    def _must_freeze(self, key: str) -> None:
        """Coins are back, and a payout lives: from the next look on its user withdraws nothing."""
        if self.facts.withdrawals[key]["status"] in REFUNDED:
            self.frozen.add(self.facts.withdrawals[key]["user_id"])

    def _propose(self, key: str, decision: Decision, who: str) -> None:
        told = payment(f"{UUID(key).int % 10**12:012}") if decision is Decision.PAID else NOT_TOLD
        with contextlib.suppress(BadRequest, Conflict):
            withdrawals.propose(UUID(key), decision, evidence="seen", actor=who, paid=told)
        self._look()

    def _approve(self, proposal: Row, who: str) -> None:
        key = proposal["withdrawal_id"]
        try:
            withdrawals.approve(UUID(proposal["id"]), actor=who)
        except (BadRequest, Conflict):
            self._look()
            return
        assert proposal["proposed_by"] != who, "one person decided alone"
        owner = f"operator:{self.facts.withdrawals[key]['user_id']}"
        assert owner not in (proposal["proposed_by"], who), "somebody decided for themselves"
        self.decided.add(key)
        for attempt in self.facts.keys(key):
            self.beliefs[attempt].checks = -1  # whoever is looking now has been overtaken
        self._look(by_people={key})

    def _forbidden(self, user_id: str) -> bool:
        """Whether this user is not paid: frozen, or their UPI id blocked. Each has one."""
        return user_id in self.frozen or USERS[user_id] in self.blocked

    def _forbid(self, user_id: str, what: str) -> None:
        """Block or freeze, or the end of it."""
        forbidden, verb, end, about = (
            (self.blocked, blocks.add, blocks.propose_unblock, USERS[user_id])
            if what == "block"
            else (self.frozen, blocks.freeze, blocks.propose_unfreeze, user_id)
        )
        with db.transaction() as session:
            if about in forbidden:
                made = end(session, about, reason="seen", actor=PEOPLE[0])
                blocks.approve(session, made.id, actor=PEOPLE[1])
            else:
                verb(session, about, reason="seen", actor=PEOPLE[0])
        forbidden ^= {about}
        self._look()

    def _review(self, key: str, verb: Callable[..., object], who: str, *, stale: bool = False) -> None:
        """Somebody decides in review, perhaps on what stands there no more."""
        row = self.facts.withdrawals[key]
        with db.transaction() as session:
            shown = reviewing.facts(session, withdrawals.find(session, UUID(key)))
        may = row["status"] == "pending" and row["awaits_approval"] and not stale
        if verb is withdrawals.approve_review:
            is_own = who == f"operator:{row['user_id']}"
            may = may and not is_own and not self._forbidden(row["user_id"])
        try:
            verb(UUID(key), shown="" if stale else shown, reason="seen", actor=who)
            assert may, f"{key} was decided on though it awaited nothing, or not this"
            if verb is withdrawals.reject_review:
                self.decided.add(key)
        except Conflict:
            assert not may, f"{key} awaits approval and could not be decided on"
        self._look()

    def _every_one_is_reviewed(self, yes: bool) -> None:
        """Turn REVIEW_ALL on or off: what was asked for before is as it was."""
        os.environ["REVIEW_ALL"] = "on" if yes else "off"
        settings.cache_clear()

    def _is_true(self, key: str, decision: Decision) -> bool:
        """Whether people can have seen this at the provider."""
        keys = self.facts.keys(key)
        if decision is Decision.REFUND:
            return not self.provider.could_still_pay(keys)
        if decision is Decision.GIVE_BACK:
            return False  # an honest provider's coins were never taken back
        return decision is Decision.GO_ON or "processed" in self.provider.statuses(keys)

    def _pick(self, i: int) -> str:
        keys = list(self.facts.withdrawals)
        return keys[i % len(keys)]

    def _payout(self, n: int) -> Payout:
        payouts = list(self.provider.payouts.values())
        return payouts[n % len(payouts)]

    def _proposals(self) -> list[Row]:
        return [row for row in self.facts.resolutions if row["outcome"] is None]

    # --- what must hold

    def _look(self, by_people: set[str] | frozenset[str] = frozenset()) -> None:
        """After every verb: the rows, their moves, what was told, and what is true at the provider."""
        before, self.facts = self.facts, Facts.of(self.world)
        faults = [*broken(self.facts), *broken_moves(before, self.facts, set(by_people))]
        faults += [f"two moves in one step: {key}" for key in two_changes(before, self.facts)]
        faults += self._ends_without_evidence(set(by_people))
        assert not faults, faults
        self._look_at_the_frozen()
        self._look_at_the_provider()

    def _look_at_the_frozen(self) -> None:
        frozen = {wallet["user_id"] for wallet in self.facts.wallets if wallet["is_frozen"]}
        rows = self.facts.withdrawals.items()
        # By a contradiction that the model cannot know: what it knows is a subset of what was told.
        odd = {
            row["user_id"] for key, row in rows if row["status"] in REFUNDED and self.facts.is_blocked(key)
        }
        assert self.frozen <= frozen <= self.frozen | odd, f"frozen are {frozen}, and should be {self.frozen}"
        self.frozen = frozen

    def _ends_without_evidence(self, by_people: set[str]) -> list[str]:
        faults = []
        for key, row in self.facts.attempts.items():
            belief, state = self.beliefs.get(key), row["state"]
            if belief is None or belief.state == state:
                continue  # the step that made it is just being taken over
            certain = belief.withdrawal_id in by_people or (state == "refused" and self._is_certain(belief))
            if state in ENDED and certain:
                belief.state, belief.payout_id = state, row["payout_id"]
            elif state in ENDED or belief.state in ENDED:
                faults.append(f"attempt {key} is {state}, and what was told is {belief}")
        for key, row in self.facts.withdrawals.items():
            unsent = row["status"] == "failed" and not self.facts.keys(key)
            if unsent and key not in self.unpayable | self.decided:
                faults.append(f"{key} failed before anything was sent, and nobody said why")
        return faults

    def _is_certain(self, belief: Belief) -> bool:
        return belief.may_be_refused(self.provider.now())

    def _must_be_flagged(self, keys: set[str]) -> None:
        for key in keys:
            assert self.facts.is_blocked(key), f"{key} contradicts itself, and nobody is told"

    def _look_at_the_provider(self) -> None:
        assert not self.provider.faults, self.provider.faults
        if not self.honest:
            return
        for key, row in self.facts.withdrawals.items():
            keys = self.facts.keys(key)
            alive = [status for status in self.provider.statuses(keys) if status not in DEAD]
            assert len(alive) + len(self.provider.stuck.keys() & set(keys)) <= 1, f"{key} may be paid twice"
            if self.facts.refunds(key):
                assert not self.provider.could_still_pay(keys), f"{key} was refunded, and may be paid"
                assert not self._may_still_be_sent(key), f"{key} was refunded, and a worker may send it"
            flag = row["review"] or "unanswered"
            known = ("unanswered", "upi_blocked", "wallet_frozen")
            expected = flag in known or flag.startswith("held:") or key in self.decided
            assert expected, f"{key} is flagged {flag}, and nothing contradicts it"

    def _may_still_be_sent(self, key: str) -> bool:
        mine = (h for h in self.held if str(h.step.withdrawal_id) == key and isinstance(h.step, Send))
        return any(h.answer is None and h.may_call_until > self.provider.now() for h in mine)

    # --- at the end calm returns

    def teardown(self) -> None:
        self.held.clear()  # whoever had something in hand is gone
        old = {key for key, row in self.facts.withdrawals.items() if row["is_old"]}
        for proposal in self._proposals():
            withdrawals.reject(UUID(proposal["id"]), actor=PEOPLE[0])
        for switch in self.facts.switches:
            if not switch["is_on"] and not switch["probes"]:
                withdrawals.resume(switch["name"], reason="calm", actor=PEOPLE[0])
        self._every_one_is_reviewed(False)
        for user_id, upi_id in USERS.items():
            for what in ["block"] * (upi_id in self.blocked) + ["freeze"] * (user_id in self.frozen):
                self._forbid(user_id, what)
        for key, row in self.facts.withdrawals.items():
            if row["status"] == "pending" and row["awaits_approval"]:
                other = next(who for who in PEOPLE if who != f"operator:{row['user_id']}")
                self._review(key, withdrawals.approve_review, other)
        self._look()
        for _ in range(40):
            if self._is_calm():
                break
            self._calm_round()
        assert self._is_calm(), f"still waiting: {self._waiting()}"
        unheard = self.world.sql(UNHEARD)
        assert not unheard, f"these came before their attempt, and were never heard again: {unheard}"
        if self.honest:
            self._agrees_with_the_provider(old)
        self.world.sql("UPDATE withdrawals SET due_at = now() WHERE due_at < now()")
        result = checks.run()
        assert result.holds, [(finding.check.truth, finding.ids) for finding in result.findings]

    def _calm_round(self) -> None:
        # Nothing but looking again at what was paid: then the days go by at once.
        self._wait(4000 if self._waiting() else 9 * DAY)
        self.provider.settle()
        for _ in range(2):  # what was due by itself, and then what a webhook made us ask besides
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
        open_ones = {key: row for key, row in rows if row["status"] in OPEN and key not in flagged}
        waiting = [*self.facts.waiting_events, *self.facts.hints]
        return [*open_ones.items(), *(flagged if self.honest else ()), *waiting]

    def _is_calm(self) -> bool:
        rechecks = any(row["has_recheck"] for row in self.facts.attempts.values())
        return not self._waiting() and not rechecks

    def _agrees_with_the_provider(self, old: set[str]) -> None:
        """`old`: completed so long ago that nobody looked any more when the bank sent the money back."""
        for key, row in self.facts.withdrawals.items():
            paid = "processed" in self.provider.statuses(self.facts.keys(key))
            assert paid == (row["status"] == "completed") or key in old, f"{row}, {self.provider.payouts}"
            assert row["review"] is None, f"{key} is over, and still flagged"
