"""What operators can do to a withdrawal: who may, when it is possible, what it will do in rupees, the verb.

The verbs are those of `shared/withdrawals`; nothing here changes a row. Whoever adds one adds a line to ACTS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from shared import wallet, withdrawals
from shared.db import transaction
from shared.models import PayoutAttempt, Resolution, Withdrawal
from shared.money import rupees_text
from shared.roles import Role
from shared.states import Decision, Status, sentence
from shared.upi import mask
from shared.withdrawals import operating, resolving, reviewing


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands there while somebody decides: the row, its live attempt, the proposal that waits."""

    session: Session
    withdrawal: Withdrawal
    attempt: PayoutAttempt | None
    proposal: Resolution | None
    actor: str

    @property
    def rupees(self) -> str:
        return rupees_text(self.withdrawal.amount_paise)

    @property
    def payee(self) -> str:
        return mask(self.withdrawal.upi_id)


@dataclass(frozen=True, slots=True)
class Given:
    """What somebody filled in, and the version of the row that they saw."""

    reason: str
    utr: str
    version: int
    actor: str
    proposal: UUID | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that can be done to a withdrawal."""

    word: str  # in addresses and in the audit log
    title: str  # on the button
    asks: str  # what is to be said about it
    cannot: Callable[[Seen], str | None]  # why not, in words
    tells: Callable[[Seen], list[str]]  # what will happen
    does: Callable[[UUID, Given], str]  # does it; says what was done
    role: Role = Role.OPERATOR
    wants_utr: bool = False
    in_bulk: bool = False


def _only_pending(seen: Seen) -> str | None:
    return None if seen.withdrawal.status == Status.PENDING else f"It is {seen.withdrawal.status}"


def _tells_cancel(seen: Seen) -> list[str]:
    coins = seen.withdrawal.coins_amount
    balance = wallet.find(seen.session, seen.withdrawal.user_id).balance_coins
    return [
        f"{seen.rupees} to {seen.payee} will not be paid.",
        f"{coins} coins go back to {seen.withdrawal.user_id} at once: from {balance} to {balance + coins}.",
        "The user can read the reason.",
    ]


def _cancel(withdrawal_id: UUID, given: Given) -> str:
    withdrawal, balance = withdrawals.cancel(
        withdrawal_id, reason=given.reason, actor=given.actor, version=given.version
    )
    back = f"{withdrawal.coins_amount} coins are back, the balance is {balance}"
    return f"Cancelled: {rupees_text(withdrawal.amount_paise)} will not be paid; {back}."


def _tells_note(_: Seen) -> list[str]:
    return ["It stands in the story for operators. Nothing moves; the user does not see it."]


def _note(withdrawal_id: UUID, given: Given) -> str:
    withdrawals.add_note(withdrawal_id, given.reason, actor=given.actor, version=given.version)
    return "Noted."


def _tells_retry(seen: Seen) -> list[str]:
    with_key = "with the same key, so it cannot be paid twice" if seen.attempt else "for the first time"
    return [
        f"{seen.rupees} to {seen.payee} is tried as soon as a worker is free, {with_key}.",
        f"Until now it waits: {sentence(seen.withdrawal.status_reason)}",
        "While payouts are paused it goes on waiting.",
    ]


def _retry(withdrawal_id: UUID, given: Given) -> str:
    withdrawals.retry_now(withdrawal_id, reason=given.reason, actor=given.actor, version=given.version)
    return "It is due now."


def _tells_ask(seen: Seen) -> list[str]:
    return [
        f"RazorpayX is asked now what became of {seen.rupees} to {seen.payee}: by a look-up, "
        "or with the same key and bytes once more, which cannot pay twice.",
        "Its answer is recorded as always: a payment completes it, a definite failure gives the coins back.",
    ]


def _ask(withdrawal_id: UUID, given: Given) -> str:
    withdrawals.ask_now(withdrawal_id, reason=given.reason, actor=given.actor, version=given.version)
    return "RazorpayX is asked now."


SECOND = "Nothing moves until a second person approves."


def _tells_paid(seen: Seen) -> list[str]:
    return [
        f"You say that {seen.rupees} reached {seen.payee}, under the UTR that you name.",
        f"{SECOND} Then it is completed, and the user's {seen.withdrawal.coins_amount} coins stay spent.",
        "It is never sent again.",
    ]


def _tells_refund(seen: Seen) -> list[str]:
    told = [
        f"You say that {seen.rupees} did not reach {seen.payee}, and never will.",
        f"{SECOND} Then it is failed, and {seen.withdrawal.coins_amount} coins go back to "
        f"{seen.withdrawal.user_id}.",
    ]
    if seen.attempt is not None:
        told.append(
            f"Attention: an attempt is {seen.attempt.state}. Should RazorpayX pay it all the same, the user "
            f"has the coins and the rupees, and {seen.rupees} is lost."
        )
    return told


def _tells_go_on(seen: Seen) -> list[str]:
    return [
        "You say that the contradiction is explained.",
        f"{SECOND} Then the flag goes, and the system takes {seen.rupees} up again where it stands.",
    ]


def _propose(decision: Decision) -> Callable[[UUID, Given], str]:
    def do(withdrawal_id: UUID, given: Given) -> str:
        withdrawals.propose(
            withdrawal_id,
            decision,
            evidence=given.reason,
            utr=given.utr or None,
            actor=given.actor,
            version=given.version,
        )
        return "Proposed. A second person must approve it."

    return do


def _cannot_propose(decision: Decision) -> Callable[[Seen], str | None]:
    return lambda seen: resolving.cannot(seen.session, seen.withdrawal, decision)


def _cannot_approve(seen: Seen) -> str | None:
    if seen.proposal is None:
        return "Nothing is proposed"
    return "You proposed it; a second person is needed" if seen.proposal.proposed_by == seen.actor else None


def _cannot_reject(seen: Seen) -> str | None:
    return None if seen.proposal else "Nothing is proposed"


def _tells_approve(seen: Seen) -> list[str]:
    assert seen.proposal is not None, "it can be approved"
    made, coins = seen.proposal, seen.withdrawal.coins_amount
    happens = {
        Decision.PAID: f"{seen.rupees} counts as paid, under the UTR {made.utr}; the coins stay spent.",
        Decision.REFUND: f"{seen.rupees} counts as not paid; {coins} coins go back to the user at once.",
        Decision.GO_ON: f"The flag goes, and the system takes {seen.rupees} up again.",
    }
    told = [
        f"{made.proposed_by} proposed: {made.decision}. Evidence: {made.evidence}",
        happens[Decision(made.decision)],
    ]
    if made.decision == Decision.REFUND:
        told += _tells_refund(seen)[2:]
    return told


def _tells_reject(seen: Seen) -> list[str]:
    assert seen.proposal is not None, "it can be rejected"
    return [f"The proposal of {seen.proposal.proposed_by} ({seen.proposal.decision}) is off the table."]


def _approve(_: UUID, given: Given) -> str:
    assert given.proposal is not None, "the form names it"
    done = withdrawals.approve(given.proposal, actor=given.actor, version=given.version)
    return f"Done: it is {done.status}."


def _reject(_: UUID, given: Given) -> str:
    assert given.proposal is not None, "the form names it"
    withdrawals.reject(given.proposal, actor=given.actor, why=given.reason, version=given.version)
    return "Rejected. Nothing has moved."


def _cannot_review(seen: Seen) -> str | None:
    is_waiting = seen.withdrawal.status == Status.PENDING and seen.withdrawal.awaits_approval is not None
    return None if is_waiting else "It awaits no approval"


def _tells_approve_review(seen: Seen) -> list[str]:
    return [
        f"{seen.rupees} is paid to {seen.payee}: this amount to this UPI id, as soon as its time has come.",
        f"It awaits approval because of: {seen.withdrawal.awaits_approval}.",
        "Until it is sent, the user may cancel.",
    ]


def _tells_reject_review(seen: Seen) -> list[str]:
    return [
        f"{seen.rupees} to {seen.payee} is not paid: it fails.",
        f"{seen.withdrawal.coins_amount} coins go back to {seen.withdrawal.user_id} at once.",
        f"The user reads: {reviewing.NOT_APPROVED} Your reason is for operators only.",
    ]


def _shown(withdrawal_id: UUID, version: int) -> str:
    """The facts that were on the page: those of this version of the row. Raises NotFound, Stale."""
    with transaction() as session:
        return reviewing.facts(session, withdrawals.find(session, withdrawal_id, version=version))


def _approve_review(withdrawal_id: UUID, given: Given) -> str:
    shown = _shown(withdrawal_id, given.version)
    done = withdrawals.approve_review(
        withdrawal_id, shown=shown, reason=given.reason, actor=given.actor, version=given.version
    )
    return f"Approved: {rupees_text(done.amount_paise)} is paid when its time has come."


def _reject_review(withdrawal_id: UUID, given: Given) -> str:
    shown = _shown(withdrawal_id, given.version)
    done = withdrawals.reject_review(
        withdrawal_id, shown=shown, reason=given.reason, actor=given.actor, version=given.version
    )
    back = f"{done.coins_amount} coins are back"
    return f"Rejected: {rupees_text(done.amount_paise)} is not paid; {back}."


WHY, EVIDENCE = "Reason", "Evidence: what was seen, and where"

ACTS: dict[str, Act] = {
    act.word: act
    for act in (
        Act(
            "approve-review",
            "Approve",
            WHY,
            _cannot_review,
            _tells_approve_review,
            _approve_review,
            in_bulk=True,
        ),
        Act(
            "reject-review",
            "Reject and refund",
            WHY,
            _cannot_review,
            _tells_reject_review,
            _reject_review,
            in_bulk=True,
        ),
        Act("note", "Add a note", "Note", lambda _: None, _tells_note, _note),
        Act("cancel", "Cancel", WHY, _only_pending, _tells_cancel, _cancel, in_bulk=True),
        Act(
            "retry",
            "Try now",
            WHY,
            lambda seen: operating.cannot_retry(seen.session, seen.withdrawal),
            _tells_retry,
            _retry,
        ),
        Act(
            "ask",
            "Ask RazorpayX now",
            WHY,
            lambda seen: operating.cannot_ask(seen.session, seen.withdrawal),
            _tells_ask,
            _ask,
        ),
        Act(
            "mark-paid",
            "Propose: paid outside",
            EVIDENCE,
            _cannot_propose(Decision.PAID),
            _tells_paid,
            _propose(Decision.PAID),
            wants_utr=True,
        ),
        Act(
            "refund",
            "Propose: failed, refund",
            EVIDENCE,
            _cannot_propose(Decision.REFUND),
            _tells_refund,
            _propose(Decision.REFUND),
        ),
        Act(
            "go-on",
            "Propose: explained, go on",
            EVIDENCE,
            _cannot_propose(Decision.GO_ON),
            _tells_go_on,
            _propose(Decision.GO_ON),
        ),
        Act("approve", "Approve the proposal", WHY, _cannot_approve, _tells_approve, _approve),
        Act("reject", "Reject the proposal", WHY, _cannot_reject, _tells_reject, _reject),
    )
}
