"""What takes two: one proposes how it ends, with evidence, and another approves or rejects that."""

from collections.abc import Callable
from uuid import UUID

from api.admin.acts.base import EVIDENCE, WHY, Act, Given, Seen
from shared import maker_checker, withdrawals
from shared.clock import INDIA
from shared.models import Resolution
from shared.roles import Permission
from shared.states import Decision, PaidVia, Status
from shared.utr import moment
from shared.withdrawals import resolving
from shared.withdrawals.paid_outside import Payment

RESOLVE = Permission.RESOLVE
SECOND = "Nothing moves until a second person approves."


def _tells_paid(seen: Seen) -> list[str]:
    if seen.withdrawal.status == Status.COMPLETED:
        return [
            f"You say that {seen.rupees} did reach {seen.payee}, whatever contradicts it.",
            f"{SECOND} Then the flag goes, and the user's {seen.withdrawal.coins_amount} coins stay spent.",
            _stays_paid(seen),
        ]
    return [
        f"You say that {seen.rupees} reached {seen.payee}, under the UTR and at the time that you name.",
        f"{SECOND} Then it is completed, and the user's {seen.withdrawal.coins_amount} coins stay spent.",
        "It is never sent again.",
        *_lost_if_paid_twice(seen),
    ]


def _stays_paid(seen: Seen) -> str:
    under = f"under the UTR {seen.withdrawal.utr}" if seen.withdrawal.utr else "without a UTR"
    return f"It stays completed {under}; the UTR that is proposed is kept with the evidence."


