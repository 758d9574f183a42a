"""The life cycle of a payout: accept it, move it along its scenario, debit and credit the account.

`MD:x/payouts/states-life-cycle.md`, `MD:x/payouts/queued.md`, `MD:webhooks/payouts.md`.
"""

from __future__ import annotations

from typing import Any

from .clock import Clock
from .entities import oddity_number, transaction_entity, webhook_payout_entity
from .errors import ApiError, insufficient_funds
from .scenarios import PROCESSING, Scenario, Step
from .settings import Settings
from .state import FundAccount, Payout, World, new_id
from .webhooks import Webhooks

# `cancelled` has no event (`MD:webhooks/payouts.md`): only the API reports it.
EVENT_NAMES = {
    "pending": "payout.pending",
    "queued": "payout.queued",
    "processing": "payout.initiated",
    "processed": "payout.processed",
    "failed": "payout.failed",
    "reversed": "payout.reversed",
    "rejected": "payout.rejected",
}


class Payouts:
    """Moves payouts. Nothing else changes the balance while they run."""

    def __init__(
        self,
        world: World,
        clock: Clock,
        webhooks: Webhooks,
        settings: Settings,
        account_number: str,
        seed: int,
    ) -> None:
        self.world = world
        self.clock = clock
        self.webhooks = webhooks
        self.settings = settings
        self.account_number = account_number
        self.seed = seed

    def accept(
        self, fields: dict[str, Any], account: FundAccount, scenario: Scenario, key: str, composite: bool
    ) -> Payout:
        """Create the payout and take its first step. Without enough balance, queue it, refuse it or fail it
        later.
        """
        steps = list(scenario.walk)
        unfunded = (
            self._is_underfunded(fields["amount"])
            and steps[0].status == "processing"
            and (not fields["queue_if_low_balance"])
        )
        if unfunded:
            if not self.settings.low_balance_async:
                raise insufficient_funds()
            steps = [PROCESSING, Step(1.0, "failed", "insufficient_funds")]
        number = len(self.world.in_order) + 1
        payout = Payout(
            id=new_id("pout"),
            number=number,
            key=key,
            scenario=scenario,
            fund_account=account,
            composite=composite,
            fields=fields,
            created_at=self.clock.now(),
            odd=oddity_number(self.seed, number),
            steps=steps,
            debited=unfunded,  # nothing to debit
        )
        self.world.add_payout(payout)
        self._step(payout)
        return payout

    def finish_now(self, payout: Payout) -> None:
        """Take all remaining steps at once."""
        while payout.timer is not None:
            self._stop(payout)
            self._step(payout)

    def cancel(self, payout: Payout) -> None:
        """Only a queued payout can be cancelled through the API (`MD:api/x/payouts/cancel.md`)."""
        if payout.status != "queued":
            raise ApiError(f"Payout cannot be cancelled in {payout.status} state.", field="id")
        self.set_status(payout, "cancelled", None)

    def set_status(self, payout: Payout, status: str, reason: str | None) -> None:
        """Leave the scenario and set this status, like Change Status in test mode
        (`MD:x/dashboard/test-mode.md`).
        """
        if status in ("processing", "processed") and not payout.held_paise:
            payout.debited = False
            if not self._debit(payout):
                raise insufficient_funds()
        self._stop(payout)
        payout.steps = []
        self.world.low_balance_queue.pop(payout.id, None)
        self._move(payout, Step(0, status, reason))
        self.run_low_balance_queue()

    def set_balance(self, paise: int) -> None:
        """Set the balance and run queued payouts that now fit."""
        self.world.balance_paise = paise
        self.run_low_balance_queue()

    def run_low_balance_queue(self) -> None:
        """First in, first out, skipping what does not fit (`MD:x/payouts/queued.md`)."""
        for payout in list(self.world.low_balance_queue.values()):
            if self.world.balance_paise < 100:
                return
            if not self._is_underfunded(payout.fields["amount"]):
                del self.world.low_balance_queue[payout.id]
                self._step(payout)

    def _is_underfunded(self, amount: int) -> bool:
        return amount + self.settings.fees_paise > self.world.balance_paise

    def _stop(self, payout: Payout) -> None:
        if payout.timer is not None:
            payout.timer.cancel()
            payout.timer = None

    def _step(self, payout: Payout) -> None:
        """Take the next step and set the timer of the one after it."""
        payout.timer = None
        step = payout.steps.pop(0)
        if step.status == "processing" and not self._debit(payout):
            self._queue_or_fail(payout, step)
            return
        self._move(payout, step)
        if payout.steps:
            payout.timer = self.clock.after(payout.steps[0].after, lambda: self._step(payout))
        if step.status in ("failed", "reversed"):
            self.run_low_balance_queue()

    def _queue_or_fail(self, payout: Payout, step: Step) -> None:
        if payout.fields["queue_if_low_balance"]:
            payout.steps.insert(0, step)
            self.world.low_balance_queue[payout.id] = payout
            self._move(payout, Step(0, "queued", "low_balance"))
        else:
            payout.steps = []
            self._move(payout, Step(0, "failed", "insufficient_funds"))

    def _debit(self, payout: Payout) -> bool:
        """Debit amount and fees when processing begins; fees are 0 before (`MD:api/x/payouts/entity.md`)."""
        if payout.debited:
            return True
        if self._is_underfunded(payout.fields["amount"]):
            return False
        cost = payout.fields["amount"] + self.settings.fees_paise
        payout.debited = True
        payout.debit_written = False
        payout.fees = self.settings.fees_paise
        payout.tax = self.settings.tax_paise
        payout.held_paise = cost
        self.world.balance_paise -= cost
        return True

    def _credit_back(self, payout: Payout) -> None:
        """Credit amount and fees once, with a transaction of their own."""
        paise = payout.held_paise
        payout.held_paise = 0
        if paise:
            self.world.balance_paise += paise
            self._transaction(payout, credit=paise, reversal_id=new_id("rvrsl"))

    def _move(self, payout: Payout, step: Step) -> None:
        """Enter the status of a step: money, history, events."""
        status = self._status_of(payout, step)
        changed = status != payout.status
        utr_before = payout.utr
        payout.status = status
        payout.reason = step.reason
        if status == "processed" and payout.utr is None:
            payout.utr = self.world.next_utr()
        payout.history.append((self.clock.now(), status, step.reason))
        if payout.held_paise and not payout.debit_written:
            payout.debit_written = True
            self._transaction(payout, debit=payout.held_paise)
        self._emit(payout, changed, payout.utr != utr_before)
        if status in ("failed", "reversed", "cancelled", "rejected") and step.credit:
            self._credit_back(payout)

    def _status_of(self, payout: Payout, step: Step) -> str:
        """The step's status. RazorpayX Lite has `reversed` instead of `failed` after a debit."""
        if step.status == "failed" and self.settings.lite and step.credit and payout.held_paise:
            return "reversed"
        return step.status

    def _emit(self, payout: Payout, changed: bool, utr_arrived: bool) -> None:
        """Emit the status's event, or payout.updated if only the UTR or the details changed."""
        name = EVENT_NAMES.get(payout.status) if changed else "payout.updated"
        if name is None or not self.webhooks.url:
            return
        entity = webhook_payout_entity(payout, self.account_number)
        self.webhooks.emit(payout, name, "payout", entity)
        if changed and utr_arrived:
            self.webhooks.emit(payout, "payout.updated", "payout", entity)

    def _transaction(
        self, payout: Payout, *, credit: int = 0, debit: int = 0, reversal_id: str | None = None
    ) -> None:
        txn = transaction_entity(
            new_id("txn"),
            self.account_number,
            payout,
            credit=credit,
            debit=debit,
            balance=self.world.balance_paise,
            now=self.clock.now(),
            reversal_id=reversal_id,
        )
        self.world.transactions.append(txn)
        self.world.transaction_by_id[txn["id"]] = txn
        if self.settings.transaction_events and self.webhooks.url:
            self.webhooks.emit(payout, "transaction.created", "transaction", txn)
