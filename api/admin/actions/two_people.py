"""How a withdrawal ends if the system cannot tell: an operator proposes with evidence, a second approves."""

from collections.abc import Callable
from uuid import UUID

from api.admin.actions.base import EVIDENCE, REASON, Action, ActionContext, ActionInput
from api.admin.forms import DecisionActionForm, PaymentActionForm
from shared import withdrawals
from shared.clock import INDIA
from shared.models import Resolution
from shared.people import eligibility
from shared.people.eligibility import Subject
from shared.roles import Permission
from shared.states import Decision, PaidVia, Status
from shared.text.utr import parse_paid_at
from shared.withdrawals import resolve
from shared.withdrawals.paid_outside import Payment

SECOND_PERSON = "Nothing changes until a second person approves."


def _describe_paid(context: ActionContext) -> list[str]:
    if context.withdrawal.status == Status.COMPLETED:
        return [
            f"You state that {context.rupees} reached {context.payee}, despite the contradiction.",
            f"{SECOND_PERSON} Then the hold ends, and the user's {context.coins} coins stay spent.",
            _stays_completed(context),
        ]
    return [
        f"You state that {context.rupees} reached {context.payee} under this UTR at this time.",
        f"{SECOND_PERSON} Then the withdrawal is completed, and the user's {context.coins} coins stay spent.",
        "It is never sent again.",
        *_warn_paid_twice(context),
    ]


def _stays_completed(context: ActionContext) -> str:
    utr = context.withdrawal.utr
    under = f"under the UTR {utr}" if utr else "without a UTR"
    return f"It stays completed {under}; the proposed UTR is kept with the evidence."


def _warn_paid_twice(context: ActionContext) -> list[str]:
    """The loss if an attempt that is still open is paid as well."""
    if context.attempt is None or context.withdrawal.status == Status.COMPLETED:
        return []
    return [
        f"Warning: an attempt is {context.attempt.state}. If RazorpayX pays it under another UTR, the user "
        f"is paid twice and {context.rupees} is lost. An exception record will report it."
    ]


def _describe_refund(context: ActionContext) -> list[str]:
    return [
        f"You state that {context.rupees} did not reach {context.payee} and never will.",
        f"{SECOND_PERSON} Then the withdrawal fails, and {context.coins} coins return to "
        f"{context.withdrawal.user_id}.",
        *_warn_paid_after_refund(context),
    ]


def _warn_paid_after_refund(context: ActionContext) -> list[str]:
    if context.attempt is None:
        return []
    return [
        f"Warning: an attempt is {context.attempt.state}. If RazorpayX still pays it, the user has the coins "
        f"and the rupees, and {context.rupees} is lost."
    ]


def _describe_go_on(context: ActionContext) -> list[str]:
    return [
        "You state that the contradiction is explained.",
        f"{SECOND_PERSON} Then the hold ends, and the system continues with {context.rupees}.",
    ]


def _describe_take_back(context: ActionContext) -> list[str]:
    user_id = context.withdrawal.user_id
    return [
        f"You state that {context.rupees} reached {context.payee}, although the coins returned to {user_id}.",
        f"{SECOND_PERSON} Then {context.coins} coins are taken from {user_id} again, and the user reads why.",
        "The withdrawal stays failed. If the bank returns the rupees later, an exception record is opened.",
    ]


def _describe_give_back(context: ActionContext) -> list[str]:
    user_id = context.withdrawal.user_id
    return [
        f"You state that the bank returned {context.rupees} from {context.payee}.",
        f"{SECOND_PERSON} Then {context.coins} coins return to {user_id}, who reads why.",
    ]


def _propose(decision: Decision) -> Callable[[UUID, ActionInput], str]:
    def run(withdrawal_id: UUID, entered: ActionInput) -> str:
        withdrawals.propose(
            withdrawal_id,
            decision,
            evidence=entered.reason,
            paid=_payment(entered),
            actor=entered.actor,
            version=entered.version,
        )
        return "Proposed. A second person must approve it."

    return run


def _payment(entered: ActionInput) -> Payment:
    via = PaidVia(entered.paid_via) if entered.paid_via in set(PaidVia) else None
    return Payment(entered.utr or None, via, parse_paid_at(entered.paid_at) if entered.paid_at else None)


def _why_not_propose(decision: Decision) -> Callable[[ActionContext], str | None]:
    def why_not(context: ActionContext) -> str | None:
        reason = resolve.why_not_propose(context.session, context.withdrawal, decision)
        subject = resolve.decision_subject(context.withdrawal, decision)
        return reason or eligibility.why_not_eligible(context.session, context.actor, subject)

    return why_not


def _why_not_approve(context: ActionContext) -> str | None:
    proposal = context.proposal
    if proposal is None:
        return "There is no open proposal"
    subject = resolve.decision_subject(context.withdrawal, Decision(proposal.decision))
    return eligibility.why_not_eligible(context.session, context.actor, subject, maker=proposal.proposed_by)