def _lost_if_paid_twice(seen: Seen) -> list[str]:
    """What is lost should an attempt that is still open be paid as well."""
    if seen.attempt is None or seen.withdrawal.status == Status.COMPLETED:
        return []
    return [
        f"Attention: an attempt is {seen.attempt.state}. Should RazorpayX pay it under another UTR, the "
        f"user has the rupees twice, and {seen.rupees} is lost; an exception record will say so."
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


def _tells_take_back(seen: Seen) -> list[str]:
    coins, user = seen.withdrawal.coins_amount, seen.withdrawal.user_id
    return [
        f"You say that {seen.rupees} did reach {seen.payee}, although its coins went back to {user}.",
        f"{SECOND} Then {coins} coins are taken from {user} again, and the user reads why.",
        "It stays failed. Should the bank send the rupees back later, people are called again.",
    ]


def _tells_give_back(seen: Seen) -> list[str]:
    coins, user = seen.withdrawal.coins_amount, seen.withdrawal.user_id
    return [
        f"You say that {seen.rupees} did not stay with {seen.payee}: the bank sent it back.",
        f"{SECOND} Then {user} gets the {coins} coins that were taken back, and reads why.",
    ]


def _propose(decision: Decision) -> Callable[[UUID, Given], str]:
    def do(withdrawal_id: UUID, given: Given) -> str:
        withdrawals.propose(
            withdrawal_id,
            decision,
            evidence=given.reason,
            paid=_paid(given),
            actor=given.actor,
            version=given.version,
        )
        return "Proposed. A second person must approve it."

    return do


def _paid(given: Given) -> Payment:
    via = PaidVia(given.paid_via) if given.paid_via in set(PaidVia) else None
    return Payment(given.utr or None, via, moment(given.paid_at) if given.paid_at else None)


def _cannot_propose(decision: Decision) -> Callable[[Seen], str | None]:
    return lambda seen: (
        resolving.cannot(seen.session, seen.withdrawal, decision)
        or maker_checker.refusal(seen.session, seen.actor, resolving.matter(seen.withdrawal, decision))
    )


def _cannot_approve(seen: Seen) -> str | None:
    if seen.proposal is None:
        return "Nothing is proposed"
    matter = resolving.matter(seen.withdrawal, Decision(seen.proposal.decision))
    return maker_checker.refusal(seen.session, seen.actor, matter, maker=seen.proposal.proposed_by)


def _cannot_reject(seen: Seen) -> str | None:
    if seen.proposal is None:
        return "Nothing is proposed"
    matter = resolving.matter(seen.withdrawal, Decision(seen.proposal.decision))
    return maker_checker.lacks(seen.session, seen.actor, matter.needs)


def _tells_approve(seen: Seen) -> list[str]:
    assert seen.proposal is not None, "it can be approved"
    made, coins = seen.proposal, seen.withdrawal.coins_amount
    happens = {
        Decision.PAID: f"{seen.rupees} counts as paid{_how(made)}; the coins stay spent."
        if seen.withdrawal.status != Status.COMPLETED
        else f"The flag goes. {_stays_paid(seen)}",
        Decision.REFUND: f"{seen.rupees} counts as not paid; {coins} coins go back to the user at once.",
        Decision.GO_ON: f"The flag goes, and the system takes {seen.rupees} up again.",
        Decision.TAKE_BACK: f"{coins} coins are taken from {seen.withdrawal.user_id} at once.",
        Decision.GIVE_BACK: f"{coins} coins go back to {seen.withdrawal.user_id} at once.",
    }
    told = [
        f"{made.proposed_by} proposed: {made.decision}. Evidence: {made.evidence}",
        happens[Decision(made.decision)],
    ]
    if made.decision == Decision.REFUND:
        told += _tells_refund(seen)[2:]
    if made.decision == Decision.PAID:
        told += _lost_if_paid_twice(seen)
    return told


def _how(made: Resolution) -> str:
    if made.paid_via is None or made.paid_at is None:
        return ""
    at = made.paid_at.astimezone(INDIA).strftime("%d %b %Y, %H:%M IST")
    return f" by {PaidVia(made.paid_via).label} on {at}, under the UTR {made.utr}"


def _tells_reject(seen: Seen) -> list[str]:
    assert seen.proposal is not None, "it can be rejected"
    return [f"The proposal of {seen.proposal.proposed_by} ({seen.proposal.decision}) is off the table."]


def _approve(withdrawal_id: UUID, given: Given) -> str:
    assert given.proposal is not None, "the form names it"
    done = withdrawals.approve(given.proposal, actor=given.actor, version=given.version, of=withdrawal_id)
    return f"Done: it is {done.status}."


def _reject(withdrawal_id: UUID, given: Given) -> str:
    assert given.proposal is not None, "the form names it"
    withdrawals.reject(
        given.proposal, actor=given.actor, why=given.reason, version=given.version, of=withdrawal_id
    )
    return "Rejected. Nothing has moved."


ACTS = (
    Act(
        "mark-paid",
        "Propose: paid outside",
        EVIDENCE,
        _cannot_propose(Decision.PAID),
        _tells_paid,
        _propose(Decision.PAID),
        wants_payment=True,
        needs=RESOLVE,
    ),
    Act(
        "refund",
        "Propose: failed, refund",
        EVIDENCE,
        _cannot_propose(Decision.REFUND),
        _tells_refund,
        _propose(Decision.REFUND),
        needs=RESOLVE,
    ),
    Act(
        "go-on",
        "Propose: explained, go on",
        EVIDENCE,
        _cannot_propose(Decision.GO_ON),
        _tells_go_on,
        _propose(Decision.GO_ON),
        needs=RESOLVE,
    ),
    Act(
        "take-back",
        "Propose: paid after all, take the coins back",
        EVIDENCE,
        _cannot_propose(Decision.TAKE_BACK),
        _tells_take_back,
        _propose(Decision.TAKE_BACK),
        needs=Permission.COINS,
    ),
    Act(
        "give-back",
        "Propose: sent back, give the coins back again",
        EVIDENCE,
        _cannot_propose(Decision.GIVE_BACK),
        _tells_give_back,
        _propose(Decision.GIVE_BACK),
        needs=Permission.COINS,
    ),
    Act("approve", "Approve the proposal", WHY, _cannot_approve, _tells_approve, _approve, needs=RESOLVE),
    Act("reject", "Reject the proposal", WHY, _cannot_reject, _tells_reject, _reject, needs=RESOLVE),
)