def _why_not_reject(context: ActionContext) -> str | None:
    if context.proposal is None:
        return "There is no open proposal"
    subject = resolve.decision_subject(context.withdrawal, Decision(context.proposal.decision))
    return eligibility.why_not_eligible(context.session, context.actor, Subject(subject.needs))


def _describe_approve(context: ActionContext) -> list[str]:
    proposal = context.proposal
    assert proposal is not None, "why_not checks it"
    user_id = context.withdrawal.user_id
    is_completed = context.withdrawal.status == Status.COMPLETED
    effects = {
        Decision.PAID: f"The hold ends. {_stays_completed(context)}"
        if is_completed
        else f"{context.rupees} counts as paid{_paid_how(proposal)}; the coins stay spent.",
        Decision.REFUND: f"{context.rupees} counts as not paid; {context.coins} coins return to {user_id} "
        "at once.",
        Decision.GO_ON: f"The hold ends, and the system continues with {context.rupees}.",
        Decision.TAKE_BACK: f"{context.coins} coins are taken from {user_id} at once.",
        Decision.GIVE_BACK: f"{context.coins} coins return to {user_id} at once.",
    }
    warnings = {Decision.PAID: _warn_paid_twice, Decision.REFUND: _warn_paid_after_refund}
    decision = Decision(proposal.decision)
    return [
        f"{proposal.proposed_by} proposed: {decision}. Evidence: {proposal.evidence}",
        effects[decision],
        *(warnings[decision](context) if decision in warnings else ()),
    ]


def _paid_how(proposal: Resolution) -> str:
    if proposal.paid_via is None or proposal.paid_at is None:
        return ""
    paid_at = proposal.paid_at.astimezone(INDIA).strftime("%d %b %Y, %H:%M IST")
    return f" by {PaidVia(proposal.paid_via).label} on {paid_at}, under the UTR {proposal.utr}"


def _describe_reject(context: ActionContext) -> list[str]:
    assert context.proposal is not None, "why_not checks it"
    return [f"The proposal of {context.proposal.proposed_by} ({context.proposal.decision}) is closed."]


def _approve(withdrawal_id: UUID, entered: ActionInput) -> str:
    assert entered.proposal is not None, "the form requires it"
    withdrawal = withdrawals.approve(
        entered.proposal, actor=entered.actor, version=entered.version, withdrawal_id=withdrawal_id
    )
    return f"Approved. The withdrawal is {withdrawal.status}."


def _reject(withdrawal_id: UUID, entered: ActionInput) -> str:
    assert entered.proposal is not None, "the form requires it"
    withdrawals.reject(
        entered.proposal,
        actor=entered.actor,
        why=entered.reason,
        version=entered.version,
        withdrawal_id=withdrawal_id,
    )
    return "Rejected. Nothing has changed."


ACTIONS = (
    Action(
        "mark-paid",
        title="Propose as paid",
        prompt=EVIDENCE,
        why_not=_why_not_propose(Decision.PAID),
        describe=_describe_paid,
        run=_propose(Decision.PAID),
        needs=Permission.RESOLVE,
        form=PaymentActionForm,
    ),
    Action(
        "refund",
        title="Propose refund",
        prompt=EVIDENCE,
        why_not=_why_not_propose(Decision.REFUND),
        describe=_describe_refund,
        run=_propose(Decision.REFUND),
        needs=Permission.RESOLVE,
    ),
    Action(
        "go-on",
        title="Propose to continue",
        prompt=EVIDENCE,
        why_not=_why_not_propose(Decision.GO_ON),
        describe=_describe_go_on,
        run=_propose(Decision.GO_ON),
        needs=Permission.RESOLVE,
    ),
    Action(
        "take-back",
        title="Propose to take coins back",
        prompt=EVIDENCE,
        why_not=_why_not_propose(Decision.TAKE_BACK),
        describe=_describe_take_back,
        run=_propose(Decision.TAKE_BACK),
        needs=Permission.COINS,
    ),
    Action(
        "give-back",
        title="Propose to return coins",
        prompt=EVIDENCE,
        why_not=_why_not_propose(Decision.GIVE_BACK),
        describe=_describe_give_back,
        run=_propose(Decision.GIVE_BACK),
        needs=Permission.COINS,
    ),
    Action(
        "approve",
        title="Approve proposal",
        prompt=REASON,
        why_not=_why_not_approve,
        describe=_describe_approve,
        run=_approve,
        needs=Permission.RESOLVE,
        form=DecisionActionForm,
    ),
    Action(
        "reject",
        title="Reject proposal",
        prompt=REASON,
        why_not=_why_not_reject,
        describe=_describe_reject,
        run=_reject,
        needs=Permission.RESOLVE,
        form=DecisionActionForm,
    ),
)
